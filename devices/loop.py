"""The loop on the device: frame, faces, pixels, answers, sinks; and how long each took."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from edgefer.devices.faces import Detector
from edgefer.devices.quality import what_is_wrong
from edgefer.devices.sinks import Result, Sink, Window
from edgefer.devices.smoothing import Steadier
from edgefer.devices.tracking import Tracker
from edgefer.interpreter import Classifier
from edgefer.preprocess import face_pixels
from edgefer.records import Face, Frame

STAGES = ("capture", "detect", "crop", "classify", "output")


@dataclass
class Summary:
    """What a run saw: frames, faces, frames with a face, wall-clock seconds, and seconds spent in each stage."""

    frames: int = 0
    faces: int = 0
    frames_with_faces: int = 0
    seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    labels: dict[str, int] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        return self.frames / self.seconds if self.seconds else 0.0

    def stage_ms(self) -> dict[str, float]:
        """Mean milliseconds a frame spends in each stage."""
        return {stage: 1000 * seconds / max(1, self.frames) for stage, seconds in self.stage_seconds.items()}


def find_faces(
    frame: Frame,
    detector: Detector | Tracker,
    classifier: Classifier,
    lap: Callable[[str], None] = lambda stage: None,
    steadier: Steadier | None = None,
) -> list[Face]:
    """Every face of a frame with what the network says of it; `lap` is called after each stage with its name."""
    found = detector.follow(frame) if isinstance(detector, Tracker) else detector.find(frame.image_bgr)
    lap("detect")
    crop, spec = classifier.card.crop_for(detector.name), classifier.card.input
    pixels = [face_pixels(frame.image_bgr, face.box_xyxy, crop, spec, face.roll_deg) for face in found]
    lap("crop")
    predictions = classifier.predict(np.stack(pixels)) if pixels else []
    if steadier:
        predictions = [
            steadier.settle(face.track, frame.time_s, prediction, what_is_wrong(face, seen))
            for face, seen, prediction in zip(found, pixels, predictions, strict=True)
        ]
    lap("classify")
    return [
        Face(box_xyxy=face.box_xyxy, prediction=prediction, track=face.track)
        for face, prediction in zip(found, predictions, strict=True)
    ]


def run(
    source: Iterable[Frame],
    detector: Detector | Tracker,
    classifier: Classifier,
    sinks: list[Sink],
    *,
    steadier: Steadier | None = None,
    frames: int | None = None,
    on_lap: Callable[[str, float], None] = lambda stage, seconds: None,
) -> Summary:
    """Classify every face of every frame until the source ends, `frames` are done, a window is closed, or Ctrl-C.

    detector: a Tracker, where faces are to keep their numbers; a steadier needs those.
    on_lap: told each stage's name and seconds as it ends; a frame's last one is "output". The sinks are closed in any
    case, so that a file is whole.
    """
    summary = Summary()
    began = last = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal last
        now = time.perf_counter()
        summary.stage_seconds[stage] += now - last
        on_lap(stage, now - last)
        if isinstance(detector, Tracker):
            detector.lap(stage, now - last)
        last = now

    try:
        for frame in source:
            lap("capture")
            faces = find_faces(frame, detector, classifier, lap, steadier)
            result = Result(frame=frame, faces=faces)
            for sink in sinks:
                sink.write(result)
            lap("output")
            summary.frames += 1
            summary.faces += len(faces)
            summary.frames_with_faces += bool(faces)
            for face in faces:
                summary.labels[face.prediction.label] = summary.labels.get(face.prediction.label, 0) + 1
            if summary.frames == frames or _ended(sinks):
                break
    except KeyboardInterrupt:
        pass
    finally:
        summary.seconds = time.perf_counter() - began
        for sink in sinks:
            sink.close()
    return summary


def _ended(sinks: list[Sink]) -> bool:
    """Whether the person closed the window, or nobody is left to read anything."""
    closed = [sink for sink in sinks if sink.closed]
    return any(isinstance(sink, Window) for sink in closed) or 0 < len(closed) == len(sinks)
