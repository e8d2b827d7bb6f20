"""The doctor's checks of the hardware: cameras, Coral, power, heat, memory, disk, display."""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from edgefer.devices.board import health
from edgefer.devices.board.boards import board_model
from edgefer.devices.board.doctor import NUMPY_1, ROOT, Check, in_closed_venv, may_use, run_child
from edgefer.devices.sources import discovery

HOT_C = 75.0  # a Raspberry Pi throttles at 80
LOW_MEMORY_MB = 200  # `edgefer bench` peaked at 121 MB on x86-64
LOW_DISK_MB = 500
CORAL_NEW, CORAL_READY = "1a6e:089a", "18d1:9302"  # the USB Accelerator before and after its firmware is loaded
LIBEDGETPU_FIX = "see `edgefer boards coral-usb`: libedgetpu1-std from github.com/feranick/libedgetpu/releases"


def check_usb_cameras(root: Path = ROOT) -> Check:
    """Cameras at /dev/video*, and whether this user may use them. `edgefer cameras` tries them."""
    cameras = discovery.usb_cameras(root)
    if not cameras:
        fix = "plug one in, then run `edgefer cameras`; without one: edgefer run --source builtin"
        return Check(name="usb cameras", status="warn", found="none", fix=fix)
    found = ", ".join(f"{camera.camera} ({camera.name})" for camera in cameras)
    denied = [camera.camera for camera in cameras if not may_use(root / f"dev/video{camera.camera}")]
    if denied:
        found = f"{found}; you may not use {', '.join(denied)}"
        fix = "sudo usermod -aG video $USER   # then log in again"
        return Check(name="usb cameras", status="fail", found=found, fix=fix)
    return Check(name="usb cameras", status="pass", found=found)


def check_csi_camera(
    root: Path = ROOT, *, closed_venv: bool | None = None, picamera2: tuple[bool, str] | None = None
) -> Check:
    """The Raspberry Pi's CSI camera: a sensor, and a Picamera2 that can be imported here."""
    sensors = discovery.csi_sensors(root)
    on_pi = board_model(root).startswith("Raspberry Pi")
    if not sensors and not on_pi:
        return Check(name="csi camera", status="pass", found="not a Raspberry Pi: none to look for")
    found = f"sensor {', '.join(sensors)}" if sensors else "no sensor"
    if picamera2 is None:
        picamera2 = (False, "not installed")
        if find_spec("picamera2") is not None:
            picamera2 = run_child([sys.executable, "-c", "import picamera2; print('imports')"])
    works, said = picamera2
    if works:
        return Check(name="csi camera", status="pass", found=f"{found}; Picamera2 {said}")
    fix = "sudo apt install -y python3-picamera2 --no-install-recommends"
    if "numpy" in said:
        fix = NUMPY_1
    elif in_closed_venv() if closed_venv is None else closed_venv:
        fix += f" && python3 -m venv --system-site-packages {sys.prefix}   # this venv does not see apt's packages"
    # Without a sensor, a USB camera may be all there is.
    return Check(name="csi camera", status="fail" if sensors else "warn", found=f"{found}; Picamera2: {said}", fix=fix)


def check_coral(root: Path = ROOT) -> Check:
    """A Coral Edge TPU on USB or PCIe, its library, and the right to use it."""
    usb = _usb_devices(root)
    corals = [(ids, folder) for ids, folder in usb if ids in (CORAL_NEW, CORAL_READY)]
    apex = root / "dev/apex_0"
    libraries = [
        file for place in ("usr/lib", "usr/local/lib", "lib") for file in (root / place).glob("**/libedgetpu.so.1")
    ]
    if not corals and not apex.exists():
        if not libraries:
            return Check(name="coral", status="pass", found="none; the CPU runs the network")
        fix = "replug it into a USB 3 port with its own cable and a strong power supply, or ignore this"
        return Check(name="coral", status="warn", found="libedgetpu is installed, but no Coral is seen", fix=fix)
    found = ", ".join(
        [f"USB {ids} ({'ready' if ids == CORAL_READY else 'wakes at its first use'})" for ids, _ in corals]
        + (["PCIe /dev/apex_0"] if apex.exists() else [])
    )
    if not libraries:
        return Check(name="coral", status="fail", found=f"{found}; no libedgetpu.so.1", fix=LIBEDGETPU_FIX)
    nodes = [_usb_node(root, folder) for _, folder in corals] + ([apex] if apex.exists() else [])
    if any(node.exists() and not may_use(node) for node in nodes):
        group = "plugdev" if corals else "apex"
        fix = f"sudo usermod -aG {group} $USER   # then log in again and replug"
        return Check(name="coral", status="fail", found=f"{found}; you may not use it", fix=fix)
    works, said = run_child([sys.executable, "-m", "edgefer.devices.board.selftest", str(libraries[0])], timeout_s=20)
    if not works:
        return Check(name="coral", status="fail", found=f"{found}; libedgetpu: {said}", fix=LIBEDGETPU_FIX)
    if any(_text(folder / "speed") in ("12", "480") for _, folder in corals):
        fix = "plug it into a USB 3 port (blue): on USB 2 it is several times slower"
        return Check(name="coral", status="warn", found=f"{found}, on USB 2", fix=fix)
    return Check(name="coral", status="pass", found=f"{found}; libedgetpu loads")


