"""The order of a network's labels: those of known data sets, and the one that labelled images suggest."""

from collections.abc import Sequence

import numpy as np

from edgefer.errors import InputError
from edgefer.text import printable
from edgefer.train.data.dataset import Dataset
from edgefer.train.data.matching import unmatched

LABEL_ORDERS = {
    "FER2013": ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    "RAF-DB": ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"),
    "AffectNet": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry"),
    "alphabetical": ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
}


def possible_orders(classes: int, data_labels: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The orders of the labels of data, by where they come from, as the data spells them."""
    orders = {"of the data": tuple(data_labels)} if len(data_labels) == classes else {}
    if orders:
        orders |= {"alphabetical": tuple(sorted(data_labels, key=str.casefold))}
    spelled = {label.casefold(): label for label in data_labels}
    known = {
        name: tuple(spelled[label] for label in labels)
        for name, labels in LABEL_ORDERS.items()
        if set(labels) == set(spelled)
    }
    different: dict[str, tuple[str, ...]] = {}
    for name, labels in (known | orders).items():
        if labels not in different.values():
            different[name] = labels
    return different


def spelled_alike(dataset: Dataset, labels: tuple[str, ...]) -> Dataset:
    """The data with its classes spelled like a network's labels, which may have more. InputError for a class that they do
    not name: with it the network could only be wrong, and a misspelt label would look like a network that fails."""
    dataset = dataset.spelled_like(labels)
    unknown = [name for name in dataset.labels if name not in labels]
    if not unknown:
        return dataset
    named, data = printable(", ".join(labels)), printable(", ".join(dataset.labels))
    free = [label for label in labels if label not in dataset.labels]
    if not free:
        raise InputError(
            f"{dataset.name} has images of {unmatched(unknown, ())}, and the network's labels do not name that ({named}): remove "
            "these images, or import again with the right --labels."
        )
    raise InputError(
        f"{unmatched(free, unknown)} {'is not a label' if len(free) == 1 else 'are no labels'} of this data, {dataset.name} ({data}): "
        f"import again with the right --labels, or give {unmatched(unknown, ())} the network's names with --names LABEL=NAME,..."
    )


def is_unusual(labels: Sequence[str]) -> bool:
    """Whether these are the labels of a known data set in the order of none."""
    plain = tuple(label.casefold() for label in labels)
    return plain not in LABEL_ORDERS.values() and any(set(plain) == set(one) for one in LABEL_ORDERS.values())


def suggested_order(answers: np.ndarray, truth: np.ndarray, given: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """The label order that images suggest, and on which images (bool [n]) the network is right with it: each half is judged
    by the order that the other half suggests, since an order that was chosen on the same images always looks better.

    answers: int [n], the network's. truth: str [n]. given: its labels as they are known.
    """
    even = np.arange(len(truth)) % 2 == 0
    right = np.zeros(len(truth), bool)
    for half in (even, ~even):
        order = np.array(_fitting(answers[half], truth[half], given))
        right[~half] = order[answers[~half]] == truth[~half]
    return _fitting(answers, truth, given), right


def _fitting(answers: np.ndarray, truth: np.ndarray, given: Sequence[str]) -> tuple[str, ...]:
    """For each answer a label of its own: the pair of answer and label that the most images have comes first. An answer
    that this leaves without a label keeps the given one if it is free."""
    names = list(dict.fromkeys([*given, *np.unique(truth).tolist()]))
    number = {name: at for at, name in enumerate(names)}
    pairs = answers * len(names) + np.array([number[name] for name in truth.tolist()], int)
    counts = np.bincount(pairs, minlength=len(given) * len(names))
    order: dict[int, str] = {}
    for at in np.argsort(-counts, kind="stable"):
        answer, name = int(at) // len(names), names[at % len(names)]
        if counts[at] and answer not in order and name not in order.values():
            order[answer] = name
    for answer, name in enumerate(given):
        if answer not in order and name not in order.values():
            order[answer] = name
    left = iter([name for name in names if name not in order.values()])
    return tuple(order[answer] if answer in order else next(left) for answer in range(len(given)))
