"""Accuracy, macro recall and macro F1 from labels and predictions, in numpy so that a device can compute them too."""

from dataclasses import dataclass

import numpy as np

from edgefer.card import Scores
from edgefer.errors import EdgeferError

MIN_ANSWERS = 20  # for a target accuracy: with fewer images a share is meaningless
PROMISES = (0.9, 0.95)  # target accuracies that a network may reach by answering only with a high score


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int64 [classes, classes]: row = true class, column = predicted class."""
    if labels.shape != predicted.shape:
        raise ValueError(f"{labels.shape} labels against {predicted.shape} predictions")
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def per_class(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of each class, float64 [classes]; 0 if a class was never predicted or is absent."""
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
    """Per equal-width bin of confidence: its count, mean confidence and accuracy; float [bins, 3], zeros if empty."""
    if bad := int(np.isnan(probabilities).any(axis=1).sum()):
        raise EdgeferError(
            f"The network's scores of {bad} of {len(labels)} images are not numbers (NaN): its weights or activations overflow. "
            "Train it again at a lower learning rate, or convert it again from a copy that works."
        )
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
    """Selective accuracy: scores, best first, and the accuracy of the answers with at least that score; both float64 [n].
    Entry k - 1 is for k of the n images."""
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    # int8 networks give many images the same score: each counts as their mean, so that the data's order does not matter.
    _, tied, count = np.unique(confidence, return_inverse=True, return_counts=True)
    right = (np.bincount(tied, probabilities.argmax(axis=1) == labels) / count)[tied][order]
    return confidence[order], np.cumsum(right) / np.arange(1, len(right) + 1)


def aurc(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The area under the risk-coverage curve: the error rate, averaged over every coverage from the most confident answer to
    all (Geifman et al. 2019, arXiv:1805.08206). 0 is best; meaningless scores give 1 - accuracy."""
    return float(1 - accuracy_by_coverage(probabilities, labels)[1].mean())


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A network that rejects scores below `score`: its coverage, and the accuracy of the answers; each a float, 0..1, the
    accuracy None if nothing is answered."""

    score: float
    answered: float
    accuracy: float | None


def answered_from(probabilities: np.ndarray, labels: np.ndarray, score: float) -> Answered:
    """Coverage and accuracy with the threshold `score`."""
    sure = probabilities.max(axis=1) >= score
    right = probabilities.argmax(axis=1) == labels
    return Answered(
        score=score, answered=float(sure.mean()), accuracy=float(right[sure].mean()) if sure.any() else None
    )


def answered_with(probabilities: np.ndarray, labels: np.ndarray, accuracy: float) -> Answered | None:
    """The lowest threshold with at least this accuracy of the answers.

    None if there is none with at least MIN_ANSWERS answers.
    """
    scores, reached = accuracy_by_coverage(probabilities, labels)
    last_of_its_score = np.append(scores[1:] < scores[:-1], True)
    enough = np.flatnonzero(last_of_its_score & (reached >= accuracy - 1e-12))
    if not len(enough) or enough[-1] + 1 < MIN_ANSWERS:
        return None
    at = enough[-1]
    return Answered(score=float(scores[at]), answered=(int(at) + 1) / len(scores), accuracy=float(reached[at]))


def wilson_interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The score interval of a share of `count` trials (Wilson 1927): also valid near 0 and 1 and for few trials."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    # Exactly 0 and 1 at the ends, where rounding gives 0.9999999999999999.
    return max(0.0, middle - half) if share > 0 else 0.0, min(1.0, middle + half) if share < 1 else 1.0


def paired_interval(lost: int, gained: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95% interval of the difference of two shares of the same `count` trials, of which `lost` succeeded only in the
    first and `gained` only in the second (Bonett & Price 2012, 10.3102/1076998611411915).

    It adds one trial of each kind: unlike the plain interval it does not vanish when no trial differs, and it is valid for
    few trials.
    """
    first, second = (lost + 1) / (count + 2), (gained + 1) / (count + 2)
    half = z * ((first + second - (first - second) ** 2) / (count + 2)) ** 0.5
    return max(-1.0, first - second - half), min(1.0, first - second + half)


def mcnemar_p(lost: int, gained: int) -> float:
    """The exact two-sided p-value of McNemar's test: how often a fair coin would split as unevenly."""
    count = lost + gained
    ways = tail = 1
    # Each binomial coefficient from the one before, since math.comb takes seconds for thousands of them.
    for k in range(min(lost, gained)):
        ways = ways * (count - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**count)
