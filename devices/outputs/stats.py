"""How a run is going, counted as it goes, for whoever asks from another thread: the metrics and the web page."""

import statistics
import threading
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from edgefer.devices.board import health
from edgefer.devices.outputs.sinks import Result, Sink

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
RECENT = 120  # laps of a stage that its median is taken of
RATE_S = 3.0  # the frame rate is that of so long a time
LOST_S = 2.0  # without a frame: the source is taken for lost
BIN_S, BINS = 2, 150  # the history: five minutes, in steps of two seconds


@dataclass(frozen=True, kw_only=True)
class SinkState:
    """A sink by name: frames it left out, how often it failed, and why it takes nothing now, "" when it does."""

    name: str
    dropped: int
    errors: int
    trouble: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The run at one moment. `state`: "starting", "running" or "lost" (no frame for LOST_S). None: the board does not tell.

    stages_ms: the median of each stage's latest times. skipped: frames of a live source that came too fast.
    """

    state: str
    age_s: float
    uptime_s: float
    fps: float
    frames: int
    faces: int
    labels: dict[str, int]
    stages_ms: dict[str, float]
    skipped: int
    temperature_c: float | None
    memory_mb: float | None
    sinks: tuple[SinkState, ...]

    def to_json(self) -> dict:
        return asdict(self)


@dataclass
class Histogram:
    """Times of one stage: how many fell into each of BUCKETS_S (the last: above all), their sum, the latest."""

    counts: list[int]
    sum_s: float
    recent: deque[float]


class Vitals(Sink):
    """Takes the loop's results, and its laps as `on_frame`; gives a Reading, the histograms and the history.

    sinks: the others, whose states are read. skipped: asked for the frames of the source that were passed over.
    """

    name = "vitals"

    def __init__(self, sinks: Sequence[Sink] = (), skipped: Callable[[], int] = lambda: 0):
        self._sinks, self._skipped = sinks, skipped
        self._lock = threading.Lock()
        self._began = self._last = time.monotonic()
        self._frames = self._faces = 0
        self._labels: Counter[str] = Counter()
        self._stages: dict[str, Histogram] = {}
        self._times: deque[float] = deque(maxlen=1000)
        self._bins: deque[tuple[int, int, Counter[str]]] = deque(maxlen=BINS)  # number, frames, faces by label

    def laps(self, laps: dict[str, float]) -> None:
        """A frame is done: seconds by stage."""
        with self._lock:
            for stage, seconds in laps.items():
                times = self._stages.setdefault(stage, Histogram([0] * (len(BUCKETS_S) + 1), 0.0, deque(maxlen=RECENT)))
                times.counts[bisect_left(BUCKETS_S, seconds)] += 1
                times.sum_s += seconds
                times.recent.append(seconds)

    def write(self, result: Result) -> None:
        now, labels = time.monotonic(), [face.prediction.label for face in result.faces]
        number = int((now - self._began) / BIN_S)
        with self._lock:
            self._last = now
            self._times.append(now)
            self._frames += 1
            self._faces += len(labels)
            self._labels.update(labels)
            frames, seen = 0, Counter[str]()
            if self._bins and self._bins[-1][0] == number:
                _, frames, seen = self._bins.pop()
            seen.update(labels)
            self._bins.append((number, frames + 1, seen))

    def read(self) -> Reading:
        """How the run goes now."""
        with self._lock:
            now = time.monotonic()
            recent = sum(now - moment < RATE_S for moment in self._times)
            age = now - self._last
            return Reading(
                state="starting" if not self._frames else "lost" if age > LOST_S else "running",
                age_s=age,
                uptime_s=now - self._began,
                fps=recent / min(RATE_S, max(now - self._began, 1e-3)),
                frames=self._frames,
                faces=self._faces,
                labels=dict(self._labels),
                stages_ms={stage: 1000 * statistics.median(times.recent) for stage, times in self._stages.items()},
                skipped=self._skipped(),
                temperature_c=health.cpu_temperature_c(),
                memory_mb=health.memory_mb(),
                sinks=tuple(
                    SinkState(name=sink.name, dropped=sink.dropped, errors=sink.errors, trouble=sink.trouble)
                    for sink in self._sinks
                ),
            )

    def histograms(self) -> dict[str, tuple[list[int], float]]:
        """For each stage the counts by bucket and the sum in seconds, since the start."""
        with self._lock:
            return {stage: (list(times.counts), times.sum_s) for stage, times in self._stages.items()}

    def history(self) -> list[dict]:
        """The last minutes, oldest first: `ago_s`, and `faces`: the mean number of faces with each label."""
        with self._lock:
            current = int((time.monotonic() - self._began) / BIN_S)
            return [
                {"ago_s": (current - number) * BIN_S, "faces": {label: n / frames for label, n in seen.items()}}
                for number, frames, seen in self._bins
                if current - number < BINS
            ]


def in_url(host: str) -> str:
    """A host as it stands in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
