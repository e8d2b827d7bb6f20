"""Reads a live camera or stream: only the newest frame, with a reconnection when it stalls or is lost.

A separate thread reads each connection, so that a slow loop never falls behind and a hung driver never hangs the
program: a thread that delivers nothing for a while is abandoned, and another one reconnects.
"""

import contextlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgefer.devices.mailbox import Mailbox
from edgefer.devices.sources.state import SourceState, SourceStatus
from edgefer.errors import EdgeferError, IncompleteError, MissingDependency, SourceError
from edgefer.records import Frame
from edgefer.text import counted

if TYPE_CHECKING:
    from edgefer.devices.sources.cameras import LiveOptions

PING_S = 5.0  # a longer wait is reported as a new attempt: systemd's watchdog allows 30 s
QUEUE_S = 5.0  # for each other URL that may be opened before this one
MAX_STALL_S = 30.0  # for a stream that is known to be slow
FEW = 2  # images of a connection before it stalls: the stream may be a slow one
QUICK = 100  # images in a row that are not slow
MAX_LOGGED = 5  # interruptions that are logged one by one in LOGGED_S
LOGGED_S = 600.0
LONG_S = 60.0  # an interruption that is logged in any case
BEHIND_S = 5.0  # how far behind a stream may be,
CATCH_UP_S = 3.0  # and for how long it may be further, before that is logged
MAX_HUNG = 10  # threads that hang in a driver, each with its memory; a service with this source alone is then restarted


class Capture(Protocol):
    """One connection to a camera. `read` waits for the next image, uint8 BGR [h, w, 3]; None or an exception: disconnected.

    behind_s: how far its last image was behind, as Delay measures it; 0 if unknown."""

    @property
    def fps(self) -> float: ...
    @property
    def behind_s(self) -> float: ...

    def read(self) -> np.ndarray | None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class _Taken:
    """An image, uint8 BGR [h, w, 3]. number: counts from 0 in each connection. time_s: time.monotonic of its arrival. behind_s:
    see Capture."""

    number: int
    image_bgr: np.ndarray
    time_s: float
    behind_s: float


