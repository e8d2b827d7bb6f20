"""The training data of face networks: images of any size, and only faces that are large enough."""

import numpy as np
import pytest

from edgefer.train.faces import compose
from edgefer.train.faces.gallery import Faces, Picture, gallery
from edgefer.train.faces.holdout import FaceData, split_sources
from edgefer.train.faces.scenes import Source
from edgefer.train.faces.tasks import pool_of, refiner_batches, refiner_sample

TAUGHT = [0, *[30.0] * 10, 0.9, 0.0]  # all of a row but its box


def picture(height, width, boxes=()):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    count = len(boxes)
    faces = Faces(boxes, np.full((count, 5, 2), np.nan), np.full(count, np.nan), np.full(count, 0.9))
    return Picture("own", "a", np.full((height, width), 99, np.uint8), faces)


def source(name, taught=(), marked=(), count=1, has_marks=False):
    """Source of `count` gray images with a teacher's boxes [image, x0, y0, x1, y1] and boxes marked by people."""
    rows = [[row[0], *row[1:5], *TAUGHT[1:]] for row in taught]
    return Source(
        name=name,
        names=tuple(f"{at}.png" for at in range(count)),
        images=tuple(np.random.default_rng(at).integers(0, 256, (64, 64), dtype=np.uint8) for at in range(count)),
        taught=np.array(rows, np.float32).reshape(-1, 17),
        marked=np.array(marked, np.float32).reshape(-1, 5),
        has_marks=has_marks,
    )


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 256), (10, 10), (200, 12)])
def test_refiner_batches_accept_images_of_any_size(height, width):
    batch = refiner_batches(pool_of([picture(height, width)]), [], count=6, seed=0)
    images, targets = batch(0)
    assert images.shape == (6, 48, 48, 1) and np.isfinite(targets[:, :2]).all()


def test_occlusion_in_a_refiners_crop_is_of_its_own_face(monkeypatch):
    occluded = []
    monkeypatch.setattr(compose, "occlude", lambda crop, box, rng: occluded.append((box[:2] + box[2:]) / 2))
    image = picture(200, 200, [(10, 10, 40, 40), (140, 140, 170, 170)])
    for seed in range(200):
        refiner_sample(image, image.faces.boxes[1], np.random.default_rng(seed))
    assert len(occluded) > 15 and np.median(np.abs(np.array(occluded) - 24).max(axis=1)) < 8


def test_face_of_a_few_pixels_is_not_a_training_example():
    (one,) = gallery([source("own", [[0, 1, 1, 5, 5]], [[0, 30, 30, 34, 36], [0, 10, 10, 30, 30]], has_marks=True)])
    assert np.isnan(one.faces.target).tolist() == [True, True, False]


def test_summary_counts_the_images_with_faces_of_each_source():
    sources = [
        source("few", [[0, 9, 9, 50, 50]], count=5),
        source("many", [[0, 9, 9, 50, 50]], count=4),
        source("marked", marked=[[1, 9, 9, 50, 50]], count=2, has_marks=True),
    ]
    assert split_sources(sources).summary() == [
        "few: 5 pictures to train on, 0 with faces: taken for a source without any",
        "many: 4 pictures to train on, 1 with faces",
        "marked: 2 pictures to train on, 1 with faces, marked by people",
    ]
    many = split_sources([source(str(number)) for number in range(25)]).summary()
    assert len(many) == 21 and many[-1] == "and 5 more sources"
    assert FaceData([], [picture(1, 1)]).summary() == ["1 pictures of fddb are held out"]
