"""The boxes and points of a training image match its faces to a twentieth of a pixel."""

import cv2
import numpy as np
import pytest

from edgefer.faces import BOX_GAIN, decode_map, map_shapes
from edgefer.train.faces import compose
from edgefer.train.faces.compose import Pool
from edgefer.train.faces.gallery import Faces, Picture
from edgefer.train.faces.targets import cell_grid, finder_targets
from edgefer.train.faces.tasks import refiner_sample
from edgefer.train.faces.teacher import TaughtFace, Teacher

CENTRE, RADIUS, SIDE = np.array([90.0, 70.0]), 22, 200


def disk(side=SIDE, centre=CENTRE, radius=RADIUS):
    """A white disk on black, uint8; positions count from the corner of the first pixel."""
    at = (np.arange(4 * side) + 0.5) / 4
    inside = np.hypot(at[None] - centre[0], at[:, None] - centre[1]) < radius
    return cv2.resize(255 * inside.astype(np.uint8), (side, side), interpolation=cv2.INTER_AREA)


def centroid(gray):
    """The centroid of the brightness."""
    at, weights = np.arange(len(gray)) + 0.5, gray.astype(float)
    return np.array([(weights.sum(axis=0) * at).sum(), (weights.sum(axis=1) * at).sum()]) / weights.sum()


def picture():
    box = np.concatenate([CENTRE - RADIUS, CENTRE + RADIUS])[None].astype(np.float32)
    points = np.repeat(CENTRE[None, None], 5, axis=1).astype(np.float32)
    return Picture("own", "a", disk(), Faces(box, points, np.zeros(1, np.float32), np.ones(1, np.float32)))


class BlackBorders:
    """A generator whose integers are 0: the area outside of an image is black."""

    def __init__(self, seed):
        self._rng = np.random.default_rng(seed)

    def integers(self, high):
        return 0

    def __getattr__(self, name):
        return getattr(self._rng, name)


@pytest.fixture(autouse=True)
def only_geometry(monkeypatch):
    monkeypatch.setattr(compose, "occlude", lambda *arguments: None)
    for effect in ("relight", "degrade"):
        monkeypatch.setattr(compose, effect, lambda gray, rng: gray)


def test_boxes_of_a_mosaic_cell_match_its_faces():
    own, checked = picture(), 0
    for seed in range(60):
        gray, faces = compose._cell(own, Pool(()), BlackBorders(seed), (192, 192))
        (box,) = faces.boxes
        if box.min() > 0 and box.max() < 192:
            centre = (box[:2] + box[2:]) / 2
            assert np.abs(centroid(gray) - centre).max() < 0.05 and np.abs(faces.points[0] - centre).max() < 0.05
            checked += 1
    assert checked > 20


def test_every_box_of_a_mosaic_is_centred_on_a_face():
    pool, checked = Pool(((1.0, (picture(),)),)), 0
    for seed in range(20):
        canvas, faces = compose.compose(pool, BlackBorders(seed), 192)
        for box in faces.boxes[faces.target > 0]:
            x, y = ((box[:2] + box[2:]) / 2).astype(int)
            assert canvas[y, x] > 200
            checked += 1
    assert checked > 40


@pytest.mark.parametrize("side", [10, 16, 25, 40, 60, 100, 180])
def test_finder_targets_decode_to_the_box_in_every_positive_cell(side):
    box = np.array([95 - side / 2, 98 - side / 1.8, 95 + side / 2, 98 + side / 1.8])
    faces = Faces(box[None].astype(np.float32), np.zeros((1, 5, 2)), np.zeros(1), np.full(1, 0.9))
    targets, grid = finder_targets(faces, 192), cell_grid(192)
    code = np.concatenate(
        [(targets[:, 2:4] - grid[:, :2]) / grid[:, 2:3], np.log(targets[:, 4:] / grid[:, 3:])], axis=1
    )
    outputs = np.concatenate([targets[:, :1], code * BOX_GAIN], axis=1)
    cells = np.concatenate(
        [np.indices((rows, columns))[::-1].reshape(2, -1).T for rows, columns, _ in map_shapes(192, 192)]
    )
    positive = targets[:, 0] > 0
    boxes = decode_map(cells, outputs, grid[:, 2:3], grid[:, 3:])[positive]
    assert len(boxes) and np.abs(boxes - box).max() < 1e-3


def test_refiner_target_matches_the_face(monkeypatch):
    seen = []
    monkeypatch.setattr("edgefer.train.faces.tasks.refiner_target", lambda faces: seen.append(faces) or np.zeros(19))
    own, checked = picture(), 0
    for seed in range(60):
        crop, _ = refiner_sample(own, own.faces.boxes[0], BlackBorders(seed))
        box = seen[-1].boxes[0]
        if box.min() > 0 and box.max() < 48:
            assert np.abs(centroid(crop) - (box[:2] + box[2:]) / 2).max() < 0.05
            checked += 1
    assert checked > 20


def test_points_found_in_a_rotated_crop_are_mapped_back(monkeypatch):
    teacher = Teacher.__new__(Teacher)

    def rows(canvas):
        left, top = centroid(canvas[:160, :160, 0]) - 5
        return np.array([[left, top, 10, 10, *[left + 5, top + 5] * 5, 0.9]], np.float32)

    monkeypatch.setattr(teacher, "_rows", rows)
    face = TaughtFace(np.concatenate([CENTRE - 12, CENTRE + 12]), np.zeros((5, 2)), 0.9)
    image = cv2.cvtColor(disk(radius=11), cv2.COLOR_GRAY2BGR)
    for angle in (0.0, 25.0):
        (found,) = teacher._rotated(image, face, (angle,))
        assert np.abs(found.points - CENTRE).max() < 0.05


def test_mirroring_swaps_the_left_and_right_points():
    points = np.array([[[10.0, 5], [20, 6], [15, 10], [11, 15], [19, 16]]], np.float32)
    faces = Faces(np.array([[5.0, 0, 25, 20]], np.float32), points, np.array([7.0]), np.ones(1))
    mirrored = compose.mirrored(faces, 40)
    assert mirrored.boxes.tolist() == [[15, 0, 35, 20]] and mirrored.roll_deg.tolist() == [-7]
    assert mirrored.points[0].tolist() == [[20, 6], [30, 5], [25, 10], [21, 16], [29, 15]]
    np.testing.assert_array_equal(compose.mirrored(mirrored, 40).points, points)
