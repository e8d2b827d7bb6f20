"""How a detector's box relates to a data set's images."""

import numpy as np
import pytest

from edgefer.api import face_detectors
from edgefer.card import CropSpec
from edgefer.devices.faces.detectors import HaarDetector
from edgefer.train.data.dataset import Split
from edgefer.train.framing import MIN_FACES, measure_crop
from edgefer.train.pipeline import _crop_sample
from edgefer.train.recipes import load_recipe

FACES = np.zeros((MIN_FACES, 48, 48, 1), np.uint8)  # each becomes 192 pixels, 96 from the scene's border


def test_crop_is_measured_from_the_detectors_box():
    crop = measure_crop(FACES, lambda scene: [(112, 120, 272, 280)])
    assert (crop.scale, crop.faces) == (1.2, MIN_FACES)
    assert (crop.dx, crop.dy) == pytest.approx((0, -0.05))


def test_boxes_in_the_mirrored_border_are_ignored():
    mirrored = [(112, 0, 272, 60), (300, 120, 384, 280)]
    crop = measure_crop(FACES, lambda scene: [*mirrored, (112, 120, 272, 280)])
    assert (crop.scale, crop.faces) == (1.2, MIN_FACES)
    assert measure_crop(FACES, lambda scene: mirrored) == CropSpec()


def test_boxes_that_miss_the_face_give_no_crop():
    """A detector that finds something small in images of other things: no crop, and the training is not lost."""
    assert measure_crop(FACES, lambda scene: [(100, 100, 124, 124)]) == CropSpec()
    assert measure_crop(FACES[1:], lambda scene: [(96, 96, 288, 288)]) == CropSpec()


def test_searching_only_for_large_faces_gives_the_same_crop(builtin):
    images = builtin.split("train").images[:30]
    assert measure_crop(images, face_detectors("human")["haar"]) == measure_crop(images, HaarDetector().detect)


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_detectors_see_the_training_images_in_their_colours(color):
    """The crop of an input that is BGR was measured on blue faces."""
    red = np.zeros((4, 48, 48, 3), np.uint8)
    red[..., 0 if color == "rgb" else 2] = 255
    split = Split(images=red, labels=np.arange(4) % 2, ids=np.arange(4))
    seen = []
    measure_crop(
        _crop_sample(split, load_recipe("demo", (f"input.color={color}",))), lambda scene: seen.append(scene) or []
    )
    assert (np.array(seen) == (0, 0, 255)).all()
