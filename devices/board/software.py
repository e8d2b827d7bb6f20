"""The doctor's checks of the software: system, Python, numpy, runtimes, OpenCV.

Neither numpy nor OpenCV is imported here, since the doctor must also run when they are broken.
"""

import platform
import struct
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from edgefer import __version__
from edgefer.checks import Check, Status
from edgefer.devices.board.boards import cpuinfo, os_release
from edgefer.devices.board.probes import LITERT, NUMPY_1, OPENCV, OPENCV_PACKAGES, PIP, ROOT, package_version, run_child
from edgefer.runtimes import RUNTIMES, runtime_version


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
    if bits != 64:  # a 64-bit kernel reports aarch64 even under a 32-bit Raspberry Pi OS
        fix = "install a 64-bit system (Raspberry Pi Imager: Raspberry Pi OS (64-bit)); ai-edge-litert has no 32-bit wheel"
        return Check(subject="system", status=Status.FAIL, detail=found, fix=fix)
    if kernel != "Linux":
        return Check(subject="system", status=Status.WARN, detail=found, fix="use Linux: edgefer is only tested there")
    if libc != "glibc":
        fix = "use a Debian-like system: ai-edge-litert has no wheel for musl (Alpine)"
        return Check(subject="system", status=Status.FAIL, detail=f"{found}, no glibc", fix=fix)
    if machine not in ("x86_64", "aarch64"):
        fix = "use an x86-64 or 64-bit ARM computer: ai-edge-litert has no wheels for others"
        return Check(subject="system", status=Status.FAIL, detail=found, fix=fix)
    return Check(subject="system", status=Status.PASS, detail=found)


def check_python(running: tuple[int, ...] = tuple(sys.version_info[:3])) -> Check:
    """Python 3.11 to 3.14."""
    found = f"{'.'.join(map(str, running))} in {sys.prefix}, edgefer {__version__}"
    if (3, 11) <= running[:2] <= (3, 14):
        return Check(subject="python", status=Status.PASS, detail=found)
    fix = "python3.11 -m venv ~/edgefer   # Bookworm has 3.11, Trixie 3.13; elsewhere: uv venv --python 3.11"
    return Check(subject="python", status=Status.FAIL, detail=found, fix=fix)


def check_numpy(
    root: Path, runtimes: list[str], *, numpy: str | None = None, apt_picamera2: bool | None = None
) -> Check:
    """Whether numpy suits what was compiled for numpy 1: tflite-runtime, and Bookworm's Picamera2."""
    numpy = numpy or package_version("numpy")
    if not numpy:
        return Check(subject="numpy", status=Status.FAIL, detail="not installed", fix=f"{PIP} install numpy")
    if apt_picamera2 is None:
        apt_picamera2 = (root / "usr/lib/python3/dist-packages/picamera2").is_dir()
    if int(numpy.split(".")[0]) >= 2:
        if apt_picamera2 and os_release(root).get("VERSION_CODENAME") == "bookworm":
            found = f"{numpy}, but Bookworm's Picamera2 was built for numpy 1"
            return Check(subject="numpy", status=Status.FAIL, detail=found, fix=NUMPY_1)
        if "tflite-runtime" in runtimes:
            found = f"{numpy}, but tflite-runtime was built for numpy 1"
            if runtimes[0] == "tflite-runtime":
                return Check(subject="numpy", status=Status.FAIL, detail=found, fix=NUMPY_1)
            fix = f"{PIP} uninstall tflite-runtime   # ai-edge-litert is used; or: {NUMPY_1}"
            return Check(subject="numpy", status=Status.WARN, detail=found, fix=fix)
    return Check(subject="numpy", status=Status.PASS, detail=numpy)


