"""The doctor's checks, each on a simulated machine with the fault and on one without."""

import subprocess
import sys
import tomllib
from collections import namedtuple
from pathlib import Path

import pytest
from machines import PI, board_tree, machine

from edgefer.checks import Check, Status
from edgefer.devices.board import doctor, hardware, health, software
from edgefer.devices.board.probes import LITERT, package_version, pip_command, run_child
from edgefer.devices.board.software import check_numpy, check_python, check_runtime, check_system


def os_release(root, codename):
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/os-release").write_text(f'PRETTY_NAME="Debian GNU/Linux ({codename})"\nVERSION_CODENAME={codename}\n')
    return root


def expect(check: Check, status: str, fix: str = "") -> None:
    """The check has this status, and its fix contains this text; each check has a fix exactly if it found a fault."""
    assert isinstance(check.status, Status) and check.status == status, check
    assert fix in check.fix and (status == "not checked" or bool(check.fix) == (status != "pass")), check


def test_recommended_runtime_is_the_one_that_edgefer_requires():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert LITERT in project["dependencies"]


GOOD = {"machine": "aarch64", "bits": 64, "libc": "glibc", "kernel": "Linux"}


@pytest.mark.parametrize(
    ("difference", "status", "fix"),
    [
        ({}, "pass", ""),
        ({"machine": "x86_64"}, "pass", ""),
        ({"bits": 32}, "fail", "64-bit"),  # aarch64 kernel, 32-bit programs: as in Raspberry Pi OS (32-bit) on a Pi 4
        ({"machine": "armv7l", "bits": 32}, "fail", "64-bit"),
        ({"libc": ""}, "fail", "musl"),
        ({"machine": "riscv64"}, "fail", "x86-64"),
        ({"kernel": "Darwin", "libc": ""}, "warn", "Linux"),
    ],
)
def test_unsupported_systems_are_reported(tmp_path, difference, status, fix):
    check = check_system(os_release(tmp_path, "trixie"), **GOOD | difference)
    expect(check, status, fix)
    assert "Debian GNU/Linux (trixie)" in check.detail


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ((3, 10, 9), "fail"),
        ((3, 11, 2), "pass"),
        ((3, 13, 5), "pass"),
        ((3, 14, 0), "pass"),
        ((3, 15, 0), "fail"),
        ((3, 9, 2), "fail"),
    ],
)
def test_unsupported_python_versions_are_a_failure(version, status):
    expect(check_python(version), status, "venv" if status == "fail" else "")


@pytest.mark.parametrize(
    ("numpy", "codename", "picamera2", "runtimes", "status", "fix"),
    [
        ("2.4.6", "bookworm", False, ["litert"], "pass", ""),
        ("1.26.4", "bookworm", True, ["tflite-runtime"], "pass", ""),
        ("2.4.6", "bookworm", True, ["litert"], "fail", "'numpy<2'"),
        ("2.4.6", "trixie", True, ["litert"], "pass", ""),
        ("2.4.6", "trixie", False, ["tflite-runtime"], "fail", "'numpy<2'"),
        ("2.4.6", "trixie", False, ["litert", "tflite-runtime"], "warn", "uninstall tflite-runtime"),
    ],
)
def test_numpy_2_beside_packages_for_numpy_1_is_found(tmp_path, numpy, codename, picamera2, runtimes, status, fix):
    root = os_release(tmp_path, codename)
    if picamera2:
        (root / "usr/lib/python3/dist-packages/picamera2").mkdir(parents=True)
    expect(check_numpy(root, runtimes, numpy=numpy), status, fix)


def test_missing_numpy_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(software, "package_version", lambda package: "")
    expect(check_numpy(tmp_path, []), "fail", "install numpy")


