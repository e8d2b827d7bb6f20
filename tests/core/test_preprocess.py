"""The pixel contract."""

import io

import cv2
import numpy as np
import pytest

from edgefer.card import CropSpec, InputSpec, ModelCard, Provenance
from edgefer.preprocess import crop_square, face_pixels, prepare, to_float, to_int8
from edgefer.vectors import make_vectors

RNG = np.random.default_rng(0)


def test_image_of_the_right_size_is_unchanged():
    gray = RNG.integers(0, 256, (48, 48), dtype=np.uint8)
    assert np.array_equal(prepare(gray, InputSpec(height=48, width=48))[..., 0], gray)
    bgr = RNG.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    assert np.array_equal(prepare(bgr, InputSpec(height=48, width=48, color="rgb")), bgr[..., ::-1])


def test_gray_is_rec_601_of_bgr():
    bgr = RNG.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    expected = bgr @ np.array([0.114, 0.587, 0.299])
    assert np.abs(prepare(bgr, InputSpec(height=48, width=48))[..., 0] - expected).max() <= 0.51


def test_shrinking_averages_pixels():
    checker = (np.indices((96, 96)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.unique(prepare(checker, InputSpec(height=48, width=48))).tolist() == [128]


@pytest.mark.parametrize(("height", "width"), [(49, 48), (73, 101), (200, 60), (96, 96), (300, 40)])
def test_shrinking_is_the_exact_mean_of_what_a_pixel_covers(height, width):
    """Against integer sums over the image enlarged to whole cells, without floats. Halves are rounded up."""
    image = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    cells = image[..., ::-1].astype(np.int64).repeat(32, axis=0).repeat(24, axis=1)
    sums = cells.reshape(32, height, 24, width, 3).sum(axis=(1, 3))
    area = height * width
    assert np.array_equal(prepare(image, InputSpec(height=32, width=24, color="rgb")), (2 * sums + area) // (2 * area))


@pytest.mark.parametrize("min_value", [0, 255])
@pytest.mark.parametrize(("height", "width"), [(418, 419), (420, 418), (900, 700)])
def test_shrinking_is_exact_where_sums_exceed_32_bits(height, width, min_value):
    """255 * 48 * 418 * 419 is the last product below 2**31. Against weights per axis in 64 bits."""
    image = RNG.integers(min_value, 256, (height, width), dtype=np.uint8)

    def covered(pixels):
        cell, pixel = np.arange(48)[:, None], np.arange(pixels)
        shared = np.minimum((cell + 1) * pixels, (pixel + 1) * 48) - np.maximum(cell * pixels, pixel * 48)
        return np.maximum(shared, 0)

    sums, area = covered(height) @ image.astype(np.int64) @ covered(width).T, height * width
    found = prepare(image, InputSpec(height=48, width=48))[..., 0]
    assert np.array_equal(found, (2 * sums + area) // (2 * area))


def test_enlarging_interpolates_between_pixel_centres():
    """Against numpy's own interpolation along each axis."""
    image = RNG.integers(0, 256, (21, 17), dtype=np.uint8)
    rows, columns = ((np.arange(48) + 0.5) * size / 48 - 0.5 for size in image.shape)
    tall = np.stack([np.interp(rows, np.arange(21), column) for column in image.T], axis=1)
    expected = np.stack([np.interp(columns, np.arange(17), row) for row in tall])
    assert np.abs(prepare(image, InputSpec(height=48, width=48))[..., 0] - expected).max() <= 1


def test_int8_and_float_pixels_are_the_same_numbers():
    pixels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_int8(pixels).astype(int), pixels.astype(int) - 128)
    assert np.array_equal((to_int8(pixels).astype(np.float32) + 128) * np.float32(1 / 255), to_float(pixels))


@pytest.mark.parametrize(
    ("crop", "expected"),
    [
        (CropSpec(), (20, 30, 40, 50)),
        (CropSpec(scale=2), (10, 20, 50, 60)),
        (CropSpec(scale=0.5, dx=0.25, dy=-0.5), (30, 25, 40, 35)),
    ],
)
def test_the_crop_spec_moves_and_scales_the_box(crop, expected):
    frame = RNG.integers(0, 256, (100, 120, 3), dtype=np.uint8)
    left, top, right, bottom = expected
    assert np.array_equal(crop_square(frame, (20, 30, 40, 50), crop), frame[top:bottom, left:right])


def test_crop_beyond_the_frame_repeats_the_border():
    frame = RNG.integers(0, 256, (60, 50, 3), dtype=np.uint8)
    padded = cv2.copyMakeBorder(frame, 20, 20, 20, 20, cv2.BORDER_REPLICATE)
    assert np.array_equal(crop_square(frame, (-15, 30, 25, 70), CropSpec()), padded[50:90, 5:45])
    outside = crop_square(frame, (400, 400, 420, 420), CropSpec())
    assert outside.shape == (20, 20, 3) and (outside == frame[-1, -1]).all()


@pytest.mark.parametrize("left", [-30, 100, 32_900, 33_090, 33_400])
@pytest.mark.parametrize("top", [-30, 20])
def test_tilted_face_is_levelled_in_a_panorama(left, top):
    """OpenCV rotates no image of 32,767 or more pixels a side; the crop is that of the panorama's part."""
    image = RNG.integers(0, 256, (80, 33_100, 3), dtype=np.uint8)
    start = left - 200
    part = image.take(np.clip(np.arange(start, start + 500), 0, 33_099), axis=1)
    found = crop_square(image, (left, top, left + 50, top + 50), CropSpec(), 25.0)
    assert np.array_equal(found, crop_square(part, (200, top, 250, top + 50), CropSpec(), 25.0))
    found = crop_square(np.rot90(image), (top, left, top + 50, left + 50), CropSpec(), 25.0)
    part = np.rot90(image).take(np.clip(np.arange(start, start + 500), 0, 33_099), axis=0)
    assert np.array_equal(found, crop_square(part, (top, 200, top + 50, 250), CropSpec(), 25.0))


def test_face_of_any_size_is_resized_to_the_network_s_input():
    frame = RNG.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    for box in ((0, 0, 5, 5), (100, 100, 400, 401), (600, 440, 700, 540)):
        assert face_pixels(frame, box, CropSpec(scale=0.9), InputSpec(height=48, width=48)).shape == (48, 48, 1)


@pytest.mark.parametrize(("side", "color"), [(48, "gray"), (96, "rgb"), (224, "rgb")])
def test_parity_vectors_shrink_and_enlarge_at_every_size(side, color):
    spec = InputSpec(height=side, width=side, color=color)
    provenance = Provenance(data="", split_sizes={}, recipe={}, seed=0, epoch=1, versions={})
    card = ModelCard(name="any", labels=("a", "b"), input=spec, provenance=provenance)
    with np.load(io.BytesIO(make_vectors(card, {}))) as vectors:
        boxes, crops, frames = vectors["boxes"], vectors["crops"], vectors["frames"]
    sides = (boxes[:, 2] - boxes[:, 0] + boxes[:, 3] - boxes[:, 1]) / 2
    assert sides.min() < side < sides.max()
    assert boxes[:, :2].min() < 0 and (boxes[:, 2] > frames.shape[2]).any()
    assert crops.shape == (4, *spec.shape)
    if color == "rgb":
        assert (crops[..., 0] != crops[..., 2]).any()
