"""Faces over time: detector, tracker, network and smoother for the frames of one run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from edgefer.devices.faces.detectors import Detector
from edgefer.devices.faces.quality import quality_fault
from edgefer.devices.faces.smoothing import PRESETS, LabelSmoother, Preset
from edgefer.devices.faces.tracking import Tracker
from edgefer.interpreter import Classifier
from edgefer.preprocess import face_pixels
from edgefer.records import Detection, Face, Frame


@dataclass(frozen=True, kw_only=True)
class Detected:
    """A frame with the faces that were found in it, the largest first. detector: the name of what found them."""

    frame: Frame
    detections: list[Detection]
    detector: str


class Settings(Protocol):
    """What may change while a run goes on, see edgefer.devices.outputs.settings.RunSettings."""

    @property
    def smooth(self) -> str: ...
    @property
    def reject(self) -> float: ...
    @property
    def detector(self) -> str: ...
    @property
    def paused(self) -> bool: ...


class Session:
    """Reads the frames of one run in turn, of one source or several: each has its own tracks and its own smoother.

    `detect` and `read` may be called in two threads, each for one frame after the other.

    smooth, reject: see LabelSmoother. follow: look for faces only as often as target_fps allows, and follow them between;
    target_fps None looks in every frame. settings: asked at every frame for what may have changed; make_detector: makes
    the detector of another name.
    """

    def __init__(
        self,
        classifier: Classifier,
        detector: Detector,
        *,
        smooth: Preset = PRESETS["off"],
        reject: float = 0.0,
        target_fps: float | None = None,
        settings: Callable[[], Settings] | None = None,
        make_detector: Callable[[str], Detector] | None = None,
    ):
        self.classifier, self.detector, self.target_fps = classifier, detector, target_fps
        self._smooth, self._reject = smooth, reject
        self._settings, self._make_detector = settings, make_detector
        self._detector_name = settings().detector if settings else ""
        self._trackers: dict[int, Tracker] = {}
        self._smoothers: dict[int, LabelSmoother] = {}
        self._in_view: dict[int, list[str]] = {}

    def paused(self) -> bool:
        """Whether frames are to be passed over for now."""
        return self._settings is not None and self._settings().paused

    def detect(self, frame: Frame) -> Detected:
        """The faces of a frame, with the numbers they had in the frame before."""
        if self._settings and self._make_detector and self._settings().detector != self._detector_name:
            self._detector_name = self._settings().detector
            self.detector = self._make_detector(self._detector_name)
            for tracker in self._trackers.values():
                tracker.detector = self.detector
        if frame.stream not in self._trackers:
            self._trackers[frame.stream] = Tracker(self.detector, target_fps=self.target_fps)
        detections = self._trackers[frame.stream].follow(frame)
        return Detected(frame=frame, detections=detections, detector=self.detector.name)

    def read(self, detected: Detected, lap: Callable[[str], None] = lambda stage: None) -> Frame:
        """The frame with the decision about each face; `lap` is called after each stage with its name."""
        frame, card = detected.frame, self.classifier.card
        crop = card.crop_for(detected.detector)
        pixels = [
            face_pixels(frame.image_bgr, face.box_xyxy, crop, card.input, face.roll_deg) for face in detected.detections
        ]
        faults = [quality_fault(face, seen) for face, seen in zip(detected.detections, pixels, strict=True)]
        lap("crop")
        rows = self.classifier.predict(np.stack(pixels)) if pixels else ()
        smoother = self._smoother(frame.stream)
        faces = []
        for detection, row, fault in zip(detected.detections, rows, faults, strict=True):
            scores = dict(zip(card.labels, row.tolist(), strict=True))
            decided, unsure = smoother.settle(detection.id, frame.time_s, scores, fault)
            faces.append(
                Face(box_xyxy=detection.box_xyxy, scores=decided, unsure=unsure, id=detection.id, detection=detection)
            )
        lap("classify")
        labels = sorted(face.label for face in faces)
        changed = labels != self._in_view.get(frame.stream, [])
        self._in_view[frame.stream] = labels
        return replace(frame, faces=tuple(faces), changed=changed)

    def rest(self, frame: Frame, seconds: float) -> None:
        """What a frame took after its detection, in the same thread: the tracker's pace is told."""
        self._trackers[frame.stream].pace.rest(seconds)

    def _smoother(self, stream: int) -> LabelSmoother:
        if stream not in self._smoothers:
            self._smoothers[stream] = LabelSmoother(self._smooth, reject=self._reject)
        smoother = self._smoothers[stream]
        if self._settings:
            now = self._settings()
            smoother.preset, smoother.reject = PRESETS[now.smooth], now.reject
        return smoother