def test_damaged_metadata_of_one_package_does_not_hide_others(tmp_path, monkeypatch):
    for name in ("broken", "opencv_contrib_python"):
        (tmp_path / f"{name}-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert package_version("broken") == "" and package_version("numpy")
    expect(software.check_opencv(), "pass")


@pytest.mark.parametrize("installed", ["opencv-python", "opencv-python-headless"])
def test_fix_commands_name_the_installed_opencv(tmp_path, installed):
    """On a board without a display that is the headless one, whose files a second one would overwrite."""
    code = (
        "import importlib.metadata as m; version = m.version\n"
        f"m.version = lambda name: version('none') if name.startswith('opencv') and name != {installed!r} else '4.11'\n"
        "from edgefer.devices.board.probes import NUMPY_1; print(NUMPY_1)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"'numpy<2' '{installed}<4.12'" in shown


def test_fix_commands_work_in_any_venv(tmp_path):
    assert pip_command("/opt/my venv/bin/python", installed=True) == "'/opt/my venv/bin/python' -m pip"
    venv = tmp_path / "a b"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)  # as uv makes it
    command = f"{pip_command(str(venv / 'bin/python'), installed=False)} --version"
    shown = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert shown.returncode == 0 and f"from {venv}" in shown.stdout, shown


def test_file_in_the_current_folder_is_not_imported_as_a_library(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cv2.py", "random.py"):
        (tmp_path / name).write_text("raise SystemExit('not the library')")
    expect(software.check_opencv(), "pass")
    expect(check_runtime("litert"), "pass")


def test_installed_runtime_really_runs_the_test_network():
    check = check_runtime("litert")
    expect(check, "pass")
    assert "2.1" in check.detail and "correctly" in check.detail


CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"


def test_crash_of_a_runtime_is_a_row_and_the_doctor_goes_on():
    expect(check_runtime("litert", command=[sys.executable, "-c", CRASH]), "fail", "ai-edge-litert")
    assert "SIGSEGV" in check_runtime("litert", command=[sys.executable, "-c", CRASH]).detail
    expect(check_runtime("litert", first=False, command=[sys.executable, "-c", CRASH]), "warn", "uninstall")


@pytest.mark.parametrize(
    ("runtime", "flags", "status"),
    [
        ("tflite-runtime", "fpu avx2 avx512_vnni", "warn"),
        ("tflite-runtime", "fpu avx2 avx_vnni", "warn"),
        ("tflite-runtime", "fpu avx2", "pass"),
        ("litert", "fpu avx2 avx512_vnni", "pass"),
    ],
)
def test_runtime_that_is_slow_in_int8_is_a_warning(tmp_path, runtime, flags, status):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"flags\t\t: {flags}\n")
    command = [sys.executable, "-c", "print('2.14.0')"]
    expect(check_runtime(runtime, command=command, root=tmp_path), status, "ai-edge-litert" if status == "warn" else "")
    second = check_runtime(runtime, first=False, command=command, root=tmp_path)
    expect(second, "pass")  # it is not the one in use


def test_unused_runtime_is_not_tried():
    check = check_runtime("tensorflow", first=False, command=["false"])
    expect(check, "not checked")
    assert check.detail.endswith("not tried: a better one is installed")


def test_wrong_answers_of_a_runtime_are_detected(monkeypatch):
    """As in bug reports of all-zero answers: the network loads and runs, and its answers are wrong."""
    from edgefer.devices.board import selftest
    from edgefer.errors import RuntimeFault

    raw = selftest.Network.raw
    monkeypatch.setattr(selftest.Network, "raw", lambda self, pixels, **limits: raw(self, pixels) + 1)
    selftest.check_runtime("litert")  # one quantum is rounding
    monkeypatch.setattr(selftest.Network, "raw", lambda self, pixels, **limits: raw(self, pixels) * 0)
    with pytest.raises(RuntimeFault, match="computes wrongly"):
        selftest.check_runtime("litert")


def test_hung_or_failed_child_process_is_reported():
    works, message = run_child([sys.executable, "-c", "import time; time.sleep(60)"], timeout_s=0.3)
    assert not works and "no answer" in message
    assert run_child([sys.executable, "-c", "raise SystemExit('broken: libGL.so.1')"]) == (False, "broken: libGL.so.1")


OPENCV = {
    "4.14": "4.14.0 CascadeClassifier FaceDetectorYN",
    "5": "5.0.0 FaceDetectorYN",
    "4.5.1": "4.5.1 CascadeClassifier",
}


@pytest.mark.parametrize(
    ("works", "message", "packages", "status", "fix"),
    [
        (True, OPENCV["4.14"], ["opencv-python"], "pass", ""),
        (True, OPENCV["4.5.1"], ["opencv-python"], "pass", ""),
        (True, OPENCV["5"], ["opencv-python"], "fail", "opencv-python>=4.8,<5"),
        (
            True,
            OPENCV["4.14"],
            ["opencv-python", "opencv-python-headless"],
            "warn",
            "uninstall -y opencv-python opencv",
        ),
        (False, "ImportError: libGL.so.1: cannot open shared object file", [], "fail", "apt install -y libgl1"),
        (False, "crashes (SIGILL)", [], "fail", "force-reinstall"),
    ],
)
def test_missing_broken_or_unsuitable_opencv_is_found(monkeypatch, works, message, packages, status, fix):
    monkeypatch.setattr(software, "run_child", lambda command: (works, message))
    expect(software.check_opencv(packages), status, fix)


def test_missing_and_inaccessible_usb_cameras_are_found(tmp_path, monkeypatch):
    expect(hardware.check_usb_cameras(tmp_path), "warn", "builtin")
    root = machine(tmp_path, PI)
    expect(hardware.check_usb_cameras(root), "pass")
    monkeypatch.setattr(hardware, "may_use", lambda device: device != root / "dev/video2")
    expect(hardware.check_usb_cameras(root), "fail", "usermod -aG video")
    (root / "dev/video2").unlink()  # a container sees the camera in /sys
    expect(hardware.check_usb_cameras(root), "fail", f"--device {root}/dev/video2")


@pytest.mark.parametrize(
    ("sensor", "picamera2", "closed", "status", "fix"),
    [
        (True, (True, "imports"), False, "pass", ""),
        (True, (False, "not installed"), False, "fail", "apt install -y python3-picamera2"),
        (True, (False, "not installed"), True, "fail", "--system-site-packages"),
        (True, (False, "ValueError: numpy.dtype size changed"), False, "fail", "'numpy<2'"),
        (True, (False, "crashes (SIGSEGV)"), False, "fail", "picamera2"),
        (False, (False, "not installed"), True, "warn", "--system-site-packages"),
    ],
)
def test_csi_camera_of_a_pi_needs_a_sensor_and_picamera2(tmp_path, sensor, picamera2, closed, status, fix):
    root = machine(board_tree(tmp_path, "Raspberry Pi 5 Model B Rev 1.0"), PI if sensor else {})
    check = hardware.check_csi_camera(root, closed_venv=closed, picamera2=picamera2)
    expect(check, status, fix)
    assert ("imx219" in check.detail) == sensor
    if not closed:
        assert "--system-site-packages" not in check.fix


def test_pc_needs_no_csi_camera(tmp_path):
    expect(hardware.check_csi_camera(tmp_path), "pass")


def coral(root, ids="18d1:9302", speed="5000", library=True):
    """A machine with a Coral on USB, with or without Google's library (an empty file, which does not load)."""
    folder = root / "sys/bus/usb/devices/2-1"
    folder.mkdir(parents=True)
    vendor, product = ids.split(":")
    for name, text in {"idVendor": vendor, "idProduct": product, "speed": speed, "busnum": "2", "devnum": "3"}.items():
        (folder / name).write_text(text + "\n")
    (root / "dev/bus/usb/002").mkdir(parents=True)
    (root / "dev/bus/usb/002/003").touch()
    if library:
        (root / "usr/lib/aarch64-linux-gnu").mkdir(parents=True)
        (root / "usr/lib/aarch64-linux-gnu/libedgetpu.so.1").touch()
    return root


def test_machine_without_a_coral_passes(tmp_path):
    expect(hardware.check_coral(tmp_path), "pass")


@pytest.mark.parametrize(
    ("ids", "text"), [("1a6e:089a", "firmware is loaded at its first use"), ("18d1:9302", "ready")]
)
def test_coral_passes_only_if_its_library_loads(tmp_path, monkeypatch, ids, text):
    root = coral(tmp_path, ids)
    real = hardware.check_coral(root)
    expect(real, "fail", "libedgetpu")  # the runtime really tried to load the empty file
    assert "file too short" in real.detail
    monkeypatch.setattr(hardware, "run_child", lambda command, timeout_s: (True, "ok"))
    good = hardware.check_coral(root)
    expect(good, "pass")
    assert text in good.detail


def test_library_that_the_linker_does_not_find_counts_as_missing(tmp_path):
    (tmp_path / "usr/lib/python3/dist-packages").mkdir(parents=True)
    (tmp_path / "usr/lib/python3/dist-packages/libedgetpu.so.1").touch()
    expect(hardware.check_coral(coral(tmp_path, library=False)), "fail", "libedgetpu1-std")


def test_faults_of_a_coral_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "run_child", lambda command, timeout_s: (True, "ok"))
    expect(hardware.check_coral(coral(tmp_path / "a", library=False)), "fail", "libedgetpu1-std")
    expect(hardware.check_coral(coral(tmp_path / "b", speed="480")), "warn", "USB 3")
    monkeypatch.setattr(hardware, "may_use", lambda device: "usb" not in str(device.relative_to(tmp_path)))
    expect(hardware.check_coral(coral(tmp_path / "c")), "fail", "plugdev")
    (tmp_path / "c/dev/bus/usb/002/003").unlink()  # a container sees the Coral in /sys
    expect(hardware.check_coral(tmp_path / "c"), "fail", "-v /dev/bus/usb")
    only_library = tmp_path / "d/usr/lib"
    only_library.mkdir(parents=True)
    (only_library / "libedgetpu.so.1").touch()
    expect(hardware.check_coral(tmp_path / "d"), "warn", "replug")
    (tmp_path / "d/dev").mkdir()
    (tmp_path / "d/dev/apex_0").touch()
    assert "PCIe" in hardware.check_coral(tmp_path / "d").detail
    monkeypatch.setattr(hardware, "may_use", lambda device: False)
    expect(hardware.check_coral(tmp_path / "d"), "fail", "usermod -aG apex")


