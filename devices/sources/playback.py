"""Plays sources: rotated, in a loop, in real time, and several at once."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace

import cv2

from edgefer.devices.sources.files import Recorded, Source
from edgefer.devices.sources.state import SourceState, SourceStatus
from edgefer.devices.sources.urls import HIDDEN
from edgefer.devices.threads import Prefetch
from edgefer.errors import EdgeferError, ImageError, IncompleteError, InputError, MissingDependency, SourceError
from edgefer.options import Rotation
from edgefer.records import Frame

TURNS = {
    Rotation.RIGHT: cv2.ROTATE_90_CLOCKWISE,
    Rotation.HALF: cv2.ROTATE_180,
    Rotation.LEFT: cv2.ROTATE_90_COUNTERCLOCKWISE,
}


@dataclass(frozen=True, kw_only=True)
class Playback:
    """How to play a source. loop: restart it when it ends. realtime: at its frame rate, dropping late frames. Both are
    for files; a camera has its own pace. rotate: degrees clockwise."""

    loop: bool = False
    realtime: bool = False
    rotate: Rotation = Rotation.NONE


UNREADABLE = (SourceError, ImageError, IncompleteError, MissingDependency)  # these end one source, not the others
MAX_DROPPED_S = 1.0  # after dropping for so long, a late frame is played after all


class PlayedSource:
    """A source played with a Playback.

    In a loop, frames that are missing do not end it: that is logged once, and `failed` has it. stop: ends a wait for the time
    of a frame.
    """

    def __init__(
        self,
        source: Source,
        playback: Playback,
        stop: threading.Event | None = None,
        log: Callable[[str], None] = lambda text: None,
    ):
        if source.live and (playback.loop or playback.realtime):
            raise InputError(f"--loop and --realtime are for files: {source.name} has its own pace.")
        self._source, self._playback, self._stop = source, playback, stop or threading.Event()
        self.name, self.live, self.stills, self.streams = source.name, source.live, source.stills, source.streams
        self._late, self._log = 0, log
        self._missing = ""  # in a loop: a sentence about missing frames

    @property
    def fps(self) -> float:
        return self._source.fps

    @property
    def skipped(self) -> int:
        return self._source.skipped + self._late

    @property
    def total(self) -> int | None:
        return None if self._playback.loop else self._source.total

    @property
    def left_out(self) -> list[str]:
        return self._source.left_out

    @property
    def unchecked(self) -> str:
        return self._source.unchecked

    @property
    def failed(self) -> list[str]:
        return [*self._source.failed, self._missing] if self._missing else self._source.failed

    @property
    def states(self) -> tuple[SourceState, ...]:
        if self._missing:
            return (SourceState(name=self.name, state=SourceStatus.INCOMPLETE, trouble=self._missing),)
        return self._source.states

    def __enter__(self) -> Source:
        self._source.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._source.__exit__(*exc)

    def __iter__(self) -> Iterator[Frame]:
        frames = self._again() if self._playback.loop else iter(self._source)
        if self._playback.realtime:
            frames = self._paced(frames)
        turn = TURNS.get(self._playback.rotate)
        for frame in frames:
            if turn is not None:
                frame = replace(frame, image_bgr=cv2.rotate(frame.image_bgr, turn))
            yield frame if frame.source else replace(frame, source=self.name)

    def _again(self) -> Iterator[Frame]:
        """The frames in a loop, with continuing times and numbers."""
        began_s, count = 0.0, 0
        while not self._stop.is_set():
            last_s, before = began_s, count
            try:
                for frame in self._source:
                    last_s = began_s + frame.time_s
                    yield replace(frame, index=count, time_s=last_s)
                    count += 1
            except IncompleteError as error:
                if count == before:
                    raise
                if not self._missing:
                    self._log(f"{error} It is played again.")
                self._missing = str(error)
            began_s = last_s + 1 / self._source.fps
            self._source.__exit__(None, None, None)
            self._source.__enter__()

    def _paced(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Each frame at its time; one that is more than a frame late is dropped, unless reading alone is slower than playing:
        every frame is late then, and dropping it gains nothing."""
        began, read = None, 0
        played = time.monotonic()
        for frame in frames:
            now, read = time.monotonic(), read + 1
            if began is None:
                began, played, read = now - frame.time_s, now, 0
            wait_s = began + frame.time_s - now
            catches_up = now - played < min(read / self.fps, MAX_DROPPED_S)
            if wait_s < -1 / self.fps and catches_up:
                self._late += 1
                continue
            if wait_s > 0 and self._stop.wait(wait_s):
                return
            yield frame
            played, read = time.monotonic(), 0


