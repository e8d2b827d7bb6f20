"""Data sets as arrays: images, labels and their origin, kept together so that they cannot get out of step."""

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np

from edgefer.card import MAX_LABELS
from edgefer.errors import DataError
from edgefer.provenance import MAX_NAME
from edgefer.text import unprintable
from edgefer.train.data.groups import group_pictures, held_rows


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images with their labels: row i of each array belongs together.

    images uint8 [n, h, w, c]; labels int64 [n], indices into Dataset.labels; ids [n], the row or file each came from;
    targets float32 [n, classes], what to train towards where that is not just the label: each row sums to 1.
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
        """The given rows, in the given order."""
        return Split(
            images=self.images[rows],
            labels=self.labels[rows],
            ids=self.ids[rows],
            targets=None if self.targets is None else self.targets[rows],
        )

    def soft_labels(self, classes: int) -> np.ndarray:
        """The targets, or the labels as one-hot rows where there are none: float32 [n, classes]."""
        return np.eye(classes, dtype=np.float32)[self.labels] if self.targets is None else self.targets


@dataclass(frozen=True, kw_only=True)
class Further:
    """Images that are only trained on, beside the training split: `share` of every batch, 0 < share < 1."""

    name: str
    split: Split
    share: float


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Labelled images by split ("train", "valid", perhaps "test").

    further: what is trained on beside the training split, whichever part of that is held back. skipped: rows or files that
    were left out as bad, and why. notes: sentences on what is ignored, or looks odd.
    """

    name: str
    labels: tuple[str, ...]
    splits: dict[str, Split]
    further: Further | None = None
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))

    def split(self, name: str) -> Split:
        """The split of that name; DataError when the data set has none."""
        if name not in self.splits:
            raise DataError(f"{self.name} has no {name} split: it has {', '.join(self.splits)}.")
        return self.splits[name]

    @property
    def held_images(self) -> str:
        """A hash of the names of the images that are held back to measure on; of all, for folds, where none are."""
        names = sorted(str(one) for one in self.splits.get("valid", self.split("train")).ids)
        return hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()[:16]

    @property
    def content_hash(self) -> str:
        """A hash of every image, label, name and target, which changes when anything that is trained on does."""
        content = hashlib.sha256(repr(self.labels).encode(errors="surrogateescape"))
        further = {f"further {self.further.share}": self.further.split} if self.further else {}
        for name, split in (self.splits | further).items():
            content.update(f"{name} {len(split)}".encode())
            for part in (split.images, split.labels, split.ids, split.targets):
                if part is not None:
                    content.update(np.ascontiguousarray(part).data)
        return content.hexdigest()[:32]

    def counts(self) -> dict[str, list[int]]:
        """How many images each split has of each class, in the order of the labels."""
        return {
            name: np.bincount(split.labels, minlength=len(self.labels)).tolist() for name, split in self.splits.items()
        }

    def with_labels(self, labels: tuple[str, ...]) -> "Dataset":
        """The same images with label indices into `labels`; matched by name, never by position."""
        if labels == self.labels:
            return self
        if set(labels) != set(self.labels):
            apart = sorted(set(labels) ^ set(self.labels))
            raise DataError(
                f"{self.name} is labelled {', '.join(self.labels)}, but the network knows {', '.join(labels)}: take one that "
                f"knows the same (edgefer models), rename the folders, or train on this data. Apart: {', '.join(apart)}."
            )
        order = np.array([labels.index(name) for name in self.labels])
        moved = {
            name: replace(
                split,
                labels=order[split.labels],
                targets=None if split.targets is None else split.targets[:, np.argsort(order)],
            )
            for name, split in self.splits.items()
        }
        return replace(self, labels=labels, splits=moved)


def stratified_rows(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` rows drawn so that each class keeps its share, at least one of each; int64, shuffled.

    Largest remainders decide which class gets the odd image.
    """
    rng = np.random.default_rng(seed)
    classes, sizes = np.unique(labels, return_counts=True)
    count = min(max(count, len(classes)), len(labels))
    ideal = sizes * count / len(labels)
    quota = np.maximum(1, np.floor(ideal)).astype(int)
    for which in np.argsort(quota - ideal, kind="stable"):
        if quota.sum() < count and quota[which] < sizes[which]:
            quota[which] += 1
    rows = [rng.permutation(np.flatnonzero(labels == c))[:q] for c, q in zip(classes, quota, strict=True)]
    return rng.permutation(np.concatenate(rows))


