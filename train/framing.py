"""Measures how a detector frames the faces of a data set, so that live faces are cut as the training faces were."""

from collections.abc import Callable

import cv2
import numpy as np
from pydantic import ValidationError

from edgefer.card import CropSpec
from edgefer.progress import SILENT, Progress

SIDE = 192  # pixels smaller faces are enlarged to: a size every detector finds
MIN_FACES = 20  # fewer faces say nothing

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels


def scene_of(image: np.ndarray) -> tuple[np.ndarray, Box]:
    """A face image, uint8 [h, w, c] gray or RGB, as a camera might see it: uint8 BGR, and where the image lies in it.

    It is enlarged, and its border mirrored to give a detector the surroundings it looks for.
    """
    enlarge = max(1, round(SIDE / image.shape[0]))
    height, width = (side * enlarge for side in image.shape[:2])
    pad = height // 2
    seen = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if image.shape[2] == 1 else cv2.COLOR_RGB2BGR)
    seen = cv2.resize(seen, (width, height), interpolation=cv2.INTER_CUBIC)
    seen = cv2.copyMakeBorder(seen, pad, pad, pad, pad, cv2.BORDER_REFLECT)
    return seen, (pad, pad, pad + width, pad + height)


def relation(box_xyxy: Box, frame_xyxy: Box) -> tuple[float, float, float]:
    """The scale, dx and dy of the crop (edgefer.card.CropSpec) that makes the frame of the box."""
    (x0, y0, x1, y1), (left, top, right, bottom) = box_xyxy, frame_xyxy
    side = ((x1 - x0) + (y1 - y0)) / 2
    return (
        ((right - left) + (bottom - top)) / 2 / side,
        ((left + right) / 2 - (x0 + x1) / 2) / side,
        ((top + bottom) / 2 - (y0 + y1) / 2) / side,
    )


def centre_in(box_xyxy: Box, frame_xyxy: Box) -> bool:
    (x0, y0, x1, y1), (left, top, right, bottom) = box_xyxy, frame_xyxy
    return left < (x0 + x1) / 2 < right and top < (y0 + y1) / 2 < bottom


def measure_crop(
    images: np.ndarray, detect: Callable[[np.ndarray], list[Box]], progress: Progress = SILENT
) -> CropSpec:
    """The median relation between `detect`'s boxes and the frames of face images.

    images: uint8 [n, h, w, c] (gray or RGB), each filled by one face.
    detect: uint8 BGR [h, w, 3] -> boxes (left, top, right, bottom). An image with no box or several is passed over; boxes
    of the mirrored border do not count.
    Returns the default CropSpec when fewer than 20 faces are found, or what is found cannot be the images' own face.
    """
    found = []
    for image in progress.track(images, len(images), "Measuring how the detector frames these faces"):
        scene, frame_xyxy = scene_of(image)
        boxes = [box for box in detect(scene) if centre_in(box, frame_xyxy)]
        if len(boxes) == 1:
            found.append(relation(boxes[0], frame_xyxy))
    if len(found) < MIN_FACES:
        return CropSpec()
    scale, dx, dy = np.median(found, axis=0).round(3)
    try:
        return CropSpec(scale=scale, dx=dx, dy=dy, faces=len(found))
    except ValidationError:
        return CropSpec()