def check_power(root: Path = ROOT, ask=health.throttling) -> Check:
    """Under-voltage and throttling, which the Raspberry Pi's firmware tells."""
    if not board_model(root).startswith("Raspberry Pi"):
        return Check(name="power", status="pass", found="not a Raspberry Pi: nothing to ask")
    held = ask()
    if held is None:
        fix = "sudo apt install -y raspi-utils; sudo usermod -aG video $USER   # then log in again"
        return Check(name="power", status="warn", found="vcgencmd gives no answer", fix=fix)
    if "under-voltage" in held.now:
        fix = "use the official power supply and a short, thick cable: cameras and Corals fail at this voltage"
        return Check(name="power", status="fail", found=str(held), fix=fix)
    if "under-voltage" in held.since_boot:
        fix = "use the official power supply; then restart, which clears this"
        return Check(name="power", status="warn", found=str(held), fix=fix)
    if held.now or held.since_boot:
        return Check(name="power", status="warn", found=str(held), fix="fit a heat sink or a fan, then restart")
    return Check(name="power", status="pass", found="no under-voltage, no throttling since boot")


def check_temperature(root: Path = ROOT) -> Check:
    """The hottest sensor, against where a board begins to slow down."""
    hottest = health.cpu_temperature_c(root)
    if hottest is None:
        return Check(name="temperature", status="pass", found="the kernel shows no sensor")
    found = f"{hottest:.0f} degrees C"
    if hottest >= HOT_C:
        return Check(name="temperature", status="warn", found=found, fix="fit a heat sink or a fan: it will slow down")
    return Check(name="temperature", status="pass", found=found)


def check_memory(root: Path = ROOT) -> Check:
    """Memory that is free for edgefer."""
    free = health.available_memory_mb(root)
    if free is None:
        return Check(name="memory", status="warn", found="could not be read")
    if free < LOW_MEMORY_MB:
        fix = "end other programs, or use Raspberry Pi OS Lite and --headless"
        return Check(name="memory", status="warn", found=f"{free:.0f} MB free", fix=fix)
    return Check(name="memory", status="pass", found=f"{free:.0f} MB free")


def check_disk(folder: Path | None = None, usage=shutil.disk_usage) -> Check:
    """Room where results are written: the current folder."""
    folder = folder or Path.cwd()
    free = usage(folder).free / 1e6
    if free < LOW_DISK_MB:
        fix = f"make room on the disk of {folder}: sudo apt clean; journalctl --vacuum-size=100M"
        return Check(
            name="disk", status="fail" if free < LOW_DISK_MB / 10 else "warn", found=f"{free:.0f} MB free", fix=fix
        )
    return Check(name="disk", status="pass", found=f"{free / 1000:.1f} GB free in {folder}")


def check_display(environment=os.environ) -> Check:
    """Whether a window can open. Without a display edgefer run does without one."""
    display = environment.get("WAYLAND_DISPLAY") or environment.get("DISPLAY")
    found = display or "none: edgefer run opens no window; --save, --json and text work"
    return Check(name="display", status="pass", found=found)


def _usb_devices(root: Path) -> list[tuple[str, Path]]:
    """(vendor:product, its folder in /sys) of every USB device."""
    return [
        (f"{_text(folder / 'idVendor')}:{_text(folder / 'idProduct')}", folder)
        for folder in sorted(root.glob("sys/bus/usb/devices/*"))
        if (folder / "idVendor").exists()
    ]


def _usb_node(root: Path, folder: Path) -> Path:
    """The device file of a USB device, such as /dev/bus/usb/002/003."""
    return root / f"dev/bus/usb/{int(_text(folder / 'busnum') or 0):03d}/{int(_text(folder / 'devnum') or 0):03d}"


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
