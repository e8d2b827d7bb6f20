"""Board profiles, and how a board is recognised; what its files report about temperature, throttling and memory."""

import json
import os
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
def test_board_is_recognised_by_its_device_tree(tmp_path, model, key):
    root = board_tree(tmp_path, model)
    assert board_model(root) == model
    assert this_board(root) is BOARDS[key]


def test_computer_without_a_device_tree_is_generic(tmp_path):
    assert board_model(tmp_path) == "" and this_board(tmp_path) is BOARDS["generic"]


def test_model_is_read_from_cpuinfo_when_the_device_tree_is_hidden(tmp_path):
    (tmp_path / "proc").mkdir()
    text = "processor\t: 0\nRevision\t: c03114\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n"
    (tmp_path / "proc/cpuinfo").write_text(text)
    assert this_board(tmp_path) is BOARDS["pi4"]
    (tmp_path / "proc/cpuinfo").write_text("model\t\t: 85\nmodel name\t: Xeon\n")
    assert board_model(tmp_path) == "" and boards.cpuinfo("model name", tmp_path) == "Xeon"


def test_os_release_is_read_in_any_encoding_and_from_both_places(tmp_path):
    assert boards.os_release(tmp_path) == {}
    (tmp_path / "usr/lib").mkdir(parents=True), (tmp_path / "etc").mkdir()
    (tmp_path / "usr/lib/os-release").write_bytes(b'NAME="Caf\xe9"\nID=x\n')
    assert boards.os_release(tmp_path) == {"NAME": "Caf\ufffd", "ID": "x"}
    (tmp_path / "etc/os-release").write_text("ID='debian'\n")
    assert boards.os_release(tmp_path) == {"ID": "debian"}


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_every_profile_is_complete(board):
    assert 1 <= board.threads <= 4 and 160 <= board.haar_width <= 640 and board.target_fps > 0
    assert any("edgefer" in line for line in board.install) and board.limits
    for line in board.install:
        assert shlex.split(line, comments=True), f"not a shell command: {line}"


@pytest.mark.parametrize("key", ["pi3", "pi4", "pi5", "zero2w", "coral-usb"])
def test_profiles_of_a_pi_mention_its_known_pitfalls(key):
    text = "\n".join((*BOARDS[key].install, *BOARDS[key].limits))
    for pitfall in ("--system-site-packages", "'numpy<2'", "Bookworm", "Trixie", "32-bit", "--camera csi"):
        assert pitfall in text


@pytest.mark.parametrize(
    ("answer", "now", "since_boot"),
    [  # bits as in the Raspberry Pi documentation
        ("throttled=0x0\n", (), ()),
        ("throttled=0x1", ("under-voltage",), ()),
        ("throttled=0x50000", (), ("under-voltage", "throttled")),
        ("throttled=0x50005", ("under-voltage", "throttled"), ("under-voltage", "throttled")),
        ("throttled=0xe0008", ("soft temperature limit",), ("frequency capped", "throttled", "soft temperature limit")),
    ],
)
def test_throttling_bits_are_decoded(answer, now, since_boot):
    throttling = parse_throttled(answer)
    assert (throttling.now, throttling.since_boot) == (now, since_boot)


def test_past_throttling_is_shown_beside_current_throttling():
    assert str(parse_throttled("throttled=0x50004")) == "now: throttled; since boot: under-voltage"
    assert str(parse_throttled("throttled=0x50005")) == "now: under-voltage, throttled"
    assert (str(parse_throttled("throttled=0x10000")), str(parse_throttled("throttled=0x0"))) == (
        "since boot: under-voltage", "none",
    )  # fmt: skip


@pytest.mark.parametrize("answer", ["", "VCHI initialization failed", "throttled=", "temp=48.3'C"])
def test_invalid_throttling_answers_are_refused(answer):
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


def test_temperature_is_that_of_the_hottest_zone_with_a_plausible_value(tmp_path):
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


def cgroup(root, path, **files):
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)


def test_memory_and_core_limits_of_the_cgroups_apply(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemAvailable:  8000000 kB\n")
    assert health.available_memory_mb(tmp_path) == pytest.approx(8192) and health.core_limit(tmp_path) is None
    (tmp_path / "proc/self/cgroup").write_text("1:cpu:/elsewhere\n0::/system.slice/edgefer.service\n")
    cgroup(tmp_path, "", cpu_stat="usage_usec 5\n")
    cgroup(tmp_path, "system.slice", memory_max="max\n", memory_current="5\n", cpu_max="50000 100000\n")
    assert health.available_memory_mb(tmp_path) == pytest.approx(8192) and health.core_limit(tmp_path) == 0.5
    inside = {"memory_max": "400000000\n", "memory_current": "300000000\n", "cpu_max": "max 100000\n"}
    cgroup(tmp_path, "system.slice/edgefer.service", **inside, memory_stat="anon 1\ninactive_file 50000000\n")
    assert health.available_memory_mb(tmp_path) == pytest.approx(150) and health.core_limit(tmp_path) == 0.5


def test_cores_are_counted_where_the_system_has_no_affinity(monkeypatch):
    assert health.cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert health.cores() == os.cpu_count()


def test_peak_memory_includes_memory_of_this_process():
    before = health.peak_memory_mb()
    block = bytearray(int((before + 100) * 1e6))  # more than the peak so far, whatever earlier tests used
    block[::4096] = b"\1" * len(block[::4096])
    assert health.peak_memory_mb() > before + 90


def test_boards_command_prints_install_commands_on_unbroken_lines(monkeypatch):
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
    rows = json.loads(CliRunner().invoke(app, ["boards", "--json"]).output)["boards"]
    assert [board["key"] for board in rows if board["this_board"]] == ["pi4"] and len(rows) == len(BOARDS)


def test_unknown_board_is_refused():
    refused = CliRunner().invoke(app, ["boards", "pi9"])
    assert isinstance(refused.exception, InputError) and "choose pi5, pi4" in str(refused.exception)
