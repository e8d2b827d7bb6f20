"""From a path to a data set: rows are read, prepared, and arranged in splits, by the same code for training and the audit."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgefer import drawn, portrait
from edgefer.card import InputSpec
from edgefer.errors import DataError
from edgefer.preprocess import prepare
from edgefer.progress import SILENT, Progress
from edgefer.text import printable
from edgefer.train.data import ferplus
from edgefer.train.data.cache import cache_file, cached
from edgefer.train.data.csv import open_csv
from edgefer.train.data.dataset import Dataset, Further, Split, check_classes, hold_out, pool, whole_groups
from edgefer.train.data.folders import open_folder
from edgefer.train.data.rows import Row, Rows

BUILT_IN = "builtin"
PER_CLASS = 120  # drawn faces of each expression to train on; a third as many to validate


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How data is to be read and divided.

    labels: "ferplus", or a file of FER+ votes, instead of the CSV's own labels. names: `0=neutral,1=happy`, what labels or
    folders that are numbers mean. skip_bad: leave bad rows and images out, and list them. valid_fraction, seed: the
    validation split that is taken from the training images where the data brings none, stratified. group_by: for folders, a
    rule (edgefer.train.data.groups) by which images belong together: groups never cross a split, and copies are in the
    training split only. pooled: training and validation images together as "train".
    """

    labels: str = ""
    names: str = ""
    skip_bad: bool = False
    valid_fraction: float = 0.2
    seed: int = 0
    group_by: str = ""
    pooled: bool = False


def load_dataset(
    path: str | Path,
    spec: InputSpec,
    options: DataOptions = DataOptions(),
    *,
    progress: Progress = SILENT,
    cache: Path | None = None,
) -> Dataset:
    """A CSV in FER2013's form (plain or in an archive), a folder of images, or "builtin", as pixels for `spec`.

    A bad row or image raises DataError naming it, or is left out and listed. Parsed data is kept under `cache` and found
    again while the files do not change.
    """
    return arrange(_load(path, spec, options, progress, cache), path, options)


def load_further(
    path: str | Path,
    share: float,
    dataset: Dataset,
    spec: InputSpec,
    *,
    skip_bad: bool = False,
    progress: Progress = SILENT,
    cache: Path | None = None,
) -> Further:
    """A folder or CSV of images of some of the data set's classes, all of its splits together, for training only.

    Images with the very pixels of one of the data set's own are left out: they would leak into training from the images that
    are held out. DataError where it cannot be read, has a class that the data set does not have, or nothing is left.
    """
    read = _load(path, spec, DataOptions(skip_bad=skip_bad), progress, cache)
    if unknown := [label for label in read.labels if label not in dataset.labels]:
        raise DataError(
            f"{path} has images of class {unknown[0]!r}, which {dataset.name} does not have ({', '.join(dataset.labels)}): "
            "rename or remove them."
        )
    split = pool(list(read.splits.values()))
    index = np.array([dataset.labels.index(label) for label in read.labels])
    own = {_digest(image) for one in dataset.splits.values() for image in one.images}
    fresh = np.array([_digest(image) not in own for image in split.images])
    if not fresh.any():
        raise DataError(f"{path} has no images that {dataset.name} does not have: leave --also out.")
    split = replace(split, labels=index[split.labels]).take(np.flatnonzero(fresh))
    return Further(name=read.name, split=split, share=share, skipped=read.skipped, repeated=int((~fresh).sum()))


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def _load(path: str | Path, spec: InputSpec, options: DataOptions, progress: Progress, cache: Path | None) -> Dataset:
    """What is there, in the splits in which it lies."""
    rows = open_rows(path, options)
    stored = cache_file(cache, [str(Path(path).absolute()), rows.fingerprint, spec.model_dump(), options.skip_bad])
    return cached(stored, lambda: _read(rows, path, spec, options.skip_bad, progress))


def open_rows(path: str | Path, options: DataOptions) -> Rows:
    """The data as a stream of rows, opened and not read yet. DataError when there is none, or options do not go with it."""
    if options.labels:
        ferplus.votes_file(options.labels, path)
    if options.labels and options.names:
        raise DataError("--labels brings names of its own: leave --names out.")
    file = Path(path)
    if options.group_by and not os.path.isdir(file) and (os.path.exists(file) or str(path) == BUILT_IN):
        raise DataError(f"--group-by reads the paths of images: {path} is not a folder.")
    if str(path) == BUILT_IN:
        if options.names:
            raise DataError("--names is for labels that are numbers: the built-in faces have names.")
        return _drawn_rows(options.seed)
    if not str(path):  # a path of nothing would be the folder at hand
        raise DataError("The data has an empty name: name a fer2013.csv, a folder of images, or builtin.")
    if not os.path.exists(file):  # pathlib's own raises where a name is too long
        raise DataError(
            f"There is no data at {path}: name a fer2013.csv (or .gz, .zip, .tar.gz), a folder of images, or builtin."
        )
    return (open_folder if file.is_dir() else open_csv)(file, options.names)


