"""Makes a score mean what it says: temperature scaling (Guo et al. 2017, arXiv:1706.04599), with Platt's targets."""

import numpy as np

LOWEST, HIGHEST = 0.05, 20.0


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
