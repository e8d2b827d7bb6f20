"""Accuracy, macro recall and macro F1 from labels and predictions, in numpy so that a device can compute them too."""

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
