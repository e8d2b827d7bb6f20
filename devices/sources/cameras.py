"""Where frames come from: a camera, a stream, a video, pictures, or the built-in drawn faces, behind one small protocol."""

import os
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import cv2

from edgefer import drawn
from edgefer.devices.sources import captures
from edgefer.devices.sources.captures import AS_IT_COMES, CaptureOptions, with_password, without_secrets
from edgefer.devices.sources.live import Live
from edgefer.errors import InputError, SourceError
from edgefer.quiet import quiet
from edgefer.records import Frame

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"}
BUILT_IN = "builtin"
GSTREAMER = "gst:"


class Source(Protocol):
    """Frames to iterate over, inside a `with`: opening fails with SourceError, leaving closes what was opened.

    fps is the rate at which the frames were or will be taken. A `live` source has no end of its own and gives only
    its newest frame; any other gives every frame. skipped: the live ones that were passed over for a newer one.
    """

    fps: float
    live: bool
    skipped: int

    def __enter__(self) -> "Source": ...
    def __exit__(self, *exc: object) -> None: ...
    def __iter__(self) -> Iterator[Frame]: ...


def open_camera(
    camera: str | int,
    options: CaptureOptions = AS_IT_COMES,
    **how: Any,
) -> Source:
    """The source for a camera: a number or /dev path (Video4Linux), "csi" or "csi:1" (Picamera2). Opened by `with`.

    how: stop, say, trying and wait, as edgefer.devices.sources.live.Live has them.
    """
    text = str(camera)
    if csi := re.fullmatch(r"csi(?::(\d+))?", text):
        connect = partial(captures.connect_csi, int(csi[1] or 0), options)
        return Live(connect, f"CSI camera {csi[1] or 0}", **how)
    if not re.fullmatch(r"\d+|/dev/.+", text):
        raise InputError(f"There is no camera {text!r}: name a number, a path such as /dev/video0, or csi.")
    device = Path(text) if text.startswith("/") else Path(f"/dev/video{text}")
    return Live(partial(captures.connect_v4l2, device, options), f"Camera {text}", **how)


def open_source(where: str, *, password: str = "", **how: Any) -> Source:
    """The source for a file, a folder of pictures, a URL, "gst:PIPELINE", or "builtin". Opened by `with`.

    password: for a URL that names a user and no password. how: for live sources, as for `open_camera`. A URL of HTTP
    that ends like a video file is one.
    """
    if where == BUILT_IN:
        return Drawn()
    if where.startswith(GSTREAMER):
        pipeline = where.removeprefix(GSTREAMER).strip()
        return Live(partial(captures.connect_gstreamer, pipeline), "The GStreamer pipeline", **how)
    if "://" in where:
        if where.startswith(("http", "file")) and Path(urlsplit(where).path).suffix.lower() in VIDEOS:
            return Video(with_password(where, password), without_secrets(where))
        url = with_password(where, password)
        return Live(partial(captures.connect_url, url), f"The stream {without_secrets(where)}", **how)
    path = Path(where)
    if path.is_dir():
        return Pictures(
            sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES), f"The folder {path}"
        )
    if not path.exists():
        raise SourceError(
            f"There is no file or folder {path}: name a video, a picture, a folder of pictures, or builtin."
        )
    if not os.access(path, os.R_OK):
        raise SourceError(f"You may not read {path}: change its rights (chmod), or name another.")
    if path.suffix.lower() in PICTURES:
        return Pictures([path], str(path))
    return Video(str(path.absolute()), str(path))  # FFmpeg takes the 10 of a relative 10:30.mp4 for a protocol


def parse_size(text: str) -> tuple[int, int]:
    """`640x480` as (640, 480); InputError when it is something else."""
    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text.strip().lower())
    if not match:
        raise InputError(f"{text!r} is no picture size: write width x height in pixels, such as 640x480.")
    return int(match[1]), int(match[2])


class Video:
    """A video file or the URL of one, every frame in turn, timed by the file's frame rate."""

    fps = 30.0
    live = False
    skipped = 0

    def __init__(self, path: str, name: str = ""):
        self.path, self.name = path, name or path
        self._reading = threading.Lock()

    def __enter__(self) -> "Video":
        with quiet():
            self._capture = cv2.VideoCapture(self.path)
        if not self._capture.isOpened():
            fix = (
                "check the address and its host, or fetch it first"
                if "://" in self.path
                else "copy it again if it is not whole, or convert it to MP4 or AVI"
            )
            raise SourceError(f"{self.name} is not a video that OpenCV can read: {fix}.")
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        if 0 < fps <= 1000:
            self.fps = fps
        return self

    def __exit__(self, *exc: object) -> None:
        # A read that hangs in another thread must not have its capture taken away: OpenCV would crash.
        if self._reading.acquire(timeout=1):
            self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while True:
            with self._reading:
                read, image = self._capture.read()
            if not read:
                break
            yield Frame(index=index, time_s=index / self.fps, image_bgr=image)
            index += 1
        if index == 0:
            raise SourceError(f"{self.name} holds no readable frame: the video is damaged or cut short.")


class Pictures:
    """Picture files, one frame each."""

    fps = 1.0
    live = False
    skipped = 0

    def __init__(self, files: list[Path], what: str):
        if not files:
            raise SourceError(f"{what} holds no pictures ({', '.join(sorted(PICTURES))}).")
        self.files = files

    def __enter__(self) -> "Pictures":
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        for index, file in enumerate(self.files):
            image = cv2.imread(str(file), cv2.IMREAD_COLOR)
            if image is None:
                raise SourceError(f"{file} is not a picture OpenCV can read: mend or remove it.")
            yield Frame(index=index, time_s=float(index), image_bgr=image)


class Drawn:
    """The built-in scene of drawn faces, as if it were a video."""

    fps = 15.0
    live = False
    skipped = 0

    def __init__(self, seconds: float = 8):
        self.seconds = seconds

    def __enter__(self) -> "Drawn":
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        return (frame for frame, _ in drawn.scene(self.seconds, self.fps))
