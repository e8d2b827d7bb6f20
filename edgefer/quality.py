"""The brightness and sharpness of a face, for which a card has limits."""

import cv2
import numpy as np

SIDE = 48  # pixels of the faces that limits were first fitted on: the sharpness of larger ones is measured at this size


def gray_face(pixels: np.ndarray, color: str = "rgb") -> np.ndarray:
    """A network's input, uint8 [h, w, 1] or [h, w, 3], in gray: uint8 [h, w]. color: "bgr" if blue comes first."""
    if pixels.shape[2] == 1:
        return pixels[..., 0]
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY if color == "bgr" else cv2.COLOR_RGB2GRAY)


def light(gray: np.ndarray) -> float:
    """The mean of uint8 [h, w]: 0 to 255."""
    return cv2.mean(gray)[0]


def sharpness(gray: np.ndarray) -> float:
    """The variance of the Laplacian of uint8 [h, w] (Pech-Pacheco et al. 2000): low without edges."""
    if gray.shape[0] > SIDE:
        gray = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return float(cv2.meanStdDev(cv2.Laplacian(gray, cv2.CV_16S))[1][0, 0]) ** 2
