"""Looks a data set over before it is trained on: balance, sizes, broken files, near-duplicates, leaks between splits."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from edgefer.card import InputSpec, ModelCard
from edgefer.errors import DataError
from edgefer.train.data import csv as fer_csv
from edgefer.train.data import folders
from edgefer.train.data.dataset import Track, silent
from edgefer.train.data.duplicates import clusters, fingerprint, near_duplicates
from edgefer.train.data.groups import group_pictures

UNEVEN = 5  # a class so many times as frequent as another drowns it
FEW = 100  # pictures of a class; fewer say little, so folds are advised
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at. status: "pass", "warn", "fail"; examples name files or rows."""

    about: str
    status: str
    found: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What a data set holds. counts: split -> class -> pictures; sizes: "224x224" -> pictures; colors: "gray" or "rgb"."""

    path: str
    labels: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    sizes: dict[str, int]
    colors: dict[str, int]
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        return all(finding.status != "fail" for finding in self.findings)

    def to_json(self) -> dict:
        return {"passed": self.passed} | asdict(self)


@dataclass(kw_only=True)
class _Pictures:
    """What was read: one entry a picture in each list."""

    ids: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)
    colors: list[str] = field(default_factory=list)
    hashes: list[np.ndarray] = field(default_factory=list)
    thumbs: list[np.ndarray] = field(default_factory=list)

    def add(self, one: str, split: str, label: int, image: np.ndarray) -> None:
        """image: uint8 [h, w] or BGR [h, w, 3]."""
        code, thumb = fingerprint(image)
        self.ids.append(one)
        self.splits.append(split)
        self.labels.append(label)
        self.sizes.append(f"{image.shape[1]}x{image.shape[0]}")
        self.colors.append("gray" if image.ndim == 2 else "rgb")
        self.hashes.append(code)
        self.thumbs.append(thumb)


def audit(path: Path, *, group_by: str = "", card: ModelCard | None = None, track: Track = silent) -> Audit:
    """Look over a folder of pictures or a FER2013 CSV. group_by: as for training; card: of a network to use it with.

    Raises DataError when there is nothing to look over.
    """
    if not path.exists():
        raise DataError(f"There is no data at {path}: name a folder of pictures or a fer2013.csv (or .gz, .zip).")
    if group_by and not path.is_dir():
        raise DataError(f"--group-by reads the paths of pictures: {path} is no folder.")
    pictures = _Pictures()
    labels, bad = (_read_folder if path.is_dir() else _read_csv)(path, pictures, track)
    if not pictures.ids:
        raise DataError(f"{path} holds no picture that can be read.")
    findings = [
        Finding(about="unreadable", status="fail" if bad else "pass", found=f"{len(bad)} files or rows", examples=bad),
        _balance(pictures, labels),
        _label_order(path, labels, card),
        *_duplicates(pictures, labels, group_by),
    ]
    counts = {
        split: {
            label: sum(1 for s, which in zip(pictures.splits, pictures.labels, strict=True) if (s, which) == (split, i))
            for i, label in enumerate(labels)
        }
        for split in dict.fromkeys(pictures.splits)
    }
    return Audit(
        path=str(path),
        labels=labels,
        counts=counts,
        sizes=dict(Counter(pictures.sizes).most_common()),
        colors=dict(Counter(pictures.colors).most_common()),
        findings=tuple(findings),
    )


def _read_folder(path: Path, pictures: _Pictures, track: Track) -> tuple[tuple[str, ...], tuple[str, ...]]:
    labels, listing = folders.listing(path)
    bad = []
    for split, label, file in track(listing, len(listing), f"Looking over {path.name}"):
        name = str(file.relative_to(path))
        try:
            pictures.add(name, split, label, folders.decode(file))
        except ValueError as error:
            bad.append(f"{name} {error}")
    return labels, tuple(bad)


def _read_csv(path: Path, pictures: _Pictures, track: Track) -> tuple[tuple[str, ...], tuple[str, ...]]:
    dataset = fer_csv.read(path, InputSpec(height=fer_csv.SIDE, width=fer_csv.SIDE), True, track)
    for name, split in dataset.splits.items():
        for image, label, one in zip(split.images, split.labels.tolist(), split.ids.tolist(), strict=True):
            pictures.add(one, name, label, image[:, :, 0])
    return dataset.labels, dataset.skipped


def _balance(pictures: _Pictures, labels: tuple[str, ...]) -> Finding:
    count = np.bincount(
        [label for label, split in zip(pictures.labels, pictures.splits, strict=True) if split == "train"],
        minlength=len(labels),
    )
    rare, common = int(count.argmin()), int(count.argmax())
    found = f"{labels[rare]} has {count[rare]:,} training pictures, {labels[common]} {count[common]:,}"
    if count[rare] * UNEVEN < count[common]:
        found += f": set fit.balance, and look at the recall of {labels[rare]}"
    elif count[rare] < FEW:
        found += ": few; a single split says little, so measure by --folds 5"
    else:
        return Finding(about="balance", status="pass", found=found)
    return Finding(about="balance", status="warn", found=found)


def _label_order(path: Path, labels: tuple[str, ...], card: ModelCard | None) -> Finding:
    """Labels by position instead of by name are the classic way to a network that is wrong and looks fine."""
    if card and set(card.labels) != set(labels):
        only = sorted(set(labels) ^ set(card.labels))
        found = f"{card.name} knows {', '.join(card.labels)}; {', '.join(only)} is not in both"
        return Finding(about="label order", status="fail", found=found)
    if card and card.labels != labels:
        found = f"here {', '.join(labels)}, in {card.name} {', '.join(card.labels)}: edgefer matches them by name"
        return Finding(about="label order", status="warn", found=found)
    if path.is_dir():
        written = folders.class_folders(path)
        if [name.lower() for name in sorted(written)] != list(labels):
            found = (
                f"edgefer sorts {', '.join(labels)}; tools that mind upper case sort {', '.join(sorted(written))}: "
                "a network from such a tool numbers them otherwise"
            )
            return Finding(about="label order", status="warn", found=found)
        if all(name.isdigit() for name in written) and sorted(written) != sorted(written, key=int):
            found = f"classes are numbers but are sorted as text: {', '.join(sorted(written)[:SHOWN])} ..."
            return Finding(about="label order", status="warn", found=found)
    return Finding(about="label order", status="pass", found=", ".join(labels))


def _duplicates(pictures: _Pictures, labels: tuple[str, ...], group_by: str) -> list[Finding]:
    pairs = near_duplicates(np.stack(pictures.hashes), np.stack(pictures.thumbs))
    sets = clusters(pairs)
    ids, splits, classes = pictures.ids, pictures.splits, pictures.labels

    def finding(about: str, chosen: list[tuple[int, int]], status: str, what: str) -> Finding:
        shown = tuple(f"{ids[i]} ({labels[classes[i]]}) = {ids[j]} ({labels[classes[j]]})" for i, j in chosen)
        return Finding(about=about, status=status if chosen else "pass", found=what, examples=shown)

    extra = sum(len(members) - 1 for members in sets)
    across = [(i, j) for i, j in pairs if splits[i] != splits[j]]
    mixed = [(i, j) for i, j in pairs if classes[i] != classes[j]]
    findings = [
        finding(
            "near-duplicates",
            pairs,
            "warn",
            f"{extra:,} pictures of {len(ids):,} repeat another, in {len(sets):,} sets",
        ),
        finding("leaks between splits", across, "fail", f"{len(across):,} pairs alike lie in different splits"),
        finding("labels of duplicates", mixed, "warn", f"{len(mixed):,} pairs alike have different labels"),
    ]
    if not group_by:
        return findings
    groups, copies = group_pictures(np.array(ids), group_by)
    apart = [(i, j) for i, j in pairs if groups[i] != groups[j]]
    in_splits: dict[str, set[str]] = {}
    for group, split in zip(groups.tolist(), splits, strict=True):
        in_splits.setdefault(group, set()).add(split)
    torn = tuple(group for group, where in in_splits.items() if len(where) > 1)
    found = f"{len(in_splits):,} groups, {int(copies.sum()):,} copies; {len(torn):,} groups lie in more than one split"
    return [
        *findings,
        Finding(about="groups", status="fail" if torn else "pass", found=found, examples=torn),
        finding("duplicates across groups", apart, "warn", f"{len(apart):,} pairs alike are in different groups"),
    ]
