"""Connections to live cameras and streams: Video4Linux, Raspberry Pi CSI through Picamera2, URLs, GStreamer.

Each `connect_...` opens one and returns a Capture (edgefer.devices.sources.live), or raises SourceError or MissingDependency.
"""

import errno
import os
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np

from edgefer.devices.board import health
from edgefer.devices.sources.aspect import square_pixels
from edgefer.devices.sources.delay import Delay
from edgefer.devices.sources.hosts import check_host, has_end, refusal
from edgefer.devices.sources.urls import shown_address
from edgefer.errors import MissingDependency, SourceError
from edgefer.files import mode_of
from edgefer.quiet import hush_codecs

OPEN_MS = 5000  # OpenCV waits 30 s for a silent host, too long for a stop or a retry
READ_MS = 30_000  # for an image of a slow stream; Live decides earlier whether a stream has stalled
MAX_THREADS = 4  # of FFmpeg: each but the first delays H.264 by a frame, by default one per core
TIMED = {"rtsp", "rtsps"}  # FFmpeg makes up the times of other streams, or they come in segments
MAX_FPS = 60.0  # a higher frame rate of a stream is taken for a mistake
BUFFERED_S = 1.0  # how long to skip buffered images, which may come no faster than new ones
MAX_BAD = 30  # damaged images in a row; each takes as long as a good one, while after the end all reads fail at once
BAD_S = 5.0  # how long to skip them
RAW_USB_PIXELS = 640 * 480  # USB 2 carries 30 uncompressed frames per second up to this size
GSTREAMER_END = "videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1"
PICAMERA2_FIX = "sudo apt install -y python3-picamera2, and make the venv with python3 -m venv --system-site-packages"


@dataclass(frozen=True, kw_only=True)
class CaptureOptions:
    """Settings for a camera, which uses the nearest ones it supports.

    size: (width, height) in pixels. fps: frames per second. mjpg: compressed frames from a USB camera; None uses them
    for images above 640x480, for which USB 2 cannot carry 30 raw ones per second.
    """

    size: tuple[int, int] | None = None
    fps: float | None = None
    mjpg: bool | None = None


DEFAULT_CAPTURE = CaptureOptions()


class CvCapture:
    """A cv2.VideoCapture as a Capture. timed: its images have time stamps of the camera."""

    def __init__(self, capture: cv2.VideoCapture, timed: bool = False):
        self._capture = capture
        self.fps = capture.get(cv2.CAP_PROP_FPS)
        self._delay = Delay() if timed else None
        self._grabbed = False
        if timed:
            self._skip_buffered()

    def _skip_buffered(self) -> None:
        """Go on to the first image that has to be waited for: FFmpeg has buffered the ones before, a second of them, while it
        opened the stream."""
        interval_s = 1 / self.fps if 1 <= self.fps <= MAX_FPS else 1 / MAX_FPS
        began = before = time.monotonic()
        while self._capture.grab():
            self._grabbed, now = True, time.monotonic()
            if now - before > interval_s / 2 or now - began > BUFFERED_S:
                return
            self._grabbed, before = False, now

    @property
    def behind_s(self) -> float:
        return self._delay.behind_s if self._delay else 0.0

    def read(self) -> np.ndarray | None:
        """The next image, after skipping up to MAX_BAD damaged ones."""
        read, image = self._capture.retrieve() if self._grabbed else self._capture.read()
        self._grabbed = False
        if self._delay and read:
            self._delay.add(time.monotonic(), self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        return square_pixels(image, self._capture) if read else self._after_damage()

    def _after_damage(self) -> np.ndarray | None:
        until = time.monotonic() + BAD_S
        for _ in range(MAX_BAD):
            read, image = self._capture.read()
            if read:
                return square_pixels(image, self._capture)
            if time.monotonic() > until:
                break
        return None

    def close(self) -> None:
        self._capture.release()


def connect_v4l2(device: Path, options: CaptureOptions) -> CvCapture:
    """A USB camera, such as /dev/video0, through Video4Linux."""
    check_device(device)
    hush_codecs()
    capture = cv2.VideoCapture(str(device), cv2.CAP_V4L2)
    # The order matters: the available sizes depend on the pixel format, and the frame rates on the size.
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
            f"The camera {device} gives no images: it is busy (fuser {device}), or it is a Raspberry Pi CSI camera, "
            "which needs --camera csi."
        )
    return CvCapture(capture)


