"""Checks a data set before training: whether it can be trained on, class balance, label order, near-duplicates, leaks."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgefer.card import ModelCard
from edgefer.checks import Check, Status, status_if
from edgefer.errors import DataError
from edgefer.progress import SILENT, Progress
from edgefer.text import counted
from edgefer.train.data import folders
from edgefer.train.data.dataset import Dataset
from edgefer.train.data.duplicates import MAX_SET, clusters, fingerprint, near_duplicates
from edgefer.train.data.groups import group_images
from edgefer.train.data.load import BUILT_IN, DataOptions, build_dataset, make_splits, open_rows
from edgefer.train.data.matching import folded, matched, unmatched

MAX_IMBALANCE = 5  # ratio of the largest class to the smallest
MIN_CLASS = 100  # images of the smallest class; with fewer, cross-validation is advised
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The contents and checks of a data set. counts: split -> class -> images, as read; sizes: "224x224" -> images;
    colors: "gray" or "rgb" -> images; notes: sentences on what is ignored or held out."""

    path: str
    labels: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    sizes: dict[str, int]
    colors: dict[str, int]
    notes: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


@dataclass(kw_only=True)
class _Scan:
    """What is kept of the images, which themselves are not: one entry per image in each list."""

    index: list[tuple[str, str, str]] = field(default_factory=list)  # id, split, label
    sizes: Counter[str] = field(default_factory=Counter)
    colors: Counter[str] = field(default_factory=Counter)
    hashes: list[np.ndarray] = field(default_factory=list)
    thumbs: list[np.ndarray] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


def audit(
    path: str | Path,
    options: DataOptions = DataOptions(),  # noqa: B008 - frozen
    *,
    card: ModelCard | None = None,
    progress: Progress = SILENT,
) -> Audit:
    """Check data for a training with these options. card: of a network that is to be used with the data.

    Rows are read and split by the code that training uses, so what training refuses fails here. DataError where no row
    can be read.
    """
    rows = open_rows(path, options)
    scan = _Scan()
    for row in progress.track(rows.stream, rows.total, f"Checking {rows.name}"):
        if row.image is None:
            scan.bad.append(row.problem)
            continue
        code, thumb = fingerprint(row.image)
        scan.index.append((row.id, row.split, row.label))
        scan.sizes[f"{row.image.shape[1]}x{row.image.shape[0]}"] += 1
        scan.colors["gray" if row.image.ndim == 2 else "rgb"] += 1
        scan.hashes.append(code)
        scan.thumbs.append(thumb)
    # Row numbers in place of the images, so that these need not be kept.
    dataset = build_dataset(rows, path, scan.index, np.arange(len(scan.index)), scan.bad)
    trainable, split = _trainable(dataset, path, options)
    checks = (
        trainable,
        _unreadable(scan.bad, options.skip_bad),
        _balance(split),
        _label_order(path, split.labels, options, card),
        *_duplicates(scan, split, options.group_by, str(path) != BUILT_IN and Path(path).is_dir()),
    )
    return Audit(
        path=str(path),
        labels=dataset.labels,
        counts={name: dict(zip(dataset.labels, numbers, strict=True)) for name, numbers in dataset.counts().items()},
        sizes=dict(scan.sizes.most_common()),
        colors=dict(scan.colors.most_common()),
        notes=split.notes,
        checks=checks,
    )


def _trainable(dataset: Dataset, path: str | Path, options: DataOptions) -> tuple[Check, Dataset]:
    """Whether training would accept the data, and the data set as training splits it."""
    try:
        split = make_splits(dataset, path, options)
    except DataError as error:
        return Check(subject="can be trained on", status=Status.FAIL, detail=str(error)), dataset
    sizes = ", ".join(f"{name} {count:,}" for name, count in split.sizes.items())
    return Check(subject="can be trained on", status=Status.PASS, detail=sizes), split


def _unreadable(bad: list[str], skip_bad: bool) -> Check:
    status = Status.PASS if not bad else Status.WARN if skip_bad else Status.FAIL
    fix = "fix or remove them, or leave them out with edgefer train --skip-bad" if bad else ""
    detail = counted(len(bad), "row or file", "rows or files")
    return Check(subject="unreadable", status=status, detail=detail, fix=fix, examples=tuple(bad))


def _balance(dataset: Dataset) -> Check:
    counts = np.array(dataset.counts().get("train", [0] * len(dataset.labels)))
    rare, common = int(counts.argmin()), int(counts.argmax())
    labels = dataset.labels
    if counts[rare] == counts[common]:
        detail = f"every class has {counts[rare]:,} training images"
    else:
        detail = f"{labels[rare]} has {counts[rare]:,} training images, {labels[common]} {counts[common]:,}"
    status, fix = Status.PASS, ""
    if counts[rare] * MAX_IMBALANCE < counts[common]:
        status = Status.WARN
        fix = f"try edgefer train --set fit.balance=class-weights, and look at the recall of {labels[rare]}"
    elif counts[rare] < MIN_CLASS:
        status = Status.WARN
        fix = "with so few images a single split is imprecise: cross-validate with edgefer train --folds 5"
    return Check(subject="balance", status=status, detail=detail, fix=fix)


