"""Keeps a live camera or stream going: only the newest frame, and a new connection when the old one stalls or is gone.

A thread of its own reads each connection, so that a slow loop never falls behind and a hung driver never hangs the
program: a reader that gives nothing for a while is left behind, and another one tries again.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgefer.devices.threads import TICK_S
from edgefer.errors import EdgeferError, MissingDependency, SourceError
from edgefer.records import Frame

if TYPE_CHECKING:
    from edgefer.devices.sources.cameras import LiveOptions

MAX_HUNG = 10  # threads that a driver holds, each with its memory; a service is then started again


class Capture(Protocol):
    """One connection to a camera. `read` waits for the next picture, uint8 BGR [h, w, 3]; None or an exception: gone."""

    fps: float

    def read(self) -> np.ndarray | None: ...
    def close(self) -> None: ...


class Live:
    """A live source (see edgefer.devices.sources.cameras.Source) over anything that `connect` connects to.

    connect: makes a Capture, or raises SourceError or MissingDependency with one sentence.
    title: how a sentence calls it, such as "Camera 0". label: its name in the outputs, such as "0".
    options: stop ends the frames within TICK_S once it is set; log takes a line when the images stop and one when they are
    back; trying is called at each attempt to connect; with wait a camera that is not there when the source is opened is
    waited for and not refused.
    open_s, stall_s: how long the first picture and any later one may take. retry_s: the first and the longest pause
    between two attempts to connect again; it doubles in between.
    """

    live = True

    def __init__(
        self,
        connect: Callable[[], Capture],
        title: str,
        options: "LiveOptions",
        *,
        label: str = "",
        open_s: float = 15,
        stall_s: float = 5,
        retry_s: tuple[float, float] = (0.5, 10),
    ):
        self.name, self._title, self.fps, self.skipped = label or title, title, 30.0, 0
        self.total: int | None = None
        self.stills, self.streams = False, 1
        self.left_out: list[str] = []
        self.unchecked = ""
        self._connect, self._stop, self._say = connect, options.stop, options.log
        self._trying, self._wait = options.trying, options.wait
        self._open_s, self._stall_s, self._retry_s = open_s, stall_s, retry_s
        self._reader: _Reader | None = None
        self._hung: list[_Reader] = []
        self._closed = False

    def __enter__(self) -> "Live":
        self._reader = _Reader(self._connect)
        if not self._reader.wait(0, self._open_s, self._ended) and not self._ended():
            self._reader.leave()
            why = self._reader.why() or f" within {self._open_s:.0f} s"
            if self._wait and not isinstance(self._reader.error, MissingDependency):
                self._say(f"{self._title} gives no picture{why}: waiting for it.")
            elif isinstance(self._reader.error, EdgeferError):
                raise self._reader.error
            else:
                raise SourceError(f"{self._title} gives no picture{why}: is it plugged in, and used by nothing else?")
        self.fps = self._reader.fps
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed = True
        if self._reader is not None:
            self._reader.leave()
            # A camera is free again once its reader has ended; one that hangs in its driver is not waited for.
            self._reader.join(0.5)

    def __iter__(self) -> Iterator[Frame]:
        assert self._reader is not None, "a source is opened by `with`"
        began, index, seen = time.monotonic(), 0, 0
        missed = self._reader.left  # it was not there, which has been said
        while not self._ended():
            if missed or not self._reader.wait(seen, self._stall_s, self._ended):
                self._reconnect(said=missed)
                seen, missed = 0, False
                continue
            before, (seen, image, taken) = seen, self._reader.newest()
            self.skipped += seen - before - 1
            yield Frame(index=index, time_s=max(0.0, taken - began), image_bgr=image, source=self.name)
            index += 1

    def _ended(self) -> bool:
        return self._closed or self._stop.is_set()

    def _reconnect(self, said: bool) -> None:
        """Try until a new reader has a picture, or until the stop is set. EdgeferError once MAX_HUNG of them hang."""
        assert self._reader is not None
        pause, longest = self._retry_s
        if not self._ended() and not said:
            self._say(f"{self._title} stopped giving pictures{self._reader.why()}: trying again until it is back.")
        lost = time.monotonic()
        while not self._ended():
            self._trying()
            self._reader.leave()
            if self._stop.wait(pause):
                return
            pause = min(2 * pause, longest)
            self._trying()
            self._hung = [reader for reader in (*self._hung, self._reader) if reader.is_alive()]
            if len(self._hung) >= MAX_HUNG:
                raise EdgeferError(
                    f"{self._title} hangs: {MAX_HUNG} connections did not end. Replug it, or restart this computer."
                )
            self._reader = _Reader(self._connect)
            if self._reader.wait(0, self._open_s, self._ended):
                self.fps = self._reader.fps
                self._say(f"{self._title} is back after {time.monotonic() - lost:.0f} s.")
                return


class _Reader(threading.Thread):
    """Connects, then reads until it is left or there is nothing more. Only the newest picture is kept."""

    def __init__(self, connect: Callable[[], Capture]):
        super().__init__(name="edgefer-camera", daemon=True)  # a hung driver must not keep the program from ending
        self._connect = connect
        self._left, self._news = threading.Event(), threading.Condition()
        self._image: np.ndarray | None = None
        self._number, self._taken, self._ended = 0, 0.0, False
        self.error: Exception | None = None
        self.fps = 30.0
        self.start()

    def run(self) -> None:
        try:
            capture = self._connect()
            with contextlib.closing(capture):
                if 0 < capture.fps <= 1000:
                    self.fps = capture.fps
                while not self._left.is_set() and (image := capture.read()) is not None:
                    with self._news:
                        self._image, self._taken = image, time.monotonic()
                        self._number += 1
                        self._news.notify_all()
        except Exception as error:  # whatever a driver raises, the camera is gone; the loop must outlive it
            self.error = error
        with self._news:
            self._ended = True
            self._news.notify_all()

    def wait(self, seen: int, timeout_s: float, ended: Callable[[], bool]) -> bool:
        """Wait for a picture after number `seen`; False when there are no more, it took too long, or `ended`."""
        deadline = time.monotonic() + timeout_s
        with self._news:
            while self._number <= seen:
                if self._ended or ended() or (left := deadline - time.monotonic()) <= 0:
                    return False
                self._news.wait(min(TICK_S, left))
        return True

    def newest(self) -> tuple[int, np.ndarray, float]:
        """The newest picture's number, the picture, and when it came (time.monotonic)."""
        with self._news:
            assert self._image is not None
            return self._number, self._image, self._taken

    def leave(self) -> None:
        """Let go of the connection as soon as its current read ends."""
        self._left.set()

    @property
    def left(self) -> bool:
        return self._left.is_set()

    def why(self) -> str:
        """The error that ended it, in brackets, or nothing."""
        if self.error is None:
            return ""
        return f" ({' '.join(str(self.error).split()).rstrip('.') or type(self.error).__name__})"
