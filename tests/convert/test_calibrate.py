"""Temperature scaling, against networks whose true temperature is known."""

import numpy as np
import pytest

from edgefer.card import NOT_FITTED
from edgefer.convert.calibrate import MIN_JUDGED, calibrate, fit_temperature
from edgefer.interpreter import softmax
from edgefer.metrics import calibration_bins, ece, nll


def drawn_from(temperature: float, count: int = 20000):
    """Logits, and labels drawn from their softmax at `temperature`: that is the temperature to find."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (count, 7)).astype(np.float32)
    labels = (softmax(logits, temperature).cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return logits, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 4.0])
def test_the_true_temperature_is_found_and_calibrates(temperature):
    logits, labels = drawn_from(temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    assert ece(softmax(logits, found), labels) < 0.012
    if temperature != 1.0:
        assert ece(softmax(logits), labels) > 0.05
        assert nll(softmax(logits, found), labels) < nll(softmax(logits), labels)


def test_few_correct_images_do_not_make_scores_certain():
    """24 clearly separated images: an image between two classes must not get a near-certain score."""
    labels = np.arange(24) % 3
    logits = np.eye(3, dtype=np.float32)[labels] * 2
    temperature = fit_temperature(logits, labels)
    assert 0.9 < softmax(logits, temperature).max(axis=1).mean() < 0.97
    assert softmax(np.array([0.6, 0.4, 0.0]), temperature).max() < 0.65
    many = np.tile(labels, 400)
    assert fit_temperature(np.tile(logits, (400, 1)), many) < temperature, "many correct images count for more"


def test_temperature_that_increases_the_calibration_error_is_not_kept():
    """Two of a hundred confident answers are far wrong: cross-entropy asks for lower scores on all."""
    labels = np.zeros(1000, np.int64)
    logits = np.zeros((1000, 3), np.float32)
    logits[:, 0] = 4.6  # 0.98, and 98% are right
    logits[:20] = [0, 14, 0]
    found = calibrate(logits, labels)
    assert found.value == 1.0 and found.fitted > 1.3
    assert found.error > found.error_without + 0.02
    assert nll(softmax(logits, found.fitted), labels) < nll(softmax(logits), labels)
    note = found.note("valid", "int8", len(labels))
    assert note.startswith("temperature left at 1: ") and f"ECE {found.error:.3f} with it, " in note


def test_temperature_that_helps_is_kept_and_its_note_states_the_gain():
    logits, labels = drawn_from(1.7)
    found = calibrate(logits, labels)
    assert found.value == found.fitted == fit_temperature(logits, labels)
    assert found.note("valid", "int8", len(labels)) == (
        f"temperature {found.value:.3f} fitted on valid with int8: scores are off from how often they are right by "
        f"{ece(softmax(logits, found.value), labels):.3f} on average (ECE), by {ece(softmax(logits), labels):.3f} without it"
    )


def test_fit_on_few_correct_images_is_kept_although_its_ece_is_higher():
    labels = np.arange(24) % 3
    logits = np.eye(3, dtype=np.float32)[labels] * 20
    found = calibrate(logits, labels)
    assert found.value == found.fitted > 2 and found.error is None
    assert ece(softmax(logits, found.value), labels) > ece(softmax(logits), labels)
    assert "24 images are too few" in found.note("valid", "int8", 24)
    assert calibrate(np.tile(logits, (9, 1)), np.tile(labels, 9)).error is not None and MIN_JUDGED <= 9 * 24


def test_ece_is_the_gap_between_confidence_and_accuracy():
    sure = np.tile([0.9, 0.1], (10, 1))
    assert ece(sure, np.array([0] * 9 + [1])) == pytest.approx(0)
    assert ece(sure, np.array([0] * 5 + [1] * 5)) == pytest.approx(0.4)
    assert calibration_bins(sure, np.zeros(10, int))[13].tolist() == pytest.approx([10, 0.9, 1.0])
    assert nll(np.array([[1.0, 0.0]]), np.array([0])) == 0


def test_a_converted_bundle_is_calibrated(converted):
    step, limits = converted.card.provenance.conversion[-2:]
    assert step.startswith("temperature") and converted.card.temperature != 1.0
    found = converted.card.limits
    assert found != NOT_FITTED, "on 280 held-out faces"
    assert limits == (
        f"limits fitted on valid with int8: light {found.min_light:g} to {found.max_light:g}, sharpness {found.min_sharpness:g}"
    )
    after, before = (float(one[:5]) for one in step.split(" by ")[1:])
    assert after < before
