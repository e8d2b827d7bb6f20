"""Makes a score mean what it says: temperature scaling (Guo et al. 2017, arXiv:1706.04599)."""

import numpy as np

from edgefer.interpreter import softmax
from edgefer.metrics import nll

LOWEST, HIGHEST = 0.05, 20.0


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature that minimizes the negative log-likelihood of float32 logits [n, classes] on int64 labels [n].

    Dividing the logits by it changes no decision. The likelihood is unimodal in the logarithm of the temperature, so
    a golden-section search finds its minimum.
    """
    golden = (5**0.5 - 1) / 2
    low, high = np.log(LOWEST), np.log(HIGHEST)
    for _ in range(40):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if nll(softmax(logits, np.exp(left)), labels) < nll(softmax(logits, np.exp(right)), labels):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))
