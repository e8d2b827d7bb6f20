"""Measures how the faces of a data set are cropped relative to a detector's boxes, so that live faces are cropped
alike."""

from collections.abc import Callable

import cv2
import numpy as np
from pydantic import ValidationError

from edgefer.card import CropSpec
from edgefer.progress import SILENT, Progress
from edgefer.records import Box

SIDE = 192  # pixels; smaller faces are enlarged to it, for detectors to find them
MIN_FACES = 20  # for a median

Detect = Callable[[np.ndarray], list[Box]]  # the boxes of the faces in an image, uint8 BGR [h, w, 3]


def scene_of(image: np.ndarray) -> tuple[np.ndarray, Box]:
    """A face image, uint8 [h, w, c] gray or RGB, as a detector's input: uint8 BGR, and the box of the image in it.

    It is enlarged, and padded by reflection, since detectors look for the surroundings of a face.
    """
    factor = max(1, round(SIDE / image.shape[0]))
    height, width = (side * factor for side in image.shape[:2])
    pad = height // 2
    scene = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if image.shape[2] == 1 else cv2.COLOR_RGB2BGR)
    scene = cv2.resize(scene, (width, height), interpolation=cv2.INTER_CUBIC)
    scene = cv2.copyMakeBorder(scene, pad, pad, pad, pad, cv2.BORDER_REFLECT)
    return scene, (pad, pad, pad + width, pad + height)


def in_rgb(images: np.ndarray, color: str) -> np.ndarray:
    """A network's inputs, uint8 [n, h, w, c], with three channels in RGB. color: as in the card's input."""
    return np.ascontiguousarray(images[..., ::-1]) if color == "bgr" else images


def relation(box_xyxy: Box, frame_xyxy: Box) -> tuple[float, float, float]:
    """The scale, dx and dy of the crop (edgefer.card.CropSpec) that maps the detector's box to the frame of the image.

    >>> relation((10, 10, 30, 30), (0, 5, 40, 45))
    (2.0, 0.0, 0.25)
    """
    (x0, y0, x1, y1), (left, top, right, bottom) = box_xyxy, frame_xyxy
    side = ((x1 - x0) + (y1 - y0)) / 2
    return (
        ((right - left) + (bottom - top)) / 2 / side,
        ((left + right) / 2 - (x0 + x1) / 2) / side,
        ((top + bottom) / 2 - (y0 + y1) / 2) / side,
    )


def centre_in(box_xyxy: Box, frame_xyxy: Box) -> bool:
    """Whether the box's centre is inside the frame."""
    (x0, y0, x1, y1), (left, top, right, bottom) = box_xyxy, frame_xyxy
    return left < (x0 + x1) / 2 < right and top < (y0 + y1) / 2 < bottom


def measure_crop(images: np.ndarray, detect: Detect, progress: Progress = SILENT) -> CropSpec:
    """The median crop, relative to `detect`'s boxes, that gives face images.

    images: uint8 [n, h, w, c] (gray or RGB), each of one face. detect: uint8 BGR [h, w, 3] -> boxes x0, y0, x1, y1 in
    pixels. Only images in which it finds exactly one face count; boxes in the padding are ignored. Returns the default
    CropSpec where it finds fewer than 20 faces, or the crop is out of a CropSpec's range.
    """
    found = []
    for image in progress.track(images, len(images), "Measuring the crop for the detector"):
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
