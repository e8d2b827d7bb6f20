"""Looks a data set over before it is trained on: whether it can be at all, balance, sizes, near-duplicates, leaks."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgefer.card import ModelCard
from edgefer.checks import Check, Status, status_if
from edgefer.errors import DataError
from edgefer.progress import SILENT, Progress
from edgefer.train.data import folders
from edgefer.train.data.dataset import Dataset
from edgefer.train.data.duplicates import clusters, fingerprint, near_duplicates
from edgefer.train.data.groups import group_pictures
from edgefer.train.data.load import BUILT_IN, DataOptions, arrange, as_dataset, open_rows

UNEVEN = 5  # a class so many times as frequent as another drowns it
MIN_CLASS = 100  # images of a class; fewer say little, so folds are advised
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What a data set holds. counts: split -> class -> images, as read; sizes: "224x224" -> images; colors: "gray" or
    "rgb" -> images; notes: sentences on what is ignored or held back."""

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
class _Seen:
    """What was read: one entry per image in each list."""

    kept: list[tuple[str, str, str]] = field(default_factory=list)  # id, split, label
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
    """Look over data that a training with these options is to have. card: of a network to use it with.

    It reads the very rows that training reads and arranges them as training does, so what training refuses fails here.
    Raises DataError when there is nothing to look over.
    """
    rows = open_rows(path, options)
    seen = _Seen()
    for row in progress.track(rows.stream, rows.total, f"Looking over {rows.name}"):
        if row.image is None:
            seen.bad.append(row.problem)
            continue
        code, thumb = fingerprint(row.image)
        seen.kept.append((row.id, row.split, row.label))
        seen.sizes[f"{row.image.shape[1]}x{row.image.shape[0]}"] += 1
        seen.colors["gray" if row.image.ndim == 2 else "rgb"] += 1
        seen.hashes.append(code)
        seen.thumbs.append(thumb)
    # Numbers stand for the images, which need not be kept.
    dataset = as_dataset(rows, path, seen.kept, np.arange(len(seen.kept)), seen.bad)
    trainable, arranged = _trainable(dataset, path, options)
    checks = (
        trainable,
        _unreadable(seen.bad, options.skip_bad),
        _balance(arranged),
        _label_order(path, arranged.labels, options, card),
        *_duplicates(seen, options.group_by),
    )
    return Audit(
        path=str(path),
        labels=dataset.labels,
        counts={name: dict(zip(dataset.labels, numbers, strict=True)) for name, numbers in dataset.counts().items()},
        sizes=dict(seen.sizes.most_common()),
        colors=dict(seen.colors.most_common()),
        notes=arranged.notes,
        checks=checks,
    )


def _trainable(dataset: Dataset, path: str | Path, options: DataOptions) -> tuple[Check, Dataset]:
    """Whether training would take it, and the data set as it would be trained on."""
    try:
        arranged = arrange(dataset, path, options)
    except DataError as error:
        return Check(subject="can be trained on", status=Status.FAIL, detail=str(error)), dataset
    held = ", ".join(f"{name} {len(split):,}" for name, split in arranged.splits.items())
    return Check(subject="can be trained on", status=Status.PASS, detail=held), arranged


def _unreadable(bad: list[str], skip_bad: bool) -> Check:
    status = Status.PASS if not bad else Status.WARN if skip_bad else Status.FAIL
    fix = "fix or remove them, or leave them out with edgefer train --skip-bad" if bad else ""
    found = f"{len(bad):,} rows or files"
    return Check(subject="unreadable", status=status, detail=found, fix=fix, examples=tuple(bad))