def check_device(device: Path) -> None:
    """Raise SourceError if a /dev/video* does not exist or cannot be opened."""
    name = device.name.removeprefix("video") if device.name.startswith("video") else str(device)
    if not mode_of(device, error=SourceError):
        folder = Path("/dev") if device.is_relative_to("/dev") else device.parent  # also for /dev/v4l/by-id/NAME
        there = ", ".join(name.name.removeprefix("video") for name in sorted(folder.glob("video*")))
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
    check_host(url)
    hush_codecs()
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_MS]
    threads = [cv2.CAP_PROP_N_THREADS, min(MAX_THREADS, health.cores())]
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, [*limits, *threads])
    if not capture.isOpened():
        raise refusal(url)
    scheme = urlsplit(url).scheme
    if scheme in ("http", "https") and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0 and has_end(url):
        capture.release()
        raise SourceError(
            f"{shown_address(url)} is a recorded video, not a live stream: save it to a file (ffmpeg -i ADDRESS -c copy "
            "film.mp4), and name that."
        )
    return CvCapture(capture, timed=scheme in TIMED)


def check_gstreamer() -> None:
    """MissingDependency if OpenCV was built without it."""
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise MissingDependency(
            f"This OpenCV ({cv2.__version__}) was built without GStreamer, like all of pip's: sudo apt install -y "
            "python3-opencv, and use it in a venv with --system-site-packages after pip uninstall opencv-python."
        )


def connect_gstreamer(pipeline: str) -> CvCapture:
    """A GStreamer pipeline; GSTREAMER_END is appended if it has no appsink."""
    whole = pipeline if "appsink" in pipeline else f"{pipeline.rstrip(' !')} ! {GSTREAMER_END}"
    hush_codecs()
    capture = cv2.VideoCapture(whole, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        raise SourceError(
            f"GStreamer cannot run {shown_address(whole)!r}: try it with gst-launch-1.0, and fakesink instead of appsink."
        )
    return CvCapture(capture)


def picamera2():
    """The class Picamera2. Raises MissingDependency with the command that installs it."""
    os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:ERROR")  # by default it logs every camera at every start
    try:
        return import_module("picamera2").Picamera2
    except ImportError as error:
        raise MissingDependency(
            f"A CSI camera needs Picamera2, which cannot be imported ({error}): {PICAMERA2_FIX}."
        ) from None
    except (ValueError, AttributeError) as error:  # "numpy.dtype size changed": apt's was built for numpy 1
        from edgefer.devices.board.probes import NUMPY_1  # which looks for installed packages

        raise MissingDependency(f"Picamera2 does not work with numpy {np.__version__} ({error}): {NUMPY_1}") from None


def csi_cameras() -> list[dict]:
    """Picamera2's list without USB cameras. `Num` is Picamera2's own number, which counts USB cameras too.

    Older versions of Picamera2 have no `Num`, and list the cameras by number.
    """
    kind = picamera2()
    try:
        cameras = enumerate(kind.global_camera_info())
    except Exception as error:  # libcamera's errors have no common type
        raise SourceError(
            f"Picamera2 cannot list the CSI cameras ({' '.join(str(error).split())}): try rpicam-hello --list-cameras."
        ) from None
    return [{"Num": number} | camera for number, camera in cameras if "/usb" not in camera.get("Id", "")]


class CsiCapture:
    """A Raspberry Pi CSI camera, running, as a Capture."""

    behind_s = 0.0

    def __init__(self, camera, fps: float):
        self._camera, self.fps = camera, fps

    def read(self) -> np.ndarray:
        # Without the timeout, a camera with a loose cable would block this thread forever.
        return self._camera.wait(self._camera.capture_array("main", wait=False), timeout=READ_MS / 1000)

    def close(self) -> None:
        try:
            self._camera.stop()
        finally:
            self._camera.close()  # or no later attempt can open it


def connect_csi(number: int, options: CaptureOptions) -> CsiCapture:
    """A Raspberry Pi CSI camera by its number, through Picamera2."""
    kind = picamera2()
    there = csi_cameras()
    if number >= len(there):
        raise SourceError(
            f"There is no CSI camera {number}: Picamera2 finds {len(there)}. Check the cable (power off), then "
            "rpicam-hello --list-cameras."
        )
    fps = options.fps or 30.0
    camera = kind(there[number]["Num"])
    try:
        # Picamera2's "RGB888" names the bytes in reverse memory order: its arrays are BGR, as needed here.
        main = {"size": options.size or (640, 480), "format": "RGB888"}
        camera.configure(camera.create_video_configuration(main=main, controls={"FrameRate": fps}))
        camera.start()
    except BaseException:
        camera.close()  # or the camera stays busy and no later attempt can open it
        raise
    return CsiCapture(camera, fps)