@pytest.mark.parametrize(
    ("answer", "status", "fix"),
    [
        ("throttled=0x0", "pass", ""),
        ("throttled=0x50005", "fail", "power supply"),
        ("throttled=0x50000", "warn", "power supply"),
        ("throttled=0x80008", "warn", "heat sink"),
        (None, "not checked", "raspi-utils"),
    ],
)
def test_throttling_of_a_pi_is_reported_with_a_fix(tmp_path, answer, status, fix):
    root = board_tree(tmp_path, "Raspberry Pi 4 Model B Rev 1.4")
    expect(hardware.check_power(root, lambda: answer and health.parse_throttled(answer)), status, fix)


def test_throttling_is_not_checked_on_a_pc(tmp_path):
    expect(hardware.check_power(tmp_path, lambda: pytest.fail("called")), "pass")


@pytest.mark.parametrize(("millidegrees", "status"), [("48000", "pass"), ("82000", "warn"), (None, "not checked")])
def test_high_temperature_is_a_warning(tmp_path, millidegrees, status):
    if millidegrees:
        (tmp_path / "sys/class/thermal/thermal_zone0").mkdir(parents=True)
        (tmp_path / "sys/class/thermal/thermal_zone0/temp").write_text(millidegrees)
    expect(hardware.check_temperature(tmp_path), status)