def _balance(dataset: Dataset) -> Check:
    counts = np.array(dataset.counts().get("train", [0] * len(dataset.labels)))
    rare, common = int(counts.argmin()), int(counts.argmax())
    labels = dataset.labels
    if counts[rare] == counts[common]:
        found = f"every class has {counts[rare]:,} training images"
    else:
        found = f"{labels[rare]} has {counts[rare]:,} training images, {labels[common]} {counts[common]:,}"
    status, fix = Status.PASS, ""
    if counts[rare] * UNEVEN < counts[common]:
        status = Status.WARN
        fix = f"try edgefer train --set fit.balance=class-weights, and look at the recall of {labels[rare]}"
    elif counts[rare] < MIN_CLASS:
        status, fix = Status.WARN, "with so few images one split says little: measure with edgefer train --folds 5"
    return Check(subject="balance", status=status, detail=found, fix=fix)


def _label_order(path: str | Path, labels: tuple[str, ...], options: DataOptions, card: ModelCard | None) -> Check:
    """Labels by position instead of by name are the classic way to a network that is wrong and looks fine."""
    status, found = Status.PASS, ", ".join(labels)
    if card and set(card.labels) != set(labels):
        only = sorted(set(labels) ^ set(card.labels))
        found = f"{card.name} knows {', '.join(card.labels)}; {', '.join(only)} is not in both"
        return Check(subject="label order", status=Status.FAIL, detail=found)
    if card and card.labels != labels:
        status = Status.WARN
        found = f"here {', '.join(labels)}, in {card.name} {', '.join(card.labels)}: edgefer matches them by name"
    elif str(path) != BUILT_IN and Path(path).is_dir() and not options.names:
        written = folders.listing(Path(path)).written
        if all(name.isdecimal() for name in written):
            status, found = Status.WARN, f"classes are called {', '.join(labels[:SHOWN])}...: name them with --names"
        elif [name.lower() for name in sorted(written)] != list(labels):
            status = Status.WARN
            found = (
                f"edgefer sorts {', '.join(labels)}; tools that mind upper case sort {', '.join(sorted(written))}: "
                "a network from such a tool numbers them otherwise"
            )
    return Check(subject="label order", status=status, detail=found)


def _duplicates(seen: _Seen, group_by: str) -> list[Check]:
    pairs = near_duplicates(np.stack(seen.hashes), np.stack(seen.thumbs))
    sets = clusters(pairs)
    ids, splits, classes = zip(*seen.kept, strict=True)

    def check(subject: str, chosen: list[tuple[int, int]], status: Status, detail: str) -> Check:
        shown = tuple(f"{ids[i]} ({classes[i]}) = {ids[j]} ({classes[j]})" for i, j in chosen)
        return Check(subject=subject, status=status if chosen else Status.PASS, detail=detail, examples=shown)

    extra = sum(len(members) - 1 for members in sets)
    across = [(i, j) for i, j in pairs if splits[i] != splits[j]]
    mixed = [(i, j) for i, j in pairs if classes[i] != classes[j]]
    repeat = f"{extra:,} images of {len(ids):,} repeat another, in {len(sets):,} sets"
    checks = [
        check("near-duplicates", pairs, Status.WARN, repeat),
        check("leaks between splits", across, Status.FAIL, f"{len(across):,} pairs alike lie in different splits"),
        check("labels of duplicates", mixed, Status.WARN, f"{len(mixed):,} pairs alike have different labels"),
    ]
    if not group_by:
        return checks
    groups, copies = group_pictures(np.array(ids), group_by)
    apart = [(i, j) for i, j in pairs if groups[i] != groups[j]]
    in_splits: dict[str, set[str]] = {}
    for group, split in zip(groups.tolist(), splits, strict=True):
        in_splits.setdefault(group, set()).add(split)
    torn = tuple(group for group, where in in_splits.items() if len(where) > 1)
    found = f"{len(in_splits):,} groups, {int(copies.sum()):,} copies; {len(torn):,} groups lie in more than one split"
    return [
        *checks,
        Check(subject="groups", status=status_if(not torn), detail=found, examples=torn),
        check("duplicates across groups", apart, Status.WARN, f"{len(apart):,} pairs alike are in different groups"),
    ]
