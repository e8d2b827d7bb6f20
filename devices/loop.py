"""The loop on the device: frame, faces, pixels, answers, sinks; and how long each took."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np

from edgefer.devices.faces.detectors import Detector
from edgefer.devices.faces.quality import quality_fault
from edgefer.devices.faces.smoothing import LabelSmoother
from edgefer.devices.faces.tracking import Tracker
from edgefer.devices.outputs.sinks import Sink, Window
from edgefer.devices.threads import HANG_S, Ahead
from edgefer.interpreter import Classifier
from edgefer.preprocess import face_pixels
from edgefer.records import Detection, Face, Frame

STAGES = ("capture", "detect", "crop", "classify", "output")
AHEAD = 2  # frames of a file that may be read before they are needed

Laps = dict[str, float]  # seconds by stage


@dataclass
class Summary:
    """What a run saw: frames, faces, frames with a face, wall-clock seconds, and seconds of work in each stage, which
    come to more than the wall clock's where stages overlap."""

    frames: int = 0
    faces: int = 0
    frames_with_faces: int = 0
    seconds: float = 0.0
    stage_seconds: Laps = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    labels: dict[str, int] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        return self.frames / self.seconds if self.seconds else 0.0

    def stage_ms(self) -> dict[str, float]:
        """Mean milliseconds a frame spends in each stage."""
        return {stage: 1000 * seconds / max(1, self.frames) for stage, seconds in self.stage_seconds.items()}

    def add(self, faces: Sequence[Face], laps: Laps) -> None:
        self.frames += 1
        self.faces += len(faces)
        self.frames_with_faces += bool(faces)
        for stage, seconds in laps.items():
            self.stage_seconds[stage] += seconds
        for face in faces:
            self.labels[face.label] = self.labels.get(face.label, 0) + 1


class Stopwatch:
    """Seconds of each stage of one frame, which passes through several threads but only one at a time."""

    def __init__(self) -> None:
        self.laps: Laps = {}
        self.start()

    def start(self) -> None:
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage] = now - self._last
        self._last = now


def locate(frame: Frame, detector: Detector | Tracker) -> list[Detection]:
    """The faces of a frame, the largest first."""
    return detector.follow(frame) if isinstance(detector, Tracker) else detector.find(frame.image_bgr)


def read(
    frame: Frame,
    detections: list[Detection],
    detector: Detector | Tracker,
    classifier: Classifier,
    smoother: LabelSmoother | None = None,
    lap: Callable[[str], None] = lambda stage: None,
) -> list[Face]:
    """What the network says of the faces that were found; `lap` is called after each stage with its name."""
    crop, spec = classifier.card.crop_for(detector.name), classifier.card.input
    pixels = [face_pixels(frame.image_bgr, face.box_xyxy, crop, spec, face.roll_deg) for face in detections]
    faults = [quality_fault(face, seen) if smoother else "" for face, seen in zip(detections, pixels, strict=True)]
    lap("crop")
    probabilities = classifier.predict(np.stack(pixels)) if pixels else ()
    faces = []
    for detection, row, fault in zip(detections, probabilities, faults, strict=True):
        scores, unsure = dict(zip(classifier.card.labels, row.tolist(), strict=True)), ""
        if smoother:
            scores, unsure = smoother.settle(detection.id, frame.time_s, scores, fault)
        faces.append(
            Face(box_xyxy=detection.box_xyxy, scores=scores, unsure=unsure, id=detection.id, detection=detection)
        )
    lap("classify")
    return faces


def run(
    source: Iterable[Frame],
    detector: Detector | Tracker,
    classifier: Classifier,
    sinks: list[Sink],
    *,
    smoother: LabelSmoother | None = None,
    frames: int | None = None,
    overlap: bool | None = None,
    stop: threading.Event | None = None,
    on_frame: Callable[[Laps], None] = lambda laps: None,
) -> Summary:
    """Classify every face of every frame until the source ends, `frames` are done, a window is closed, `stop` is set, or
    Ctrl-C.

    detector: a Tracker, where faces are to keep their numbers; a smoother needs those.
    overlap: read the next frames and find their faces in threads of their own while this one's are classified. The
    results and their order are the same. By default where there is more than one core.
    on_frame: told each frame's seconds by stage once it is done. The sinks are closed in any case, so that a file is whole.
    """
    if overlap is None:
        overlap = len(os.sched_getaffinity(0)) > 1
    summary = Summary()
    began = time.perf_counter()
    with ExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)

        captured: Iterable = _captured(source)
        if overlap and not getattr(source, "live", False):  # of a live source only the newest frame is wanted
            captured = Ahead(captured, room=AHEAD, limit_s=HANG_S, what="The source", stop=stop)
            stack.callback(captured.close)
        located: Iterable = _located(captured, detector)
        if overlap:
            located = Ahead(located, stop=stop)
            stack.callback(located.close)
        try:
            for frame, detections, watch in located:
                watch.start()
                faces = read(frame, detections, detector, classifier, smoother, watch.lap)
                frame = replace(frame, faces=tuple(faces))
                for sink in sinks:
                    sink.write(frame)
                watch.lap("output")
                summary.add(faces, watch.laps)
                if isinstance(detector, Tracker) and not overlap:
                    detector.pace.rest(sum(watch.laps[stage] for stage in ("crop", "classify", "output")))
                on_frame(watch.laps)
                if _ended(sinks) or summary.frames == frames or (stop is not None and stop.is_set()):
                    break
        except KeyboardInterrupt:
            pass
        summary.seconds = time.perf_counter() - began
    return summary


def _ended(sinks: list[Sink]) -> bool:
    """Whether the person closed the window, or nobody is left to read anything."""
    closed = [sink for sink in sinks if sink.closed]
    return any(isinstance(sink, Window) for sink in closed) or 0 < len(closed) == len(sinks)


def _captured(source: Iterable[Frame]) -> Iterator[tuple[Frame, Stopwatch]]:
    watch = Stopwatch()
    for frame in source:
        watch.lap("capture")
        yield frame, watch
        watch = Stopwatch()


def _located(
    captured: Iterable[tuple[Frame, Stopwatch]], detector: Detector | Tracker
) -> Iterator[tuple[Frame, list[Detection], Stopwatch]]:
    for frame, watch in captured:
        watch.start()
        detections = locate(frame, detector)
        watch.lap("detect")
        yield frame, detections, watch
