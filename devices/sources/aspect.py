"""Makes the pixels of anamorphic video square: players show such video wider or taller than it is stored, and the networks
know faces as they are shown."""

import cv2
import numpy as np

MAX_RATIO = 4.0  # a larger one is damage: the widest formats in use store pixels of 64:45 and 2:1


def square_pixels(image: np.ndarray, capture: cv2.VideoCapture) -> np.ndarray:
    """The last image of a capture, uint8 BGR [h, w, 3], enlarged in one direction if its pixels are not square."""
    wide, tall = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
    if wide <= 0 or tall <= 0 or wide == tall or not 1 / MAX_RATIO <= wide / tall <= MAX_RATIO:
        return image
    if capture.get(cv2.CAP_PROP_ORIENTATION_META) in (90, 270):  # OpenCV has turned the image, but not this ratio
        wide, tall = tall, wide
    height, width = image.shape[:2]
    shown = (round(width * wide / tall), height) if wide > tall else (width, round(height * tall / wide))
    return cv2.resize(image, shown, interpolation=cv2.INTER_LINEAR_EXACT)
