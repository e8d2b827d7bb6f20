"""Checks whether a face can be read: a network gives an answer even for an unusable image."""

import numpy as np

from edgefer.card import NOT_FITTED, Limits
from edgefer.quality import gray_face, light, sharpness
from edgefer.records import Detection

MIN_SIDE = 0.5  # of the network's input: below this, more than 75% of its pixels are interpolated
MAX_TURN = 0.35  # about 38 degrees of yaw, see Detection.turn; by geometry, not measured


def quality_fault(face: Detection, pixels: np.ndarray, color: str = "rgb", limits: Limits = NOT_FITTED) -> str:
    """Why a network cannot read a face: "small", "dark", "overexposed", "blurred" or "turned away"; "" when it can.

    pixels: the network's input, uint8 [h, w, 1] or [h, w, 3]. color, limits: as in its card.
    """
    gray = gray_face(pixels, color)
    if face.side < MIN_SIDE * gray.shape[0]:
        return "small"
    mean = light(gray)
    if mean < limits.min_light:
        return "dark"
    if mean > limits.max_light:
        return "overexposed"
    if sharpness(gray) < limits.min_sharpness:
        return "blurred"
    if (face.turn or 0.0) > MAX_TURN:
        return "turned away"
    return ""
