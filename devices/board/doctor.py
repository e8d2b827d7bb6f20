"""Looks at the computer for everything that is known to go wrong, and says for each the line that mends it.

Offline, and nothing raises: a check that cannot be made is a warning. What may crash runs in a process of its own, and
neither numpy nor OpenCV is imported here, since a broken one is what the doctor is asked about.
The hardware's checks are in edgefer.devices.board.checkup.
"""

import os
import platform
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from edgefer import __version__
from edgefer.devices.board.boards import os_release
from edgefer.runtimes import RUNTIMES, installed_runtimes, runtime_version

ROOT = Path("/")
PIP = f"{sys.executable} -m pip"  # `pip` alone may be another Python's
NUMPY_1 = f"{PIP} install 'numpy<2' 'opencv-python<4.12'"  # later ones ask for numpy 2
CHILD_S = 60  # TensorFlow alone takes 5 to 15 s to import, more from an SD card


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at: `found` in words, and `fix`, the line that mends it ("" where nothing is amiss)."""

    name: str
    status: Literal["pass", "warn", "fail"]
    found: str
    fix: str = ""


def examine(root: Path = ROOT) -> list[Check]:
    """Every check, software first. root: the file system to look at."""
    from edgefer.devices.board import checkup

    runtimes = installed_runtimes()
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("system", partial(check_system, root)),
        ("python", check_python),
        ("numpy", partial(check_numpy, root, runtimes)),
        *((f"runtime {name}", partial(check_runtime, name, first=name == runtimes[0])) for name in runtimes),
        ("opencv", check_opencv),
        ("gstreamer", check_gstreamer),
        ("usb cameras", partial(checkup.check_usb_cameras, root)),
        ("csi camera", partial(checkup.check_csi_camera, root)),
        ("coral", partial(checkup.check_coral, root)),
        ("power", partial(checkup.check_power, root)),
        ("temperature", partial(checkup.check_temperature, root)),
        ("memory", partial(checkup.check_memory, root)),
        ("disk", checkup.check_disk),
        ("display", checkup.check_display),
    ]
    if not runtimes:
        missing = Check(
            name="runtime", status="fail", found="none installed", fix=f"{PIP} install 'ai-edge-litert~=2.1.0'"
        )
        checks.insert(3, ("runtime", lambda: missing))
    with ThreadPoolExecutor() as pool:  # most of the time goes into waiting for child processes
        return list(pool.map(lambda named: _guarded(*named), checks))


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:  # a doctor that dies is no doctor
        return Check(name=name, status="warn", found=f"could not be checked: {type(error).__name__}: {error}")


def check_system(
    root: Path = ROOT,
    *,
    machine: str = platform.machine(),
    bits: int = 8 * struct.calcsize("P"),
    libc: str = platform.libc_ver()[0],
    kernel: str = platform.system(),
) -> Check:
    """The operating system: 64-bit Linux with glibc on x86-64 or ARM."""
    name = os_release(root).get("PRETTY_NAME") or kernel
    found = f"{name}, {machine}, {bits}-bit programs"
    if bits != 64:  # a 64-bit kernel says aarch64 even under a 32-bit Raspberry Pi OS
        fix = "install a 64-bit system (Raspberry Pi Imager: Raspberry Pi OS (64-bit)); ai-edge-litert has no 32-bit wheel"
        return Check(name="system", status="fail", found=found, fix=fix)
    if kernel != "Linux":
        return Check(name="system", status="warn", found=found, fix="use Linux: edgefer is made and tested for it")
    if libc != "glibc":
        fix = "use a Debian-like system: ai-edge-litert has no wheel for musl (Alpine)"
        return Check(name="system", status="fail", found=f"{found}, no glibc", fix=fix)
    if machine not in ("x86_64", "aarch64"):
        fix = "use an x86-64 or 64-bit ARM computer: ai-edge-litert has wheels for no other"
        return Check(name="system", status="fail", found=found, fix=fix)
    return Check(name="system", status="pass", found=found)


def check_python(running: tuple[int, ...] = tuple(sys.version_info[:3])) -> Check:
    """Python 3.11 to 3.13."""
    found = f"{'.'.join(map(str, running))} in {sys.prefix}, edgefer {__version__}"
    if (3, 11) <= running[:2] <= (3, 13):
        return Check(name="python", status="pass", found=found)
    fix = "python3.11 -m venv ~/edgefer   # Bookworm has 3.11, Trixie 3.13; elsewhere: uv venv --python 3.11"
    return Check(name="python", status="fail", found=found, fix=fix)


def check_numpy(
    root: Path, runtimes: list[str], *, numpy: str | None = None, apt_picamera2: bool | None = None
) -> Check:
    """numpy against what was compiled for numpy 1: tflite-runtime, and Bookworm's Picamera2."""
    numpy = numpy or version("numpy")
    if apt_picamera2 is None:
        apt_picamera2 = (root / "usr/lib/python3/dist-packages/picamera2").is_dir()
    if int(numpy.split(".")[0]) >= 2:
        if apt_picamera2 and os_release(root).get("VERSION_CODENAME") == "bookworm":
            found = f"{numpy}, but Bookworm's Picamera2 was built for numpy 1"
            return Check(name="numpy", status="fail", found=found, fix=NUMPY_1)
        if "tflite-runtime" in runtimes:
            found = f"{numpy}, but tflite-runtime was built for numpy 1"
            if runtimes[0] == "tflite-runtime":
                return Check(name="numpy", status="fail", found=found, fix=NUMPY_1)
            fix = f"{PIP} uninstall tflite-runtime   # ai-edge-litert is used; or: {NUMPY_1}"
            return Check(name="numpy", status="warn", found=found, fix=fix)
    return Check(name="numpy", status="pass", found=numpy)