class MergedSources:
    """Several sources at once, their frames interleaved as they come. Each frame has its `source` and `stream`.

    One that cannot be opened or read to its end does not end the others: that is logged at once, and IncompleteError is
    raised after the last frame of all of them; SourceError if none gave a frame.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        stop: threading.Event | None = None,
        log: Callable[[str], None] = lambda text: None,
    ):
        names = _names(sources)
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"{twice[0]} is named twice: each source needs a unique name in the outputs.")
        self._named = self._sources = dict(enumerate(sources))  # by stream; later only those that could be opened
        self._stop, self._names, self._log = stop, names, log
        self.name, self.streams = ", ".join(names), len(sources)
        self._failures: dict[int, str] = {}  # sentences by stream
        self._going = set(self._named)  # streams that may still give frames
        self._open = ExitStack()

    @property
    def live(self) -> bool:
        return any(source.live for source in self._sources.values())

    @property
    def stills(self) -> bool:
        return all(source.stills for source in self._sources.values())

    @property
    def fps(self) -> float:
        return min(source.fps for source in self._sources.values())

    @property
    def skipped(self) -> int:
        return sum(source.skipped for source in self._sources.values())

    @property
    def total(self) -> int | None:
        totals = [source.total for source in self._sources.values()]
        return None if None in totals else sum(total for total in totals if total)

    @property
    def left_out(self) -> list[str]:
        return [line for source in self._sources.values() for line in source.left_out]

    @property
    def failed(self) -> list[str]:
        return [*self._failures.values(), *(text for source in self._sources.values() for text in source.failed)]

    @property
    def states(self) -> tuple[SourceState, ...]:
        return tuple(self._state(stream) for stream in self._named)

    def _state(self, stream: int) -> SourceState:
        name = self._names[stream]
        if trouble := self._failures.get(stream):
            return SourceState(name=name, state=SourceStatus.FAILED, trouble=trouble)
        if stream not in self._going:
            return SourceState(name=name, state=SourceStatus.ENDED)
        (state,) = self._named[stream].states
        return replace(state, name=name)

    @property
    def unchecked(self) -> str:
        return " ".join(source.unchecked for source in self._sources.values() if source.unchecked)

    def __enter__(self) -> Source:
        opened: dict[int, Source] = {}
        self._failures, self._going = {}, set(self._named)
        with ExitStack() as stack, ThreadPoolExecutor(len(self._named), "edgefer-open") as pool:
            # Cameras all at once: each that is dead takes some seconds.
            begun = {stream: pool.submit(source.__enter__) for stream, source in self._named.items() if source.live}
            stack.callback(_close_at_once, [self._named[stream] for stream in begun])
            for stream, source in self._named.items():
                try:
                    opened[stream] = begun[stream].result() if stream in begun else stack.enter_context(source)
                except UNREADABLE as error:
                    self._fail(stream, error)
            if not opened:
                raise SourceError(" ".join(self.failed))
            self._open = stack.pop_all()
        self._sources = opened
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def __iter__(self) -> Iterator[Frame]:
        frames = Prefetch(*map(self._to_the_end, self._sources), stop=self._stop)
        gave = False
        try:
            for frame in frames:
                gave = True
                yield frame
        finally:
            frames.close()
        if self.failed:
            raise (IncompleteError if gave else SourceError)(" ".join(self.failed))

    def _to_the_end(self, stream: int) -> Iterator[Frame]:
        try:
            yield from _numbered(self._sources[stream], stream, self._names[stream])
            self._going.discard(stream)
        except UNREADABLE as error:
            self._fail(stream, error)

    def _fail(self, stream: int, error: EdgeferError) -> None:
        """Log the error, unless no other source is left: it is raised then."""
        self._failures[stream] = str(error)
        self._going.discard(stream)
        if self._going:
            self._log(f"{error} The other sources are read.")


def _close_at_once(sources: Sequence[Source]) -> None:
    """Close live sources in threads: each that hangs in its driver is waited for."""
    threads: list[threading.Thread] = []
    for source in sources:
        thread = threading.Thread(target=source.__exit__, args=(None, None, None), daemon=True)
        try:
            thread.start()
            threads.append(thread)
        except RuntimeError:  # no further thread, or the interpreter is ending
            source.__exit__(None, None, None)
    for thread in threads:
        thread.join()


class Unreadable(Recorded):
    """A source that is named but cannot be read, for a reason known before it is opened."""

    def __init__(self, name: str, error: EdgeferError):
        super().__init__(name)
        self._error = error

    def __enter__(self):
        raise self._error

    def __iter__(self) -> Iterator[Frame]:
        raise self._error


def _names(sources: Sequence[Source]) -> list[str]:
    """Their names; equal ones with a hidden part, which may differ in just that, are numbered."""
    names = [source.name for source in sources]
    same = [HIDDEN in name and names.count(name) > 1 for name in names]
    return [f"{name} #{names[:at].count(name) + 1}" if same[at] else name for at, name in enumerate(names)]


def _numbered(source: Source, stream: int, name: str) -> Iterator[Frame]:
    for frame in source:
        own = frame.source if frame.source != source.name else ""
        yield replace(frame, stream=stream, source=own or name)
