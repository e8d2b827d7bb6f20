"""Fits the light and the sharpness where a network cannot read a face any more.

Faces are blurred, darkened and brightened far beyond use. A limit is where the answers (of at least `run`'s score) have lost
half of what the network knows: under it fewer are right than halfway between naming the most frequent class and the answers
to faces as they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgefer.card import NOT_FITTED, Limits, ModelCard
from edgefer.interpreter import softmax
from edgefer.quality import gray_face, light, sharpness
from edgefer.train.data.dataset import Split
from edgefer.train.shift import SCORE, Change, Logits, blurred, changed, lit

IMAGES = 400  # of a split that are changed
MIN_ANSWERS = 200  # to images as they are: of fewer nothing can be fitted
BIN = 150  # answers of which the share that is right is taken
BLURRED = tuple(partial(blurred, sigma=sigma) for sigma in (1, 1.5, 2, 3, 4, 6))
DARKER = tuple(partial(lit, factor=factor) for factor in (0.3, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02))
BRIGHTER = tuple(partial(lit, factor=factor) for factor in (1.6, 2, 2.5, 3, 4, 6))


@dataclass(frozen=True)
class Bin:
    """Answers to faces that are about equally light or sharp. value: their mean light or sharpness; score: their mean score;
    right: the share that is right."""

    value: float
    score: float
    right: float


@dataclass(frozen=True)
class Answered:
    """Answers of at least `run`'s score to some faces: gray uint8 [h, w] each; scores float [n]; right bool [n]."""

    faces: Sequence[np.ndarray]
    scores: np.ndarray
    right: np.ndarray


@dataclass(frozen=True)
class Held:
    """A network, and images that it was not trained on: those of a cross-validation are held by several."""

    logits: Logits
    split: Split


def fit_limits(parts: Sequence[Held], temperature: float, color: str) -> Limits | None:
    """The limits of a network; None where it answers too few images, or reads none. color: the order of the channels, as in its card."""
    rng = np.random.default_rng(0)
    parts = [Held(one.logits, one.split.take(rng.permutation(len(one.split))[: IMAGES // len(parts)])) for one in parts]
    usual = answers(parts, temperature, color)
    if len(usual.right) < MIN_ANSWERS:
        return None
    labels = np.concatenate([one.split.labels for one in parts])
    least = float(usual.right.mean() + np.bincount(labels).max() / len(labels)) / 2

    def limit(changes: Sequence[Change], value: Callable[[np.ndarray], float], *, highest: bool = False) -> float:
        every = [usual, *(answers(parts, temperature, color, change) for change in changes)]
        return round(broken_at(bins(every, value, highest=highest), least), 1)

    low, high = limit(DARKER, light), limit(BRIGHTER, light, highest=True)
    return Limits(min_light=low, max_light=high, min_sharpness=limit(BLURRED, sharpness)) if low < high else None


def with_limits(card: ModelCard, parts: Sequence[Held], split: str, form: str) -> tuple[ModelCard, str]:
    """The card with the limits of its network's form, fitted on `parts` of a split, and a note for its steps. Where none can
    be fitted, the card says those of a network without."""
    limits = fit_limits(parts, card.temperature, card.input.color)
    if limits is None:
        note = f"limits of light and sharpness not fitted: fewer than {MIN_ANSWERS} sure answers on {split}, or none that are right"
    else:
        light_range = f"light {limits.min_light:g} to {limits.max_light:g}"
        note = f"limits fitted on {split} with {form}: {light_range}, sharpness {limits.min_sharpness:g}"
    return card.model_copy(update={"limits": limits or NOT_FITTED}), note


def answers(parts: Sequence[Held], temperature: float, color: str, change: Change | None = None) -> Answered:
    """What is answered to the images as they are, or changed."""
    faces, scores, right = [], [], []
    for part in parts:
        images = part.split.images if change is None else changed(part.split.images, change)
        probabilities = softmax(part.logits(images), temperature)
        sure = np.flatnonzero(probabilities.max(axis=1) >= SCORE)
        faces += [gray_face(images[row], color) for row in sure]
        scores.append(probabilities.max(axis=1)[sure])
        right.append(probabilities.argmax(axis=1)[sure] == part.split.labels[sure])
    return Answered(faces, np.concatenate(scores), np.concatenate(right))


def bins(every: Sequence[Answered], value: Callable[[np.ndarray], float], *, highest: bool = False) -> list[Bin]:
    """All answers by the light or sharpness of their faces, the best first: from high values down, or with `highest` from
    low ones up."""
    values = np.array([value(face) for some in every for face in some.faces])
    scores = np.concatenate([some.scores for some in every])
    right = np.concatenate([some.right for some in every])
    order = np.argsort(values if highest else -values, kind="stable")
    return [
        Bin(float(values[rows].mean()), float(scores[rows].mean()), float(right[rows].mean()))
        for rows in np.array_split(order, max(1, len(order) // BIN))
    ]


def broken_at(found: Sequence[Bin], least: float) -> float:
    """The value from which on every bin has fewer right answers than `least`; of the last bin where it has as many."""
    good = [at for at, one in enumerate(found) if one.right >= least]
    return found[min(good[-1] + 1, len(found) - 1) if good else 0].value