def check_runtime(name: str, *, first: bool = True, command: list[str] | None = None) -> Check:
    """Whether a TFLite runtime runs a tiny network rightly, in a process of its own.

    first: it is the one `--runtime auto` takes; another that does not work is only a warning.
    """
    if name == "tensorflow" and not first:
        found = f"{runtime_version(name)}, not tried: a better one is installed"
        return Check(name=f"runtime {name}", status="pass", found=found)
    command = command or [sys.executable, "-m", "edgefer.devices.board.selftest", name]
    works, said = run_child(command)
    if works:
        return Check(name=f"runtime {name}", status="pass", found=f"{said}, runs a tiny int8 network rightly")
    package = "ai-edge-litert~=2.1.0" if name == "litert" else RUNTIMES[name][1]
    fix = f"{PIP} install --force-reinstall '{package}'" if first else f"{PIP} uninstall {RUNTIMES[name][1]}"
    if "cv2" in said or "libGL" in said:
        fix = "mend opencv first"
    elif name == "tflite-runtime" and first:
        fix = f"{PIP} install 'ai-edge-litert~=2.1.0'   # or, to keep tflite-runtime: {NUMPY_1}"
    return Check(name=f"runtime {name}", status="fail" if first else "warn", found=said, fix=fix)


def run_child(command: list[str], timeout_s: float = CHILD_S) -> tuple[bool, str]:
    """Run a command: whether it succeeded, and its last line or how it died."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return False, f"gave no answer within {timeout_s:.0f} s"
    if done.returncode < 0:
        import signal

        return False, f"crashes ({signal.Signals(-done.returncode).name})"
    lines = (done.stdout.strip() or done.stderr.strip() or f"exit code {done.returncode}").splitlines()
    return done.returncode == 0, lines[-1][:300]


def check_opencv(packages: list[str] | None = None) -> Check:
    """OpenCV imports, is one package only, and has the Haar cascades that OpenCV 5 left out."""
    if find_spec("cv2") is None:
        return Check(name="opencv", status="fail", found="not installed", fix=f"{PIP} install 'opencv-python>=4.8,<5'")
    code = (
        "import cv2; print(cv2.__version__, *[n for n in ('CascadeClassifier', 'FaceDetectorYN') if hasattr(cv2, n)])"
    )
    works, said = run_child([sys.executable, "-c", code])
    if not works:
        library = "libGL" in said or "libgthread" in said or "libglib" in said
        fix = (
            "sudo apt install -y libgl1 libglib2.0-0"
            if library
            else f"{PIP} install --force-reinstall 'opencv-python<5'"
        )
        return Check(name="opencv", status="fail", found=said, fix=fix)
    release, *has = said.split()
    names = {(one.metadata["Name"] or "").lower() for one in distributions()} if packages is None else set(packages)
    several = sorted(name for name in names if name.startswith("opencv-"))
    if "CascadeClassifier" not in has:
        found = f"{release} has no Haar cascades"
        return Check(name="opencv", status="fail", found=found, fix=f"{PIP} install 'opencv-python>=4.8,<5'")
    if len(several) > 1:
        fix = f"{PIP} uninstall -y {' '.join(several)} && {PIP} install 'opencv-python>=4.8,<5'"
        return Check(
            name="opencv",
            status="warn",
            found=f"{release}, from {' and '.join(several)}, which overwrite each other",
            fix=fix,
        )
    also = ", YuNet" if "FaceDetectorYN" in has else ", no YuNet (4.5.4 or newer has it)"
    return Check(name="opencv", status="pass", found=f"{release}, Haar cascades{also}")


def check_gstreamer() -> Check:
    """Whether this OpenCV reads GStreamer pipelines; nothing but `--source gst:` needs it."""
    code = "import cv2; print(int(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)))"
    works, said = run_child([sys.executable, "-c", code])
    if not works:
        return Check(name="gstreamer", status="warn", found=f"could not be asked: {said}", fix="mend opencv first")
    if said == "1":
        return Check(name="gstreamer", status="pass", found="yes")
    return Check(name="gstreamer", status="pass", found="no, as always with pip's OpenCV; only --source gst: needs it")


def in_closed_venv() -> bool:
    """Whether this is a venv that does not see the system's packages, and so no Picamera2."""
    if sys.prefix == sys.base_prefix:
        return False
    try:
        settings = (Path(sys.prefix) / "pyvenv.cfg").read_text().lower().replace(" ", "")
    except OSError:
        return False
    return "include-system-site-packages=true" not in settings.splitlines()


def may_use(device: Path) -> bool:
    """Whether this user may read and write a device."""
    return os.access(device, os.R_OK | os.W_OK)
