"""The loop on the device: frame, faces, pixels, answers, sinks; and the time of each."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from edgefer.devices.board import health
from edgefer.devices.outputs.sink import Sink
from edgefer.devices.outputs.stats import RunStats
from edgefer.devices.session import Detected, Session
from edgefer.devices.threads import HANG_S, Prefetch
from edgefer.errors import IncompleteError, RegionError
from edgefer.records import Frame
from edgefer.text import counted

STAGES = ("capture", "detect", "crop", "classify", "output")
FRAMES_AHEAD = 2  # of a file, to be read ahead


class Stopwatch:
    """The seconds of each stage of one frame. Several threads use it, one at a time."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.start()

    def start(self) -> None:
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage] = now - self._last
        self._last = now


def run(
    source: Iterable[Frame],
    session: Session,
    sinks: list[Sink],
    *,
    stats: RunStats | None = None,
    frames: int | None = None,
    overlap: bool | None = None,
    stop: threading.Event | None = None,
    limit_s: float | None = HANG_S,
) -> RunStats:
    """Read every face of every frame until the source ends, `frames` are done, a window is closed, `stop` is set, or Ctrl-C.

    overlap: capture the next frames and detect their faces in other threads while this one's faces are classified. The
    results and their order are the same. By default on with more than one core.
    limit_s: time limit for a frame of a file; None for one that is played in real time, whose pauses may be longer.
    stats: counts each frame and its seconds by stage. The sinks are always closed, so that files are complete.
    """
    if overlap is None:
        overlap = health.cores() > 1
    stats = stats or RunStats()
    stats.start()
    with ExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)
        try:
            for detected, watch in _detected(source, session, overlap, stop, limit_s, stack):
                watch.start()
                frame = session.read(detected, watch.lap)
                for sink in sinks:
                    sink.write(frame)
                watch.lap("output")
                if not overlap:
                    session.rest(frame, sum(watch.laps[stage] for stage in ("crop", "classify", "output")))
                stats.add(frame, watch.laps)
                if _ended(sinks) or stats.frames == frames or (stop is not None and stop.is_set()):
                    break
        except KeyboardInterrupt:
            pass
        finally:
            stats.stop()
    return stats


def _detected(
    source: Iterable[Frame],
    session: Session,
    overlap: bool,
    stop: threading.Event | None,
    limit_s: float | None,
    stack: ExitStack,
) -> Iterable[tuple[Detected, Stopwatch]]:
    """Each frame with its faces, in separate threads if `overlap`; `stack` closes them."""
    captured: Iterable = captured_from(source)
    if overlap and not getattr(source, "live", False):  # a live source only delivers the newest frame
        captured = Prefetch(captured, room=FRAMES_AHEAD, limit_s=limit_s, name="The source", stop=stop)
        stack.callback(captured.close)
    located: Iterable = located_in(captured, session)
    if overlap:
        located = Prefetch(located, stop=stop)
        stack.callback(located.close)
    return located


def captured_from(source: Iterable[Frame]) -> Iterator[tuple[Frame, Stopwatch]]:
    """Each frame of a source with its watch, on which the capture is the first lap."""
    watch = Stopwatch()
    for frame in source:
        watch.lap("capture")
        yield frame, watch
        watch = Stopwatch()


def located_in(captured: Iterable[tuple[Frame, Stopwatch]], session: Session) -> Iterator[tuple[Detected, Stopwatch]]:
    """Each frame with its faces. RegionError for one outside of --roi; of images, the others are searched, and
    IncompleteError is raised after the last one."""
    refused: dict[tuple[int, str], RegionError] = {}  # by image: in a loop, each comes again
    searched = False
    for frame, watch in captured:
        watch.start()
        try:
            detected = session.detect(frame)
        except RegionError as error:
            if not session.stills:
                raise
            refused.setdefault((frame.stream, frame.source), error)
            continue
        searched = True
        watch.lap("detect")
        yield detected, watch
    first = next(iter(refused.values()), None)
    if first is not None and not searched:
        raise first
    if first is not None:
        count = counted(len(refused), "image was", "images were")
        raise IncompleteError(f"{first} {count} not searched; the results of the others are kept.")


def _ended(sinks: list[Sink]) -> bool:
    """Whether the user closed the window, or no sink is left."""
    closed = [sink for sink in sinks if sink.closed]
    return any(sink.ends_run for sink in closed) or 0 < len(closed) == len(sinks)
