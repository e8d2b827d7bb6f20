"""The doctor's checks of the hardware: cameras, Coral, power, temperature, memory, disk, display."""

import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from edgefer.checks import Check, Status
from edgefer.devices.board import health
from edgefer.devices.board.boards import board_model
from edgefer.devices.board.probes import NUMPY_1, ROOT, in_closed_venv, may_use, run_child
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
        return Check(subject="usb cameras", status=Status.WARN, detail="none", fix=fix)
    found = ", ".join(f"{camera.camera} ({camera.name})" for camera in cameras)
    nodes = {camera.camera: root / f"dev/video{camera.camera}" for camera in cameras}
    if missing := [node for node in nodes.values() if not node.exists()]:
        found = f"{found}; there is no {', '.join(map(str, missing))}"
        fix = f"in a container, give it access: docker run {' '.join(f'--device {node}' for node in missing)}"
        return Check(subject="usb cameras", status=Status.FAIL, detail=found, fix=fix)
    denied = [number for number, node in nodes.items() if not may_use(node)]
    if denied:
        found = f"{found}; you may not use {', '.join(denied)}"
        fix = "sudo usermod -aG video $USER   # then log in again"
        return Check(subject="usb cameras", status=Status.FAIL, detail=found, fix=fix)
    return Check(subject="usb cameras", status=Status.PASS, detail=found)


def check_csi_camera(
    root: Path = ROOT, *, closed_venv: bool | None = None, picamera2: tuple[bool, str] | None = None
) -> Check:
    """The Raspberry Pi's CSI camera: a sensor, and an importable Picamera2."""
    sensors = discovery.csi_sensors(root)
    on_pi = board_model(root).startswith("Raspberry Pi")
    if not sensors and not on_pi:
        return Check(subject="csi camera", status=Status.PASS, detail="not a Raspberry Pi: none to look for")
    found = f"sensor {', '.join(sensors)}" if sensors else "no sensor"
    if picamera2 is None:
        picamera2 = (False, "not installed")
        if find_spec("picamera2") is not None:
            picamera2 = run_child([sys.executable, "-c", "import picamera2; print('imports')"])
    works, output = picamera2
    if works:
        return Check(subject="csi camera", status=Status.PASS, detail=f"{found}; Picamera2 {output}")
    fix = "sudo apt install -y python3-picamera2 --no-install-recommends"
    if "numpy" in output:
        fix = NUMPY_1
    elif in_closed_venv() if closed_venv is None else closed_venv:
        fix += f" && python3 -m venv --system-site-packages {shlex.quote(sys.prefix)}   # this venv does not see apt's packages"
    # Without a sensor, there may only be a USB camera.
    return Check(
        subject="csi camera",
        status=Status.FAIL if sensors else Status.WARN,
        detail=f"{found}; Picamera2: {output}",
        fix=fix,
    )


def check_coral(root: Path = ROOT) -> Check:
    """A Coral Edge TPU on USB or PCIe, its library, and the permission to use it."""
    usb = _usb_devices(root)
    corals = [(ids, folder) for ids, folder in usb if ids in (CORAL_NEW, CORAL_READY)]
    apex = root / "dev/apex_0"
    libraries = [
        file for place in ("usr/lib", "usr/local/lib", "lib") for file in (root / place).glob("**/libedgetpu.so.1")
    ]
    if not corals and not apex.exists():
        if not libraries:
            return Check(subject="coral", status=Status.PASS, detail="none; the CPU runs the network")
        fix = "replug it into a USB 3 port with its own cable and a strong power supply, or ignore this"
        return Check(
            subject="coral", status=Status.WARN, detail="libedgetpu is installed, but no Coral is detected", fix=fix
        )
    found = ", ".join(
        [f"USB {ids} ({'ready' if ids == CORAL_READY else 'firmware is loaded at its first use'})" for ids, _ in corals]
        + (["PCIe /dev/apex_0"] if apex.exists() else [])
    )
    if not libraries:
        return Check(subject="coral", status=Status.FAIL, detail=f"{found}; no libedgetpu.so.1", fix=LIBEDGETPU_FIX)
    nodes = [_usb_node(root, folder) for _, folder in corals] + ([apex] if apex.exists() else [])
    if missing := [node for node in nodes if not node.exists()]:
        fix = "in a container, give it access: docker run --privileged -v /dev/bus/usb:/dev/bus/usb"
        return Check(subject="coral", status=Status.FAIL, detail=f"{found}; there is no {missing[0]}", fix=fix)
    if not all(map(may_use, nodes)):
        group = "plugdev" if corals else "apex"
        fix = f"sudo usermod -aG {group} $USER   # then log in again and replug"
        return Check(subject="coral", status=Status.FAIL, detail=f"{found}; you may not use it", fix=fix)
    works, output = run_child([sys.executable, "-m", "edgefer.devices.board.selftest", str(libraries[0])], timeout_s=20)
    if not works:
        return Check(subject="coral", status=Status.FAIL, detail=f"{found}; libedgetpu: {output}", fix=LIBEDGETPU_FIX)
    if any(_text(folder / "speed") in ("12", "480") for _, folder in corals):
        fix = "plug it into a USB 3 port (blue): on USB 2 it is several times slower"
        return Check(subject="coral", status=Status.WARN, detail=f"{found}, on USB 2", fix=fix)
    return Check(subject="coral", status=Status.PASS, detail=f"{found}; libedgetpu loads")


