"""Groups of related images (copies, frames of a video, photographs of one person), and splits that keep each group
whole."""

import re

import numpy as np

from edgefer.errors import DataError

COPY = "copy"


def group_images(ids: np.ndarray, pattern: str) -> tuple[np.ndarray, np.ndarray]:
    r"""Each image's group, str [n], and whether it is a copy, bool [n], from its path within the data.

    pattern: a regular expression that is searched in the path; the text of its capturing groups together names the
    image's group. One named "copy" is not part of the name: where it matches something, the image is a copy, which is
    trained on and never evaluated on. DataError where the pattern is invalid, captures nothing or does not match an id.

    >>> groups, copies = group_images(np.array(["cat/7.png", "cat/aug-1-7.png"]), r"(?P<copy>aug-\d+-)?(\d+)[.]png")
    >>> groups.tolist(), copies.tolist()
    (['7', '7'], [False, True])
    """
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise DataError(f"--group-by {pattern!r} is not a regular expression: {error}.") from None
    naming = [number for number in range(1, regex.groups + 1) if number != regex.groupindex.get(COPY)]
    if not naming:
        raise DataError(
            f"--group-by {pattern!r} captures nothing: put the part of the path that names a group in parentheses, "
            "such as 'subject-([0-9]+)'."
        )
    groups, copies = [], []
    for name in ids:
        match = regex.search(str(name))
        if match is None:
            raise DataError(f"--group-by {pattern!r} does not match {name}: every image must have a group.")
        groups.append("|".join(match[number] or "" for number in naming))
        copies.append(COPY in regex.groupindex and bool(match[COPY]))
    return np.array(groups), np.array(copies)


def assign_folds(
    labels: np.ndarray, groups: np.ndarray, names: tuple[str, ...], *, folds: int, seed: int
) -> np.ndarray:
    """The fold of each image, 0 .. folds - 1, int64 [n]: groups stay whole, and classes are spread evenly.

    Greedy, as scikit-learn's StratifiedGroupKFold: each group, shuffled and the largest first, goes to the fold that
    leaves the classes most even. names: of the classes. DataError where one has fewer groups than there are folds.
    """
    unique, group_of = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(unique), len(names)), np.int64)
    np.add.at(counts, (group_of, labels), 1)
    groups_of_class = (counts > 0).sum(axis=0)
    fewest = int(groups_of_class.argmin())
    if groups_of_class[fewest] < folds:
        images = "images" if len(unique) == len(labels) else "groups of images"
        raise DataError(
            f"The class {names[fewest]!r} has only {groups_of_class[fewest]} {images} to divide: too few for --folds {folds}. "
            "Add some, or name fewer folds."
        )
    shuffled = np.random.default_rng(seed).permutation(len(unique))
    order = shuffled[np.argsort(-counts[shuffled].sum(axis=1), kind="stable")]
    shares = np.zeros((folds, counts.shape[1]))
    total = counts.sum(axis=0)
    fold_of = np.zeros(len(unique), np.int64)
    for group in order:
        candidates = np.repeat(shares[None], folds, axis=0)
        candidates[np.arange(folds), np.arange(folds)] += counts[group] / total
        imbalance = candidates.std(axis=1).mean(axis=1)
        best = np.lexsort((shares.sum(axis=1), imbalance.round(12)))[0]  # of equal ones the smallest fold
        shares[best] += counts[group] / total
        fold_of[group] = best
    return fold_of[group_of]


def holdout_mask(labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """The images of a holdout by whole groups: bool [n], about `fraction` of each class, at least one group.

    A group with images of several classes counts for its most frequent one.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1), np.int64)
    np.add.at(counts, (group_of, labels), 1)
    rng, holdout = np.random.default_rng(seed), np.zeros(len(names), bool)
    majority = counts.argmax(axis=1)
    for label in np.unique(majority):
        members = rng.permutation(np.flatnonzero(majority == label))
        wanted = fraction * counts[members, label].sum()
        before = np.cumsum(counts[members, label]) - counts[members, label]
        holdout[members[before < wanted][: max(1, len(members) - 1)]] = True
    return holdout[group_of]