def _read(rows: Rows, path: str | Path, spec: InputSpec, skip_bad: bool, progress: Progress) -> Dataset:
    kept: list[tuple[str, str, str]] = []
    images: list[np.ndarray] = []
    bad: list[str] = []
    for row in progress.track(rows.stream, rows.total, f"Reading {rows.name}"):
        if row.image is not None:
            kept.append((row.id, row.split, row.label))
            images.append(prepare(row.image, spec))
            continue
        if not skip_bad:
            raise DataError(f"{path}, {row.problem}. Fix it, or leave such rows and images out with --skip-bad.")
        bad.append(row.problem)
    return as_dataset(rows, path, kept, np.array(images), bad)


def as_dataset(
    rows: Rows, path: str | Path, kept: list[tuple[str, str, str]], images: np.ndarray, bad: list[str]
) -> Dataset:
    """Id, split and label of each row that could be read, and the images [n, ...] that are kept of them, as a data set.
    DataError when there is none."""
    if not kept:
        reason = f": {len(bad):,} are bad, the first is {bad[0]}" if bad else ""
        raise DataError(f"{path} has no usable rows or images{reason}.")
    ids, splits, names = (np.array(column) for column in zip(*kept, strict=True))
    labels = rows.classes({str(name) for name in set(names.tolist())})
    index = {label: at for at, label in enumerate(labels)}
    classes = np.array([index[name] for name in names.tolist()], np.int64)
    return Dataset(
        name=rows.name,
        labels=labels,
        splits={
            name: Split(images=images[splits == name], labels=classes[splits == name], ids=ids[splits == name])
            for name in ("train", "valid", "test")
            if (splits == name).any()
        },
        skipped=tuple(bad),
        notes=rows.notes,
    )


def arrange(dataset: Dataset, path: str | Path, options: DataOptions) -> Dataset:
    """What was read, as it is trained on: other labels, whole groups, and a validation split. DataError when that cannot be."""
    read, notes = len(dataset), list(dataset.notes)
    if options.labels:
        dataset = ferplus.with_votes(dataset, ferplus.votes_file(options.labels, path))
    if options.pooled:
        together = [split for name, split in dataset.splits.items() if name != "test"]
        rest = {name: split for name, split in dataset.splits.items() if name == "test"}
        dataset = replace(dataset, splits={"train": pool(together), **rest})
    if options.group_by:
        dataset = whole_groups(dataset, options.group_by)
    check_classes(dataset, path)
    if not options.pooled and "valid" not in dataset.splits:
        dataset = hold_out(dataset, options.valid_fraction, options.seed, options.group_by)
        held = len(dataset.split("valid"))
        notes.append(
            f"The data has no validation split: {held:,} of its training images ({options.valid_fraction:.0%} of each class) are "
            "held back for one"
        )
    if unused := read - len(dataset):
        notes.append(f"{unused:,} images are not used: copies that nothing is measured on, or without a clear label")
    return replace(dataset, notes=tuple(notes))


def composition(dataset: Dataset) -> list[str]:
    """Lines that say what is trained on: images by class and split, what is held back, left out and ignored."""
    counts = {name: [*numbers, sum(numbers)] for name, numbers in dataset.counts().items()}
    labels = [printable(label) for label in (*dataset.labels, "all")]
    first = max(map(len, labels))
    lines = [" ".join(["class".ljust(first), *(f"{name:>9}" for name in counts)])]
    for at, label in enumerate(labels):
        lines.append(" ".join([label.ljust(first), *(f"{numbers[at]:>9,}" for numbers in counts.values())]))
    if further := dataset.further:
        lines.append(
            f"{further.share:.0%} of each batch from {further.name}: {len(further.split):,} images that are only trained on."
        )
        if further.repeated:
            lines.append(f"{further.repeated:,} images of {further.name} are in {dataset.name} too, and are left out.")
        if further.skipped:
            lines.append(
                f"{len(further.skipped):,} bad rows or images of {further.name} are left out, the first: {further.skipped[0]}."
            )
    if dataset.skipped:
        lines.append(f"{len(dataset.skipped):,} bad rows or images are left out, the first: {dataset.skipped[0]}.")
    return [*lines, *(f"{note}." for note in dataset.notes)]


def _drawn_rows(seed: int) -> Rows:
    """Drawn faces (edgefer.drawn), PER_CLASS of each expression for training and a third as many to validate."""
    counts = {"train": PER_CLASS, "valid": max(1, PER_CLASS // 3)}

    def draw() -> Iterator[Row]:
        for offset, (split, count) in enumerate(counts.items()):
            # Different seeds, so no face is in both splits.
            faces, labels = drawn.face_set(count, 2 * seed + offset)
            for number, (face, label) in enumerate(zip(faces, labels.tolist(), strict=True)):
                yield Row(
                    id=f"drawn {2 * seed + offset}:{number}", split=split, label=drawn.EXPRESSIONS[label], image=face
                )

    return Rows(
        name=BUILT_IN,
        classes=lambda seen: drawn.EXPRESSIONS,
        total=sum(counts.values()) * len(drawn.EXPRESSIONS),
        stream=draw(),
        fingerprint=[
            *(hashlib.sha256(Path(one).read_bytes()).hexdigest() for one in (drawn.__file__, portrait.__file__)),
            seed,
        ],
    )