@pytest.mark.parametrize(("kilobytes", "status"), [(60_000, "warn"), (3_000_000, "pass")])
def test_little_available_memory_is_a_warning(tmp_path, kilobytes, status):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemAvailable: {kilobytes} kB\n")
    expect(hardware.check_memory(tmp_path), status)
    expect(hardware.check_memory(tmp_path / "none"), "not checked")


@pytest.mark.parametrize(("free", "status"), [(10e6, "fail"), (200e6, "warn"), (9e9, "pass")])
def test_little_free_disk_space_is_reported(tmp_path, free, status):
    usage = namedtuple("usage", "total used free")
    expect(hardware.check_disk(tmp_path, lambda folder: usage(1e12, 0, free)), status)


def test_folder_that_cannot_be_written_or_is_gone_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware.os, "access", lambda folder, mode: False)
    expect(hardware.check_disk(tmp_path), "warn", "full path")
    monkeypatch.undo()
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    expect(hardware.check_disk(), "fail", "cd to another folder")


def test_display_is_tested_by_opening_a_window():
    expect(hardware.check_display({}, lambda: pytest.fail("tried")), "pass")
    expect(hardware.check_display({"DISPLAY": ":0"}, lambda: (True, "")), "pass")
    refused = hardware.check_display({"DISPLAY": ":4077"}, lambda: (False, "crashes (SIGABRT)"))
    expect(refused, "warn", "--headless")
    assert refused.detail == "no window opens on :4077: crashes (SIGABRT)"


def test_exception_in_a_check_is_reported_in_its_row(monkeypatch, tmp_path):
    def broken(*arguments, **named):
        raise PermissionError("no")

    for name in ("usb_cameras", "csi_sensors"):
        monkeypatch.setattr(hardware.discovery, name, broken)
    found = {check.subject: check for check in doctor.examine(tmp_path)}
    assert found["usb cameras"].status == found["csi camera"].status == "not checked"
    assert "PermissionError" in found["usb cameras"].detail and found["disk"].status == "pass"


def run_doctor(code, *arguments):
    code = f"import sys; {code}; from edgefer.cli import main; sys.argv = ['edgefer', 'doctor', *sys.argv[1:]]; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)


def test_doctor_exits_1_on_a_failure_even_without_opencv():
    """People run the doctor because OpenCV is broken, so it must not need OpenCV."""
    block = "sys.modules['cv2'] = None; sys.modules['numpy'] = None"
    done = run_doctor(
        f"{block}; from edgefer.devices.board import software; software.check_python.__defaults__ = ((3, 9, 2),)"
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "FAIL" in done.stdout and "python: python3.11 -m venv" in done.stdout


def test_doctor_prints_json_without_tensorflow():
    import json

    done = run_doctor(
        "import atexit; atexit.register(lambda: print('tensorflow' in sys.modules, file=sys.stderr))", "--json"
    )
    result = json.loads(done.stdout)
    names = [check["subject"] for check in result["checks"]]
    assert names == list(dict.fromkeys(names)) and {"system", "numpy", "runtime litert", "coral", "power"} <= set(names)
    assert result["counts"]["fail"] == sum(check["status"] == "fail" for check in result["checks"])
    assert done.returncode == bool(result["counts"]["fail"]) and done.stderr.strip().endswith("False")
