"""Connections to live cameras and streams: Video4Linux, Raspberry Pi CSI through Picamera2, URLs, GStreamer.

Each `connect_...` opens one and gives a Capture (edgefer.devices.sources.live), or raises SourceError or MissingDependency.
"""

import errno
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np

from edgefer.devices.sources.urls import shown_address
from edgefer.errors import MissingDependency, SourceError

OPEN_MS = READ_MS = 5000  # OpenCV waits 30 s for a silent host, which is too long to wait for a stop or a retry
RAW_USB_PIXELS = 640 * 480  # USB 2 carries 30 uncompressed frames a second up to here
GSTREAMER_END = "videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1"
PICAMERA2_FIX = "sudo apt install -y python3-picamera2, and make the venv with python3 -m venv --system-site-packages"


@dataclass(frozen=True, kw_only=True)
class CaptureOptions:
    """What to ask a camera for; a camera that cannot gives what is nearest.

    size: (width, height) in pixels. fps: frames a second. mjpg: compressed frames from a USB camera; None takes them
    for images above 640x480, where USB 2 has no room for 30 raw ones a second.
    """

    size: tuple[int, int] | None = None
    fps: float | None = None
    mjpg: bool | None = None


DEFAULT_CAPTURE = CaptureOptions()


def _hush() -> None:
    """Keep OpenCV and FFmpeg from writing to the terminal at every attempt to connect.

    Not edgefer.quiet: connections are made in threads, and it holds back the whole process's stderr.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)


class CvCapture:
    """A cv2.VideoCapture as a Capture."""

    def __init__(self, capture: cv2.VideoCapture):
        self._capture = capture
        self.fps = capture.get(cv2.CAP_PROP_FPS)

    def read(self) -> np.ndarray | None:
        read, image = self._capture.read()
        return image if read else None

    def close(self) -> None:
        self._capture.release()


def connect_v4l2(device: Path, options: CaptureOptions) -> CvCapture:
    """A USB camera, such as /dev/video0, through Video4Linux."""
    check_device(device)
    _hush()
    capture = cv2.VideoCapture(str(device), cv2.CAP_V4L2)
    # The order matters: the pixel format decides which sizes there are, and the size which frame rates.
    if options.mjpg or (options.mjpg is None and options.size and options.size[0] * options.size[1] > RAW_USB_PIXELS):
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
    if options.size:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, options.size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, options.size[1])
    if options.fps:
        capture.set(cv2.CAP_PROP_FPS, options.fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    read = capture.isOpened() and capture.read()[0]
    if not read:
        capture.release()
        raise SourceError(
            f"The camera {device} gives no picture: it is busy (fuser {device}), or it is a Raspberry Pi CSI camera, "
            "which needs --camera csi."
        )
    return CvCapture(capture)


def check_device(device: Path) -> None:
    """Raise SourceError when a /dev/video* is not there or may not be opened."""
    name = device.name.removeprefix("video") if device.name.startswith("video") else str(device)
    if not device.exists():
        there = ", ".join(name.name.removeprefix("video") for name in sorted(device.parent.glob("video*")))
        hint = f"the cameras here are {there}" if there else "no camera is connected; try --source builtin"
        raise SourceError(f"There is no camera {name} ({device}): {hint}.")
    try:
        os.close(os.open(device, os.O_RDWR | os.O_NONBLOCK))
    except PermissionError:
        raise SourceError(f"You may not use {device}: sudo usermod -aG video $USER, then log in again.") from None
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise SourceError(f"Camera {name} is busy: close the program that uses it (fuser {device}).") from None
        raise SourceError(f"Camera {name} cannot be opened: {error.strerror}.") from None


def connect_url(url: str) -> CvCapture:
    """A stream by URL, such as rtsp://host/path or http://host/stream.mjpg."""
    _hush()
    capture = cv2.VideoCapture(
        url, cv2.CAP_FFMPEG, [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_MS]
    )
    if not capture.isOpened():
        raise SourceError(
            f"The stream {shown_address(url)} cannot be opened: check the address, the password if it needs one, and that its host answers."
        )
    return CvCapture(capture)


def connect_gstreamer(pipeline: str) -> CvCapture:
    """A GStreamer pipeline; one without an appsink is given the end that edgefer needs."""
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise MissingDependency(
            f"This OpenCV ({cv2.__version__}) was built without GStreamer, as pip's always is: sudo apt install -y "
            "python3-opencv, and use it in a venv with --system-site-packages after pip uninstall opencv-python."
        )
    whole = pipeline if "appsink" in pipeline else f"{pipeline.rstrip(' !')} ! {GSTREAMER_END}"
    _hush()
    capture = cv2.VideoCapture(whole, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        raise SourceError(
            f"GStreamer cannot run {shown_address(whole)!r}: try it with gst-launch-1.0, and fakesink for appsink."
        )
    return CvCapture(capture)


def picamera2():
    """The class Picamera2. Raises MissingDependency with the line that installs it."""
    os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:ERROR")  # it logs every camera at every start otherwise
    try:
        return import_module("picamera2").Picamera2
    except ImportError as error:
        raise MissingDependency(
            f"A CSI camera needs Picamera2, which cannot be imported ({error}): {PICAMERA2_FIX}."
        ) from None
    except (ValueError, AttributeError) as error:  # "numpy.dtype size changed": apt's was built for numpy 1
        raise MissingDependency(
            f"Picamera2 does not work with numpy {np.__version__} ({error}): pip install 'numpy<2' 'opencv-python<4.12'."
        ) from None


def csi_cameras() -> list[dict]:
    """What Picamera2 lists, without the USB cameras that it lists too. `Num` is Picamera2's own number, which counts those.

    Older Picamera2 gives no `Num`, and lists the cameras by number.
    """
    cameras = enumerate(picamera2().global_camera_info())
    return [{"Num": number} | camera for number, camera in cameras if "/usb" not in camera.get("Id", "")]


class CsiCapture:
    """A Raspberry Pi CSI camera, running, as a Capture."""

    def __init__(self, camera, fps: float):
        self._camera, self.fps = camera, fps

    def read(self) -> np.ndarray:
        # Without the timeout a camera whose cable came loose would hold this thread forever.
        return self._camera.wait(self._camera.capture_array("main", wait=False), timeout=READ_MS / 1000)

    def close(self) -> None:
        try:
            self._camera.stop()
        finally:
            self._camera.close()  # or no later attempt can have it


def connect_csi(number: int, options: CaptureOptions) -> CsiCapture:
    """A Raspberry Pi CSI camera by its number among them, through Picamera2."""
    kind = picamera2()
    there = csi_cameras()
    if number >= len(there):
        raise SourceError(
            f"There is no CSI camera {number}: Picamera2 sees {len(there)}. Check the cable (power off), then "
            "rpicam-hello --list-cameras."
        )
    fps = options.fps or 30.0
    camera = kind(there[number]["Num"])
    try:
        # Picamera2's "RGB888" names the order in memory from the far end: its arrays are BGR, which is what is wanted.
        main = {"size": options.size or (640, 480), "format": "RGB888"}
        camera.configure(camera.create_video_configuration(main=main, controls={"FrameRate": fps}))
        camera.start()
    except BaseException:
        camera.close()  # or the camera stays taken and no later attempt can have it
        raise
    return CsiCapture(camera, fps)
