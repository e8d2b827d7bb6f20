"""FER+: ten annotators' votes for each FER2013 image, in place of its single label.

Barsoum et al. 2016, arXiv:1608.01041. Eight expressions, and columns for "unknown" and "no face". fer2013new.csv (or
ferplus.csv) has one row per row of fer2013.csv, in the same order.
"""

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgefer.errors import DataError
from edgefer.train.data.dataset import Dataset
from edgefer.train.data.rows import SPLITS, check_there

NAME = "ferplus"
FILES = ("ferplus.csv", "fer2013new.csv")
# The class and its column: FER2013's seven in their order, then the eighth.
COLUMNS = {
    "angry": "anger", "disgust": "disgust", "fear": "fear", "happy": "happiness",
    "sad": "sadness", "surprise": "surprise", "neutral": "neutral", "contempt": "contempt",
}  # fmt: skip
NO_EMOTION = ("unknown", "NF")


def votes_file(votes: str, data: str | Path) -> Path:
    """The file of votes: `votes` itself, or for "ferplus" the one beside the data. DataError where there is none."""
    check_there(data)
    if "," in votes and not Path(votes).exists():
        raise DataError(
            f"--labels {votes!r} names no FER+ votes ({NAME} or a file): the classes come from the data. Leave it out, or give them "
            "other names with --names 0=angry,1=happy."
        )
    if not Path(data).is_file():
        raise DataError(f"FER+ votes ({votes}) belong to a FER2013 CSV: {data} has labels of its own.")
    candidates = [Path(data).parent / name for name in FILES] if votes == NAME else [Path(votes)]
    for file in candidates:
        if file.is_file():
            return file
    raise DataError(
        f"There are no FER+ votes at {' or '.join(map(str, candidates))}: put fer2013new.csv (github.com/microsoft/"
        f"FERPlus) beside the data, or name the file instead of {NAME}."
    )


def with_votes(dataset: Dataset, file: Path) -> Dataset:
    """The images of a FER2013 CSV with FER+'s eight labels, and the votes as soft targets.

    As in the paper, a single vote for an expression is noise. An image is trained on where an expression has the most
    votes, and evaluated on where it has more than half of them, the paper's "majority".
    """
    splits = {}
    for name, split in dataset.splits.items():
        votes = votes_of(dataset, name, file)
        votes = np.where(votes > 1, votes, 0)
        emotions, others = votes[:, : len(COLUMNS)], votes[:, len(COLUMNS) :]
        top = emotions.max(axis=1)
        clear = top > others.max(axis=1) if name == "train" else 2 * top > votes.sum(axis=1)
        targets = (emotions / np.maximum(1, emotions.sum(axis=1, keepdims=True))).astype(np.float32)
        labelled = replace(split, labels=emotions.argmax(axis=1), targets=targets)
        splits[name] = labelled.take(np.flatnonzero(clear))
    return replace(dataset, labels=tuple(COLUMNS), splits=splits)


def votes_of(dataset: Dataset, name: str, file: Path) -> np.ndarray:
    """The votes for a split's images, float64 [n, 10]: eight expressions, unknown, no face. DataError where the rows do
    not match."""
    usage, votes = _read(file)
    rows = sum(map(len, dataset.splits.values())) + len(dataset.skipped)
    if rows != len(votes):
        raise DataError(f"{file} has {len(votes):,} rows, but {dataset.name} {rows:,}: they must match row by row.")
    index = np.array([int(row.removeprefix("row ")) - 1 for row in dataset.split(name).ids])
    if (wrong := index[usage[index] != name]).size:
        raise DataError(
            f"{file} and {dataset.name} are not in the same order: row {wrong[0] + 1} is in the {name} split of only one of them."
        )
    return votes[index]


def _count(text: str) -> float:
    votes = float(text)
    if not (votes >= 0 and math.isfinite(votes)):
        raise ValueError(f"{text} votes cannot be")
    return votes


def _read(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """The split of each row, str [rows], and its votes, float64 [rows, 10]."""
    usage, votes = [], []
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            for number, row in enumerate(csv.DictReader(text), 1):
                try:
                    usage.append(SPLITS[row["Usage"].strip().lower()])
                    votes.append([_count(row[column]) for column in (*COLUMNS.values(), *NO_EMOTION)])
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    raise DataError(f"{file}, row {number} is not a row of FER+ votes ({error}).") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as FER+ votes: {error}.") from None
    return np.array(usage), np.array(votes)
