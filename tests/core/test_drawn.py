"""The built-in faces: repeatable, found by the built-in detector, where the truth says they are."""

import numpy as np

from edgefer import drawn
from edgefer.devices.faces.detectors import HaarDetector


def test_the_same_seed_draws_the_same_faces():
    labels = drawn.face_set(1, seed=5)[1]
    first, second, other = (list(drawn.face_set(1, seed=seed)[0]) for seed in (5, 5, 6))
    assert labels.tolist() == list(range(7))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_haar_finds_every_face_in_95_percent_of_the_frames():
    detector = HaarDetector()
    complete = total = strays = 0
    for seed in range(2):
        for frame, truths in drawn.scene(seconds=14, fps=2, seed=seed):
            boxes = detector.detect(frame.image_bgr)
            found = 0
            for truth in truths:
                x = (truth.box_xyxy[0] + truth.box_xyxy[2]) / 2
                y = (truth.box_xyxy[1] + truth.box_xyxy[3]) / 2
                found += any(left < x < right and top < y < bottom for left, top, right, bottom in boxes)
            complete += found == len(truths)
            strays += len(boxes) - found
            total += 1
    assert total == 56
    assert complete / total >= 0.95
    assert strays / total <= 0.05


def test_scene_truths_equal_those_of_the_drawn_scene():
    for arguments in ((1, 4), (2, 2, (640, 480), 3, 5)):
        assert drawn.scene_truths(*arguments) == [truths for _, truths in drawn.scene(*arguments)]


def test_an_empty_scene_has_no_faces():
    frame, _ = next(drawn.scene(seconds=1, people=1))
    assert HaarDetector().detect(np.full_like(frame.image_bgr, 128)) == []
