"""Which cameras there are, by what the kernel and Picamera2 report, and whether each gives pictures."""

import fcntl
import os
import struct
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgefer.devices.threads import HANG_S, Prefetch
from edgefer.errors import EdgeferError, MissingDependency

if TYPE_CHECKING:
    from edgefer.devices.sources.cameras import Source

ROOT = Path("/")
# linux/videodev2.h: VIDIOC_QUERYCAP fills driver[16] card[32] bus_info[32] version capabilities device_caps reserved[3].
_QUERYCAP, _QUERYCAP_FORMAT = 0x80685600, "16s32s32s6I"
_VIDEO_CAPTURE, _VIDEO_CAPTURE_MPLANE = 0x1, 0x1000
# Nodes of the Raspberry Pi that are no camera to read: codecs, image processors, and the receivers of its CSI port,
# whose raw sensor data only Picamera2 turns into pictures.
_PI_NODES = ("bcm2835-codec", "bcm2835-isp", "rpi-hevc", "rpivid", "pispbe", "rp1-cfe", "unicam")
# A CSI sensor on its I2C bus, such as "imx219 10-0010" or "imx708_wide"; lenses (dw9714, ad5398) are not matched.
_SENSORS = ("imx", "ov", "arducam", "ar0")


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A camera that is there: what --camera takes, its name, and how it is reached ("v4l2" or "picamera2")."""

    camera: str
    name: str
    reached_by: str


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a camera gave: picture size in pixels and measured frames a second; or the problem in one sentence."""

    width: int = 0
    height: int = 0
    fps: float = 0.0
    problem: str = ""


def find_cameras(root: Path = ROOT) -> list[Camera]:
    """The cameras that are there: USB ones by number, then CSI ones where Picamera2 can be asked. Opens no stream."""
    from edgefer.devices.sources import captures  # here, so that the doctor can look for cameras without OpenCV

    found = usb_cameras(root)
    try:
        for number, info in enumerate(captures.csi_cameras()):
            name = "csi" if number == 0 else f"csi:{number}"
            found.append(Camera(camera=name, name=str(info.get("Model", "CSI camera")), reached_by="picamera2"))
    except MissingDependency:
        pass  # no Pi, or no Picamera2, which is `edgefer doctor`'s to report
    return found


def usb_cameras(root: Path = ROOT) -> list[Camera]:
    """The Video4Linux nodes that give pictures. Metadata nodes and the Raspberry Pi's own are left out."""
    found = []
    for number, name, node in _nodes(root):
        if name.startswith(_PI_NODES):
            continue
        capabilities = _capabilities(root / "dev" / node.name)
        if capabilities is None:  # it may not be opened: the first node of a camera is the one with pictures
            gives_pictures = _text(node / "index") in ("", "0")
        else:
            gives_pictures = bool(capabilities & (_VIDEO_CAPTURE | _VIDEO_CAPTURE_MPLANE))
        if gives_pictures:
            found.append(Camera(camera=str(number), name=name, reached_by="v4l2"))
    return found


def csi_sensors(root: Path = ROOT) -> list[str]:
    """The names of the CSI camera sensors that the kernel has found, whether Picamera2 is installed or not."""
    names = [_text(file) for file in sorted(root.glob("sys/class/video4linux/v4l-subdev*/name"))]
    return [name for name in names if name.lower().startswith(_SENSORS)]


def try_camera(source: "Source", seconds: float = 1.5, clock=time.monotonic) -> Trial:
    """Open a source and read it for a while. The first frame's wait is not counted in the frame rate."""
    try:
        # A camera that hangs after a picture would be waited for without an end.
        with source as opened, closing(Prefetch(opened, limit_s=HANG_S, name="It")) as frames:
            first, count, size = 0.0, 0, (0, 0)
            for frame in frames:
                now = clock()
                if count == 0:
                    first, size = now, frame.image_bgr.shape[:2]
                count += 1
                if now - first >= seconds:
                    break
            if count == 0:
                return Trial(problem="It gave no picture.")
            spent = now - first
            return Trial(width=size[1], height=size[0], fps=(count - 1) / spent if spent else 0.0)
    except EdgeferError as error:
        return Trial(problem=str(error))


def _nodes(root: Path) -> list[tuple[int, str, Path]]:
    """(number, name, directory) of each /sys/class/video4linux/videoN, by number."""
    nodes = []
    for node in root.glob("sys/class/video4linux/video*"):
        if (number := node.name.removeprefix("video")).isdigit():
            nodes.append((int(number), _text(node / "name") or node.name, node))
    return sorted(nodes)


def _capabilities(device: Path) -> int | None:
    """The device_caps of a Video4Linux node, or None where it cannot be asked."""
    try:
        handle = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        answer = fcntl.ioctl(handle, _QUERYCAP, bytes(struct.calcsize(_QUERYCAP_FORMAT)))
        return struct.unpack(_QUERYCAP_FORMAT, answer)[5]
    except OSError:
        return None
    finally:
        os.close(handle)


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
