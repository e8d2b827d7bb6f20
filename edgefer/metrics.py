"""Accuracy, macro recall and macro F1 from labels and predictions, in numpy so that a device can compute them too."""

from math import comb

import numpy as np

from edgefer.card import Scores


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int64 [classes, classes]: row = true class, column = predicted class."""
    if labels.shape != predicted.shape:
        raise ValueError(f"{labels.shape} labels against {predicted.shape} predictions")
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def per_class(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of each class, float64 [classes]; 0 where a class was never predicted or is absent."""
    hits = np.diag(matrix).astype(float)
    predicted, true = matrix.sum(axis=0), matrix.sum(axis=1)
    return (
        hits / np.maximum(predicted, 1),
        hits / np.maximum(true, 1),
        2 * hits / np.maximum(predicted + true, 1),
    )


def scores(labels: np.ndarray, predicted: np.ndarray, classes: int) -> Scores:
    """The headline figures; the macro averages run over the classes that occur in `labels`."""
    matrix = confusion_matrix(labels, predicted, classes)
    present = matrix.sum(axis=1) > 0
    _, recall, f1 = per_class(matrix)
    return Scores(
        count=len(labels),
        accuracy=float(np.diag(matrix).sum() / len(labels)),
        macro_recall=float(recall[present].mean()),
        macro_f1=float(f1[present].mean()),
    )


def nll(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood, in nats, of float [n, classes] probabilities against int64 [n] labels."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-12)).mean())


def calibration_bins(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> np.ndarray:
    """Per equal-width bin of confidence: its count, mean confidence and accuracy; float [bins, 3], zeros where empty."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    sums = np.stack([np.bincount(which, weights, minlength=bins) for weights in (confidence, right)])
    return np.column_stack([count, *(sums / np.maximum(count, 1))])


def ece(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy (Guo et al. 2017, arXiv:1706.04599)."""
    count, confidence, accuracy = calibration_bins(probabilities, labels, bins).T
    return float((count * np.abs(confidence - accuracy)).sum() / count.sum())


def accuracy_by_coverage(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a network is worth where it may say that it does not know: scores, best first, and the accuracy of the answers
    with at least that score; both float64 [n]. Entry k - 1 answers for k of the n images."""
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    right = (probabilities.argmax(axis=1) == labels)[order]
    return confidence[order], np.cumsum(right) / np.arange(1, len(right) + 1)


def wilson_interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The score interval of a share of `count` trials (Wilson 1927): right near 0 and 1 and for few trials too."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_interval(lost: int, gained: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """95% for the difference of two shares of the same `count` trials, of which `lost` went only to the first and
    `gained` only to the second (Bonett & Price 2012, 10.3102/1076998611411915).

    As if one more trial of each kind had been seen: unlike the plain interval it does not shrink to nothing when no
    trial differs, and it holds for few trials.
    """
    first, second = (lost + 1) / (count + 2), (gained + 1) / (count + 2)
    half = z * ((first + second - (first - second) ** 2) / (count + 2)) ** 0.5
    return max(-1.0, first - second - half), min(1.0, first - second + half)


def mcnemar_p(lost: int, gained: int) -> float:
    """The exact two-sided p-value of McNemar's test: how often a fair coin would split as unevenly."""
    tail = sum(comb(lost + gained, k) for k in range(min(lost, gained) + 1))
    return min(1.0, 2 * tail / 2 ** (lost + gained))
