"""Counts a run's figures for other threads: the summary, the metrics, the page, MQTT's diagnostics, the benchmark."""

import statistics
import threading
import time
from array import array
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from edgefer.devices.board import health
from edgefer.devices.outputs.sink import Sink
from edgefer.devices.sources.state import SourceState
from edgefer.records import Frame

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
RECENT = 120  # laps of a stage for its median
RATE_S = 3.0  # the window of the frame rate
LOST_S = 2.0  # without a frame: the source counts as lost
FINE_S, FINE_BINS = 2, 150  # the history: five minutes in steps of two seconds,
COARSE_S, COARSE_BINS = 60, 1440  # and a day in steps of a minute


@dataclass(frozen=True, kw_only=True)
class SinkState:
    """A sink by name: dropped frames, number of failures, and why it cannot write now, "" if it can."""

    name: str
    dropped: int
    errors: int
    trouble: str


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A snapshot of the run. `state`: "starting", "running", "paused" or "lost" (no frame for LOST_S). None: unknown.

    stages_ms: the median of each stage's latest times. sources: in the order in which they were named. skipped: frames of
    a live source that came too fast.
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
    sources: tuple[SourceState, ...]
    sinks: tuple[SinkState, ...]

    def to_json(self) -> dict:
        return asdict(self)


