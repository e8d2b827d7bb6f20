"""Makes a score mean what it says: temperature scaling (Guo et al. 2017, arXiv:1706.04599), with Platt's targets."""

from dataclasses import dataclass

import numpy as np

from edgefer.interpreter import softmax
from edgefer.metrics import ece

LOWEST, HIGHEST = 0.05, 20.0
MIN_JUDGED = 200  # images: by fewer it cannot be told whether scores are nearer to the truth


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """The temperature that a card gets, the one that was fitted, and the expected calibration error (edgefer.metrics.ece) with the
    fitted one and without any; None of fewer than MIN_JUDGED images."""

    value: float
    fitted: float
    error: float | None
    error_without: float | None

    def note(self, split: str, form: str, count: int) -> str:
        """What was done, for the card."""
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
    """The temperature for float32 logits [n, classes] of images with int64 labels [n] that the network never saw.

    What is fitted has the least cross-entropy. A few sure mistakes may lower that by a temperature that takes all other scores further
    from how often they are right; then the network's own scores stay. Of few images that is not judged: all of them may be
    right by chance, and the fit is made to doubt it.
    """
    fitted = fit_temperature(logits, labels)
    if len(labels) < MIN_JUDGED:
        return Temperature(value=fitted, fitted=fitted, error=None, error_without=None)
    error, without = (ece(softmax(logits, one), labels) for one in (fitted, 1.0))
    return Temperature(value=fitted if error <= without else 1.0, fitted=fitted, error=error, error_without=without)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that makes the most of float32 logits [n, classes] for int64 labels [n], in cross-entropy.

    Dividing the logits by it changes no decision. A label counts for (n + 1) / (n + 2) and all others for the rest, as
    in Platt's scaling (1999): without that, few images that are all right would make any score a certain one. The
    cross-entropy is unimodal in the logarithm of the temperature, so a golden-section search finds its minimum.
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
