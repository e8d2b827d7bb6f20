"""The protocols of face detectors, and the ones that need no network."""

from collections.abc import Sequence
from typing import ClassVar, Protocol, TypeGuard

import cv2
import numpy as np

from edgefer.devices.faces.canvas import MAX_SIDE
from edgefer.errors import MissingDependency, RegionError
from edgefer.records import Box, Detection

HAAR_SIDE = 24  # pixels: the smallest face that the cascades find


class Detector(Protocol):
    """Detects faces; `name` is the key of its crop spec in a model card."""

    name: str

    def find(self, image_bgr: np.ndarray) -> list[Detection]:
        """uint8 BGR [h, w, 3] -> each face, the largest first."""
        ...


class WindowDetector(Detector, Protocol):
    """A detector that can also search only near known faces. Boxes there may differ by a few pixels from those in the whole
    frame, of which a network sees more."""

    looks_near: bool

    def find(self, image_bgr: np.ndarray, near: Sequence[Box] | None = None) -> list[Detection]:
        """near: boxes in pixels of the frame; None searches everywhere."""
        ...


def can_look_near(detector: Detector) -> TypeGuard[WindowDetector]:
    """Whether a detector, or the one that it wraps, can search only near known faces."""
    return getattr(detector, "looks_near", False)


def min_new_score(detector: Detector) -> float:
    """The minimum score of a new face to be shown; 0 if the detector has none."""
    return getattr(detector, "min_new_score", 0.0)


def described(detector: Detector) -> str:
    """A detector's name with its networks and their hashes, for traceable recordings:
    `own (face-finder e896a96c87f3, face-refiner 946ea6c7cace)`."""
    networks = networks_of(detector)
    return f"{detector.name} ({', '.join(networks)})" if networks else detector.name


def networks_of(detector: Detector) -> tuple[str, ...]:
    """The name and hash of each of a detector's networks; none for a cascade."""
    return getattr(detector, "networks", ())


def look(detector: Detector, image_bgr: np.ndarray, near: Sequence[Box] | None) -> list[Detection]:
    """Run a detector, only near `near` if it can."""
    return detector.find(image_bgr, near) if near is not None and can_look_near(detector) else detector.find(image_bgr)


class HaarDetector:
    """OpenCV's frontal-face cascades (Viola & Jones 2001), which are part of the opencv-python wheel.

    faces: "human", or "cat" (Howse's cascade for frontal faces of cats). width: larger frames are downscaled to it.
    least: the smallest face, as a share of the frame's shorter side. min_face: the smallest face in pixels of the frame
    instead, which is then downscaled less, as far as MAX_SIDE allows; 0 is `least`.

    For people the cascade is `alt2`: compared with `default` it found 157 instead of 127 of 200 FER2013 faces, and every
    drawn face of 112 frames instead of 93 of 100, in the same time.
    """

    name = "haar"
    CASCADES: ClassVar = {"human": "haarcascade_frontalface_alt2.xml", "cat": "haarcascade_frontalcatface.xml"}

    def __init__(self, *, faces: str = "human", width: int = 480, least: float = 0.12, min_face: int = 0):
        if not hasattr(cv2, "CascadeClassifier"):
            raise MissingDependency(f"OpenCV {cv2.__version__} has no Haar cascades: pip install 'opencv-python<5'.")
        self.name = "haar" if faces == "human" else f"haar-{faces}"
        self.width, self.least, self.min_face = width, least, min_face
        self._cascade = cv2.CascadeClassifier(cv2.data.haarcascades + self.CASCADES[faces])  # type: ignore[attr-defined]

    def find(self, image_bgr: np.ndarray) -> list[Detection]:
        return [Detection(box_xyxy=box) for box in self.detect(image_bgr)]

    def detect(self, image_bgr: np.ndarray) -> list[Box]:
        """Only the boxes, from which training measures the crop."""
        gray = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
        shrink = self._shrink(*gray.shape)
        if shrink < 1:
            gray = cv2.resize(gray, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        least = round(self.min_face * shrink if self.min_face else self.least * min(gray.shape))
        found = self._cascade.detectMultiScale(gray, 1.1, 4, minSize=(max(HAAR_SIDE, least),) * 2)
        boxes: list[Box] = [
            (round(x / shrink), round(y / shrink), round((x + w) / shrink), round((y + h) / shrink))
            for x, y, w, h in found
        ]
        # OpenCV's threads give the boxes in any order: among equally large ones, too, it must be the same in every run.
        return sorted(boxes, key=lambda box: ((box[0] - box[2]) * (box[3] - box[1]), box))

    def _shrink(self, height: int, width: int) -> float:
        """How far a frame is downscaled, at most 1. At least a pixel of its height remains."""
        shrink = max(self.width / width, 1 / height)
        if self.min_face:
            shrink = max(shrink, min(HAAR_SIDE / self.min_face, MAX_SIDE / max(height, width)))
        return min(1.0, shrink)


class FrameDetector:
    """No detector: the centre square of the frame, for animals without a cascade."""

    name = "frame"
    looks_near = True  # it is the same square near any box: tracked by its pixels, it would leave the centre

    def find(self, image_bgr: np.ndarray, near: Sequence[Box] | None = None) -> list[Detection]:
        height, width = image_bgr.shape[:2]
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        return [Detection(box_xyxy=(left, top, left + side, top + side))]


class RegionDetector:
    """A detector that searches only a region of the frame, and drops small faces.

    roi: (left, top, width, height) in pixels; None is the whole frame. min_face: the minimum side of a face, in pixels.
    """

    def __init__(self, detector: Detector, roi: tuple[int, int, int, int] | None = None, min_face: int = 0):
        self._detector, self._roi, self._min_face = detector, roi, min_face
        self.name, self.looks_near = detector.name, can_look_near(detector)
        self.min_new_score, self.networks = min_new_score(detector), networks_of(detector)

    def find(self, image_bgr: np.ndarray, near: Sequence[Box] | None = None) -> list[Detection]:
        left = top = 0
        if self._roi:
            left, top, width, height = self._roi
            image_bgr = np.ascontiguousarray(image_bgr[top : top + height, left : left + width])
            if not image_bgr.size:
                raise RegionError(
                    f"The region {left},{top},{width}x{height} is outside of the frame: name one within it."
                )
        inside = near and [(x0 - left, y0 - top, x1 - left, y1 - top) for x0, y0, x1, y1 in near]
        found = [face.moved(left, top) for face in look(self._detector, image_bgr, inside)]
        return [face for face in found if face.side >= self._min_face]
