"""Loads a data set from a path: rows are read, preprocessed and split, by the same code for training and `data check`."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgefer import drawn, portrait
from edgefer.card import InputSpec
from edgefer.errors import DataError
from edgefer.options import DEFAULT_VALID_FRACTION
from edgefer.preprocess import prepare
from edgefer.progress import SILENT, Progress
from edgefer.text import counted, percent, printable
from edgefer.train.data import ferplus
from edgefer.train.data.cache import cache_file, cached
from edgefer.train.data.csv import open_csv
from edgefer.train.data.dataset import Dataset, ExtraImages, Split, check_classes, check_groups, hold_out, pool
from edgefer.train.data.folders import open_folder
from edgefer.train.data.rows import BUILT_IN, Row, Rows, check_there

PER_CLASS = 120  # drawn training faces of each expression; a third as many to validate


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """How data is read and split.

    labels: "ferplus", or a file of FER+ votes, instead of the CSV's own labels. names: `0=neutral,1=happy`, the names
    of labels or folders that are numbers. skip_bad: leave bad rows and images out, and list them. valid_fraction, seed:
    of the stratified validation split, where the data has none. group_by: for folders, a regular expression that names
    each image's group (edgefer.train.data.groups): no group is in two splits, and copies are in the training split
    only. pooled: training and validation images together as "train", for cross-validation.
    """

    labels: str = ""
    names: str = ""
    skip_bad: bool = False
    valid_fraction: float = DEFAULT_VALID_FRACTION
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
    """Load a FER2013 CSV (plain or in an archive), a folder of images, or "builtin", preprocessed for `spec`.

    DataError names the first bad row or image, unless they are to be skipped. cache: a folder for parsed data, which is
    reused while the files do not change.
    """
    return make_splits(_load(path, spec, options, progress, cache), path, options)


def load_extra(
    path: str | Path,
    share: float,
    dataset: Dataset,
    spec: InputSpec,
    *,
    skip_bad: bool = False,
    progress: Progress = SILENT,
    cache: Path | None = None,
) -> ExtraImages:
    """Load images of some of the data set's classes, all splits of `path` together, for training only.

    Images with the same pixels as one of the data set's are left out: they would leak from the validation split into
    training. DataError where `path` cannot be read, has a class that the data set does not have, or nothing is left.
    """
    loaded = _load(path, spec, DataOptions(skip_bad=skip_bad), progress, cache)
    split = pool(list(loaded.splits.values()))
    names = [loaded.labels[index] for index in split.labels]  # a CSV may lack some of FER2013's classes
    if unknown := sorted(set(names) - set(dataset.labels)):
        raise DataError(
            f"{path} has images of class {unknown[0]!r}, which {dataset.name} does not have ({', '.join(dataset.labels)}): "
            "rename or remove them."
        )
    own = {_digest(image) for one in dataset.splits.values() for image in one.images}
    fresh = np.array([_digest(image) not in own for image in split.images])
    if not fresh.any():
        raise DataError(f"{path} has no images that {dataset.name} does not have: leave --also out.")
    split = replace(split, labels=np.array([dataset.labels.index(name) for name in names])).take(np.flatnonzero(fresh))
    return ExtraImages(name=loaded.name, split=split, share=share, skipped=loaded.skipped, repeated=int((~fresh).sum()))


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def _load(path: str | Path, spec: InputSpec, options: DataOptions, progress: Progress, cache: Path | None) -> Dataset:
    """The data in its own splits."""
    rows = open_rows(path, options)
    where = BUILT_IN if str(path) == BUILT_IN else str(Path(path).absolute())
    file = cache_file(cache, [where, rows.fingerprint, spec.model_dump(), options.skip_bad])
    dataset = cached(file, lambda: _read(rows, path, spec, options.skip_bad, progress))
    return replace(dataset, notes=rows.notes)  # which are of other files, too


def open_rows(path: str | Path, options: DataOptions) -> Rows:
    """Open the data as a stream of rows. DataError where there is none, or an option does not apply to it."""
    check_there(path)
    if options.labels:
        ferplus.votes_file(options.labels, path)
    if options.labels and options.names:
        raise DataError("--labels brings names of its own: leave --names out.")
    file = Path(path)
    if options.group_by and not os.path.isdir(file):
        raise DataError(f"--group-by reads the paths of images: {path} is not a folder.")
    if str(path) == BUILT_IN:
        if options.names:
            raise DataError("--names is for labels that are numbers: the built-in faces have names.")
        return _drawn_rows(options.seed)
    return (open_folder if file.is_dir() else open_csv)(file, options.names)


def _read(rows: Rows, path: str | Path, spec: InputSpec, skip_bad: bool, progress: Progress) -> Dataset:
    index: list[tuple[str, str, str]] = []
    images: list[np.ndarray] = []
    bad: list[str] = []
    for row in progress.track(rows.stream, rows.total, f"Reading {rows.name}"):
        if row.image is not None:
            index.append((row.id, row.split, row.label))
            images.append(prepare(row.image, spec))
            continue
        if not skip_bad:
            raise DataError(f"{path}, {row.problem}. Fix it, or leave such rows and images out with --skip-bad.")
        bad.append(row.problem)
    return build_dataset(rows, path, index, np.array(images), bad)


def build_dataset(
    rows: Rows, path: str | Path, index: list[tuple[str, str, str]], images: np.ndarray, bad: list[str]
) -> Dataset:
    """A data set of the rows that could be read. index: (id, split, label) of each; images: [n, ...]; bad: problems of
    the others.

    DataError where no row could be read.
    """
    if not index:
        reason = f": {len(bad):,} are bad, the first is {bad[0]}" if bad else ""
        raise DataError(f"{path} has no usable rows or images{reason}.")
    ids, splits, names = (np.array(column) for column in zip(*index, strict=True))
    labels = rows.classes({str(name) for name in set(names.tolist())})
    number = {label: class_index for class_index, label in enumerate(labels)}
    classes = np.array([number[name] for name in names.tolist()], np.int64)
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


def make_splits(dataset: Dataset, path: str | Path, options: DataOptions) -> Dataset:
    """The data as it is trained on: relabelled, pooled, grouped and with a validation split, as the options say.

    DataError where it cannot be trained on.
    """
    count, notes = len(dataset), list(dataset.notes)
    if options.labels:
        dataset = ferplus.with_votes(dataset, ferplus.votes_file(options.labels, path))
    if options.pooled:
        train = pool([split for name, split in dataset.splits.items() if name != "test"])
        test = {name: split for name, split in dataset.splits.items() if name == "test"}
        dataset = replace(dataset, splits={"train": train, **test})
    if options.group_by:
        dataset = check_groups(dataset, options.group_by)
    check_classes(dataset, path)
    if not options.pooled and "valid" not in dataset.splits:
        dataset = hold_out(dataset, options.valid_fraction, options.seed, options.group_by)
        count_valid = len(dataset.split("valid"))
        notes.append(
            f"The data has no validation split: {count_valid:,} of its training images ({percent(options.valid_fraction)} of each class) "
            "are held out for one"
        )
    if unused := count - len(dataset):
        notes.append(
            f"{counted(unused, 'image is', 'images are')} not used: copies outside the training split, or no clear label"
        )
    return replace(dataset, notes=tuple(notes))


def summary(dataset: Dataset) -> list[str]:
    """Lines on the data: images by class and split, extra images, and what is held out, left out and ignored."""
    counts = {name: [*numbers, sum(numbers)] for name, numbers in dataset.counts().items()}
    labels = [printable(label) for label in (*dataset.labels, "all")]
    width = max(map(len, labels))
    lines = [" ".join(["class".ljust(width), *(f"{name:>9}" for name in counts)])]
    for index, label in enumerate(labels):
        lines.append(" ".join([label.ljust(width), *(f"{numbers[index]:>9,}" for numbers in counts.values())]))
    if extra := dataset.extra:
        lines.append(
            f"{percent(extra.share)} of each batch from {extra.name}: {len(extra.split):,} images for training only."
        )
        if extra.repeated:
            repeated = counted(extra.repeated, f"image of {extra.name} is", f"images of {extra.name} are")
            lines.append(f"{repeated} in {dataset.name} too, and left out.")
        if extra.skipped:
            bad = f"bad row or image of {extra.name} is", f"bad rows or images of {extra.name} are"
            lines.append(f"{counted(len(extra.skipped), *bad)} left out, the first: {extra.skipped[0]}.")
    if dataset.skipped:
        lines.append(
            f"{counted(len(dataset.skipped), 'bad row or image is', 'bad rows or images are')} left out, the first: {dataset.skipped[0]}."
        )
    return [*lines, *(f"{note}." for note in dataset.notes)]


def _drawn_rows(seed: int) -> Rows:
    """Drawn faces (edgefer.drawn): PER_CLASS of each expression to train on, a third as many to validate."""
    counts = {"train": PER_CLASS, "valid": max(1, PER_CLASS // 3)}

    def draw() -> Iterator[Row]:
        for offset, (split, count) in enumerate(counts.items()):
            # Another seed for each split, so that no face is in both.
            faces, labels = drawn.face_set(count, 2 * seed + offset)
            for number, (face, label) in enumerate(zip(faces, labels.tolist(), strict=True)):
                yield Row(
                    id=f"drawn {2 * seed + offset}:{number}", split=split, label=drawn.EXPRESSIONS[label], image=face
                )

    return Rows(
        name=BUILT_IN,
        classes=lambda found: drawn.EXPRESSIONS,
        total=sum(counts.values()) * len(drawn.EXPRESSIONS),
        stream=draw(),
        fingerprint=[
            *(hashlib.sha256(Path(source).read_bytes()).hexdigest() for source in (drawn.__file__, portrait.__file__)),
            seed,
        ],
    )
