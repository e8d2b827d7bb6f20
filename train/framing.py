"""Measures how a detector frames the faces of a data set, so that live faces are cut as the training faces were."""

from collections.abc import Callable

import cv2
import numpy as np

from edgefer.card import CropSpec
from edgefer.train.datasets import Track, silent

SIDE = 192  # pixels smaller faces are enlarged to: a size every detector finds
LEAST = 20  # fewer faces say nothing


def measure_crop(
    images: np.ndarray, detect: Callable[[np.ndarray], list[tuple[int, int, int, int]]], track: Track = silent
) -> CropSpec:
    """The median relation between `detect`'s boxes and the frames of face pictures.

    images: uint8 [n, h, w, c] (gray or RGB), each filled by one face. Each is enlarged, its border mirrored to give
    the detector the surroundings it looks for, and detected; the box is compared with where the picture lies.
    detect: uint8 BGR [h, w, 3] -> boxes (left, top, right, bottom). A picture with no box or several is passed over.
    Returns the default CropSpec when fewer than 20 faces are found.
    """
    enlarge = max(1, round(SIDE / images.shape[1]))
    height, width = (side * enlarge for side in images.shape[1:3])
    pad = height // 2
    frame_x, frame_y = pad + width / 2, pad + height / 2
    found = []
    for image in track(images, len(images), "Measuring how the detector frames these faces"):
        picture = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if image.shape[2] == 1 else cv2.COLOR_RGB2BGR)
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)
        picture = cv2.copyMakeBorder(picture, pad, pad, pad, pad, cv2.BORDER_REFLECT)
        boxes = detect(picture)
        if len(boxes) == 1:
            x0, y0, x1, y1 = boxes[0]
            side = ((x1 - x0) + (y1 - y0)) / 2
            found.append(
                ((width + height) / 2 / side, (frame_x - (x0 + x1) / 2) / side, (frame_y - (y0 + y1) / 2) / side)
            )
    if len(found) < LEAST:
        return CropSpec()
    scale, dx, dy = np.median(found, axis=0).round(3)
    return CropSpec(scale=scale, dx=dx, dy=dy, faces=len(found))
