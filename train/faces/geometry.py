"""Resamples images where boxes and points count from the corner of the first pixel, as YuNet's and the networks' do."""

import cv2
import numpy as np


def warp_affine(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], **options) -> np.ndarray:
    """The image under an affine matrix [2, 3] that maps positions, of `size` (width, height). options: cv2.warpAffine's.

    cv2.warpAffine counts from the middle of the first pixel: with the same matrix, an image enlarged 2.5 times would be
    0.75 pixels off its boxes.
    """
    linear = matrix[:, :2]
    shift = matrix[:, 2:] + linear @ np.full((2, 1), 0.5) - 0.5
    return cv2.warpAffine(image, np.concatenate([linear, shift], axis=1), size, **options)
