"""Finds the cameras that the kernel and Picamera2 report, and tests whether each gives images."""

import fcntl
import os
import struct
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgefer.devices.threads import HANG_S, Prefetch
from edgefer.errors import EdgeferError, MissingDependency, SourceError

if TYPE_CHECKING:
    from edgefer.devices.sources.cameras import Source

ROOT = Path("/")
# linux/videodev2.h: VIDIOC_QUERYCAP fills driver[16] card[32] bus_info[32] version capabilities device_caps reserved[3].
_QUERYCAP, _QUERYCAP_FORMAT = 0x80685600, "16s32s32s6I"
_VIDEO_CAPTURE, _VIDEO_CAPTURE_MPLANE = 0x1, 0x1000
# Nodes of the Raspberry Pi that are not usable as cameras: codecs, image processors, and its CSI receivers, whose raw
# sensor data only Picamera2 converts to images.
_PI_NODES = ("bcm2835-codec", "bcm2835-isp", "rpi-hevc", "rpivid", "pispbe", "rp1-cfe", "unicam")
# A CSI sensor on its I2C bus, such as "imx219 10-0010" or "imx708_wide"; lenses (dw9714, ad5398) are not matched.
_SENSORS = ("imx", "ov", "arducam", "ar0")


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A camera: its argument for --camera, its name, and its interface ("v4l2" or "picamera2")."""

    camera: str
    name: str
    reached_by: str


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A camera's image size in pixels and measured frames per second; or the problem in one sentence."""

    width: int = 0
    height: int = 0
    fps: float = 0.0
    problem: str = ""


def find_cameras(root: Path = ROOT) -> list[Camera]:
    """All cameras: USB ones by number, then CSI ones if Picamera2 is installed. Opens no stream."""
    from edgefer.devices.sources import captures  # here, so that the doctor can find cameras without OpenCV

    found = usb_cameras(root)
    try:
        for number, info in enumerate(captures.csi_cameras()):
            name = "csi" if number == 0 else f"csi:{number}"
            found.append(Camera(camera=name, name=str(info.get("Model", "CSI camera")), reached_by="picamera2"))
    except MissingDependency:
        pass  # no Pi, or no Picamera2, which `edgefer doctor` reports
    except SourceError:  # trying it will report the problem
        found.append(Camera(camera="csi", name="CSI cameras", reached_by="picamera2"))
    return found


def usb_cameras(root: Path = ROOT) -> list[Camera]:
    """The Video4Linux nodes that give images, without metadata nodes and the Raspberry Pi's own."""
    found = []
    for number, name, node in _nodes(root):
        if name.startswith(_PI_NODES):
            continue
        capabilities = _capabilities(root / "dev" / node.name)
        if capabilities is None:  # no permission to open it: a camera's first node is the one with images
            gives_pictures = _text(node / "index") in ("", "0")
        else:
            gives_pictures = bool(capabilities & (_VIDEO_CAPTURE | _VIDEO_CAPTURE_MPLANE))
        if gives_pictures:
            found.append(Camera(camera=str(number), name=name, reached_by="v4l2"))
    return found


def csi_sensors(root: Path = ROOT) -> list[str]:
    """The names of the CSI camera sensors that the kernel has found, with or without Picamera2."""
    names = [_text(file) for file in sorted(root.glob("sys/class/video4linux/v4l-subdev*/name"))]
    return [name for name in names if name.lower().startswith(_SENSORS)]


def try_camera(source: "Source", seconds: float = 1.5, clock=time.monotonic) -> Trial:
    """Open a source and read it for a while. The frame rate excludes the wait for the first frame."""
    try:
        # Without a limit, a camera that hangs after an image would be waited for forever.
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
                return Trial(problem="It gave no image.")
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
    """The device_caps of a Video4Linux node, or None if it cannot be queried."""
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
