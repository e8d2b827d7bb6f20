"""Data sets as arrays: pictures, labels and their origin, kept together so that they cannot get out of step."""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgefer import drawn
from edgefer.card import InputSpec
from edgefer.errors import DataError
from edgefer.preprocess import prepare
from edgefer.train.data.groups import group_pictures, held_rows

BUILT_IN = "builtin"
Track = Callable[[Iterable, int, str], Iterable]  # (items, how many, what) -> the items, showing progress


def silent(items: Iterable, total: int, what: str) -> Iterable:
    """A Track that shows nothing."""
    return items


@dataclass(frozen=True, kw_only=True)
class Split:
    """Pictures with their labels: row i of each array belongs together.

    images uint8 [n, h, w, c]; labels int64 [n], indices into Dataset.labels; ids [n], the row or file each came from;
    targets float32 [n, classes], what to train towards where that is not just the label: each row sums to 1.
    """

    images: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    ids: np.ndarray = field(repr=False)
    targets: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self):
        if not len(self.images) == len(self.labels) == len(self.ids):
            raise DataError(
                f"{len(self.images)} pictures, {len(self.labels)} labels, {len(self.ids)} ids do not match."
            )
        if self.targets is not None and len(self.targets) != len(self.labels):
            raise DataError(f"{len(self.targets)} targets do not match {len(self.labels)} pictures.")

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
class Dataset:
    """Labelled pictures by split ("train", "valid", perhaps "test"), and what was skipped while reading them."""

    name: str
    labels: tuple[str, ...]
    splits: dict[str, Split]
    skipped: tuple[str, ...] = ()

    def split(self, name: str) -> Split:
        """The split of that name; DataError when the data set has none."""
        if name not in self.splits:
            raise DataError(f"{self.name} has no {name} split: it has {', '.join(self.splits)}.")
        return self.splits[name]

    @property
    def held_pictures(self) -> str:
        """A hash of the names of the pictures that are held back to measure on; of all, for folds, where none are."""
        names = sorted(str(one) for one in self.splits.get("valid", self.split("train")).ids)
        return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]

    def with_labels(self, labels: tuple[str, ...]) -> "Dataset":
        """The same pictures with label indices into `labels`; matched by name, never by position."""
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
        return Dataset(name=self.name, labels=labels, splits=moved, skipped=self.skipped)


