"""Recorded sources: videos, image files, and the built-in drawn faces."""

import math
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import cv2

from edgefer import drawn
from edgefer.devices.sources.aspect import square_pixels
from edgefer.devices.sources.containers import COUNTED, OPEN, Structure, examine, names_others, start_s
from edgefer.devices.sources.counts import frames_not_shown
from edgefer.devices.sources.state import SourceState
from edgefer.devices.sources.urls import shown_address
from edgefer.errors import ImageError, IncompleteError, SourceError
from edgefer.images import READ, is_image_file, problem_of, read_image
from edgefer.native import native_path
from edgefer.quiet import hush_codecs, quiet
from edgefer.records import Frame
from edgefer.text import counted, printable

MAX_STEP_S = 3600.0  # a larger step between time stamps is damage, not a pause
COUNTING = {".mp4", ".m4v", ".mov", ".avi"}
MAX_MISSING = 0.01  # share of a video's frames: the count in its header may be off by the few at its ends


class Source(Protocol):
    """An iterable of frames and a context manager: entering fails with SourceError, leaving closes it.

    name: for display, without secrets. fps: the capture rate. A `live` source does not end and gives only its newest
    frame; any other gives every frame, and raises IncompleteError after the last one if some are missing.
    skipped: live frames dropped for newer ones. total: the number of frames, None if unknown. left_out: what could not be
    read, and why. failed: sentences about merged sources that could not be read. unchecked: once it has ended, a sentence
    if its completeness could not be checked. stills: independent images. streams: the number of merged sources.
    states: of each of them, or of this one; other threads may ask.
    """

    @property
    def name(self) -> str: ...
    @property
    def fps(self) -> float: ...
    @property
    def live(self) -> bool: ...
    @property
    def skipped(self) -> int: ...
    @property
    def total(self) -> int | None: ...
    @property
    def left_out(self) -> list[str]: ...
    @property
    def failed(self) -> list[str]: ...
    @property
    def unchecked(self) -> str: ...
    @property
    def stills(self) -> bool: ...
    @property
    def streams(self) -> int: ...
    @property
    def states(self) -> tuple[SourceState, ...]: ...

    def __enter__(self) -> "Source": ...
    def __exit__(self, *exc: object) -> None: ...
    def __iter__(self) -> Iterator[Frame]: ...


class Recorded:
    """The base class of the sources in this module."""

    fps = 1.0
    live = False
    skipped = 0
    total: int | None = None
    unchecked = ""
    stills = False
    streams = 1

    def __init__(self, name: str):
        self.name = name
        self.left_out: list[str] = []
        self.failed: list[str] = []

    @property
    def states(self) -> tuple[SourceState, ...]:
        return (SourceState(name=self.name),)

    def __enter__(self):
        return self

    def __exit__(self, *exc: object) -> None:
        pass


class Video(Recorded):
    """A video file or its URL: every frame in order, upright and with square pixels, timed by the container's time stamps.

    A time stamp that is missing or does not increase is replaced by the previous one plus 1 / fps.
    """

    fps = 30.0

    def __init__(self, where: Path | str, name: str = ""):
        super().__init__(name or shown_address(str(where)))
        self._where = where
        self._count: int | None = None
        self._reading = threading.Lock()
        self._open = ExitStack()

    def __enter__(self) -> "Video":
        if isinstance(self._where, Path) and names_others(self._where):
            raise SourceError(
                f"{self.name} is a list of other files or URLs, not a video: name the ones that you trust."
            )
        path = self._open.enter_context(native_path(self._where)) if isinstance(self._where, Path) else self._where
        hush_codecs()
        with quiet():
            self._capture = cv2.VideoCapture(path)
        if not self._capture.isOpened():
            self._open.close()
            fix = (
                "copy it again if it is incomplete, or convert it to MP4 or AVI"
                if isinstance(self._where, Path)
                else "check the address and its host, or download it first"
            )
            raise SourceError(f"{self.name} is not a video that OpenCV can read: {fix}.")
        fps, count = self._capture.get(cv2.CAP_PROP_FPS), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if 0 < fps <= 1000:
            self.fps = fps
        self._count = round(count) if 0 < count < 1e9 else None
        return self

    @property
    def total(self) -> int | None:  # type: ignore[override]
        """The number of frames that are shown: a trimmed video holds more. Computed from the file each time."""
        if self._count is None or not isinstance(self._where, Path):
            return self._count
        return max(0, self._count - frames_not_shown(self._where) - round(start_s(self._where) * self.fps))

    def __exit__(self, *exc: object) -> None:
        # The capture must not be released during a read in another thread: OpenCV would crash.
        if self._reading.acquire(timeout=1):
            self._capture.release()
            self._open.close()
            self._reading.release()  # it may be reopened

    def __iter__(self) -> Iterator[Frame]:
        index, time_s = 0, 0.0
        while True:
            with self._reading:
                read, image = self._capture.read()
                image = square_pixels(image, self._capture) if read else image
                stamp_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if not read:
                break
            time_s = next_time(stamp_s, time_s, self.fps) if index else max(0.0, stamp_s)
            yield Frame(index=index, time_s=time_s, image_bgr=image, source=self.name)
            index += 1
        if index == 0:
            raise SourceError(f"{self.name} holds no readable frame: the video is damaged or truncated.")
        self._judge(index, time_s)

    def _judge(self, frames: int, last_s: float) -> None:
        """IncompleteError if frames are missing, according to the container's count, structure or length."""
        structure = examine(self._where) if isinstance(self._where, Path) else _by_name(self._where)
        total = max(0, (self._count or 0) - round(structure.start_s * self.fps))
        allowed = max(2, math.ceil(MAX_MISSING * total))
        if structure.counts and total - frames > allowed and isinstance(self._where, Path):
            total -= frames_not_shown(self._where)
        fewer = total - frames > allowed
        if structure.counts:
            damaged = fewer
        elif structure.broken:  # a broken index or tag costs no frame; in a truncated file the count is too low
            damaged = fewer or not structure.announces or not total
        else:
            damaged = fewer and not structure.proven and (total / self.fps - last_s) > max(1.0, 2 * allowed / self.fps)
        if damaged:
            of = f"{frames} of {total} frames" if fewer else f"its {frames} first frames" if frames > 1 else "one frame"
            raise IncompleteError(
                f"{self.name} is damaged or truncated: {of} could be read. These results are kept; copy the video again, or "
                "repair it with ffmpeg."
            )
        if not structure.ends:
            self.unchecked = f"Whether {self.name} is complete could not be checked: its format does not mark the end. {frames} frame{'s were' if frames > 1 else ' was'} read."


