"""The service: a unit that systemd accepts, and what is refused before it is installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from edgefer.cli import app
from edgefer.commands import service as commands
from edgefer.devices.board import service
from edgefer.errors import EdgeferError, InputError
from tests.devices.sources.videos import write_video


def unit(**settings):
    options = {"memory_mb": 400, "groups": ["video"]} | settings
    return service.unit([sys.executable, "-m", "edgefer.cli"], ["run", "--camera", "0", "--headless"], **options)


def test_unit_has_restart_watchdog_and_sandbox_settings():
    lines = unit().splitlines()
    for line in (
        "Type=notify", f"WatchdogSec={service.WATCHDOG_S}", "Restart=on-failure", "StartLimitBurst=5", "DynamicUser=yes",
        "SupplementaryGroups=video", "EnvironmentFile=-/etc/edgefer.env", "ProtectSystem=strict", "NoNewPrivileges=yes", "MemoryMax=400M", "StateDirectory=edgefer",
    ):  # fmt: skip
        assert line in lines
    assert "User=pi" in (named := unit(user="pi")) and "DynamicUser" not in named


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_accepts_the_unit_and_rates_it_sandboxed(tmp_path):
    file = tmp_path / "edgefer.service"
    file.write_text(unit())
    verified = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True)
    assert verified.returncode == 0 and not verified.stderr, verified.stderr
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=25", "--no-pager", file]
    rated = subprocess.run(command, capture_output=True, text=True)
    assert rated.returncode == 0, rated.stdout[-500:]  # an exposure of 2.5 of 10 or less


def test_arguments_are_quoted_for_systemd():
    assert service.quoted("--camera") == "--camera"
    assert service.quoted("a b") == '"a b"'
    assert service.quoted("50%$HOME") == "50%%$$HOME"
    assert service.quoted('rtsp://u:p"w@h/a;b') == '"rtsp://u:p\\"w@h/a;b"'
    assert service.quoted("") == '""'
    assert service.quoted("happy=echo\nUser=root") == r'"happy=echo\nUser=root"', "or it starts another setting"
    with pytest.raises(InputError, match="is not UTF-8"):
        service.quoted("caf\udce9.mp4")


def executable_line(program):
    return next(
        line for line in service.unit([program], [], memory_mb=1, groups=[]).splitlines() if "ExecStart" in line
    )


def test_program_path_that_systemd_cannot_start_is_refused():
    assert executable_line("/opt/a b/50%/$x/edgefer") == 'ExecStart="/opt/a b/50%%/$x/edgefer"'
    for path in ("/opt/it's/edgefer", '/opt/"a"/edgefer', "/opt/a\\b/edgefer", "/opt/a\nb/edgefer"):
        with pytest.raises(InputError, match=r"systemd cannot start .*install edgefer in another folder"):
            service.unit([path], [], memory_mb=1, groups=[])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("folder", ["a b", "50%", "$HOME", "é"])
def test_systemd_finds_the_program_in_an_odd_folder(tmp_path, folder):
    program = tmp_path / folder / "edgefer"
    program.parent.mkdir()
    program.touch(mode=0o755)
    file = tmp_path / "edgefer.service"
    file.write_text(service.unit([str(program)], ["run", "a\nUser=root"], memory_mb=400, groups=[]))
    verified = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True)
    assert verified.returncode == 0 and not verified.stderr, verified.stderr


def test_folder_that_other_users_may_not_enter_is_found(tmp_path):
    private = tmp_path / "home" / "pi"
    (private / "venv").mkdir(parents=True)
    tmp_path.chmod(0o755), (tmp_path / "home").chmod(0o755), private.chmod(0o750)
    for folder in tmp_path.parents:
        if not folder.stat().st_mode & 1:
            assert service.shut_folder(private / "venv" / "python") == folder or folder in tmp_path.parents
            return
    assert service.shut_folder(private / "venv" / "python") == private


def test_permissions_behind_a_symlink_are_checked(tmp_path):
    """A venv's python is a link to an interpreter that may be in somebody's home, as those of pyenv and uv are."""
    home, opt = tmp_path / "home", tmp_path / "opt"
    (home / "python/bin").mkdir(parents=True), opt.mkdir()
    (home / "python/bin/python3").write_text("")
    (opt / "python").symlink_to(home / "python/bin/python3")
    (opt / "again").symlink_to("python")
    (opt / "loop").symlink_to("loop")
    for folder in (tmp_path, home, home / "python", home / "python/bin", opt):
        folder.chmod(0o755)
    (home / "python/bin/python3").chmod(0o755)
    outer = service.shut_folder(tmp_path)  # pytest's own folder may be private
    assert service.shut_folder(opt / "again") == outer
    home.chmod(0o700)
    if outer is None:
        assert service.shut_folder(opt / "again") == home
    assert home in list(service._steps(opt / "again")) and home not in list(service._steps(opt))
    assert service.shut_folder(opt / "loop") == outer, "and a loop of links ends"


def test_interpreter_is_read_from_the_shebang(tmp_path):
    script = tmp_path / "edgefer"
    for line, interpreter in (
        ("#!/opt/venv/bin/python3 -I\n", "/opt/venv/bin/python3"), ("#!relative\n", None), ("\x7fELF", None), ("", None)
    ):  # fmt: skip
        script.write_text(line)
        assert service.interpreter_of(script) == (interpreter and Path(interpreter))
    assert service.interpreter_of(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("arguments", "low"),
    [
        (["--serve", "0.0.0.0:80"], True), (["--metrics", "443"], True), (["--serve", "8000"], False),
        (["--serve", "0"], False), ([], False),
    ],
)  # fmt: skip
def test_only_a_port_below_1024_gets_the_capability(arguments, low, monkeypatch):
    monkeypatch.setenv("EDGEFER_TOKEN", "long enough")
    words = commands._run_arguments(["--camera", "0", *arguments])
    assert commands._serves_low_port(words) == low
    lines = unit(low_port=low).splitlines()
    capability = "CAP_NET_BIND_SERVICE" if low else ""
    assert f"AmbientCapabilities={capability}" in lines and f"CapabilityBoundingSet={capability}" in lines


def test_config_file_gives_the_port_and_relative_input_files_in_it_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEFER_TOKEN", "long enough")
    config = tmp_path / "run.toml"
    config.write_text('camera = [0]\nserve = "0.0.0.0:80"\ncsv = "out.csv"\n')
    assert commands._serves_low_port(commands._run_arguments(["--config", "run.toml"]))
    config.write_text('source = ["film.mp4"]\n')
    (tmp_path / "film.mp4").touch()
    with pytest.raises(InputError, match=f"runs in its own folder.*name {tmp_path}/film.mp4"):
        commands._run_arguments(["--config", "run.toml"])
    config.write_text(f'source = ["{tmp_path}/film.mp4"]\n')
    assert commands._run_arguments(["--config", "run.toml"])[:2] == ["--config", str(config)]


def test_service_waits_only_for_a_live_source(monkeypatch):
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: True)
    for source, live in (("http://host/film.mp4", False), ("rtsp://host/live", True), (f"gst:{'x' * 300}", True)):
        assert ("--wait" in commands._run_arguments(["--source", source])) == live, "run refuses --wait for a video"


def test_files_that_the_service_cannot_see_are_refused(tmp_path, monkeypatch):
    film = tmp_path / "film.mp4"
    film.touch()
    monkeypatch.setattr(service, "in_private_folder", lambda file: file == film)
    with pytest.raises(InputError, match=f"its own /tmp and /var/tmp, without {film}: move it"):
        commands._check_files([sys.executable], ["--source", str(film)], "root")
    monkeypatch.undo()
    (tmp_path / "link").symlink_to("/tmp/film.mp4")
    assert service.in_private_folder(Path("/var/tmp/film.mp4")) and service.in_private_folder(tmp_path / "link")
    assert not service.in_private_folder(Path("/opt/tmp/film.mp4"))


def test_another_edgefer_on_the_path_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "edgefer").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["/opt/edgefer/__main__.py"])
    assert commands._program() == [sys.executable, "-m", "edgefer.cli"]


SHOWN = "LoadState=loaded\nActiveState=failed\nSubState=failed\nNRestarts=5\nMemoryCurrent=[not set]\n"


@pytest.mark.parametrize(
    ("shown", "code", "text"),
    [
        ("LoadState=not-found\nActiveState=inactive\nSubState=dead\n", 1, "is not installed: sudo "),
        (
            f"{SHOWN}StateChangeTimestamp=Mon 2026-01-05 10:00:00 UTC\n",
            1,
            "since Mon 2026-01-05 10:00:00 UTC, restarted 5",
        ),
        ("LoadState=loaded\nActiveState=active\nSubState=running\nMemoryCurrent=150000000\n", 0, "150 MB"),
    ],
)
def test_status_reports_the_state_and_its_start(monkeypatch, shown, code, text):
    monkeypatch.setattr(commands, "_systemctl", lambda *arguments: shown)
    result = CliRunner().invoke(app, ["service", "status"])
    assert result.exit_code == code and text in f"{result.output}{result.exception}"
    status = json.loads(CliRunner().invoke(app, ["service", "status", "--json"]).output)
    assert status["installed"] == ("not-found" not in shown) and status["passed"] == (code == 0)


def test_repeated_options_are_all_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no bundles under runs/ here
    words = commands._run_arguments(["--camera", "0", "--on", "happy=true", "--on", "sad=echo a b"])
    assert words[:6] == ["--camera", "0", "--on", "happy=true", "--on", "sad=echo a b"]


def test_options_of_run_are_accepted_without_a_double_dash(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    units = [
        CliRunner().invoke(app, ["service", "install", "--print", *dashes, "--camera", "0", "--blur-faces"]).output
        for dashes in ([], ["--"])
    ]
    assert "run --camera 0 --blur-faces" in units[0] and units[0] == units[1]
    refused = CliRunner().invoke(app, ["service", "install", "--prnt", "--camera", "0"])
    assert refused.exit_code == 2 and "No such option: --prnt" in refused.output


def test_service_command_prints_the_unit_of_the_given_run(edgefer, tmp_path):
    write_video(tmp_path / "film.avi", 1, "MJPG")
    printed = edgefer("service", "install", "--print", "--", "--camera", "0", "--csv", "out.csv", cwd=tmp_path).stdout
    (line,) = (line for line in printed.splitlines() if line.startswith("ExecStart="))
    assert line.endswith(" run --camera 0 --csv out.csv --headless --wait")
    printed = edgefer("service", "install", "--print", "--", "run", "--source", "film.avi", cwd=tmp_path).stdout
    assert f" run --source {tmp_path / 'film.avi'} --headless\n" in printed


def test_only_input_files_become_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("0", "cat", "out.csv", "yunet.onnx", "bundle"):
        (tmp_path / name).touch()
    arguments = ["bundle", "--camera", "0", "--faces", "cat", "--csv", "out.csv", "--no-check", "--smooth=calm"]
    words = commands._run_arguments([*arguments, "--detector-file=yunet.onnx"])
    assert words[0] == str(tmp_path / "bundle") and words[words.index("--camera") + 1] == "0"
    assert words[words.index("--csv") + 1] == "out.csv" and words[words.index("--faces") + 1] == "cat"
    assert words[words.index("--yunet") + 1] == str(tmp_path / "yunet.onnx")
    assert words[words.index("--smooth") + 1] == "calm" and "--no-check" in words and "--check" not in words
    assert sorted(words) == sorted(commands._run_arguments(["run", *words])), "a second pass changes nothing"


def test_hung_systemctl_gives_a_clear_error(monkeypatch):
    def hangs(command, **options):
        raise subprocess.TimeoutExpired(command, 60)

    monkeypatch.setattr(subprocess, "run", hangs)
    with pytest.raises(EdgeferError, match="did not respond within 60 s"):
        commands._systemctl("restart", "edgefer")


def test_wrong_run_arguments_are_refused(monkeypatch):
    with pytest.raises(InputError, match="find its --save file in place"):
        commands._run_arguments(["--camera", "0", "--save", "out.mp4"])
    for secret in (["--serve", "0.0.0.0:80", "--token", "long enough"], ["--mqtt", "mqtt://me:secret@pi/desk"]):
        with pytest.raises(InputError, match=r"can read .* /etc/edgefer\.env"):
            commands._run_arguments(["--camera", "0", *secret])
    for secret in (
        "rtsp://me:p@ss@camera/live",
        "rtsp://me:p/ss@camera/live",
        "gst:rtspsrc location=rtsp://me:p@camera",
    ):
        with pytest.raises(InputError, match="EDGEFER_SOURCE_PASSWORD"):
            commands._run_arguments(["--source", secret])
    for folder in ("/home/pi", "/tmp", "logs"):
        with pytest.raises(InputError, match=r"only a file name, such as faces\.csv"):
            commands._run_arguments(["--camera", "0", "--csv", f"{folder}/faces.csv"])
    monkeypatch.setenv("EDGEFER_TOKEN", "from elsewhere")
    assert "--csv" in commands._run_arguments(["--camera", "0", "--csv", "faces.csv", "--serve", "8000"])
    assert "rtsp://me@camera:554/live" in commands._run_arguments(["--source", "rtsp://me@camera:554/live"])
    assert "mqtt://me@pi/desk" in commands._run_arguments(["--camera", "0", "--mqtt", "mqtt://me@pi/desk"])
    with pytest.raises(InputError, match="There is no user 'nobody at all'"):
        commands.install(["--camera", "0"], user="nobody at all", print_only=True)
    with pytest.raises(Exception, match="No such option: --cam"):
        commands._run_arguments(["--cam", "0"])
    with pytest.raises(InputError, match="Name one input"):
        commands._run_arguments(["--json"])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--camera 0 --camera 0", "named twice"),
        ("--camera 0 --roi 1,2", "not a region"),
        ("--camera 0 --size big", "not an image size"),
        ("--camera 0 --loop", "are for files"),
        ("--camera csi --mjpg", "for USB cameras"),
        ("--camera 0 --on joy=true", "no such label"),
        ("--camera 0 --on happy=nowhere", "no program 'nowhere'"),
        ("--camera 0 --on happy=./bell", "in its own folder.*/bell in --on"),
        ("--camera 0 --snapshot-on joy=faces", "no such label"),
        ("--camera 0 --snapshot-on happy=..", "give --snapshot-on a folder there"),
        ("--camera 0 --mqtt pi", "not an MQTT address"),
        ("--camera 0 --camera 1 --mqtt mqtt://pi/desk", "takes one source"),
        ("--camera 0 --mqtt-ca ca.pem", "give both or neither"),
        ("--camera 0 --serve page", "not an address"),
        ("--camera 0 --bundle nowhere", "no bundle at nowhere"),
        ("--camera 0 --device coral", "holds no int8_edgetpu"),
        ("--camera 0 --finder nowhere", "--finder nowhere does not exist"),
        ("--camera 0 --yunet none.onnx", "no file none.onnx"),
        ("--camera 0 --faces cat --refiner face-refiner", "are for human faces"),
        ("--camera 0 --faces frame --yunet none.onnx", "is for human faces"),
        ("--camera 0 --faces cat --detector own", "finds human faces"),
        ("--source gst:videotestsrc", "without GStreamer"),
        ("--camera csi", "needs Picamera2, which cannot be imported"),
        ("film.mp4", "film.mp4 is not a video that OpenCV can read"),
        ("--source list.mp4 --camera 0", "is a list of other files"),
        ("--camera 0 --runtime openvino", "runtime cannot be loaded .*: pip install openvino"),
    ],
)
def test_what_run_would_refuse_at_boot_is_refused_at_install(tmp_path, monkeypatch, arguments, reason):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: False)
    for module in ("openvino", "picamera2"):
        monkeypatch.setitem(sys.modules, module, None)
    Path("bell").touch(mode=0o755)
    Path("film.mp4").write_bytes(b"no film")
    Path("list.mp4").write_text("#EXTM3U\n")
    with pytest.raises(EdgeferError, match=reason):
        commands.install(arguments.split(), print_only=True)


def test_a_program_of_on_that_the_service_cannot_see_is_refused(tmp_path, monkeypatch):
    bell = tmp_path / "bell"
    bell.touch(mode=0o755)
    monkeypatch.setattr(service, "in_private_folder", lambda file: file == bell)
    with pytest.raises(InputError, match=f"without {bell}: move it"):
        commands.install(["--camera", "0", "--on", f"happy={bell} twice"], user="root")


def test_installing_needs_root_and_systemd(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EdgeferError, match=r"must be root to uninstall a service: sudo /.* service uninstall"):
        commands._check_root("uninstall")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(service, "systemd_is_here", lambda: False)
    with pytest.raises(EdgeferError, match="systemd is not running on this computer"):
        commands._check_root("install")
