"""YuNet as a teacher: boxes, scores, landmarks and roll of the faces in a picture."""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edgefer.errors import InputError, MissingDependency
from edgefer.faces import overlaps
from edgefer.native import native_path
from edgefer.train.faces.geometry import warp_affine

CANVAS = 320  # pixels; the input of YuNet files with a fixed one
MIN_SCORE = 0.3
MAX_OVERLAP = 0.4
TILE = 0.6  # of a picture's sides: tiles in which small faces are detected
MIN_TILED_SIDE = 200  # pixels; smaller pictures are not tiled
LEVEL_CROP = 2.2  # sides of the crop in which a face's roll is measured, in sides of its box
LEVEL_STEPS_DEG = (20.0, 10.0)
MIN_LEVEL_SIDE = 24.0  # pixels; of smaller faces the roll is not measured
MIN_GAIN = 0.15  # degrees of the line through the eyes per degree of rotation; with less they say nothing of the roll
MAX_ROLL_DEG = 60.0


@dataclass(frozen=True)
class TaughtFace:
    """A face that the teacher detected, in pixels of the picture.

    box: float [4], x0, y0, x1, y1. points: float [5, 2], eyes, nose, corners of the mouth, those that are left in the
    image first. score: 0..1. roll_deg: clockwise in the image, NaN where it could not be measured.
    """

    box: np.ndarray
    points: np.ndarray
    score: float
    roll_deg: float = math.nan


class Teacher:
    """Detects faces in the whole picture and in tiles, then measures the roll of each in several rotations.

    YuNet's eye points follow only part of a head's roll, but linearly: the rotation in which the line through them is
    level is the roll without that error, and the points are those of the levelled face. YuNet also has a bias of 3 to 4
    degrees (the mean over LFW), which has the other sign in the mirror image: roll and points are the mean of both.
    """

    def __init__(self, file: Path):
        if not hasattr(cv2, "FaceDetectorYN"):
            raise MissingDependency(f"OpenCV {cv2.__version__} has no YuNet: pip install 'opencv-python>=4.8,<5'.")
        try:
            with native_path(file) as path:
                self._net = cv2.FaceDetectorYN.create(path, "", (CANVAS, CANVAS), MIN_SCORE, MAX_OVERLAP)
            self._net.detect(np.zeros((CANVAS, CANVAS, 3), np.uint8))
        except cv2.error as error:
            raise InputError(
                f"{file} is not a YuNet that OpenCV can run ({' '.join(str(error).split())[:120]})."
            ) from None

    def faces(self, image_bgr: np.ndarray) -> list[TaughtFace]:
        """The faces in an image, uint8 BGR [h, w, 3], the highest score first, with roll where they are large enough."""
        height, width = image_bgr.shape[:2]
        views = [(0, 0, width, height)]
        if max(height, width) >= MIN_TILED_SIDE:
            w, h = math.ceil(width * TILE), math.ceil(height * TILE)
            views += [(x, y, x + w, y + h) for x in (0, width - w) for y in (0, height - h)]
        found: list[TaughtFace] = []
        for x0, y0, x1, y1 in views:
            at_border = (x0 == 0, y0 == 0, x1 == width, y1 == height)
            for face in self._detect(image_bgr[y0:y1, x0:x1], (x0, y0)):
                if (x0, y0, x1, y1) == views[0] or not _is_cut(face.box, (x0, y0, x1, y1), at_border):
                    found.append(face)
        return [self._with_roll(image_bgr, face) for face in _without_duplicates(found)]

    def _detect(self, image_bgr: np.ndarray, offset: tuple[int, int]) -> list[TaughtFace]:
        """The faces in a part of a picture that begins at `offset`, in pixels of the picture."""
        scale = CANVAS / max(image_bgr.shape[:2])
        size = [max(1, round(side * scale)) for side in image_bgr.shape[1::-1]]
        canvas = np.zeros((CANVAS, CANVAS, 3), np.uint8)
        canvas[: size[1], : size[0]] = cv2.resize(image_bgr, size, interpolation=cv2.INTER_LINEAR)
        return [_face(row, 1 / scale, offset) for row in self._rows(canvas)]

    def _rows(self, canvas: np.ndarray) -> np.ndarray:
        """YuNet's output on a canvas, float32 [n, 15]: x, y, w, h, five points, score."""
        _, rows = self._net.detect(canvas)
        return np.empty((0, 15), np.float32) if rows is None else rows

    def _with_roll(self, image_bgr: np.ndarray, face: TaughtFace) -> TaughtFace:
        """The face with its roll, and the points of the levelled face; as it is where the roll cannot be measured."""
        if (face.box[2:] - face.box[:2]).mean() < MIN_LEVEL_SIDE:
            return face
        level = self._level(image_bgr, face)
        opposite = level and self._level(image_bgr[:, ::-1], _mirrored(face, image_bgr.shape[1]))
        if level is None or opposite is None:
            return face
        opposite = _mirrored(opposite, image_bgr.shape[1])
        points = (level.points + opposite.points) / 2
        return TaughtFace(face.box, points, max(face.score, level.score), (level.roll_deg + opposite.roll_deg) / 2)

    def _level(self, image_bgr: np.ndarray, face: TaughtFace) -> TaughtFace | None:
        """The same by this image alone, without the mirror image; None where the roll cannot be measured."""
        roll = _roll(face.points)
        for step_deg in LEVEL_STEPS_DEG:
            angles = tuple(step * step_deg - roll for step in (-1.0, 0.0, 1.0))
            rotated = self._rotated(image_bgr, face, angles)
            measured = [
                (angle, _roll(one.points)) for angle, one in zip(angles, rotated, strict=False) if one is not None
            ]
            if len(measured) < 2:
                return None
            rotations, rolls = np.array(measured).T
            gain, offset = np.polyfit(rotations, rolls, 1)
            roll = offset / gain if MIN_GAIN < gain < 1 / MIN_GAIN else math.inf
            if abs(roll) > MAX_ROLL_DEG:
                return None
        level = self._rotated(image_bgr, face, (-roll,))[0]
        if level is None:
            return None
        back = _rotation(level, roll)
        points = level.points @ back[:, :2].T + back[:, 2]
        return TaughtFace(face.box, points, level.score, float(roll))

    def _rotated(self, image_bgr: np.ndarray, face: TaughtFace, angles: tuple[float, ...]) -> list[TaughtFace | None]:
        """The face as detected in the picture rotated clockwise about its centre by each of up to four angles, None
        where it is not.

        In pixels of the picture, along the rotated axes. One call of YuNet, on a canvas of four crops.
        """
        half = CANVAS // 2
        centre, side = (face.box[:2] + face.box[2:]) / 2, float((face.box[2:] - face.box[:2]).max())
        scale = half / (LEVEL_CROP * side)
        canvas = np.zeros((CANVAS, CANVAS, 3), np.uint8)
        corners = [(x, y) for y in (0, half) for x in (0, half)][: len(angles)]
        for (x, y), angle in zip(corners, angles, strict=True):
            matrix = cv2.getRotationMatrix2D(centre.tolist(), -angle, scale)
            matrix[:, 2] += half / 2 - centre
            canvas[y : y + half, x : x + half] = warp_affine(image_bgr, matrix, (half, half))
        faces: list[TaughtFace | None] = []
        rows = self._rows(canvas)
        for x, y in corners:
            middle = np.array([x + half / 2, y + half / 2])
            near = [row for row in rows if np.abs(row[:2] + row[2:4] / 2 - middle).max() < half / 5]
            best = max(near, key=lambda row: row[14], default=None)
            offset = centre - middle / scale
            faces.append(None if best is None else _face(best, 1 / scale, tuple(offset), centre))
        return faces