def _pairs(pairs: list) -> str:
    return counted(len(pairs), "pair is", "pairs are")


def _label_order(path: str | Path, labels: tuple[str, ...], options: DataOptions, card: ModelCard | None) -> Check:
    """Whether labels could be matched by position and come out permuted: other tools sort class names differently."""
    status, detail = Status.PASS, ", ".join(labels)
    found = matched(labels, card.labels) if card else {}
    if card and len(found) < len(labels):
        unknown = [label for label in labels if label not in found]
        free = [label for label in card.labels if label not in found.values()]
        detail = f"{card.name} knows {', '.join(card.labels)}, and not {unmatched(unknown, free)}"
        return Check(subject="label order", status=Status.FAIL, detail=detail, fix="name them as it does, with --names")
    if card and tuple(map(folded, card.labels)) != tuple(map(folded, labels)):
        status = Status.WARN
        detail = f"here {', '.join(labels)}, in {card.name} {', '.join(card.labels)}: edgefer matches them by name"
        if missing := [label for label in card.labels if label not in found.values()]:
            detail += f"; how well it recognizes {', '.join(missing)} cannot be measured here"
    elif str(path) != BUILT_IN and Path(path).is_dir() and not options.names:
        names = folders.list_images(Path(path)).class_folders
        if all(name.isdecimal() for name in names):
            status, detail = Status.WARN, f"classes are called {', '.join(labels[:SHOWN])}...: name them with --names"
        elif [name.lower() for name in sorted(names)] != list(labels):
            status = Status.WARN
            detail = (
                f"edgefer sorts {', '.join(labels)}; case-sensitive tools sort {', '.join(sorted(names))}: "
                "a network from such a tool numbers its classes differently"
            )
    return Check(subject="label order", status=status, detail=detail)


def _pairs_of(scan: _Scan, rows: list[int], pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The near-duplicates among these rows; pairs: those among all. Two that are connected only by an image that is not
    among the rows are compared again, since near_duplicates does not list every pair."""
    if len(rows) == len(scan.index):
        return pairs
    among = near_duplicates(np.stack(scan.hashes)[rows], np.stack(scan.thumbs)[rows])
    return [(rows[i], rows[j]) for i, j in among]


def _duplicates(scan: _Scan, dataset: Dataset, group_by: str, folder: bool) -> list[Check]:
    """dataset: as training splits it, with the rows of `scan` in place of images. folder: whether it can be grouped."""
    split_of = {row: name for name, split in dataset.splits.items() for row in split.images.tolist()}
    pairs = near_duplicates(np.stack(scan.hashes), np.stack(scan.thumbs))
    sets = clusters(pairs)
    ids, splits, classes = zip(*scan.index, strict=True)

    def check(subject: str, chosen: list[tuple[int, int]], status: Status, detail: str, fix: str = "") -> Check:
        shown = tuple(f"{ids[i]} ({classes[i]}) = {ids[j]} ({classes[j]})" for i, j in chosen)
        if not chosen:
            status, fix = Status.PASS, ""
        return Check(subject=subject, status=status, detail=detail, fix=fix, examples=shown)

    extra = sum(len(members) - 1 for members in sets)
    across = [(i, j) for i, j in _pairs_of(scan, sorted(split_of), pairs) if split_of[i] != split_of[j]]
    mixed = [(i, j) for i, j in pairs if classes[i] != classes[j]]
    keep = "remove all but one of each set: a network that was trained on one of two such images looks better on the other than it is"
    if folder:
        keep += "; or keep them together with --group-by"
    repeat = f"{counted(len(pairs), 'pair')}: {counted(extra, 'image repeats', 'images repeat')} another of the {len(ids):,}, in {counted(len(sets), 'set')}"
    if sets and len(sets[0]) > MAX_SET:
        repeat += f"; of a set of over {MAX_SET} not every pair is listed"
    checks = [
        check("near-duplicates", pairs, Status.WARN, repeat),
        check("leaks between splits", across, Status.WARN, f"{_pairs(across)} in different splits", keep),
        check("labels of duplicates", mixed, Status.WARN, f"{_pairs(mixed)} labelled differently"),
    ]
    if not group_by:
        return checks
    groups, copies = group_images(np.array(ids), group_by)
    apart = [(i, j) for i, j in pairs if groups[i] != groups[j]]
    splits_of: dict[str, set[str]] = {}
    for group, split in zip(groups.tolist(), splits, strict=True):
        splits_of.setdefault(group, set()).add(split)
    divided = tuple(group for group, own in splits_of.items() if len(own) > 1)
    detail = f"{len(splits_of):,} groups, {int(copies.sum()):,} copies; {counted(len(divided), 'group is', 'groups are')} in more than one split"
    return [
        *checks,
        Check(subject="groups", status=status_if(not divided), detail=detail, examples=divided),
        check(
            "duplicates across groups",
            apart,
            Status.WARN,
            f"{_pairs(apart)} in different groups",
        ),
    ]