def check_runtime(name: str, *, first: bool = True, command: list[str] | None = None, root: Path = ROOT) -> Check:
    """Whether a TFLite runtime runs a tiny network correctly, in a separate process.

    first: it is the one that `--runtime auto` selects; for any other, a failure is only a warning.
    """
    if name == "tensorflow" and not first:
        found = f"{runtime_version(name)}, not tried: a better one is installed"
        return Check(subject=f"runtime {name}", status=Status.NOT_CHECKED, detail=found)
    command = command or [sys.executable, "-m", "edgefer.devices.board.selftest", name]
    works, output = run_child(command)
    if works and first and (reason := slow_int8(name, root)):
        fix = f"{PIP} install '{LITERT}'"
        return Check(subject=f"runtime {name}", status=Status.WARN, detail=f"{output}, {reason}", fix=fix)
    if works:
        return Check(
            subject=f"runtime {name}", status=Status.PASS, detail=f"{output}, runs a tiny int8 network correctly"
        )
    package = LITERT if name == "litert" else RUNTIMES[name][1]
    fix = f"{PIP} install --force-reinstall '{package}'" if first else f"{PIP} uninstall {RUNTIMES[name][1]}"
    if "cv2" in output or "libGL" in output:
        fix = "fix opencv first"
    elif name == "tflite-runtime" and first:
        fix = f"{PIP} install '{LITERT}'   # or, to keep tflite-runtime: {NUMPY_1}"
    return Check(subject=f"runtime {name}", status=Status.FAIL if first else Status.WARN, detail=output, fix=fix)


def slow_int8(runtime: str, root: Path = ROOT) -> str:
    """Why int8 networks are slow on this runtime and processor, "" if they are not.

    Measured on x86-64 with VNNI: tflite-runtime 2.14 took 7.8 times ai-edge-litert's time, more than its own float32.
    """
    if runtime != "tflite-runtime" or not {"avx512_vnni", "avx_vnni"}.intersection(cpuinfo("flags", root).split()):
        return ""
    return "about 8 times slower in int8 than ai-edge-litert on CPUs like this one (with VNNI)"


def check_opencv(packages: Sequence[str] | None = None) -> Check:
    """Whether OpenCV can be imported, is a single package, and has the Haar cascades that OpenCV 5 removed."""
    if find_spec("cv2") is None:
        return Check(
            subject="opencv", status=Status.FAIL, detail="not installed", fix=f"{PIP} install '{OPENCV}>=4.8,<5'"
        )
    code = (
        "import cv2; print(cv2.__version__, *[n for n in ('CascadeClassifier', 'FaceDetectorYN') if hasattr(cv2, n)])"
    )
    works, output = run_child([sys.executable, "-c", code])
    if not works:
        library = "libGL" in output or "libgthread" in output or "libglib" in output
        fix = "sudo apt install -y libgl1 libglib2.0-0" if library else f"{PIP} install --force-reinstall '{OPENCV}<5'"
        return Check(subject="opencv", status=Status.FAIL, detail=output, fix=fix)
    release, *has = output.split()
    several = [name for name in OPENCV_PACKAGES if package_version(name)] if packages is None else packages
    if "CascadeClassifier" not in has:
        found = f"{release} has no Haar cascades"
        return Check(subject="opencv", status=Status.FAIL, detail=found, fix=f"{PIP} install '{OPENCV}>=4.8,<5'")
    if len(several) > 1:
        fix = f"{PIP} uninstall -y {' '.join(several)} && {PIP} install '{OPENCV}>=4.8,<5'"
        return Check(
            subject="opencv",
            status=Status.WARN,
            detail=f"{release}, from {' and '.join(several)}, which overwrite each other",
            fix=fix,
        )
    also = ", YuNet" if "FaceDetectorYN" in has else ", no YuNet (4.5.4 or newer has it)"
    return Check(subject="opencv", status=Status.PASS, detail=f"{release}, Haar cascades{also}")


def check_gstreamer() -> Check:
    """Whether this OpenCV reads GStreamer pipelines; only `--source gst:` needs it."""
    code = "import cv2; print(int(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)))"
    works, output = run_child([sys.executable, "-c", code])
    if not works:
        return Check(subject="gstreamer", status=Status.NOT_CHECKED, detail=output, fix="fix opencv first")
    if output == "1":
        return Check(subject="gstreamer", status=Status.PASS, detail="yes")
    return Check(
        subject="gstreamer", status=Status.PASS, detail="no, as always with pip's OpenCV; only --source gst: needs it"
    )
