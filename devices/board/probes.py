"""Shared by the doctor's checks: child processes, permissions, and the commands that fix problems."""

import os
import shlex
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path("/")


def pip_command(python: str = sys.executable, installed: bool = find_spec("pip") is not None) -> str:
    """The command `pip` of this Python, for a shell: `pip` alone may be another one's. uv makes a venv without pip."""
    run = f"{shlex.quote(python)} -m"
    return f"{run} pip" if installed else f"{run} ensurepip && {run} pip"


def package_version(package: str) -> str:
    """An installed package's version, "" if it is not installed or its metadata is damaged."""
    try:
        return version(package) or ""
    except (PackageNotFoundError, TypeError, KeyError):
        return ""


PIP = pip_command()
OPENCV_PACKAGES = (
    "opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless",
)  # fmt: skip
# The installed one: a second one would overwrite its files.
OPENCV = next(filter(package_version, OPENCV_PACKAGES), OPENCV_PACKAGES[0])
LITERT = "ai-edge-litert>=2.1.6,<2.4"  # as in pyproject.toml
NUMPY_1 = f"{PIP} install 'numpy<2' '{OPENCV}<4.12'"  # later ones ask for numpy 2
SAFE_PATH = {"PYTHONSAFEPATH": "1"}  # a cv2.py in the current folder must not be taken for OpenCV
CHILD_S = 60  # TensorFlow alone takes 5 to 15 s to import, more from an SD card
WINDOW_S = 30  # time limit for a window to open


def run_child(command: list[str], timeout_s: float = CHILD_S) -> tuple[bool, str]:
    """Run a command: whether it succeeded, and its last line or how it failed."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout_s, env=os.environ | SAFE_PATH
        )
    except subprocess.TimeoutExpired:
        return False, f"gave no answer within {timeout_s:.0f} s"
    if done.returncode < 0:
        return False, f"crashes ({signal.Signals(-done.returncode).name})"
    lines = (done.stdout.strip() or done.stderr.strip() or f"exit code {done.returncode}").splitlines()
    return done.returncode == 0, lines[-1][:300]


def opens_window() -> tuple[bool, str]:
    """Whether OpenCV can open a window on the display, and if not, why. Tried in a separate process: if the display
    refuses, Qt ends the process."""
    return run_child([sys.executable, "-c", "import cv2; cv2.namedWindow('edgefer'); cv2.waitKey(1)"], WINDOW_S)


def in_closed_venv() -> bool:
    """Whether this is a venv without access to the system's packages, and so to Picamera2."""
    if sys.prefix == sys.base_prefix:
        return False
    try:
        settings = (Path(sys.prefix) / "pyvenv.cfg").read_text(errors="replace").lower().replace(" ", "")
    except OSError:
        return False
    return "include-system-site-packages=true" not in settings.splitlines()


def may_use(device: Path) -> bool:
    """Whether this user may read and write a device."""
    return os.access(device, os.R_OK | os.W_OK)
