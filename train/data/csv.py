"""FER2013 as Kaggle gives it: fer2013.csv or icml_face_data.csv, plain, .gz or inside a .zip.

Both hold a row per picture with the columns emotion (0..6), pixels (2,304 numbers) and Usage, in different order and
with or without a leading space in their names. Goodfellow et al. 2013, arXiv:1307.0414.
"""

import csv
import gzip
import io
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np

from edgefer.card import InputSpec
from edgefer.errors import DataError
from edgefer.preprocess import prepare
from edgefer.train.data.dataset import Dataset, Split, Track

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
USAGE = {"Training": "train", "PublicTest": "valid", "PrivateTest": "test"}
KNOWN = ("fer2013.csv", "icml_face_data.csv")
SIDE = 48
ROWS = 35887  # of the full set: only for the progress bar


def fingerprint(path: Path) -> list:
    """What changes when the file does."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def read(path: Path, spec: InputSpec, skip_bad: bool, track: Track) -> Dataset:
    """The file as a Dataset with Training as train, PublicTest as valid and PrivateTest as test."""
    rows: dict[str, list] = {name: [] for name in USAGE.values()}
    skipped: list[str] = []
    try:
        with _open(path) as text, warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # numpy 1 only warns of a pixel that is no number
            reader = csv.DictReader(text, skipinitialspace=True)
            reader.fieldnames = _columns(reader.fieldnames, path)
            for number, row in enumerate(track(reader, ROWS, f"Reading {path.name}"), 1):
                try:
                    split, label, pixels = _parse(row)
                except ValueError as error:
                    complaint = f"row {number}: {error}"
                    if not skip_bad:
                        raise DataError(
                            f"{path}, {complaint}. Mend the row, or leave such rows out with --skip-bad."
                        ) from None
                    skipped.append(complaint)
                else:
                    rows[split].append((label, prepare(pixels, spec), f"row {number}"))
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a FER2013 CSV: {error}.") from None
    if not any(rows.values()):
        raise DataError(f"{path} has no usable rows.")
    splits = {name: _split(parts) for name, parts in rows.items() if parts}
    return Dataset(name=path.name, labels=LABELS, splits=splits, skipped=tuple(skipped))


def _columns(header, path: Path) -> list[str]:
    names = [name.strip().lower() for name in header or []]
    missing = [name for name in ("emotion", "pixels", "usage") if name not in names]
    if missing:
        raise DataError(f"{path} has no column {missing[0]!r}: its first line must name emotion, pixels and Usage.")
    return names


def _parse(row: dict) -> tuple[str, int, np.ndarray]:
    label, pixels, usage = ((row[name] or "").strip() for name in ("emotion", "pixels", "usage"))
    if not (label.isascii() and label.isdigit() and int(label) < len(LABELS)):
        raise ValueError(f"label {label!r} is not 0 to {len(LABELS) - 1}")
    if usage not in USAGE:
        raise ValueError(f"Usage {usage!r} is not one of {', '.join(USAGE)}")
    try:
        values = np.fromstring(pixels, np.int64, sep=" ")  # eight times as fast as splitting
    except (ValueError, DeprecationWarning):
        raise ValueError("a pixel is not a whole number") from None
    if len(values) != SIDE * SIDE:
        raise ValueError(f"{len(values):,} pixels instead of {SIDE * SIDE:,}")
    if values.min() < 0 or values.max() > 255:
        raise ValueError(f"a pixel of {values.max() if values.max() > 255 else values.min()} is outside 0 to 255")
    return USAGE[usage], int(label), values.astype(np.uint8).reshape(SIDE, SIDE)


def _split(parts: list) -> Split:
    labels, images, ids = zip(*parts, strict=True)
    return Split(images=np.stack(images), labels=np.array(labels, np.int64), ids=np.array(ids))


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith((".csv", ".csv.gz"))]
            names = [name for name in names if Path(name).name.startswith(KNOWN)] or names
            if len(names) != 1:
                raise DataError(
                    f"{path} should hold one CSV file, not {len(names)}{': ' + ', '.join(names) if names else ''}."
                )
            with archive.open(names[0]) as raw:
                yield _text(raw, names[0])
    else:
        with path.open("rb") as raw:
            yield _text(raw, path.name)


def _text(raw, name: str) -> TextIO:
    return io.TextIOWrapper(gzip.open(raw) if name.endswith(".gz") else raw, encoding="utf-8-sig", newline="")
