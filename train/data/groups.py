"""Which images belong together, and divisions that keep them so: copies, frames of a video, photographs of one animal."""

import re

import numpy as np

from edgefer.errors import DataError

COPY = "copy"


def group_pictures(ids: np.ndarray, pattern: str) -> tuple[np.ndarray, np.ndarray]:
    """Each image's group, and whether it is a copy, from its path within the data, such as train/Angry/aug-3-12.jpg.

    pattern: a regular expression, searched in the path; what its groups capture, together, names the image's group.
    A group named "copy" is left out of the name: where it captures something the image is a copy, to be trained on
    and never measured on. Returns (str [n], bool [n]). Raises DataError for a pattern that is none or does not match.
    """
    try:
        rule = re.compile(pattern)
    except re.error as error:
        raise DataError(f"--group-by {pattern!r} is not a regular expression: {error}.") from None
    kept = [number for number in range(1, rule.groups + 1) if number != rule.groupindex.get(COPY)]
    if not kept:
        raise DataError(
            f"--group-by {pattern!r} captures nothing: put the part of the path that names a group in parentheses, "
            "such as 'subject-([0-9]+)'."
        )
    groups, copies = [], []
    for one in ids:
        match = rule.search(str(one))
        if match is None:
            raise DataError(f"--group-by {pattern!r} does not match {one}: every image must have a group.")
        groups.append("|".join(match[number] or "" for number in kept))
        copies.append(COPY in rule.groupindex and bool(match[COPY]))
    return np.array(groups), np.array(copies)


def assign_folds(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """A fold for each image, 0 .. folds - 1, int64 [n]: groups stay whole, and each fold has its share of each class.

    Greedy: the groups, shuffled and the largest first, each go where the classes then lie most evenly; as
    scikit-learn's StratifiedGroupKFold does. Raises DataError when a class has fewer groups than there are folds.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1), np.int64)
    np.add.at(counts, (group_of, labels), 1)
    fewest = (counts > 0).sum(axis=0)
    if fewest.min() < folds:
        raise DataError(f"A class has only {fewest.min()} groups of images: too few for {folds} parts.")
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.argsort(-counts[shuffled].sum(axis=1), kind="stable")]
    shares = np.zeros((folds, counts.shape[1]))
    total = counts.sum(axis=0)
    fold_of = np.zeros(len(names), np.int64)
    for group in order:
        tried = np.repeat(shares[None], folds, axis=0)
        tried[np.arange(folds), np.arange(folds)] += counts[group] / total
        uneven = tried.std(axis=1).mean(axis=1)
        # Where that is equal, the emptiest fold.
        best = np.lexsort((shares.sum(axis=1), uneven.round(12)))[0]
        shares[best] += counts[group] / total
        fold_of[group] = best
    return fold_of[group_of]


def held_rows(labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Which images a division by groups holds back: bool [n], about `fraction` of each class, at least one group.

    A group with images of several classes counts for its commonest.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1), np.int64)
    np.add.at(counts, (group_of, labels), 1)
    rng, held = np.random.default_rng(seed), np.zeros(len(names), bool)
    commonest = counts.argmax(axis=1)
    for label in np.unique(commonest):
        members = rng.permutation(np.flatnonzero(commonest == label))
        wanted = fraction * counts[members, label].sum()
        taken = np.cumsum(counts[members, label]) - counts[members, label] < wanted
        held[members[taken][: max(1, len(members) - 1)]] = True
    return held[group_of]
