"""Measures the loop on this board: each stage's median, p95 and p99, with temperature, throttling and memory."""

import os
import platform
import tempfile
import time
from collections.abc import Generator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from edgefer import __version__, drawn
from edgefer.devices import loop
from edgefer.devices.board import health
from edgefer.devices.board.boards import board_model, cpuinfo, os_release, this_board
from edgefer.devices.faces.detectors import Detector
from edgefer.devices.outputs.lines import JsonLines
from edgefer.devices.outputs.stats import RunStats
from edgefer.devices.reader import Reader
from edgefer.devices.sources.cameras import BUILT_IN, is_camera, open_source
from edgefer.devices.sources.files import Source
from edgefer.devices.sources.playback import Playback, PlayedSource
from edgefer.devices.sources.urls import shown_address
from edgefer.errors import EdgeferError, IncompleteError, InputError, SourceError
from edgefer.records import Frame
from edgefer.runtimes import runtime_version
from edgefer.text import counted

WARM_UP_FRAMES = 30  # the first frames fill caches and let an idle CPU raise its clock
ALL_STAGES = "all stages"


@dataclass(frozen=True, kw_only=True)
class Times:
    """Milliseconds of one stage over all measured frames. None: too few frames for this percentile, 20 or 100."""

    median_ms: float
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The measurements and the system. None: not reported by the board. Memory in MB (10^6 bytes).

    core_limit: processor time that a cgroup, such as a container's, allows, in cores; None if unlimited.
    detector_reason: which detector and why, "" for a cascade. stages: a frame's time in each, and their sum, without the
    waits between threads. fps: the throughput, with several cores working in parallel.
    """

    board: str
    cores: int
    core_limit: float | None
    system: str
    python: str
    edgefer: str
    opencv: str
    network: str
    runtime: str
    threads: int
    detector: str
    detector_reason: str
    source: str
    frame: str
    seconds: float
    frames: int
    faces_per_frame: float
    fps: float
    fps_first_tenth: float
    fps_last_tenth: float
    stages: dict[str, Times]
    temperature_start_c: float | None
    temperature_end_c: float | None
    throttling_start: str | None
    throttling_end: str | None
    peak_memory_mb: float | None

    def to_json(self) -> dict:
        return asdict(self)


def run_bench(
    reader: Reader,
    *,
    where: str = BUILT_IN,
    minutes: float = 0.5,
    warm_up: int = WARM_UP_FRAMES,
) -> Benchmark:
    """Run the loop on a file repeatedly for `minutes`; results are written as JSON lines and discarded.

    where: a video, image or folder; "builtin" is the drawn scene as a video file, to measure decoding a video and not
    drawing.
    Raises InputError for a live source, whose speed is the camera's, and SourceError for one that cannot be read.
    """
    if is_camera(where) or open_source(where).live:
        raise InputError(
            f"bench cannot measure {shown_address(where)}, which sets its own pace: name a video, a folder or builtin."
        )
    stats = RunStats(keep_laps=True)
    temperature, held = health.cpu_temperature_c(), health.throttling()
    seen = _measure(reader, where, 60 * minutes, warm_up, stats)
    if stats.frames <= warm_up:
        raise EdgeferError(f"Stopped within the {warm_up} frames of the warm-up: nothing was measured.")
    laps, apart = stats.laps(loop.STAGES, skip=warm_up), stats.apart(skip=warm_up)
    tenth = max(1, len(apart) // 10)
    classifier, detector = reader.classifier, reader.detector
    network = classifier.network
    sizes = ", ".join(f"{width}x{height}" for width, height in sorted(seen))
    return Benchmark(
        board=board_model() or cpuinfo("model name") or platform.machine(),
        cores=health.cores(),
        core_limit=health.core_limit(),
        system=f"{os_release().get('PRETTY_NAME', platform.system())}, {platform.machine()}",
        python=platform.python_version(),
        edgefer=__version__,
        opencv=cv2.__version__,
        network=f"{classifier.card.name}, {'int8' if network.quantized else 'float32'}",
        runtime=f"{network.runtime} {runtime_version(network.runtime)}",
        threads=reader.options.threads or this_board().threads,
        detector=_described(detector),
        detector_reason=reader.reasons.get(reader.options.detector, ""),
        source=shown_address(where),
        frame=sizes,
        seconds=float(apart.sum()),
        frames=len(apart),
        faces_per_frame=stats.faces_per_frame(skip=warm_up),
        fps=len(apart) / float(apart.sum()),
        fps_first_tenth=tenth / float(apart[:tenth].sum()),
        fps_last_tenth=tenth / float(apart[-tenth:].sum()),
        stages={stage: _times(laps[:, column]) for column, stage in enumerate(loop.STAGES)}
        | {ALL_STAGES: _times(laps.sum(axis=1))},
        temperature_start_c=temperature,
        temperature_end_c=health.cpu_temperature_c(),
        throttling_start=_words(held),
        throttling_end=_words(health.throttling()),
        peak_memory_mb=health.peak_memory_mb(),
    )


def _measure(reader: Reader, where: str, seconds: float, warm_up: int, stats: RunStats) -> set[tuple[int, int]]:
    """Run the loop for `seconds` after the warm-up; returns the sizes (width, height) of the frames."""
    seen: set[tuple[int, int]] = set()
    with tempfile.TemporaryDirectory(prefix="edgefer-bench-") as folder:
        file = str(drawn_video(Path(folder) / "faces.avi")) if where == BUILT_IN else where
        frames = _repeated(open_source(file), seconds, warm_up, seen)
        try:
            with open(os.devnull, "w") as nowhere:
                loop.run(frames, reader.session(), [JsonLines(nowhere)], stats=stats)
        except IncompleteError:
            raise SourceError(
                f"bench repeats its source, but {shown_address(where)} is damaged, truncated or holds a damaged image: "
                "name another one, or repair it."
            ) from None
        finally:
            with suppress(ValueError):  # if stopped early, the reading thread may still be using it
                frames.close()
    return seen


def to_markdown(bench: Benchmark) -> str:
    """The benchmark as Markdown tables, for a terminal or an issue."""

    def degrees(value: float | None) -> str:
        return "unknown" if value is None else f"{value:.0f} °C"

    def ms(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    limit = "" if bench.core_limit is None else f", limited to {bench.core_limit:g} by a cgroup"
    stages = [
        "| stage | median ms | p95 ms | p99 ms |",
        "|---|--:|--:|--:|",
        *(f"| {name} | {ms(t.median_ms)} | {ms(t.p95_ms)} | {ms(t.p99_ms)} |" for name, t in bench.stages.items()),
    ]
    facts = {
        "frames/s": f"{bench.fps:.1f} (first tenth {bench.fps_first_tenth:.1f}, last tenth {bench.fps_last_tenth:.1f})",
        "measured": f"{bench.frames} frames in {bench.seconds:.0f} s, of {bench.source} ({bench.frame}), {bench.faces_per_frame:.1f} faces per frame",
        "board": f"{bench.board}, {counted(bench.cores, 'core')}{limit}",
        "network": f"{bench.network} on {bench.runtime}, {counted(bench.threads, 'thread')}",
        "detector": bench.detector,
        "temperature": f"{degrees(bench.temperature_start_c)} at the start, {degrees(bench.temperature_end_c)} at the end",
        "throttling": f"{bench.throttling_start or 'unknown'} at the start, {bench.throttling_end or 'unknown'} at the end",
        "peak memory": "unknown" if bench.peak_memory_mb is None else f"{bench.peak_memory_mb:.0f} MB",
        "versions": f"edgefer {bench.edgefer}, Python {bench.python}, OpenCV {bench.opencv}, {bench.system}",
    }
    rows = [f"| {name} | {' '.join(fact.split()).replace('|', '&#124;')} |" for name, fact in facts.items()]
    return "\n".join([*stages, "", "| | |", "|---|---|", *rows])


def drawn_video(file: Path, seconds: float = 2) -> Path:
    """Write the built-in scene of drawn faces as Motion JPEG, the format of most USB cameras; returns `file`."""
    size, fps = (480, 360), 15
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), fps, size)
    for frame, _ in drawn.scene(seconds, fps, size):
        writer.write(frame.image_bgr)
    writer.release()
    if _count(file) != round(seconds * fps):  # OpenCV does not report a write that failed
        raise SourceError(
            f"Cannot write a video to {file.parent}: make room on its disk, or set TMPDIR to another folder."
        )
    return file


def _count(video: Path) -> int:
    """The number of its frames that can be read."""
    try:
        with open_source(str(video)) as frames:
            return sum(1 for _ in frames)
    except EdgeferError:
        return 0


def _repeated(source: Source, seconds: float, warm_up: int, seen: set[tuple[int, int]]) -> Generator[Frame, None, None]:
    """A source's frames, repeated when it ends, for `seconds` after the warm-up."""
    began = 0.0
    with PlayedSource(source, Playback(loop=True)) as frames:
        for frame in frames:
            if frames.failed:  # a loop goes on without what is missing, but its figures would not be those of the file
                raise IncompleteError(frames.failed[0])
            if frame.index == warm_up:
                began = time.monotonic()
            elif frame.index > warm_up and time.monotonic() - began >= seconds:
                return
            seen.add((frame.image_bgr.shape[1], frame.image_bgr.shape[0]))
            yield frame


def _described(detector: Detector) -> str:
    """A detector's name with its networks, and the width to which a cascade downscales frames."""
    width = getattr(getattr(detector, "inner", detector), "width", None)
    return f"{detector.described}, {width} px" if width else detector.described


def _times(seconds: np.ndarray) -> Times:
    median, p95, p99 = (1000 * float(value) for value in np.percentile(seconds, (50, 95, 99)))
    return Times(
        median_ms=median, p95_ms=p95 if len(seconds) >= 20 else None, p99_ms=p99 if len(seconds) >= 100 else None
    )


def _words(held: health.Throttling | None) -> str | None:
    return None if held is None else str(held)
