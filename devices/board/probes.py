"""Shared by the doctor's checks: child processes, permissions, and the commands that fix problems."""

import os
import shlex
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path("/")


def pip_command(python: str = sys.executable, installed: bool = find_spec("pip") is not None) -> str:
    """The command `pip` of this Python, for a shell: `pip` alone may be another one's. uv makes a venv without pip."""
    run = f"{shlex.quote(python)} -m"
    return f"{run} pip" if installed else f"{run} ensurepip && {run} pip"


PIP = pip_command()
LITERT = "ai-edge-litert>=2.1.6,<2.4"  # as in pyproject.toml
NUMPY_1 = f"{PIP} install 'numpy<2' 'opencv-python<4.12'"  # later ones ask for numpy 2
SAFE_PATH = {"PYTHONSAFEPATH": "1"}  # a cv2.py in the current folder must not be taken for OpenCV
CHILD_S = 60  # TensorFlow alone takes 5 to 15 s to import, more from an SD card


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


def in_closed_venv() -> bool:
    """Whether this is a venv without access to the system's packages, and so to Picamera2."""
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