class Live:
    """A live source (see edgefer.devices.sources.files.Source) for anything that `connect` connects to.

    connect: makes a Capture, or raises SourceError or MissingDependency with one sentence.
    title: its name in messages, such as "Camera 0". label: its name in the outputs, such as "0".
    advice: what to check if it gives no images, for the end of a message.
    options: stop ends the frames within 0.1 s once it is set; log receives a message when the images stop and one when
    they are back; trying is called at each attempt to connect, and during long ones; wait: if the camera is not connected
    when the source is opened, wait for it.
    open_s, stall_s: time limits for the first image and any later one; the latter grows to MAX_STALL_S for a stream that
    proves to be slower. retry_s: the first and the longest pause
    between two attempts to reconnect; it doubles in between.
    """

    live = True

    def __init__(
        self,
        connect: Callable[[], Capture],
        title: str,
        options: "LiveOptions",
        *,
        label: str = "",
        advice: str = "is it plugged in, and not in use by another program?",
        open_s: float = 15,
        stall_s: float = 5,
        retry_s: tuple[float, float] = (0.5, 10),
    ):
        self.name, self._title, self.fps, self.skipped = label or title, title, 30.0, 0
        self.total: int | None = None
        self.stills, self.streams = False, 1
        self.left_out: list[str] = []
        self.failed: list[str] = []
        self.unchecked = ""
        self._trouble = ""  # a sentence while it gives no images
        self._advice = advice
        self._connect, self._stop, self._log = connect, options.stop, options.log
        self._trying, self._wait = options.trying, options.wait
        self._open_s, self._stall_s, self._retry_s = open_s + QUEUE_S * options.queue, stall_s, retry_s
        self._patience_s = stall_s  # the current limit
        self._interruptions, self._counted_s = 0, -math.inf  # in this LOGGED_S, and when it began
        self._behind_since_s, self._behind_logged_s = math.inf, -math.inf
        self._reader: _Reader | None = None
        self._hung: list[_Reader] = []
        self._closed = False

    @property
    def states(self) -> tuple[SourceState, ...]:
        status = SourceStatus.LOST if self._trouble else SourceStatus.OK
        return (SourceState(name=self.name, state=status, trouble=self._trouble),)

    def __enter__(self) -> "Live":
        self._reader = _Reader(self._connect)
        if not self._reader.images.wait(self._open_s, self._ended) and not self._ended():
            self._reader.images.leave()
            why = self._reader.why(self._title) or f" within {self._open_s:.0f} s"
            if self._wait and not isinstance(self._reader.images.error, MissingDependency):
                self._trouble = f"{self._title} gives no images{why}: waiting for it."
                self._log(self._trouble)
            elif isinstance(self._reader.images.error, EdgeferError):
                raise self._reader.images.error
            else:
                raise SourceError(f"{self._title} gives no images{why}: {self._advice}")
        self.fps = self._reader.fps
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed = True
        if self._reader is not None:
            self._reader.images.leave()
            # A camera is free again once its reader has ended; one that hangs in its driver is abandoned.
            self._reader.join(0.5)

    def __iter__(self) -> Iterator[Frame]:
        assert self._reader is not None, "a source is opened by `with`"
        began, index, expected = time.monotonic(), 0, 0
        missed = self._reader.images.left  # it was not connected, which has been logged
        last_s, quick = began, 0
        while not self._ended():
            if missed or not self._waited(self._reader, self._patience_s):
                if expected <= FEW and self._reader.is_alive():  # it may be a slow stream
                    self._patience_s = min(2 * self._patience_s, max(MAX_STALL_S, self._stall_s))
                self._reconnect(logged=missed)
                expected, missed = 0, False
                continue
            taken = self._reader.images.take()
            self.skipped += taken.number - expected
            expected = taken.number + 1
            quick = quick + 1 if taken.time_s - last_s < self._stall_s else 0
            last_s = taken.time_s
            self._report_behind(taken)
            if quick == QUICK:
                self._patience_s = self._stall_s
            time_s = max(0.0, taken.time_s - began)
            yield Frame(index=index, time_s=time_s, image_bgr=taken.image_bgr, source=self.name)
            index += 1

    def _ended(self) -> bool:
        return self._closed or self._stop.is_set()

    def _waited(self, reader: "_Reader", limit_s: float) -> bool:
        """Whether there is an image in time."""
        until = time.monotonic() + limit_s
        while limit_s > PING_S:
            began = time.monotonic()
            if reader.images.wait(PING_S, self._ended):
                return True
            if time.monotonic() - began < PING_S:  # it has ended
                return False
            self._trying()
            limit_s = until - time.monotonic()
        return reader.images.wait(max(0.0, limit_s), self._ended)

    def _reconnect(self, logged: bool) -> None:
        """Retry until a new reader has an image, or until stop is set. IncompleteError once MAX_HUNG of them hang."""
        assert self._reader is not None
        pause, longest = self._retry_s
        shown, long = True, logged
        if not self._ended() and not logged:
            self._trouble = (
                f"{self._title} stopped giving images{self._reader.why(self._title)}: retrying until it is back."
            )
            if shown := self._counts_few():
                self._log(self._trouble)
        lost = time.monotonic()
        while not self._ended():
            self._trying()
            self._reader.images.leave()
            if self._stop.wait(pause):
                return
            pause = min(2 * pause, longest)
            self._trying()
            if reason := self._reader.why(self._title):
                self._trouble = f"{self._title} gives no images{reason}: retrying until it is back."
            if not long and time.monotonic() - lost > LONG_S:
                long = shown = True
                self._log(self._trouble)
            self._hung = [reader for reader in (*self._hung, self._reader) if reader.is_alive()]
            if len(self._hung) >= MAX_HUNG:
                raise IncompleteError(
                    f"{self._title} hangs: {MAX_HUNG} connections did not end. Replug it, or restart this computer."
                )
            self._reader = _Reader(self._connect)
            if self._waited(self._reader, self._open_s):
                self.fps = self._reader.fps
                self._trouble = ""
                if shown:
                    self._log(f"{self._title} is back after {time.monotonic() - lost:.0f} s.")
                return

    def _report_behind(self, taken: _Taken) -> None:
        """Log, once in LOGGED_S, that images are decoded more slowly than they come. The network may also have paused."""
        if taken.behind_s < BEHIND_S:
            self._behind_since_s = math.inf
            return
        self._behind_since_s = min(self._behind_since_s, taken.time_s)
        lasts = taken.time_s - self._behind_since_s >= CATCH_UP_S
        if lasts and taken.time_s - self._behind_logged_s >= LOGGED_S:
            self._behind_logged_s = taken.time_s
            self._log(
                f"{self._title} is {taken.behind_s:.0f} s behind: by its time stamps, its images come faster than they are "
                "decoded here. Let it send a smaller picture or fewer frames, such as a camera's second stream."
            )

    def _counts_few(self) -> bool:
        """Count an interruption; False where it is not to be logged: a source that comes and goes all day would fill the log."""
        now = time.monotonic()
        if now - self._counted_s >= LOGGED_S:
            if (unlogged := self._interruptions - MAX_LOGGED) > 0:
                self._log(f"{self._title} was interrupted {counted(unlogged, 'more time', 'more times')} until now.")
            self._interruptions, self._counted_s = 0, now
        self._interruptions += 1
        if self._interruptions == MAX_LOGGED + 1:
            self._log(
                f"{self._title} is interrupted again and again: for {LOGGED_S / 60:.0f} minutes, only interruptions of more "
                f"than {LONG_S:.0f} s are logged."
            )
        return self._interruptions <= MAX_LOGGED


class _Reader(threading.Thread):
    """Connects, then reads until it is abandoned or the source ends. Only the newest image is kept."""

    def __init__(self, connect: Callable[[], Capture]):
        super().__init__(name="edgefer-camera", daemon=True)  # a hung driver must not keep the program from ending
        self._connect, self.fps = connect, 30.0
        self.images: Mailbox[_Taken] = Mailbox()
        self.start()

    def run(self) -> None:
        try:
            capture = self._connect()
            with contextlib.closing(capture):
                if 0 < capture.fps <= 1000:
                    self.fps = capture.fps
                for number in itertools.count():
                    if self.images.left or (image := capture.read()) is None:
                        break
                    self.images.push(
                        _Taken(number=number, image_bgr=image, time_s=time.monotonic(), behind_s=capture.behind_s)
                    )
            self.images.end()
        except Exception as error:  # no driver's exception may end the loop: the camera counts as lost
            self.images.end(error)

    def why(self, title: str) -> str:
        """The error that ended it, in parentheses, without the title with which the message begins; or ""."""
        if (error := self.images.error) is None:
            return ""
        text = " ".join(str(error).split()).removeprefix(title).strip().rstrip(".")
        return f" ({text or type(error).__name__})"
