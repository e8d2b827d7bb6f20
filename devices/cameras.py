"""Where frames come from: a camera, a video, a URL, pictures, or the built-in drawn faces, behind one small protocol."""

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import cv2

from edgefer import drawn
from edgefer.errors import SourceError
from edgefer.quiet import quiet
from edgefer.records import Frame

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
BUILT_IN = "builtin"


class Source(Protocol):
    """Frames to iterate over, inside a `with`: opening fails with SourceError, leaving closes what was opened.

    fps is the rate at which the frames were or will be taken; `live` sources have no end of their own.
    """

    fps: float
    live: bool

    def __enter__(self) -> "Source": ...
    def __exit__(self, *exc: object) -> None: ...
    def __iter__(self) -> Iterator[Frame]: ...


def open_source(where: str | int) -> Source:
    """The source for a camera number, a file, a folder of pictures, a URL, or "builtin". Opened by `with`."""
    if isinstance(where, int):
        return Camera(where)
    if where == BUILT_IN:
        return Drawn()
    if "://" in where:
        return Stream(where)
    path = Path(where)
    if path.is_dir():
        return Pictures(
            sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES), f"The folder {path}"
        )
    if not path.exists():
        raise SourceError(
            f"There is no file or folder {path}: name a video, a picture, a folder of pictures, or builtin."
        )
    if path.suffix.lower() in PICTURES:
        return Pictures([path], str(path))
    return Video(path)


class _Capture:
    """What cv2.VideoCapture sources share: reading until there is nothing more."""

    fps = 30.0
    live = False

    def __enter__(self):
        self._capture = self._open()
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        if 0 < fps <= 1000:
            self.fps = fps
        return self

    def __exit__(self, *exc: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        index, began = 0, time.monotonic()
        while True:
            read, image = self._capture.read()
            if not read:
                break
            yield Frame(
                index=index, time_s=time.monotonic() - began if self.live else index / self.fps, image_bgr=image
            )
            index += 1
        self._ended(index)

    def _open(self) -> cv2.VideoCapture:
        raise NotImplementedError

    def _ended(self, frames: int) -> None:
        raise NotImplementedError


class Video(_Capture):
    """A video file, every frame in turn, timed by the file's frame rate."""

    def __init__(self, path: Path):
        self.path = path

    def _open(self) -> cv2.VideoCapture:
        with quiet():
            capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise SourceError(f"{self.path} is not a video that OpenCV can read: convert it to MP4 or AVI.")
        return capture

    def _ended(self, frames: int) -> None:
        if frames == 0:
            raise SourceError(f"{self.path} holds no readable frame: the video is damaged or cut short.")


class Stream(_Capture):
    """A video stream by URL (rtsp://, http://), as long as it lasts."""

    live = True

    def __init__(self, url: str):
        self.url = url

    def _open(self) -> cv2.VideoCapture:
        with quiet():
            capture = cv2.VideoCapture(self.url)
        if not capture.isOpened():
            raise SourceError(f"The stream {self.url} cannot be opened: check the address and that its host answers.")
        return capture

    def _ended(self, frames: int) -> None:
        raise SourceError(f"The stream {self.url} ended after {frames} frames.")


class Camera(_Capture):
    """A USB camera by its number, through Video4Linux; the newest frame each time."""

    live = True

    def __init__(self, number: int):
        self.number = number

    def _open(self) -> cv2.VideoCapture:
        device = Path(f"/dev/video{self.number}")
        if not device.exists():
            there = ", ".join(name.name.removeprefix("video") for name in sorted(Path("/dev").glob("video*")))
            hint = f"the cameras here are {there}" if there else "no camera is connected; try --source builtin"
            raise SourceError(f"There is no camera {self.number} ({device}): {hint}.")
        try:
            os.close(os.open(device, os.O_RDWR | os.O_NONBLOCK))
        except PermissionError:
            raise SourceError(f"You may not use {device}: sudo usermod -aG video $USER, then log in again.") from None
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise SourceError(
                    f"Camera {self.number} is busy: close the program that uses it (fuser {device})."
                ) from None
            raise SourceError(f"Camera {self.number} cannot be opened: {error.strerror}.") from None
        with quiet():
            capture = cv2.VideoCapture(self.number, cv2.CAP_V4L2)
        read = capture.isOpened() and capture.read()[0]
        if not read:
            capture.release()
            raise SourceError(
                f"Camera {self.number} ({device}) gives no picture: it is busy (fuser {device}), or it is a Raspberry Pi "
                "CSI camera, which needs Picamera2, not Video4Linux."
            )
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture

    def _ended(self, frames: int) -> None:
        raise SourceError(
            f"Camera {self.number} stopped giving pictures after {frames} frames: is it still plugged in?"
        )


class Pictures:
    """Picture files, one frame each."""

    fps = 1.0
    live = False

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

    def __init__(self, seconds: float = 8):
        self.seconds = seconds

    def __enter__(self) -> "Drawn":
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        return (frame for frame, _ in drawn.scene(self.seconds, self.fps))
