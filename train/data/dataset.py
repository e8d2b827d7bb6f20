"""Data sets as arrays: images, labels and ids in one record, so that they cannot get out of step."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edgefer.card import MAX_LABELS
from edgefer.errors import DataError
from edgefer.provenance import MAX_NAME
from edgefer.text import printable, unprintable
from edgefer.train.data.groups import group_images, holdout_mask
from edgefer.train.data.matching import absent, absent_note, matched, unmatched


@dataclass(frozen=True, kw_only=True)
class Split:
    """Labelled images; all arrays have the same rows.

    images: uint8 [n, h, w, c]. labels: int64 [n], indices into Dataset.labels. ids: str [n], the row or file of each
    image. targets: soft targets float32 [n, classes], rows summing to 1; None where the targets are the labels.
    """

    images: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    ids: np.ndarray = field(repr=False)
    targets: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self):
        if not len(self.images) == len(self.labels) == len(self.ids):
            raise DataError(f"{len(self.images)} images, {len(self.labels)} labels, {len(self.ids)} ids do not match.")
        if self.targets is not None and len(self.targets) != len(self.labels):
            raise DataError(f"{len(self.targets)} targets do not match {len(self.labels)} images.")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Split":
        """The split of these rows, in this order."""
        return Split(
            images=self.images[rows],
            labels=self.labels[rows],
            ids=self.ids[rows],
            targets=None if self.targets is None else self.targets[rows],
        )

    def soft_labels(self, classes: int) -> np.ndarray:
        """The targets, one-hot labels where there are none: float32 [n, classes]."""
        return np.eye(classes, dtype=np.float32)[self.labels] if self.targets is None else self.targets


@dataclass(frozen=True, kw_only=True)
class ExtraImages:
    """Images of another source, for training only: `share` of every batch, 0 < share < 1.

    skipped: bad rows or files that were left out, and why. repeated: how many were left out since the data set has them
    too.
    """

    name: str
    split: Split
    share: float
    skipped: tuple[str, ...] = ()
    repeated: int = 0


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Labelled images by split ("train", "valid", perhaps "test").

    extra: trained on beside the training split, and never held out. skipped: bad rows or files that were left out, and
    why. notes: sentences on what is ignored, or looks odd.
    """

    name: str
    labels: tuple[str, ...]
    splits: dict[str, Split]
    extra: ExtraImages | None = None
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))

    def split(self, name: str) -> Split:
        """The split of that name; DataError where there is none."""
        if name not in self.splits:
            raise DataError(f"{self.name} has no {name} split: it has {', '.join(self.splits)}.")
        return self.splits[name]

    @property
    def holdout_hash(self) -> str:
        """A hash of the ids of the validation images, or of all training images where there are none, as with folds."""
        names = sorted(str(one) for one in self.splits.get("valid", self.split("train")).ids)
        return hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()[:16]

    @property
    def content_hash(self) -> str:
        """A hash of all images, labels, ids and targets: it changes when anything that is trained on does."""
        content = hashlib.sha256(repr(self.labels).encode(errors="surrogateescape"))
        extra = {f"further {self.extra.share}": self.extra.split} if self.extra else {}
        for name, split in (self.splits | extra).items():
            content.update(f"{name} {len(split)}".encode())
            for part in (split.images, split.labels, split.ids, split.targets):
                if part is not None:
                    content.update(np.ascontiguousarray(part).data)
        return content.hexdigest()[:32]

    @property
    def sizes(self) -> dict[str, int]:
        """How many images each split has."""
        return {name: len(split) for name, split in self.splits.items()}

    def counts(self) -> dict[str, list[int]]:
        """Images of each split by class, in the order of the labels."""
        return {
            name: np.bincount(split.labels, minlength=len(self.labels)).tolist() for name, split in self.splits.items()
        }

    def with_labels(self, labels: tuple[str, ...]) -> "Dataset":
        """The same images with label indices into `labels`, a network's, matched by name, ignoring case; some of them may
        have no images. DataError for a class that is not among them."""
        if labels == self.labels:
            return self
        found = matched(self.labels, labels)
        if unknown := [name for name in self.labels if name not in found]:
            raise DataError(
                _unknown_classes(self, unknown, labels, [label for label in labels if label not in found.values()])
            )
        index = np.array([labels.index(found[name]) for name in self.labels])
        splits = {
            name: replace(
                split,
                labels=index[split.labels],
                targets=None if split.targets is None else _spread(split.targets, index, len(labels)),
            )
            for name, split in self.splits.items()
        }
        return replace(self, labels=labels, splits=splits)

    def spelled_like(self, labels: Sequence[str]) -> "Dataset":
        """The same data, with the spelling of those of `labels` that differ from its own in case only."""
        found = matched(self.labels, labels)
        return replace(self, labels=tuple(found.get(name, name) for name in self.labels))

    def without_empty_classes(self) -> "Dataset":
        """The data without the classes that have no image in any split: a CSV's labels may be numbers of FER2013's seven."""
        missing = absent(np.concatenate([split.labels for split in self.splits.values()]), self.labels)
        kept = [at for at, name in enumerate(self.labels) if name not in missing]
        if not missing:
            return self
        number = np.zeros(len(self.labels), np.int64)
        number[kept] = np.arange(len(kept))
        splits = {
            name: replace(
                split,
                labels=number[split.labels],
                targets=None if split.targets is None else split.targets[:, kept],
            )
            for name, split in self.splits.items()
        }
        return replace(self, labels=tuple(self.labels[at] for at in kept), splits=splits)

    @property
    def absent_note(self) -> str:
        """What of a network is not measured since no split has images of it; "" if all classes have some."""
        missing = absent(np.concatenate([split.labels for split in self.splits.values()]), self.labels)
        return absent_note(missing, len(self.labels), self.name)


