"""Whether a face is good enough to be read at all: a network answers even where there is nothing to see."""

import cv2
import numpy as np

from edgefer.records import Detection

# Measured with fer-small on the 3,579 validation faces of FER2013, 67% of which it reads right as they are:
# at each limit it reads less than half of the worsened faces right, and fewer than 1 in 100 of the faces as they are lie beyond.
SIDE = 48  # pixels of those faces: larger inputs are judged for sharpness at this size
MIN_SIDE = 0.5  # of the network's input: below, more than three in four of its pixels are interpolated
MIN_LIGHT = 35.0  # the mean; at 26 it calls half of all faces sad, at 13 nearly every one
MAX_LIGHT = 235.0
MIN_SHARPNESS = 60.0  # a Gaussian blur of 1.5 of the network's pixels leaves 47 (median)
MAX_TURN = 0.35  # about 38 degrees aside, see Detection.turn; by geometry, not measured


def quality_fault(face: Detection, pixels: np.ndarray) -> str:
    """Why a face cannot be read: "small", "dark", "overexposed", "blurred" or "turned away"; "" when it can.

    pixels: the face as the network takes it, uint8 [h, w, 1] or RGB [h, w, 3].
    """
    gray = pixels[..., 0] if pixels.shape[2] == 1 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    if face.side < MIN_SIDE * gray.shape[0]:
        return "small"
    mean = cv2.mean(gray)[0]
    if mean < MIN_LIGHT:
        return "dark"
    if mean > MAX_LIGHT:
        return "overexposed"
    if gray.shape[0] > SIDE:
        gray = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    if sharpness(gray) < MIN_SHARPNESS:
        return "blurred"
    if (face.turn or 0.0) > MAX_TURN:
        return "turned away"
    return ""


def sharpness(gray: np.ndarray) -> float:
    """The variance of the Laplacian of uint8 [h, w] (Pech-Pacheco et al. 2000): low where nothing has an edge."""
    return float(cv2.meanStdDev(cv2.Laplacian(gray, cv2.CV_16S))[1][0, 0]) ** 2