def next_time(stamp_s: float, before_s: float, fps: float) -> float:
    """The time of a frame: its time stamp, or one frame later if that is missing, not increasing or too far ahead."""
    grows = math.isfinite(stamp_s) and before_s < stamp_s <= before_s + MAX_STEP_S
    return stamp_s if grows else before_s + 1 / fps


def _by_name(url: str) -> Structure:
    """What is known of a video that is streamed."""
    return COUNTED if Path(urlsplit(url).path).suffix.lower() in COUNTING else OPEN


class Images(Recorded):
    """Image files, one frame each, a second apart; each frame's source is its file's name.

    Unreadable ones are listed in `left_out`; unless skip_bad, IncompleteError is raised after the last image.
    """

    def __init__(self, files: list[Path], name: str, *, skip_bad: bool = False):
        super().__init__(name)
        self._files, self._skip_bad = files, skip_bad
        self.stills, self.total = True, len(files)

    @classmethod
    def of_folder(cls, folder: Path, *, skip_bad: bool = False) -> "Images":
        """The images of a folder, sorted by name; other files are listed in `left_out`."""
        everything = sorted(file for file in folder.iterdir() if not file.name.startswith(".") and not file.is_dir())
        files = [file for file in everything if is_image_file(file)]
        shown = printable(str(folder))
        if not files:
            hint = " Its subfolders are not read: name one of them." if any(map(Path.is_dir, folder.iterdir())) else ""
            raise SourceError(f"The folder {shown} holds no images ({', '.join(READ)}).{hint}")
        source = cls(files, shown, skip_bad=skip_bad)
        known = set(files)
        source.left_out = [f"{printable(file.name)}: not an image" for file in everything if file not in known]
        return source

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        bad: list[ImageError] = []
        for file in self._files:
            try:
                image = read_image(file)
            except ImageError as error:
                bad.append(error)
                line = f"{printable(file.name)}: {problem_of(error, file)}"
                if line not in self.left_out:  # it may be there if the folder is read a second time
                    self.left_out.append(line)
                continue
            yield Frame(index=index, time_s=float(index), image_bgr=image, source=printable(file.name))
            index += 1
        if bad and len(self._files) == 1 and not self._skip_bad:
            raise ImageError(f"{str(bad[0]).rstrip('.')}: repair or remove it.")
        if index == 0:
            raise SourceError(f"{self.name}: none of {len(self._files)} images could be read ({self.left_out[-1]}).")
        if bad and not self._skip_bad:
            count = counted(len(bad), "image was", "images were")
            raise IncompleteError(
                f"{str(bad[0]).rstrip('.')}: repair or remove it, or skip such files with --skip-bad. {count} not read; the "
                "results of the others are kept."
            )


class Drawn(Recorded):
    """The built-in scene of drawn faces, as if it were a video."""

    fps = 15.0

    def __init__(self, seconds: float = 8):
        super().__init__("builtin")
        self.seconds = seconds
        self.total = round(seconds * self.fps)

    def __iter__(self) -> Iterator[Frame]:
        return (frame for frame, _ in drawn.scene(self.seconds, self.fps))
