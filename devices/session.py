"""Faces over time: detector, tracker, network and smoother for the frames of one run."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from edgefer.devices.faces.detectors import Detector
from edgefer.devices.faces.quality import quality_fault
from edgefer.devices.faces.smoothing import PRESETS, LabelSmoother, Preset
from edgefer.devices.faces.tracking import Tracker
from edgefer.errors import RegionError
from edgefer.interpreter import Classifier
from edgefer.preprocess import face_pixels
from edgefer.records import Detection, Face, Frame


@dataclass(frozen=True, kw_only=True)
class Detected:
    """A frame with its detected faces, the largest first. detector: the detector's name, as in cards; described: its name
    with its networks."""

    frame: Frame
    detections: list[Detection]
    detector: str
    described: str


class Session:
    """Processes the frames of one run in order, of one source or several: each has its own tracks and smoother.

    `detect` and `read` may be called in two threads, each with frames in order.

    smooth, reject: see LabelSmoother. target_fps: detect faces only as often as this rate allows, and track them in
    between; None detects in every frame. follow: search only every `follow`th frame in full. stills: the frames are
    independent images.
    """

    def __init__(
        self,
        classifier: Classifier,
        detector: Detector,
        *,
        smooth: Preset = PRESETS["off"],
        reject: float = 0.0,
        target_fps: float | None = None,
        follow: int = 1,
        stills: bool = False,
    ):
        self.classifier = classifier
        self.use(detector)
        self.target_fps, self.follow, self.stills = target_fps, follow, stills
        self._smooth, self._reject = smooth, reject
        self._trackers: dict[int, Tracker] = {}
        self._smoothers: dict[int, LabelSmoother] = {}
        self._in_view: dict[int, list[str]] = {}

    def change(self, smooth: Preset, reject: float) -> None:
        """Change the smoothing and rejection from the next frame on."""
        self._smooth, self._reject = smooth, reject
        for smoother in list(self._smoothers.values()):
            smoother.change(smooth, reject)

    def use(self, detector: Detector) -> None:
        """Use another detector from the next frame on; faces keep their ids."""
        self._in_use = detector, detector.described  # a single assignment, since another thread detects

    def detect(self, frame: Frame) -> Detected:
        """The faces of a frame, with the ids they had in the previous frame.

        RegionError, with the name of its source, for a frame outside of the region to be searched.
        """
        detector, description = self._in_use
        if frame.stream not in self._trackers:
            self._trackers[frame.stream] = Tracker(detector, target_fps=self.target_fps, follow=self.follow)
        tracker = self._trackers[frame.stream]
        tracker.use(detector)
        try:
            detections = tracker.follow(frame)
        except RegionError as error:
            raise RegionError(f"{frame.source}: {error}" if frame.source else str(error)) from None
        return Detected(frame=frame, detections=detections, detector=detector.name, described=description)

    def read(self, detected: Detected, lap: Callable[[str], None] = lambda stage: None) -> Frame:
        """The frame with the decision about each face; `lap` is called after each stage with its name."""
        frame, card = detected.frame, self.classifier.card
        crop = card.crop_for(detected.detector)
        pixels = [
            face_pixels(frame.image_bgr, face.box_xyxy, crop, card.input, face.roll_deg) for face in detected.detections
        ]
        faults = [
            quality_fault(face, seen, card.input.color, card.limits)
            for face, seen in zip(detected.detections, pixels, strict=True)
        ]
        lap("crop")
        rows = self.classifier.predict(pixels).tolist() if pixels else []
        smoother = self._smoother(frame.stream)
        faces = []
        for detection, row, fault in zip(detected.detections, rows, faults, strict=True):
            scores = dict(zip(card.labels, row, strict=True))
            decided, unsure = smoother.settle(detection.id, frame.time_s, scores, fault)
            faces.append(
                Face(box_xyxy=detection.box_xyxy, scores=decided, unsure=unsure, id=detection.id, detection=detection)
            )
        lap("classify")
        labels = sorted(face.label for face in faces)
        # A still image is another scene: equal labels are of other faces.
        changed = labels != ([] if self.stills else self._in_view.get(frame.stream, []))
        self._in_view[frame.stream] = labels
        return replace(frame, faces=tuple(faces), changed=changed, detector=detected.described)

    def rest(self, frame: Frame, seconds: float) -> None:
        """Report to the tracker's pace how long a frame took after its detection, in the same thread."""
        self._trackers[frame.stream].pace.rest(seconds)

    def _smoother(self, stream: int) -> LabelSmoother:
        if stream not in self._smoothers:
            self._smoothers[stream] = LabelSmoother(self._smooth, reject=self._reject)
        return self._smoothers[stream]
