"""The base class of face detectors, and the ones that need no network."""

from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np

from edgefer.devices.faces.canvas import MAX_SIDE
from edgefer.errors import MissingDependency, RegionError
from edgefer.records import Box, Detection

HAAR_SIDE = 24  # pixels: the smallest face that the cascades find


class Detector:
    """The base class of detectors, each with a `name` and a `find`.

    name: the key of its crop in a model card. looks_near: whether it can also search only near known faces. Boxes there may
    differ by a few pixels from those in the whole frame, of which a network sees more. min_new_score: the minimum score of a
    new face in a video to be shown. networks: the name and hash of each of its networks; none for a cascade.
    """

    name = ""
    looks_near = False
    min_new_score = 0.0
    networks: tuple[str, ...] = ()

    def find(self, image_bgr: np.ndarray, near: Sequence[Box] | None = None) -> list[Detection]:
        """uint8 BGR [h, w, 3] -> each face, the largest first. near: boxes in pixels of the frame, near which to search; None
        searches everywhere, as does a detector that does not look near."""
        raise NotImplementedError

    def detect(self, image_bgr: np.ndarray) -> list[Box]:
        """Only the boxes, from which training measures the crop."""
        return [face.box_xyxy for face in self.find(image_bgr)]

    @property
    def described(self) -> str:
        """Its name with its networks and their hashes, for traceable recordings:
        `own (face-finder e896a96c87f3, face-refiner 946ea6c7cace)`."""
        return f"{self.name} ({', '.join(self.networks)})" if self.networks else self.name


class WrappingDetector(Detector):
    """A detector that changes what another one, `inner`, finds."""

    def __init__(self, inner: Detector):
        self.inner, self.name, self.looks_near = inner, inner.name, inner.looks_near
        self.min_new_score, self.networks = inner.min_new_score, inner.networks


class HaarDetector(Detector):
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

    def find(self, image_bgr: np.ndarray, near: Sequence[Box] | None = None) -> list[Detection]:
        return [Detection(box_xyxy=box) for box in self.detect(image_bgr)]

    def detect(self, image_bgr: np.ndarray) -> list[Box]:
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


class FrameDetector(Detector):
    """No detector: the centre square of the frame, for animals without a cascade."""

    name = "frame"
    looks_near = True  # it is the same square near any box: tracked by its pixels, it would leave the centre

    def find(self, image_bgr: np.ndarray, near: Sequence[Box] | None = None) -> list[Detection]:
        height, width = image_bgr.shape[:2]
        side = min(height, width)
        left, top = (width - side) // 2, (height - side) // 2
        return [Detection(box_xyxy=(left, top, left + side, top + side))]


class RegionDetector(WrappingDetector):
    """A detector that searches only a region of the frame, and drops small faces.

    roi: (left, top, width, height) in pixels; None is the whole frame. min_face: the minimum side of a face, in pixels.
    """

    def __init__(self, detector: Detector, roi: tuple[int, int, int, int] | None = None, min_face: int = 0):
        super().__init__(detector)
        self._roi, self._min_face = roi, min_face

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
        found = [face.moved(left, top) for face in self.inner.find(image_bgr, inside)]
        return [face for face in found if face.side >= self._min_face]
