"""Plays sources: rotated, in a loop, in real time, and several at once."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import cv2

from edgefer.devices.sources.files import Source
from edgefer.devices.sources.urls import HIDDEN
from edgefer.devices.threads import Prefetch
from edgefer.errors import IncompleteError, InputError
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


DEFAULT_PLAYBACK = Playback()
MAX_DROPPED_S = 1.0  # after dropping for so long, a late frame is played after all


class PlayedSource:
    """A source played with a Playback. stop: ends a wait for the time of a frame."""

    def __init__(self, source: Source, playback: Playback, stop: threading.Event | None = None):
        if source.live and (playback.loop or playback.realtime):
            raise InputError(f"--loop and --realtime are for files: {source.name} has its own pace.")
        self._source, self._playback, self._stop = source, playback, stop or threading.Event()
        self.name, self.live, self.stills, self.streams = source.name, source.live, source.stills, source.streams
        self._late = 0

    @property
    def ends(self) -> bool:
        return not self.live and not self._playback.loop

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
            last_s = began_s
            for frame in self._source:
                last_s = began_s + frame.time_s
                yield replace(frame, index=count, time_s=last_s)
                count += 1
            began_s = last_s + 1 / self._source.fps
            self._source.__exit__(None, None, None)
            self._source.__enter__()

    def _paced(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Each frame at its time; one that is more than a frame late is dropped. Not all of them: where reading alone is
        slower than playing, every frame is late."""
        began = played = None
        for frame in frames:
            now = time.monotonic()
            if began is None or played is None:
                began, played = now - frame.time_s, now
            wait_s = began + frame.time_s - now
            if wait_s < -1 / self.fps and now - played < MAX_DROPPED_S:
                self._late += 1
                continue
            if wait_s > 0 and self._stop.wait(wait_s):
                return
            yield frame
            played = time.monotonic()


class MergedSources:
    """Several sources at once, their frames interleaved as they come. Each frame has its `source` and `stream`.

    IncompleteError after the last frame of all of them; at once if one of them never ends.
    """

    def __init__(self, sources: Sequence[Source], stop: threading.Event | None = None):
        names = _names(sources)
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"{twice[0]} is named twice: each source needs a unique name in the outputs.")
        self._sources, self._stop, self._names = sources, stop, names
        self.name = ", ".join(names)
        self.live, self.streams = any(source.live for source in sources), len(sources)
        self.stills = all(source.stills for source in sources)
        self._open = ExitStack()

    @property
    def fps(self) -> float:
        return min(source.fps for source in self._sources)

    @property
    def skipped(self) -> int:
        return sum(source.skipped for source in self._sources)

    @property
    def total(self) -> int | None:
        totals = [source.total for source in self._sources]
        return None if None in totals else sum(total for total in totals if total)

    @property
    def left_out(self) -> list[str]:
        return [line for source in self._sources for line in source.left_out]

    @property
    def unchecked(self) -> str:
        return " ".join(source.unchecked for source in self._sources if source.unchecked)

    def __enter__(self) -> Source:
        with ExitStack() as stack:
            for source in self._sources:
                stack.enter_context(source)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def __iter__(self) -> Iterator[Frame]:
        damages: list[IncompleteError] = []
        ends = all(source.ends if isinstance(source, PlayedSource) else not source.live for source in self._sources)
        streams = [_numbered(source, stream, self._names[stream]) for stream, source in enumerate(self._sources)]
        frames = Prefetch(*(_to_the_end(one, damages) if ends else one for one in streams), stop=self._stop)
        try:
            yield from frames
        finally:
            frames.close()
        if damages:
            raise IncompleteError(" ".join(map(str, damages)))


def _names(sources: Sequence[Source]) -> list[str]:
    """Their names; equal ones with a hidden part, which may differ in just that, are numbered."""
    names = [source.name for source in sources]
    same = [HIDDEN in name and names.count(name) > 1 for name in names]
    return [f"{name} #{names[:at].count(name) + 1}" if same[at] else name for at, name in enumerate(names)]


def _numbered(source: Source, stream: int, name: str) -> Iterator[Frame]:
    for frame in source:
        own = frame.source if frame.source != source.name else ""
        yield replace(frame, stream=stream, source=own or name)


def _to_the_end(frames: Iterator[Frame], damages: list[IncompleteError]) -> Iterator[Frame]:
    """The frames; an IncompleteError is added to `damages`, since it would end the other sources too."""
    try:
        yield from frames
    except IncompleteError as error:
        damages.append(error)
