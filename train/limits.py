"""Fits a network's limits of light and sharpness, beyond which it cannot read a face.

Faces are blurred, darkened and brightened far beyond use. At a limit, the accuracy of the answers (of at least `run`'s
score) falls below the midpoint between that on unchanged faces and the share of the most frequent class.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgefer.card import NOT_FITTED, Limits, ModelCard
from edgefer.interpreter import softmax
from edgefer.quality import gray_face, light, sharpness
from edgefer.train.data.dataset import Split
from edgefer.train.shift import MIN_SCORE, Change, Logits, apply_change, blur, relight

IMAGES = 400  # of a split
MIN_ANSWERS = 200  # to unchanged images; with fewer nothing is fitted
BIN_SIZE = 150  # answers
BLURRED = tuple(partial(blur, sigma=sigma) for sigma in (1, 1.5, 2, 3, 4, 6))
DARKER = tuple(partial(relight, factor=factor) for factor in (0.3, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02))
BRIGHTER = tuple(partial(relight, factor=factor) for factor in (1.6, 2, 2.5, 3, 4, 6))


@dataclass(frozen=True)
class Bin:
    """Answers to faces of about equal light or sharpness. value: its mean; score: the mean score; accuracy: 0..1."""

    value: float
    score: float
    accuracy: float


@dataclass(frozen=True)
class Answers:
    """Answers of at least `run`'s score. faces: gray uint8 [h, w] each; scores: float [n]; correct: bool [n]."""

    faces: Sequence[np.ndarray]
    scores: np.ndarray
    correct: np.ndarray


@dataclass(frozen=True)
class Holdout:
    """A network, and images that it was not trained on. A cross-validation has several of them."""

    logits: Logits
    split: Split


def fit_limits(parts: Sequence[Holdout], temperature: float, color: str) -> Limits | None:
    """Fit limits; None where there are too few answers, or no light at which they are right. color: as in the card's input."""
    rng = np.random.default_rng(0)
    parts = [
        Holdout(one.logits, one.split.take(rng.permutation(len(one.split))[: IMAGES // len(parts)])) for one in parts
    ]
    unchanged = answers(parts, temperature, color)
    if len(unchanged.correct) < MIN_ANSWERS:
        return None
    labels = np.concatenate([one.split.labels for one in parts])
    min_accuracy = float(unchanged.correct.mean() + np.bincount(labels).max() / len(labels)) / 2

    def limit(changes: Sequence[Change], measure: Callable[[np.ndarray], float], *, maximum: bool = False) -> float:
        every = [unchanged, *(answers(parts, temperature, color, change) for change in changes)]
        return round(breaking_value(bins(every, measure, ascending=maximum), min_accuracy), 1)

    low, high = limit(DARKER, light), limit(BRIGHTER, light, maximum=True)
    return Limits(min_light=low, max_light=high, min_sharpness=limit(BLURRED, sharpness)) if low < high else None


def with_limits(card: ModelCard, parts: Sequence[Holdout], split: str, form: str) -> tuple[ModelCard, str]:
    """The card with limits fitted on `parts`, and a note for its steps; with NOT_FITTED where none can be fitted.

    split, form: names of the split and of the form of the network, for the note.
    """
    limits = fit_limits(parts, card.temperature, card.input.color)
    if limits is None:
        note = f"limits of light and sharpness not fitted: fewer than {MIN_ANSWERS} sure answers on {split}, or none that are right"
    else:
        light_range = f"light {limits.min_light:g} to {limits.max_light:g}"
        note = f"limits fitted on {split} with {form}: {light_range}, sharpness {limits.min_sharpness:g}"
    return card.model_copy(update={"limits": limits or NOT_FITTED}), note


def answers(parts: Sequence[Holdout], temperature: float, color: str, change: Change | None = None) -> Answers:
    """The answers to the images, after the change where there is one."""
    faces, scores, correct = [], [], []
    for part in parts:
        images = part.split.images if change is None else apply_change(part.split.images, change, color)
        probabilities = softmax(part.logits(images), temperature)
        sure = np.flatnonzero(probabilities.max(axis=1) >= MIN_SCORE)
        faces += [gray_face(images[row], color) for row in sure]
        scores.append(probabilities.max(axis=1)[sure])
        correct.append(probabilities.argmax(axis=1)[sure] == part.split.labels[sure])
    return Answers(faces, np.concatenate(scores), np.concatenate(correct))


def bins(every: Sequence[Answers], measure: Callable[[np.ndarray], float], *, ascending: bool = False) -> list[Bin]:
    """All answers in bins by the light or sharpness that `measure` gives of a face, in descending or ascending order."""
    values = np.array([measure(face) for part in every for face in part.faces])
    scores = np.concatenate([part.scores for part in every])
    correct = np.concatenate([part.correct for part in every])
    order = np.argsort(values if ascending else -values, kind="stable")
    return [
        Bin(float(values[rows].mean()), float(scores[rows].mean()), float(correct[rows].mean()))
        for rows in np.array_split(order, max(1, len(order) // BIN_SIZE))
    ]


def breaking_value(ordered: Sequence[Bin], min_accuracy: float) -> float:
    """The value of the first bin after the last one of at least `min_accuracy`; of the last bin where that is the last."""
    good = [index for index, one in enumerate(ordered) if one.accuracy >= min_accuracy]
    return ordered[min(good[-1] + 1, len(ordered) - 1) if good else 0].value