def _mirrored(face: TaughtFace, width: int) -> TaughtFace:
    """The face in the mirror image of a picture of that width in pixels."""
    x0, y0, x1, y1 = face.box
    points = face.points[[1, 0, 2, 4, 3]] * [-1, 1] + [width, 0]
    return TaughtFace(np.array([width - x1, y0, width - x0, y1]), points, face.score, -face.roll_deg)


def _rotation(face: TaughtFace, angle_deg: float) -> np.ndarray:
    return cv2.getRotationMatrix2D(face.box[:2].tolist(), -angle_deg, 1.0)


def _face(row: np.ndarray, scale: float, offset, centre: np.ndarray | None = None) -> TaughtFace:
    """The face of a row of YuNet's output. centre: in place of the box, a point [2] to rotate about."""
    x, y, w, h = row[:4] * scale
    points = row[4:14].reshape(5, 2) * scale + offset
    for first in (0, 3):
        points[first : first + 2] = points[first : first + 2][np.argsort(points[first : first + 2, 0])]
    box = np.array([x, y, x + w, y + h]) + np.tile(offset, 2) if centre is None else np.tile(centre, 2)
    return TaughtFace(box, points, float(row[14]))


def _roll(points: np.ndarray) -> float:
    """The mean angle of the lines through the eyes and through the corners of the mouth, in degrees, clockwise in the
    image."""
    across = (points[1] - points[0]) + (points[4] - points[3])
    return math.degrees(math.atan2(across[1], across[0]))


def _is_cut(box: np.ndarray, tile: tuple[int, int, int, int], at_border: tuple[bool, ...]) -> bool:
    """Whether an edge of the tile that is not at the picture's border may cut through the face."""
    margin = 0.1 * (box[2:] - box[:2]).mean()
    inside = (box[:2] - tile[:2] > margin).tolist() + (np.array(tile[2:]) - box[2:] > margin).tolist()
    return not all(one or border for one, border in zip(inside, at_border, strict=True))


def _without_duplicates(faces: list[TaughtFace]) -> list[TaughtFace]:
    """Non-maximum suppression, the highest score first."""
    kept: list[TaughtFace] = []
    for face in sorted(faces, key=lambda one: -one.score):
        if not kept or overlaps(face.box, np.array([one.box for one in kept])).max() < MAX_OVERLAP:
            kept.append(face)
    return kept