def divide(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """A stratified, seeded division into the rest and `fraction` of the images."""
    held = np.zeros(len(split), bool)
    held[stratified_rows(split.labels, round(len(split) * fraction), seed)] = True
    return split.take(np.flatnonzero(~held)), split.take(np.flatnonzero(held))


def pool(splits: list[Split]) -> Split:
    """The splits one after the other."""
    soft = [split.targets for split in splits if split.targets is not None]
    return Split(
        images=np.concatenate([split.images for split in splits]),
        labels=np.concatenate([split.labels for split in splits]),
        ids=np.concatenate([split.ids for split in splits]),
        targets=np.concatenate(soft) if len(soft) == len(splits) else None,
    )


def check_classes(dataset: Dataset, path: object) -> None:
    """DataError unless every class has training images, every split has images, and a card could hold the labels."""
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
            raise DataError(f"{path} has no training image of class {label!r}: add some, or drop the class.")
    if empty := [name for name, split in dataset.splits.items() if not len(split)]:
        raise DataError(
            f"No image of the {empty[0]} split of {path} is left to measure on: add some, or drop the split."
        )


def whole_groups(dataset: Dataset, group_by: str) -> Dataset:
    """The same without the copies in held splits; DataError when a group is in two splits."""
    kept: dict[str, Split] = {}
    split_of: dict[str, tuple[str, str]] = {}
    for name, split in dataset.splits.items():
        groups, copies = group_pictures(split.ids, group_by)
        for group, one in zip(groups.tolist(), split.ids.tolist(), strict=True):
            if split_of.setdefault(group, (name, one))[0] != name:
                raise DataError(
                    f"{one} belongs to the same group as {split_of[group][1]} ({group}) but lies in another split: move "
                    "it, put all pictures at one level of class folders, or fix --group-by."
                )
        kept[name] = split if name == "train" else split.take(np.flatnonzero(~copies))
    return replace(dataset, splits=kept)


def without_copies(dataset: Dataset, group_by: str) -> Dataset:
    """The data set with only the originals among its training images."""
    train = dataset.split("train")
    _, copies = group_pictures(train.ids, group_by)
    return replace(dataset, splits=dataset.splits | {"train": train.take(np.flatnonzero(~copies))})


def hold_out(dataset: Dataset, fraction: float, seed: int, group_by: str = "") -> Dataset:
    """The data set with `fraction` of its training images as "valid": stratified, seeded, by whole groups."""
    train = dataset.split("train")
    if not 0 < fraction < 1:
        raise DataError(f"The validation share must lie between 0 and 1, not {fraction:g}.")
    if group_by:
        groups, copies = group_pictures(train.ids, group_by)
        held = held_rows(train.labels, groups, fraction, seed)
        rest, valid = train.take(np.flatnonzero(~held)), train.take(np.flatnonzero(held & ~copies))
    else:
        rest, valid = divide(train, fraction, seed)
    for index, label in enumerate(dataset.labels):
        if not all((split.labels == index).any() for split in (rest, valid)):
            raise DataError(
                f"{dataset.name} has too few {'groups of ' if group_by else ''}images of class {label!r}: they cannot "
                "be in training and validation both."
            )
    others = {name: split for name, split in dataset.splits.items() if name != "train"}
    return replace(dataset, splits={"train": rest, "valid": valid} | others)
