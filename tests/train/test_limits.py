"""Limits of brightness and sharpness, fitted on a network that is known to fail beyond them."""

import numpy as np
import pytest

from edgefer.card import NOT_FITTED, Limits
from edgefer.quality import light, sharpness
from edgefer.train.data.dataset import Split
from edgefer.train.limits import Bin, Holdout, breaking_value, fit_limits

LIGHT, SHARP = 40.0, 60.0  # below them the network only guesses


def stripes(count: int, side: int = 48) -> Split:
    """Gray images of stripes of random contrast and width, upright (0) or lying (1)."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, count)
    images = []
    for label in labels:
        wave = np.sin(np.arange(side) * rng.uniform(0.8, 1.2) + rng.uniform(0, 6)) * rng.uniform(25, 45) + 120
        images.append(np.tile(wave, (side, 1)) if label == 0 else np.tile(wave[:, None], (1, side)))
    pixels = np.clip(np.array(images) + rng.normal(0, 2, (count, side, side)), 0, 255).astype(np.uint8)[..., None]
    return Split(images=pixels, labels=labels, ids=np.array([str(row) for row in range(count)]))


def reads_what_it_sees(images: np.ndarray) -> np.ndarray:
    """Logits of stripes: confident and right with enough light and sharpness, else confident and random."""
    rows = []
    for image in images[..., 0]:
        across, down = (np.abs(np.diff(image.astype(float), axis=axis)).sum() for axis in (1, 0))
        lying = down > across
        if light(image) < LIGHT or sharpness(image) < SHARP:
            lying = np.random.default_rng(int(image.sum())).random() < 0.5
        rows.append([0.0, 4.0] if lying else [4.0, 0.0])
    return np.array(rows, np.float32)


def test_limits_are_where_a_network_starts_to_guess():
    found = fit_limits([Holdout(reads_what_it_sees, stripes(600))], 1.0, "gray")
    assert found.min_light == pytest.approx(LIGHT, abs=12) and found.min_sharpness == pytest.approx(SHARP, rel=0.4)
    assert found.max_light > 240


def test_networks_of_a_cross_validation_are_fitted_together():
    split = stripes(600)
    halves = [Holdout(reads_what_it_sees, split.take(np.arange(half, 600, 2))) for half in (0, 1)]
    assert fit_limits(halves, 1.0, "gray").min_light == pytest.approx(LIGHT, abs=12)


def test_too_few_answers_fit_no_limits():
    assert fit_limits([Holdout(reads_what_it_sees, stripes(150))], 1.0, "gray") is None
    unsure = Holdout(lambda images: np.zeros((len(images), 3), np.float32), stripes(600))
    assert fit_limits([unsure], 1.0, "gray") is None


def test_single_weak_bin_among_good_ones_sets_no_limit():
    found = [Bin(value, 0.9, right) for value, right in ((90, 0.4), (50, 0.9), (30, 0.8), (20, 0.4), (10, 0.3))]
    assert breaking_value(found, 0.5) == 20
    assert breaking_value(found[:3], 0.5) == 30, "if nothing breaks, the last value that was tried"
    assert breaking_value(found[3:], 0.5) == 20, "if nothing is readable, the first value"


def test_min_light_above_max_light_is_refused():
    with pytest.raises(ValueError, match="min_light 200 is not below max_light 100"):
        Limits(min_light=200, max_light=100)
    assert Limits(min_light=13, max_light=235, min_sharpness=30) == NOT_FITTED
