"""Whether a face is good enough to be read at all: a network answers even where there is nothing to see."""

import cv2
import numpy as np

from edgefer.records import Detection

# MIN_LIGHT and MIN_SHARPNESS are fitted by tests/benchmarks/fit_quality.py on images of FER2013 that were held back: where fewer
# than half of the answers (scores of 0.45 and more) of one of the networks that ship are right, ferplus-small. fer-small reads
# on to 5 and fer-nano below that. Above the limits their scores say what they are worth, so that the score alone decides.
SIDE = 48  # pixels of those faces: larger inputs are judged for sharpness at this size
MIN_SIDE = 0.5  # of the network's input: below, more than three in four of its pixels are interpolated
MIN_LIGHT = 7.0  # the mean
MAX_LIGHT = 235.0  # nothing fell under a half up to here
MIN_SHARPNESS = 3.0  # a Gaussian blur of 2 of the network's pixels leaves 20 (median), one of 4 leaves 3
MAX_TURN = 0.35  # about 38 degrees aside, see Detection.turn; by geometry, not measured


def quality_fault(face: Detection, pixels: np.ndarray, color: str = "rgb") -> str:
    """Why a face cannot be read: "small", "dark", "overexposed", "blurred" or "turned away"; "" when it can.

    pixels: the face as the network takes it, uint8 [h, w, 1] or [h, w, 3]; color: "bgr" where blue comes first there.
    """
    to_gray = cv2.COLOR_BGR2GRAY if color == "bgr" else cv2.COLOR_RGB2GRAY
    gray = pixels[..., 0] if pixels.shape[2] == 1 else cv2.cvtColor(pixels, to_gray)
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