@dataclass
class Stage:
    """Times of one stage: counts per bucket of BUCKETS_S (and above), their sum, the latest, and all of them."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    all_s: array = field(default_factory=lambda: array("f"))


@dataclass
class Bin:
    """A step of the history: its number, its frames, and its faces by label."""

    number: int
    frames: int = 0
    faces: Counter = field(default_factory=Counter)


class History:
    """Faces by label in steps of `step_s`, the latest `length` of them."""

    def __init__(self, step_s: int, length: int):
        self.step_s, self._length = step_s, length
        self._bins: deque[Bin] = deque(maxlen=length)

    def add(self, at_s: float, labels: Sequence[str]) -> None:
        """A frame with faces of these labels, `at_s` seconds after the start."""
        number = int(at_s / self.step_s)
        if not self._bins or self._bins[-1].number != number:
            self._bins.append(Bin(number))
        self._bins[-1].frames += 1
        self._bins[-1].faces.update(labels)

    def read(self, now_s: float) -> list[dict]:
        """The steps, oldest first: `ago_s`, and `faces`: the mean number of faces with each label."""
        current = int(now_s / self.step_s)
        return [
            {
                "ago_s": (current - one.number) * self.step_s,
                "faces": {label: n / one.frames for label, n in one.faces.items()},
            }
            for one in self._bins
            if current - one.number < self._length
        ]


class RunStats:
    """A run's counts and times. The loop calls `add` once per processed frame.

    frames, faces, frames_with_faces and labels count from the start. skipped: returns the number of skipped frames of the
    source. on_frame: called after each frame, for systemd's watchdog. keep_laps: keep every time, for percentiles.
    """

    def __init__(
        self,
        *,
        skipped: Callable[[], int] = lambda: 0,
        on_frame: Callable[[], None] = lambda: None,
        keep_laps: bool = False,
    ):
        self._skipped, self._on_frame, self._keep_laps = skipped, on_frame, keep_laps
        self.sinks: Sequence[Sink] = ()  # whose states are read
        self.sources: Callable[[], tuple[SourceState, ...]] = tuple
        self.paused: Callable[[], bool] = lambda: False
        self._lock = threading.Lock()
        self.frames = self.faces = self.frames_with_faces = 0
        self.labels: Counter[str] = Counter()
        self._stages: dict[str, Stage] = {}
        self._recent: deque[float] = deque()  # when the frames of the last RATE_S were done
        self._fine, self._coarse = History(FINE_S, FINE_BINS), History(COARSE_S, COARSE_BINS)
        self.start()

    def start(self) -> None:
        """Start the clock."""
        self._began = self._last = time.monotonic()
        self.seconds = 0.0
        self._done_s = array("d", [self._began])  # with keep_laps: and when each frame was done,
        self._faces_in = array("L")  # and its number of faces

    def stop(self) -> None:
        """Stop the clock: `seconds` is the run's wall-clock time."""
        self.seconds = time.monotonic() - self._began

    def add(self, frame: Frame, laps: dict[str, float]) -> None:
        """Count a processed frame. laps: seconds by stage."""
        now, labels = time.monotonic(), [face.label for face in frame.faces]
        with self._lock:
            self._last = now
            self._recent.append(now)
            while now - self._recent[0] >= RATE_S:
                self._recent.popleft()
            self.frames += 1
            self.faces += len(labels)
            self.frames_with_faces += bool(labels)
            self.labels.update(labels)
            for history in (self._fine, self._coarse):
                history.add(now - self._began, labels)
            for name, seconds in laps.items():
                if name not in self._stages:
                    self._stages[name] = Stage()
                stage = self._stages[name]
                stage.counts[bisect_left(BUCKETS_S, seconds)] += 1
                stage.sum_s += seconds
                stage.recent.append(seconds)
                if self._keep_laps:
                    stage.all_s.append(seconds)
            if self._keep_laps:
                self._done_s.append(now)
                self._faces_in.append(len(labels))
        self._on_frame()

    @property
    def fps(self) -> float:
        """Frames per second over the whole run, once it has ended."""
        return self.frames / self.seconds if self.seconds else 0.0

    def stage_ms(self) -> dict[str, float]:
        """Mean milliseconds per frame of each stage."""
        return {name: 1000 * stage.sum_s / max(1, self.frames) for name, stage in self._stages.items()}

    def laps(self, stages: Sequence[str], skip: int = 0) -> np.ndarray:
        """Seconds by frame and stage, float32 [frames, stages], without the first `skip` frames. Needs keep_laps."""
        return np.stack([np.array(self._stages[name].all_s, np.float32) for name in stages], axis=1)[skip:]

    def apart(self, skip: int = 0) -> np.ndarray:
        """Seconds from each frame's end to the next one's, float64 [frames]: less than the stages' sum if they overlap."""
        return np.diff(np.array(self._done_s))[skip:]

    def faces_per_frame(self, skip: int = 0) -> float:
        """The mean number of faces, without the first `skip` frames. Needs keep_laps."""
        return float(np.mean(np.array(self._faces_in)[skip:]))

    def read(self) -> Reading:
        """A snapshot of the run."""
        # Outside the lock, for which the loop waits: a sensor may take a second to answer.
        temperature_c, memory_mb = health.cpu_temperature_c(), health.memory_mb()
        with self._lock:
            now = time.monotonic()
            recent = sum(now - moment < RATE_S for moment in self._recent)
            age = now - self._last
            return Reading(
                state=self._state(age),
                age_s=age,
                uptime_s=now - self._began,
                fps=recent / min(RATE_S, max(now - self._began, 1e-3)),
                frames=self.frames,
                faces=self.faces,
                labels=dict(self.labels),
                stages_ms={name: 1000 * statistics.median(stage.recent) for name, stage in self._stages.items()},
                skipped=self._skipped(),
                temperature_c=temperature_c,
                memory_mb=memory_mb,
                sources=self.sources(),
                sinks=tuple(
                    SinkState(name=sink.name, dropped=sink.dropped, errors=sink.errors, trouble=sink.trouble)
                    for sink in self.sinks
                ),
            )

    def _state(self, age_s: float) -> str:
        if self.paused():
            return "paused"
        return "starting" if not self.frames else "lost" if age_s > LOST_S else "running"

    def histograms(self) -> dict[str, tuple[list[int], float]]:
        """Each stage's counts per bucket and sum in seconds, since the start."""
        with self._lock:
            return {name: (list(stage.counts), stage.sum_s) for name, stage in self._stages.items()}

    def history(self, minutes: float = 5) -> list[dict]:
        """The last minutes, oldest first: `ago_s`, and `faces`: the mean number of faces with each label.

        In steps of FINE_S up to five minutes, of COARSE_S beyond.
        """
        with self._lock:
            fine = 60 * minutes <= FINE_S * FINE_BINS
            bins = (self._fine if fine else self._coarse).read(time.monotonic() - self._began)
        return [one for one in bins if one["ago_s"] < 60 * minutes]
