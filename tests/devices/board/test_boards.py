"""Board profiles, and how a board is recognised; what its files say of heat, throttling and memory."""

import json
import shlex
import stat

import pytest
from machines import board_tree
from typer.testing import CliRunner

from edgefer.cli import app
from edgefer.devices.board import boards, health
from edgefer.devices.board.boards import BOARDS, board_model, this_board
from edgefer.devices.board.health import parse_throttled
from edgefer.errors import InputError


@pytest.mark.parametrize(
    ("model", "key"),
    [
        ("Raspberry Pi 3 Model B Plus Rev 1.3", "pi3"),
        ("Raspberry Pi 4 Model B Rev 1.4", "pi4"),
        ("Raspberry Pi 400 Rev 1.0", "pi4"),
        ("Raspberry Pi Compute Module 4 Rev 1.1", "pi4"),
        ("Raspberry Pi 5 Model B Rev 1.0", "pi5"),
        ("Raspberry Pi 500 Rev 1.0", "pi5"),
        ("Raspberry Pi Zero 2 W Rev 1.0", "zero2w"),
        ("Freescale i.MX8MQ Phanbell", "coral-dev"),
        ("Raspberry Pi 2 Model B Rev 1.1", "generic"),
        ("Radxa ROCK 5B", "generic"),
    ],
)
def test_a_board_is_known_by_its_device_tree(tmp_path, model, key):
    root = board_tree(tmp_path, model)
    assert board_model(root) == model
    assert this_board(root) is BOARDS[key]


def test_a_pc_has_no_device_tree(tmp_path):
    assert board_model(tmp_path) == "" and this_board(tmp_path) is BOARDS["generic"]


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_every_profile_is_whole(board):
    assert 1 <= board.threads <= 4 and 160 <= board.haar_width <= 640 and board.target_fps > 0
    assert any("edgefer" in line for line in board.install) and board.limits
    for line in board.install:
        assert shlex.split(line, comments=True), f"not a shell line: {line}"


@pytest.mark.parametrize("key", ["pi3", "pi4", "pi5", "zero2w", "coral-usb"])
def test_known_pitfalls_of_a_pi_are_reported(key):
    text = "\n".join((*BOARDS[key].install, *BOARDS[key].limits))
    for trap in ("--system-site-packages", "'numpy<2'", "Bookworm", "Trixie", "32-bit", "--camera csi"):
        assert trap in text


@pytest.mark.parametrize(
    ("answer", "now", "since_boot"),
    [  # bits as the Raspberry Pi documentation has them
        ("throttled=0x0\n", (), ()),
        ("throttled=0x1", ("under-voltage",), ()),
        ("throttled=0x50000", (), ("under-voltage", "throttled")),
        ("throttled=0x50005", ("under-voltage", "throttled"), ("under-voltage", "throttled")),
        ("throttled=0xe0008", ("soft temperature limit",), ("frequency capped", "throttled", "soft temperature limit")),
    ],
)
def test_throttling_bits(answer, now, since_boot):
    held = parse_throttled(answer)
    assert (held.now, held.since_boot) == (now, since_boot)


@pytest.mark.parametrize("answer", ["", "VCHI initialization failed", "throttled=", "temp=48.3'C"])
def test_what_is_no_throttling_answer_is_refused(answer):
    with pytest.raises(ValueError):
        parse_throttled(answer)


def test_vcgencmd_is_used_where_it_exists(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert health.throttling() is None
    program = tmp_path / "vcgencmd"
    program.write_text('#!/bin/sh\n[ "$1" = get_throttled ] && echo throttled=0x4\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert health.throttling().now == ("throttled",)
    program.write_text("#!/bin/sh\necho VCHI initialization failed; exit 255\n")
    assert health.throttling() is None


def test_the_hottest_zone_counts_and_a_dead_sensor_does_not(tmp_path):
    for zone, text in enumerate(("48312", "61000", "-274000", "", "999999")):
        folder = tmp_path / f"sys/class/thermal/thermal_zone{zone}"
        folder.mkdir(parents=True)
        (folder / "temp").write_text(text)
    assert health.cpu_temperature_c(tmp_path) == 61.0
    assert health.cpu_temperature_c(tmp_path / "none") is None


def test_memory_is_read_from_proc(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:  948304 kB\nMemFree: 1000 kB\nMemAvailable:  500000 kB\n")
    (tmp_path / "proc/self/status").write_text("Name:\tpython\nVmPeak:\t 900000 kB\nVmHWM:\t  125000 kB\n")
    assert health.available_memory_mb(tmp_path) == pytest.approx(512.0)
    assert health.peak_memory_mb(tmp_path) == pytest.approx(128.0)
    assert health.available_memory_mb(tmp_path / "none") is None


def test_peak_memory_sees_what_this_process_held():
    before = health.peak_memory_mb()
    held = bytearray(int((before + 100) * 1e6))  # more than the peak so far, whatever the tests before took
    held[::4096] = b"\1" * len(held[::4096])
    assert health.peak_memory_mb() > before + 90


def test_the_command_prints_install_lines_that_can_be_copied(monkeypatch):
    monkeypatch.setattr(boards, "this_board", lambda: BOARDS["pi4"])
    monkeypatch.setattr(boards, "board_model", lambda: "Raspberry Pi 4 Model B Rev 1.4")
    shown = CliRunner().invoke(app, ["boards", "pi4"])
    assert shown.exit_code == 0 and "this board: Raspberry Pi 4 Model B Rev 1.4" in shown.output
    for line in (*BOARDS["pi4"].install, *BOARDS["pi4"].limits):
        assert line in shown.output, "a line that is broken to fit the terminal cannot be copied"
    listed = CliRunner().invoke(app, ["boards"]).output
    assert [line for line in listed.splitlines() if "this board" in line] == [
        line for line in listed.splitlines() if " pi4 " in line
    ]
    told = json.loads(CliRunner().invoke(app, ["boards", "--json"]).output)["boards"]
    assert [board["key"] for board in told if board["this_board"]] == ["pi4"] and len(told) == len(BOARDS)


def test_an_unknown_board_is_refused():
    refused = CliRunner().invoke(app, ["boards", "pi9"])
    assert isinstance(refused.exception, InputError) and "choose pi5, pi4" in str(refused.exception)