def _spread(targets: np.ndarray, index: np.ndarray, classes: int) -> np.ndarray:
    """Soft targets with column k moved to index[k], of `classes` columns."""
    spread = np.zeros((len(targets), classes), targets.dtype)
    spread[:, index] = targets
    return spread


def _unknown_classes(dataset: Dataset, unknown: list[str], labels: tuple[str, ...], free: list[str]) -> str:
    known = printable(", ".join(labels))
    return (
        f"{dataset.name} has classes that the network does not know ({known}): {unmatched(unknown, free)}. Name them as it does, with "
        "--names LABEL=NAME,... or by their folders; take a network that knows them (edgefer models), train on this data, or, if the "
        "network was imported, import it again with the right --labels."
    )


def stratified_rows(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` random rows with each class's share kept, at least one of each: int64, shuffled.

    Rounded by the largest remainder method.

    >>> labels = np.repeat([0, 1], [80, 20])
    >>> np.bincount(labels[stratified_rows(labels, 10, seed=0)]).tolist()
    [8, 2]
    """
    rng = np.random.default_rng(seed)
    classes, sizes = np.unique(labels, return_counts=True)
    count = min(max(count, len(classes)), len(labels))
    ideal = sizes * count / len(labels)
    quota = np.maximum(1, np.floor(ideal)).astype(int)
    for which in np.argsort(quota - ideal, kind="stable"):
        if quota.sum() < count and quota[which] < sizes[which]:
            quota[which] += 1
    while quota.sum() > count:  # many classes got one that are worth less
        quota[np.where(quota > 1, quota - ideal, -np.inf).argmax()] -= 1
    rows = [rng.permutation(np.flatnonzero(labels == c))[:q] for c, q in zip(classes, quota, strict=True)]
    return rng.permutation(np.concatenate(rows))


def stratified_split(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """(rest, holdout), stratified: the holdout has `fraction` of the images."""
    holdout = np.zeros(len(split), bool)
    holdout[stratified_rows(split.labels, round(len(split) * fraction), seed)] = True
    return split.take(np.flatnonzero(~holdout)), split.take(np.flatnonzero(holdout))


def pool(splits: list[Split]) -> Split:
    """The splits concatenated; with targets only where all have them."""
    targets = [split.targets for split in splits if split.targets is not None]
    return Split(
        images=np.concatenate([split.images for split in splits]),
        labels=np.concatenate([split.labels for split in splits]),
        ids=np.concatenate([split.ids for split in splits]),
        targets=np.concatenate(targets) if len(targets) == len(splits) else None,
    )


def check_classes(dataset: Dataset, path: object) -> None:
    """DataError unless every class has training images, no split is empty, and a card can hold the labels."""
    for label in dataset.labels:
        if not 0 < len(label) <= MAX_NAME or unprintable(label):
            raise DataError(
                f"{path} has a class {label!r:.80}: a label has at most {MAX_NAME} characters, and none that acts on a terminal; "
                "rename it, or give it another name with --names."
            )
    if len(dataset.labels) > MAX_LABELS:
        raise DataError(f"{path} has {len(dataset.labels):,} classes: at most {MAX_LABELS:,} are trained on.")
    if "train" not in dataset.splits:
        raise DataError(f"{path} has no training images: it has only {', '.join(dataset.splits) or 'nothing'}.")
    for index, label in enumerate(dataset.labels):
        if not (dataset.splits["train"].labels == index).any():
            raise DataError(
                f"{path} has no training image of class {label!r}: add some, remove its folder, or where labels are numbers name "
                "only the classes that occur, such as --names 3=happy,4=sad."
            )
    if empty := [name for name, split in dataset.splits.items() if not len(split)]:
        raise DataError(
            f"No image of the {empty[0]} split of {path} is left to measure on: add some, or drop the split."
        )


def check_groups(dataset: Dataset, group_by: str) -> Dataset:
    """The data set without the copies in its validation and test splits. DataError where a group is in two splits."""
    kept: dict[str, Split] = {}
    split_of: dict[str, tuple[str, str]] = {}
    for name, split in dataset.splits.items():
        groups, copies = group_images(split.ids, group_by)
        for group, one in zip(groups.tolist(), split.ids.tolist(), strict=True):
            if split_of.setdefault(group, (name, one))[0] != name:
                raise DataError(
                    f"{one} belongs to the same group as {split_of[group][1]} ({group}) but lies in another split: move "
                    "it, put all pictures at one level of class folders, or fix --group-by."
                )
        kept[name] = split if name == "train" else split.take(np.flatnonzero(~copies))
    return replace(dataset, splits=kept)


def without_copies(dataset: Dataset, group_by: str) -> Dataset:
    """The data set without the copies among its training images."""
    train = dataset.split("train")
    _, copies = group_images(train.ids, group_by)
    return replace(dataset, splits=dataset.splits | {"train": train.take(np.flatnonzero(~copies))})


def hold_out(dataset: Dataset, fraction: float, seed: int, group_by: str = "") -> Dataset:
    """The data set with `fraction` of its training images as "valid", stratified or by whole groups.

    DataError where a class cannot be in both.
    """
    train = dataset.split("train")
    if not 0 < fraction < 1:
        raise DataError(f"The validation share must lie between 0 and 1, not {fraction:g}.")
    if group_by:
        groups, copies = group_images(train.ids, group_by)
        holdout = holdout_mask(train.labels, groups, fraction, seed)
        rest, valid = train.take(np.flatnonzero(~holdout)), train.take(np.flatnonzero(holdout & ~copies))
    else:
        rest, valid = stratified_split(train, fraction, seed)
    for index, label in enumerate(dataset.labels):
        if not all((split.labels == index).any() for split in (rest, valid)):
            raise DataError(
                f"{dataset.name} has too few {'groups of ' if group_by else ''}images of class {label!r}: they cannot "
                "be in training and validation both."
            )
    others = {name: split for name, split in dataset.splits.items() if name != "train"}
    return replace(dataset, splits={"train": rest, "valid": valid} | others)
