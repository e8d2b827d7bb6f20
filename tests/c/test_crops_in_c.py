"""The C code makes the same pixels of a frame as edgefer.preprocess and the detectors, bit for bit."""

import cv2
import numpy as np
import pytest

from edgefer.c.pixels import HostPixels
from edgefer.card import CropSpec, InputSpec
from edgefer.devices.faces.canvas import Layout, shrunk, thinned
from edgefer.devices.faces.own import cut, square_around
from edgefer.preprocess import face_pixels, prepare


def scene(rng) -> np.ndarray:
    """uint8 BGR of any size, noise or smooth."""
    height, width = (int(side) for side in rng.integers(20, 200, 2))
    if rng.random() < 0.5:
        return rng.integers(0, 256, (height, width, 3), np.uint8)
    coarse = rng.integers(0, 256, (max(2, height // 7), max(2, width // 7), 3), np.uint8)
    return cv2.resize(coarse, (width, height))


@pytest.mark.gcc
def test_pixels_for_the_face_networks_are_those_of_the_devices():
    rng, pixels, count = np.random.default_rng(9), HostPixels(), 0
    while count < 200_000:
        frame = cv2.resize(scene(rng), tuple(int(side) for side in rng.integers(20, 900, 2)))
        width, height = Layout.of(frame.shape, 192).size
        gray = cv2.cvtColor(thinned(frame, (width, height)), cv2.COLOR_BGR2GRAY)
        assert np.array_equal(pixels.shrunk(frame, height, width), shrunk(gray, (width, height)))
        x, y = rng.uniform(-0.2, 1.2, 2) * frame.shape[1::-1]
        square = square_around(np.array([x, y, x, y]) + rng.uniform(0, 400, 4))
        assert np.array_equal(pixels.close_up(frame, square.edges, square.step, 48), cut(frame, square))
        count += height * width + 48 * 48


@pytest.mark.gcc
@pytest.mark.parametrize("color", ["gray", "rgb", "bgr"])
@pytest.mark.parametrize("turned", [False, True], ids=["level", "turned"])
def test_200_000_random_pixels_of_crops_are_those_of_preprocess(color, turned):
    rng = np.random.default_rng(5)
    differing = count = 0
    pixels = HostPixels()
    while count < 200_000:
        frame = scene(rng)
        height, width = (int(side) for side in rng.integers(16, 70, 2))
        spec = InputSpec(height=height, width=width, color=color)
        left, top = int(rng.integers(-20, frame.shape[1] - 10)), int(rng.integers(-20, frame.shape[0] - 10))
        box = left, top, left + int(rng.integers(2, 130)), top + int(rng.integers(2, 130))
        dx, dy = rng.uniform(-0.2, 0.2, 2)
        crop = CropSpec(scale=float(rng.uniform(0.5, 1.8)), dx=float(dx), dy=float(dy), faces=3)
        roll = float(rng.uniform(-60, 60)) if turned else None
        expected = face_pixels(frame, box, crop, spec, roll)
        differing += int((pixels.face(frame, box, crop, spec, roll) != expected).sum())
        if not turned:
            rgba = np.dstack([frame[..., ::-1], np.full(frame.shape[:2], 255, np.uint8)])
            differing += int((pixels.face(rgba, box, crop, spec) != expected).sum())
        count += expected.size
    assert differing == 0


@pytest.mark.gcc
def test_200_000_random_pixels_of_resizing_are_those_of_opencv_linear_exact():
    rng = np.random.default_rng(6)
    differing = count = 0
    pixels = HostPixels()
    while count < 200_000:
        gray = np.ascontiguousarray(scene(rng)[..., 0])
        height, width = (int(side) for side in rng.integers(1, 300, 2))
        expected = cv2.resize(gray, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
        differing += int((pixels.resize(gray, height, width) != expected).sum())
        spec = InputSpec(height=max(16, height), width=max(16, width))
        differing += int((pixels.prepare(gray, spec) != prepare(gray, spec)).sum())
        count += expected.size
    assert differing == 0
