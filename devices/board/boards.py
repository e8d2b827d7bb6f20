"""The supported boards: how to set one up, what to expect of it, and what will not work on it.

The settings are starting points, not measurements: run `edgefer bench` for the figures of a board.
"""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")

# Raspberry Pi OS Lite lacks libgl1 and libglib2.0-0, which the Qt in pip's OpenCV links to.
_PI_INSTALL = (
    "sudo apt update && sudo apt install -y python3-venv libgl1 libglib2.0-0",
    "sudo apt install -y python3-picamera2 --no-install-recommends   # for a CSI camera",
    "python3 -m venv --system-site-packages ~/edgefer   # gives the venv access to Picamera2, which only apt has",
    "~/edgefer/bin/pip install . 'numpy<2'   # in a copy of edgefer. Bookworm (Python 3.11): its Picamera2 needs numpy 1",
    "~/edgefer/bin/pip install .   # Trixie (Python 3.13), instead of the previous line",
    ". ~/edgefer/bin/activate",
)

_NO_32_BIT = "A 32-bit system: ai-edge-litert has no 32-bit ARM wheel. Install 64-bit Raspberry Pi OS."
_NO_CSI_VIA_V4L2 = "A CSI camera as --camera 0: it gives no images through Video4Linux. Use --camera csi."
_NO_BULLSEYE = "Bullseye: its Python is 3.9. Bookworm (Python 3.11) and Trixie (3.13) work."
_EDGE_TPU = (
    "The Edge TPU without a bundle compiled for it: `edgefer convert --edgetpu` on an x86-64 host, then --device coral. "
    "Not tried on a real Coral yet."
)
_PI_LIMITS = (_NO_32_BIT, _NO_BULLSEYE, _NO_CSI_VIA_V4L2)


@dataclass(frozen=True, kw_only=True)
class Board:
    """One kind of board.

    models: prefixes of /proc/device-tree/model (a Raspberry Pi 400 is a 4, a 500 a 5). threads: for the network.
    haar_width: width in pixels to which frames are downscaled for --detector haar. target_fps: frames per second to aim
    for. service_memory_mb: the service's memory limit; edgefer takes about 150 MB. install: shell commands, in order.
    limits: what will not work.
    """

    key: str
    name: str
    models: tuple[str, ...] = ()
    threads: int
    haar_width: int
    target_fps: int
    service_memory_mb: int = 400
    install: tuple[str, ...]
    limits: tuple[str, ...]


BOARDS = {
    board.key: board
    for board in (
        Board(
            key="pi5", name="Raspberry Pi 5",
            models=("Raspberry Pi 5", "Raspberry Pi Compute Module 5"),
            threads=2, haar_width=480, target_fps=30, install=_PI_INSTALL,
            limits=(*_PI_LIMITS, "Full speed without a fan: it throttles at 80 degrees. Fit the active cooler."),
        ),
        Board(
            key="pi4", name="Raspberry Pi 4",
            models=("Raspberry Pi 4", "Raspberry Pi Compute Module 4"),
            threads=2, haar_width=320, target_fps=15, install=_PI_INSTALL,
            limits=(*_PI_LIMITS, "Full speed in a closed case: it throttles at 80 degrees. Fit a heat sink."),
        ),
        Board(
            key="pi3", name="Raspberry Pi 3",
            models=("Raspberry Pi 3", "Raspberry Pi Compute Module 3"),
            threads=2, haar_width=240, target_fps=8, install=_PI_INSTALL,
            limits=(*_PI_LIMITS, "A window on the desktop: 1 GB of memory is not much. Use Raspberry Pi OS Lite, --headless."),
        ),
        Board(
            key="zero2w", name="Raspberry Pi Zero 2 W",
            models=("Raspberry Pi Zero 2",),
            threads=1, haar_width=240, target_fps=5, service_memory_mb=250, install=_PI_INSTALL,
            limits=(
                *_PI_LIMITS,
                "A window: 512 MB of memory is too little for a desktop. Use Raspberry Pi OS Lite, --headless.",
                "A USB camera without an adapter: its one USB port is a micro-B.",
            ),
        ),
        Board(
            key="coral-usb", name="Coral USB Accelerator on a Raspberry Pi",
            threads=1, haar_width=320, target_fps=15,
            install=(
                *_PI_INSTALL,
                "sudo apt install -y ./libedgetpu1-std_*_arm64.deb   # from https://github.com/feranick/libedgetpu/releases",
                "sudo usermod -aG plugdev $USER   # then log in again and replug the Coral",
            ),
            limits=(
                *_PI_LIMITS,
                _EDGE_TPU,
                "Google's own libedgetpu 16.0: it crashes with current TFLite runtimes. Use the build above.",
                "PyCoral: not needed, and has no wheel for current Python versions.",
                "A weak power supply or a hub without one: the Coral draws up to 900 mA and hangs.",
            ),
        ),
        Board(
            key="coral-dev", name="Coral Dev Board",
            models=("Freescale i.MX8MQ Phanbell",),
            threads=2, haar_width=240, target_fps=8,
            install=(
                "sudo apt install -y libgl1 libglib2.0-0",
                "curl -LsSf https://astral.sh/uv/install.sh | sh   # Mendel's own Python is 3.7",
                "~/.local/bin/uv venv --python 3.11 ~/edgefer",
                "~/.local/bin/uv pip install --python ~/edgefer/bin/python .   # in a copy of edgefer",
                ". ~/edgefer/bin/activate",
            ),
            limits=(
                "Mendel's own Python 3.7: edgefer needs 3.11 to 3.14.",
                _EDGE_TPU,
                "The Coral camera module as --camera csi: Picamera2 is for the Raspberry Pi. Try --camera 0.",
            ),
        ),
        Board(
            key="generic", name="Any 64-bit Linux PC or ARM board",
            threads=1, haar_width=480, target_fps=30,
            install=(
                "sudo apt update && sudo apt install -y python3-venv libgl1 libglib2.0-0",
                "python3 -m venv ~/edgefer",
                "~/edgefer/bin/pip install .   # in a copy of edgefer",
                ". ~/edgefer/bin/activate",
            ),
            limits=(
                "32-bit systems and musl systems (Alpine): ai-edge-litert has no wheel for them.",
                "CSI cameras of other boards: only if they work as /dev/video*, or through a GStreamer pipeline.",
            ),
        ),
    )
}  # fmt: skip


def board_model(root: Path = ROOT) -> str:
    """The board's model, such as "Raspberry Pi 4 Model B Rev 1.4"; "" on a PC.

    From the device tree, or from /proc/cpuinfo in a container, which hides the device tree.
    """
    try:
        return (root / "proc/device-tree/model").read_bytes().rstrip(b"\0\n").decode(errors="replace")
    except OSError:
        return cpuinfo("Model", root)


def cpuinfo(field: str, root: Path = ROOT) -> str:
    """The first value of a field in /proc/cpuinfo, "" if there is none."""
    try:
        lines = (root / "proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in fields if name.strip() == field), "")


def this_board(root: Path = ROOT) -> Board:
    """This board, by its device tree; the generic one if that is unknown."""
    model = board_model(root)
    here = (board for board in BOARDS.values() if model.startswith(board.models))
    return next(here, BOARDS["generic"])


def os_release(root: Path = ROOT) -> dict[str, str]:
    """os-release(5) as a dictionary, empty if it does not exist."""
    for file in (root / "etc/os-release", root / "usr/lib/os-release"):
        try:
            lines = file.read_text(errors="replace").splitlines()
        except OSError:
            continue
        return {name: value.strip("\"'") for name, found, value in (line.partition("=") for line in lines) if found}
    return {}