def check_power(root: Path = ROOT, ask=health.throttling) -> Check:
    """Under-voltage and throttling, which the Raspberry Pi's firmware reports."""
    if not board_model(root).startswith("Raspberry Pi"):
        return Check(subject="power", status=Status.PASS, detail="not a Raspberry Pi: nothing to ask")
    held = ask()
    if held is None:
        fix = "sudo apt install -y raspi-utils; sudo usermod -aG video $USER   # then log in again"
        return Check(subject="power", status=Status.NOT_CHECKED, detail="vcgencmd gives no answer", fix=fix)
    if "under-voltage" in held.now:
        fix = "use the official power supply and a short, thick cable: cameras and Corals fail at this voltage"
        return Check(subject="power", status=Status.FAIL, detail=str(held), fix=fix)
    if "under-voltage" in held.since_boot:
        fix = "use the official power supply; then restart, which clears this"
        return Check(subject="power", status=Status.WARN, detail=str(held), fix=fix)
    if held.now or held.since_boot:
        return Check(
            subject="power", status=Status.WARN, detail=str(held), fix="fit a heat sink or a fan, then restart"
        )
    return Check(subject="power", status=Status.PASS, detail="no under-voltage, no throttling since boot")


def check_temperature(root: Path = ROOT) -> Check:
    """The hottest sensor, against the temperature at which boards throttle."""
    hottest = health.cpu_temperature_c(root)
    if hottest is None:
        return Check(subject="temperature", status=Status.NOT_CHECKED, detail="the kernel shows no sensor")
    found = f"{hottest:.0f} degrees C"
    if hottest >= HOT_C:
        return Check(
            subject="temperature",
            status=Status.WARN,
            detail=found,
            fix="fit a heat sink or a fan: boards slow down at about 80",
        )
    return Check(subject="temperature", status=Status.PASS, detail=found)


def check_memory(root: Path = ROOT) -> Check:
    """Available memory."""
    free = health.available_memory_mb(root)
    if free is None:
        return Check(subject="memory", status=Status.NOT_CHECKED, detail="/proc/meminfo does not say it")
    if free < LOW_MEMORY_MB:
        fix = "close other programs, or use Raspberry Pi OS Lite and --headless"
        return Check(subject="memory", status=Status.WARN, detail=f"{free:.0f} MB free", fix=fix)
    return Check(subject="memory", status=Status.PASS, detail=f"{free:.0f} MB free")


def check_disk(folder: Path | None = None, usage=shutil.disk_usage) -> Check:
    """Disk space in the current folder, where results are written, and the permission to write there."""
    try:
        folder = folder or Path.cwd()
    except FileNotFoundError:
        fix = "cd to another folder, and run it again"
        return Check(subject="disk", status=Status.FAIL, detail="the current folder was deleted", fix=fix)
    if not os.access(folder, os.W_OK):
        fix = "cd to a folder of yours, or give outputs a full path, such as --csv ~/out.csv"
        return Check(subject="disk", status=Status.WARN, detail=f"you may not write in {folder}", fix=fix)
    free = usage(folder).free / 1e6
    if free < LOW_DISK_MB:
        fix = f"make room on the disk of {folder}: sudo apt clean; journalctl --vacuum-size=100M"
        return Check(
            subject="disk",
            status=Status.FAIL if free < LOW_DISK_MB / 10 else Status.WARN,
            detail=f"{free:.0f} MB free",
            fix=fix,
        )
    return Check(subject="disk", status=Status.PASS, detail=f"{free / 1000:.1f} GB free in {folder}")


def check_display(environment=os.environ) -> Check:
    """Whether a window can open. Without a display, edgefer run opens none."""
    display = environment.get("WAYLAND_DISPLAY") or environment.get("DISPLAY")
    found = display or "none: edgefer run opens no window; --save, --json and text work"
    return Check(subject="display", status=Status.PASS, detail=found)


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
