"""Calibrates scores by temperature scaling (Guo et al. 2017, arXiv:1706.04599), with Platt's targets."""

from dataclasses import dataclass

import numpy as np

from edgefer.interpreter import softmax
from edgefer.metrics import ece

LOWEST, HIGHEST = 0.05, 20.0
MIN_JUDGED = 200  # images: with fewer, whether calibration improved cannot be measured


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """The temperature for the card, the fitted one, and the expected calibration error (edgefer.metrics.ece) with the
    fitted one and without any; None for fewer than MIN_JUDGED images."""

    value: float
    fitted: float
    error: float | None
    error_without: float | None

    def note(self, split: str, form: str, count: int) -> str:
        """A note of what was done, for the card."""
        if self.error is None or self.error_without is None:
            return f"temperature {self.value:.3f} fitted on {split} with {form}: {count} images are too few to measure what it gains"
        if self.value != self.fitted:
            return (
                f"temperature left at 1: a fitted one of {self.fitted:.3f} would not bring scores of {form} nearer to how often they "
                f"are right on {split} (ECE {self.error:.3f} with it, {self.error_without:.3f} without)"
            )
        return (
            f"temperature {self.value:.3f} fitted on {split} with {form}: scores are off from how often they are right by "
            f"{self.error:.3f} on average (ECE), by {self.error_without:.3f} without it"
        )


def calibrate(logits: np.ndarray, labels: np.ndarray) -> Temperature:
    """The temperature for float32 logits [n, classes] of held-out images with int64 labels [n].

    The fitted temperature minimizes cross-entropy. A few confident mistakes can make it worsen the calibration error of all
    other scores; the temperature then stays 1. With fewer than MIN_JUDGED images the fitted one is always used: all
    of them may be right by chance, and Platt's targets allow for that.
    """
    fitted = fit_temperature(logits, labels)
    if len(labels) < MIN_JUDGED:
        return Temperature(value=fitted, fitted=fitted, error=None, error_without=None)
    error, without = (ece(softmax(logits, one), labels) for one in (fitted, 1.0))
    return Temperature(value=fitted if error <= without else 1.0, fitted=fitted, error=error, error_without=without)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that minimizes the cross-entropy of float32 logits [n, classes] for int64 labels [n].

    Dividing the logits by it changes no decision. The target is (n + 1) / (n + 2) for the label and the rest shared by
    the other classes, as in Platt scaling (1999): without that, a few images that are all right would push every score
    to 1. The cross-entropy is unimodal in the log of the temperature, so a golden-section search finds its minimum.
    """
    count, classes = logits.shape
    targets = np.full((count, classes), 1 / ((count + 2) * (classes - 1)))
    targets[np.arange(count), labels] = (count + 1) / (count + 2)

    def cost(temperature: float) -> float:
        scaled = logits.astype(np.float64) / temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        return -float((targets * (scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True)))).sum(axis=1).mean())

    golden = (5**0.5 - 1) / 2
    low, high = np.log(LOWEST), np.log(HIGHEST)
    for _ in range(40):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if cost(np.exp(left)) < cost(np.exp(right)):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))
