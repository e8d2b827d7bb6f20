"""The boards' processors, emulated: arm64 Pythons with edgefer's wheels, which `aarch64/setup.sh` lays out, in qemu-user."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
AARCH64 = Path(os.environ.get("EDGEFER_AARCH64", ROOT / ".venv-aarch64"))
READY = (AARCH64 / "ready").exists() and shutil.which("qemu-aarch64-static") is not None
EMULATOR = ("qemu-aarch64-static",)
CORES = {"cortex-a53": "Raspberry Pi 3", "cortex-a72": "Raspberry Pi 4", "cortex-a76": "Raspberry Pi 5"}
PARTS = {"cortex-a53": "0xd03", "cortex-a72": "0xd08", "cortex-a76": "0xd0b"}  # as /proc/cpuinfo has them
SYSTEMS = {
    "bookworm": "3.11",
    "trixie": "3.13",
}  # Debian 12 and 13, which Raspberry Pi OS is made of, and their Pythons


@functools.cache
def laid_out() -> Path:
    """The package in the layout of a wheel: the tree's train/ and convert/ are edgefer.train and edgefer.convert."""
    target = Path(tempfile.mkdtemp(prefix="edgefer-aarch64-"))
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, ROOT], check=True)
    return target


@functools.cache
def root_of(core: str, system: str) -> Path:
    """What the emulator looks up files in first: the system's libraries, and the /proc/cpuinfo of a board that has this core,
    by whose name the runtime chooses some kernels."""
    root, shown = (AARCH64 / system / "root").resolve(), Path(tempfile.mkdtemp(prefix="edgefer-root-"))
    for folder in ("lib", "usr/lib"):  # not those above: a program would see /usr or /tmp as a link, and follow it
        (shown / folder).mkdir(parents=True)
        for entry in (root / folder).iterdir():
            (shown / folder / entry.name).symlink_to(entry)
    (shown / "proc").mkdir()
    cpuinfo = (root / "proc" / "cpuinfo").read_text()
    (shown / "proc" / "cpuinfo").write_text(cpuinfo.replace(PARTS["cortex-a72"], PARTS[core]))
    return shown


def python_on(core, *arguments, system="bookworm", wheels="", emulator=EMULATOR) -> subprocess.CompletedProcess:
    """Run an arm64 Python with edgefer's wheels on an emulated core; `wheels` come before those of the base install."""
    folder = AARCH64 / system
    path = ":".join(str(place) for place in (*([folder / wheels] if wheels else []), folder / "wheels", laid_out()))
    command = [*emulator, "-cpu", core, "-L", root_of(core, system), "-E", f"PYTHONPATH={path}", "-E", "CC=none"]
    command += ["-E", f"PYTHONHOME={folder / 'root' / 'usr'}", folder / f"root/usr/bin/python{SYSTEMS[system]}"]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, cwd=laid_out())