def stratified_rows(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` rows drawn so that each class keeps its share, at least one of each; int64, shuffled.

    Largest remainders decide which class gets the odd picture.
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
    """A stratified, seeded division into the rest and `fraction` of the pictures."""
    held = np.zeros(len(split), bool)
    held[stratified_rows(split.labels, round(len(split) * fraction), seed)] = True
    return split.take(np.flatnonzero(~held)), split.take(np.flatnonzero(held))


def load_dataset(
    path: str | Path,
    spec: InputSpec,
    *,
    labels: str = "",
    skip_bad: bool = False,
    valid_fraction: float = 0.2,
    seed: int = 0,
    group_by: str = "",
    pooled: bool = False,
    track: Track = silent,
    cache: Path | None = None,
) -> Dataset:
    """A FER2013-style CSV (plain, .gz or inside .zip), a folder of pictures, or "builtin", as pixels for `spec`.

    A validation split that the data does not bring is taken from the training pictures: stratified, seeded,
    `valid_fraction` of them. A bad row or picture raises DataError naming it, or with `skip_bad` is left out and listed.
    Parsed data is kept under `cache` (see `cache_folder`) and found again while the files do not change.
    labels: "ferplus", or a file of FER+ votes, instead of the CSV's own labels.
    group_by: for folders, a rule (edgefer.train.data.groups) by which pictures belong together: groups never cross a split,
    and copies are in the training split only. pooled: training and validation pictures together as "train".
    """
    from edgefer.train.data import csv as fer_csv
    from edgefer.train.data import ferplus, folders

    if str(path) != BUILT_IN and not Path(path).exists():
        raise DataError(
            f"There is no data at {path}: name a fer2013.csv (or .gz, .zip), a folder of pictures, or builtin."
        )
    votes = ferplus.votes_file(labels, path) if labels else None
    if group_by and not Path(path).is_dir():
        raise DataError(f"--group-by reads the paths of pictures: {path} is no folder.")
    if str(path) == BUILT_IN:
        artist = hashlib.sha256(Path(drawn.__file__).read_bytes()).hexdigest()
        stored = _cache_file(cache, [BUILT_IN, artist, spec.model_dump(), seed])
        dataset = _cached(stored, lambda: built_in(spec, seed=seed, track=track))
    else:
        path = Path(path)
        reader = folders if path.is_dir() else fer_csv
        stored = _cache_file(cache, [str(path.resolve()), reader.fingerprint(path), spec.model_dump(), skip_bad])
        dataset = _cached(stored, lambda: reader.read(path, spec, skip_bad, track))
    if votes:
        dataset = ferplus.with_votes(dataset, votes)
    if pooled:
        together = [split for name, split in dataset.splits.items() if name != "test"]
        rest = {name: split for name, split in dataset.splits.items() if name == "test"}
        dataset = replace(dataset, splits={"train": pool(together), **rest})
    if group_by:
        dataset = _whole_groups(dataset, group_by)
    _check_classes(dataset, path)
    return dataset if pooled or "valid" in dataset.splits else hold_out(dataset, valid_fraction, seed, group_by)


def pool(splits: list[Split]) -> Split:
    """The splits one after the other."""
    soft = [split.targets for split in splits if split.targets is not None]
    return Split(
        images=np.concatenate([split.images for split in splits]),
        labels=np.concatenate([split.labels for split in splits]),
        ids=np.concatenate([split.ids for split in splits]),
        targets=np.concatenate(soft) if len(soft) == len(splits) else None,
    )


def built_in(spec: InputSpec, *, per_class: int = 120, seed: int = 0, track: Track = silent) -> Dataset:
    """Drawn faces (edgefer.drawn), `per_class` of each expression for training and a third as many to validate."""

    def draw(count: int, seed: int) -> Split:
        faces, labels = drawn.face_set(count, seed)
        return Split(
            images=np.stack([prepare(face, spec) for face in track(faces, len(labels), "Drawing faces")]),
            labels=labels,
            ids=np.array([f"drawn {seed}:{i}" for i in range(len(labels))]),
        )

    # Different seeds, so no face is in both splits.
    splits = {"train": draw(per_class, 2 * seed), "valid": draw(max(1, per_class // 3), 2 * seed + 1)}
    return Dataset(name=BUILT_IN, labels=drawn.EXPRESSIONS, splits=splits)


def _check_classes(dataset: Dataset, path: str | Path) -> None:
    if "train" not in dataset.splits:
        raise DataError(f"{path} has no training pictures: it has only {', '.join(dataset.splits) or 'nothing'}.")
    for index, label in enumerate(dataset.labels):
        if not (dataset.splits["train"].labels == index).any():
            raise DataError(f"{path} has no training picture of class {label!r}: add some, or drop the class.")
    if empty := [name for name, split in dataset.splits.items() if not len(split)]:
        raise DataError(
            f"No picture of the {empty[0]} split of {path} is left to measure on: add some, or drop the split."
        )


def _whole_groups(dataset: Dataset, group_by: str) -> Dataset:
    """The same without the copies in held splits; DataError when a group is in two splits."""
    kept: dict[str, Split] = {}
    split_of: dict[str, tuple[str, str]] = {}
    for name, split in dataset.splits.items():
        groups, copies = group_pictures(split.ids, group_by)
        for group, one in zip(groups.tolist(), split.ids.tolist(), strict=True):
            if split_of.setdefault(group, (name, one))[0] != name:
                raise DataError(
                    f"{one} belongs to the same group as {split_of[group][1]} ({group}) but lies in another split: move "
                    "it, put all pictures at one level of class folders, or mend --group-by."
                )
        kept[name] = split if name == "train" else split.take(np.flatnonzero(~copies))
    return replace(dataset, splits=kept)


def without_copies(dataset: Dataset, group_by: str) -> Dataset:
    """The data set with only the originals among its training pictures."""
    train = dataset.split("train")
    _, copies = group_pictures(train.ids, group_by)
    return replace(dataset, splits=dataset.splits | {"train": train.take(np.flatnonzero(~copies))})


def hold_out(dataset: Dataset, fraction: float, seed: int, group_by: str = "") -> Dataset:
    """The data set with `fraction` of its training pictures as "valid": stratified, seeded, by whole groups."""
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
                f"{dataset.name} has too few {'groups of ' if group_by else ''}pictures of class {label!r}: they cannot "
                "be in training and validation both."
            )
    others = {name: split for name, split in dataset.splits.items() if name != "train"}
    return replace(dataset, splits={"train": rest, "valid": valid} | others)


def cache_folder() -> Path:
    """Where parsed data sets are kept: edgefer/ in the user's cache (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgefer" / "datasets"


def _cache_file(cache: Path | None, fingerprint: list) -> Path | None:
    """The file under `cache` for data of this fingerprint; the number stands for the form of the file."""
    key = hashlib.sha256(json.dumps([1, *fingerprint]).encode()).hexdigest()[:24]
    return cache / f"{key}.npz" if cache else None


def _cached(stored: Path | None, read: Callable[[], Dataset]) -> Dataset:
    dataset = _from_cache(stored)
    if dataset is None:
        dataset = read()
        _to_cache(stored, dataset)
    return dataset


def _from_cache(stored: Path | None) -> Dataset | None:
    if stored is None or not stored.is_file():
        return None
    try:
        with np.load(stored, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            splits = {
                name: Split(**{part: arrays[f"{name}.{part}"] for part in ("images", "labels", "ids")})
                for name in about["splits"]
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # a damaged cache is read anew from the source
    return Dataset(name=about["name"], labels=tuple(about["labels"]), splits=splits, skipped=tuple(about["skipped"]))


def _to_cache(stored: Path | None, dataset: Dataset) -> None:
    if stored is None:
        return
    about = {"name": dataset.name, "labels": dataset.labels, "splits": list(dataset.splits), "skipped": dataset.skipped}
    arrays = {
        f"{name}.{part}": getattr(split, part)
        for name, split in dataset.splits.items()
        for part in ("images", "labels", "ids")
    }
    partial = stored.with_suffix(f".{os.getpid()}.partial")
    try:
        stored.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as out:
            np.savez(out, about=np.array(json.dumps(about)), **arrays)
        partial.replace(stored)
    except OSError:
        partial.unlink(missing_ok=True)  # no room or no right to cache: the next load parses again
