"""The roll and points that the teacher derives from YuNet, with a fake YuNet that is biased to one side as YuNet is."""

import math

import numpy as np
import pytest

from edgefer.train.faces.teacher import TaughtFace, Teacher

CENTRE = np.array([100.0, 80.0])
GAIN, LEAN_DEG = 0.4, 4.0  # the share of a roll that YuNet's eyes follow; the roll derived for a level head
LEVEL_POINTS = np.array([[-20.0, -15], [20, -15], [0, 5], [-12, 25], [12, 25]])


class LeaningYuNet(Teacher):
    """Finds one face. Its roll is the value of the first pixel, or in the mirror image of the last in the row."""

    def __init__(self):
        pass

    def _rotated(self, image_bgr, face, angles):
        roll, mirrored = (
            (float(image_bgr[0, 0, 0]), False) if image_bgr[0, 0, 0] else (float(image_bgr[0, -1, 0]), True)
        )
        centre = (face.box[:2] + face.box[2:]) / 2
        assert centre.tolist() == ([image_bgr.shape[1] - CENTRE[0], CENTRE[1]] if mirrored else CENTRE.tolist())
        true = -roll if mirrored else roll
        points = [rotated(LEVEL_POINTS, GAIN * (true + angle) + GAIN * LEAN_DEG) + centre for angle in angles]
        return [TaughtFace(np.tile(centre, 2), one, 0.9) for one in points]


def rotated(points, angle_deg):
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return points @ np.array([[cos, sin], [-sin, cos]])


@pytest.mark.parametrize("roll", [5, 20])
def test_lean_is_cancelled_by_the_mirror_image(roll):
    image = np.zeros((160, 240, 3), np.uint8)
    image[0, 0] = roll
    box = np.concatenate([CENTRE - 40, CENTRE + 40])
    seen = TaughtFace(box, rotated(LEVEL_POINTS, GAIN * (roll + LEAN_DEG)) + CENTRE, 0.8)
    alone = LeaningYuNet()._level(image, seen)
    assert alone.roll_deg == pytest.approx(roll + LEAN_DEG)
    both = LeaningYuNet()._with_roll(image, seen)
    assert both.roll_deg == pytest.approx(roll)
    assert np.abs(both.points - (rotated(LEVEL_POINTS, roll) + CENTRE)).max() < 0.2
    assert both.box.tolist() == box.tolist()
