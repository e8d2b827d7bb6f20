"""Draws what was found onto a frame."""

import cv2
import numpy as np

from edgefer.records import UNSURE, Face

FONT = cv2.FONT_HERSHEY_SIMPLEX
# One colour a class (BGR), from the Okabe-Ito palette, which the colour-blind can tell apart, and a brown.
COLORS = (
    (0, 94, 213),
    (167, 121, 204),
    (178, 114, 0),
    (66, 228, 240),
    (233, 180, 86),
    (0, 159, 230),
    (115, 158, 0),
    (42, 75, 124),
)
GRAY = (150, 150, 150)


def draw(image_bgr: np.ndarray, faces: list[Face]) -> np.ndarray:
    """A copy of the frame (uint8 BGR [h, w, 3]) with a box, a label with its confidence, and bars for each face."""
    image = image_bgr.copy()
    for face in faces:
        left, top, right, bottom = face.box_xyxy
        prediction = face.prediction
        sure = prediction.label != UNSURE
        color = COLORS[list(prediction.scores).index(prediction.label) % len(COLORS)] if sure else GRAY
        text = f"{prediction.label} {prediction.score:.0%}" if sure else f"{prediction.label}: {prediction.unsure}"
        size = max(0.4, min(1.2, (right - left) / 220))
        cv2.rectangle(image, (left, top), (right, bottom), color, max(1, round(2 * size)), cv2.LINE_AA)
        _label(image, text, left, top, color, size)
        _bars(image, prediction.scores, left, bottom, right - left)
    return image


def _label(image: np.ndarray, text: str, left: int, top: int, color: tuple, size: float) -> None:
    (width, height), drop = cv2.getTextSize(text, FONT, size, 1)
    pad = 3
    # Above the box, or inside it where the frame ends.
    base = top - drop if top - height - drop - 2 * pad >= 0 else top + height + pad
    left = max(0, min(left, image.shape[1] - width - 2 * pad))
    cv2.rectangle(image, (left, base - height - pad), (left + width + 2 * pad, base + drop), color, -1)
    bright = 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2] > 110
    cv2.putText(image, text, (left + pad, base), FONT, size, (0, 0, 0) if bright else (255, 255, 255), 1, cv2.LINE_AA)


def _bars(image: np.ndarray, scores: dict[str, float], left: int, bottom: int, width: int) -> None:
    """A bar per class under the box, where the frame has room for it."""
    height = max(2, width // 40)
    for row, score in enumerate(scores.values()):
        top = bottom + 3 + row * (height + 1)
        if top + height >= image.shape[0]:
            return
        color = COLORS[row % len(COLORS)]
        cv2.rectangle(image, (left, top), (left + max(1, round(score * width)), top + height), color, -1)
