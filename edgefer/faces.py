"""Encodes and decodes the face networks' outputs, and compares boxes: the same arithmetic for training, devices and tests."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

STRIDES = (8, 16, 32)  # pixels of the image per cell of the finder's maps
ANCHORS = (16.0, 40.0, 96.0)  # pixels: the side of a face whose size outputs are 0
BOX_GAIN = 4.0  # scale of the box outputs, which are logarithms and offsets in strides
FINDER_SIDE = 192  # pixels of the finder's input, as in its card; it also runs on other sizes
REFINER_SIDE = 48  # pixels of the refiner's square crop
REFINER_OUTPUTS = 17  # face or not; box 4; points 10; roll's sine and cosine
REFINER_MARGIN = 1.6  # the crop's side, in sides of the candidate's box
POINT_GAIN = 8.0  # the refiner's outputs per half of the crop's side
SIZE_GAIN = 6.0  # and per unit of the logarithm of the box's side / the crop's side * REFINER_MARGIN
ROLL_GAIN = 5.0  # and per unit of sine and cosine


class Refined(NamedTuple):
    """A refined candidate, in pixels of the image: score 0..1, box (left, top, right, bottom), five points (eyes, nose,
    corners of the mouth; the left ones of the image first), roll_deg clockwise in the image."""

    score: float
    box: tuple[float, float, float, float]
    points: tuple[tuple[float, float], ...]
    roll_deg: float


def map_shapes(height: int, width: int) -> tuple[tuple[int, int, int], ...]:
    """(rows, columns, outputs) of each of a finder's maps, for an image of this size."""
    return tuple((height // stride, width // stride, len(FINDER_LABELS)) for stride in STRIDES)


def decode_map(cells: np.ndarray, answers: np.ndarray, strides: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Boxes float64 [n, 4], in pixels of the image, from a finder's outputs float64 [n, 5] in `cells` [n, 2] (column, row)
    of maps with these strides and anchors, each [n, 1]."""
    middle = (cells + 0.5 + answers[:, 1:3] / BOX_GAIN) * strides
    size = np.minimum(np.maximum(answers[:, 3:] / BOX_GAIN, -4), 4)  # np.clip would take three times as long
    half = 0.5 * anchors * np.exp(size)
    return np.concatenate([middle - half, middle + half], 1)


def decode_refined(answers: Sequence[float], square: tuple[int, int, int]) -> Refined:
    """Decode a refiner's 17 outputs for the crop `square` (left, top, side; pixels of the image). Without numpy: for the one
    or two faces of a frame, arrays would take three times as long."""
    left, top, side = square
    half = side / 2
    centre_x, centre_y = left + half, top + half
    (x, y), *points = [
        (centre_x + answers[at] / POINT_GAIN * half, centre_y + answers[at + 1] / POINT_GAIN * half)
        for at in (1, 5, 7, 9, 11, 13)
    ]
    width, height = (side / REFINER_MARGIN * math.exp(_clipped(one / SIZE_GAIN, 3)) for one in answers[3:5])
    return Refined(
        score=1 / (1 + math.exp(-_clipped(answers[0], 30))),
        box=(x - width / 2, y - height / 2, x + width / 2, y + height / 2),
        points=tuple(points),
        roll_deg=math.degrees(math.atan2(answers[15], answers[16])),
    )


def _clipped(value: float, most: float) -> float:
    return max(min(value, most), -most)  # in this order NaN stays NaN


def overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box [4] with boxes [n, 4]: float [n].

    >>> overlaps(np.array([0, 0, 2, 2]), np.array([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]])).round(2).tolist()
    [1.0, 0.33, 0.0]
    """
    sides = np.clip(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0, None)
    both = sides.prod(axis=1)
    return both / (np.prod(box[2:] - box[:2]) + (others[:, 2:] - others[:, :2]).prod(axis=1) - both)


def encode_refined(square: np.ndarray, box: np.ndarray, points: np.ndarray, roll_deg: float) -> np.ndarray:
    """The targets of a refiner for the crop `square` (centre x, y, side), without the first: float32 [16]; NaN stays NaN."""
    centre, half = square[:2], square[2] / 2
    middle = ((box[:2] + box[2:]) / 2 - centre) / half * POINT_GAIN
    size = np.log((box[2:] - box[:2]) / square[2] * REFINER_MARGIN) * SIZE_GAIN
    angle = np.radians(roll_deg)
    roll = ROLL_GAIN * np.array([np.sin(angle), np.cos(angle)])
    return np.concatenate([middle, size, ((points - centre) / half * POINT_GAIN).ravel(), roll]).astype(np.float32)


FINDER_LABELS = ("face", "x", "y", "width", "height")
POINTS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
REFINER_LABELS = (
    *FINDER_LABELS,
    *(f"{point} {axis}" for point in POINTS for axis in "xy"),
    "roll sine",
    "roll cosine",
)
