"""FER2013 CSVs: one row per image, with label, pixels and perhaps Usage. Goodfellow et al. 2013, arXiv:1307.0414.

Reads Kaggle's fer2013.csv, icml_face_data.csv and train.csv, CK+'s ckextended.csv with an eighth class, and what pandas
and spreadsheets write of them: other separators and column orders, an index column, labels as names or 3.0, pixels as
12.0, as a list or one per column, any square size.
"""

import csv
import math
import re
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from edgefer.errors import DataError
from edgefer.text import JOINERS, printable
from edgefer.train.data.archives import DAMAGE, MAX_LINE, open_lines
from edgefer.train.data.rows import SPLITS, Row, Rows, parse_names, utf8

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt")
FER2013_CLASSES = 7  # the first of LABELS; the eighth is CK+'s
ALIASES = {
    "anger": "angry", "disgusted": "disgust", "afraid": "fear", "fearful": "fear", "happiness": "happy",
    "sadness": "sad", "surprised": "surprise", "neutrality": "neutral",
}  # fmt: skip
COLUMNS = {
    "label": ("emotion", "label", "emotions", "class"),
    "pixels": ("pixels", "pixel"),
    "usage": ("usage", "split", "set"),
}
FILE_COLUMNS = {"image", "file", "filename", "path", "pth"}  # those of a list of image files
FER2013_SIDE, MIN_SIDE = 48, 8
MAX_NAME, NAME_CHARS = 60, f"_ .'/-{JOINERS}"
FER2013_ROWS = 35887  # for the progress bar


@dataclass(frozen=True)
class _Columns:
    """Column indices. usage: None where there is none. pixels: one column with all, or one per pixel."""

    label: int
    pixels: tuple[int, ...]
    usage: int | None


def open_csv(path: Path, names: str = "") -> Rows:
    """The CSV as rows, read lazily. names: see `parse_names`, instead of FER2013's labels."""
    stat = path.stat()
    labels = _Labels(parse_names(names))
    return Rows(
        name=printable(utf8(path.name)),
        classes=labels.classes,
        total=FER2013_ROWS,
        stream=_read(path, labels),
        fingerprint=[stat.st_size, stat.st_mtime_ns, names],
    )


def _read(path: Path, labels: "_Labels") -> Iterator[Row]:
    csv.field_size_limit(MAX_LINE)
    try:
        with open_lines(path) as lines:
            header = next(lines, "")
            separator = max(",;\t", key=lambda char: (len(_known(_cells(header, char))), header.count(char)))
            columns = _columns(_cells(header, separator), path)
            pixels = _PixelParser()
            reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
            for number, cells in enumerate(filter(None, reader), 1):
                yield _row(cells, number, columns, labels, pixels)
    except (*DAMAGE, csv.Error) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
        raise DataError(f"{path} cannot be read as a FER2013 CSV: {reason}. Name one, or a folder of images.") from None


def _row(cells: list[str], number: int, columns: _Columns, labels: "_Labels", pixels: "_PixelParser") -> Row:
    name = f"row {number}"
    try:
        cell = dict(enumerate(cells)).get
        label = labels.name_of((cell(columns.label) or "").strip())
        split = "train" if columns.usage is None else _split((cell(columns.usage) or "").strip())
        image = pixels.parse(" ".join(cell(index) or "" for index in columns.pixels))
    except ValueError as error:
        return Row(id=name, problem=f"{name}: {error}")
    return Row(id=name, split=split, label=label, image=image)


def _split(usage: str) -> str:
    if usage.lower() not in SPLITS:
        raise ValueError(
            f"Usage {_shown(usage)} is not one of Training, PublicTest, PrivateTest (or train, valid, test)"
        )
    return SPLITS[usage.lower()]


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip().lower() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])]


def _known(header: list[str]) -> list[str]:
    return [name for name in header if name in chain(*COLUMNS.values())]


def _columns(header: list[str], path: Path) -> _Columns:
    found = {
        kind: next((header.index(name) for name in names if name in header), None) for kind, names in COLUMNS.items()
    }
    label, usage = found["label"], found["usage"]
    numbered = sorted(
        (int(match[1]), index)
        for index, name in enumerate(header)
        if (match := re.fullmatch(r"(?:pixel|px)?[ _]?(\d{1,9})", name))
    )
    pixels = (found["pixels"],) if found["pixels"] is not None else tuple(index for _, index in numbered)
    if {"happiness", "contempt", "nf"} <= set(header):
        raise DataError(
            f"{path} holds FER+'s votes and no pixels: name fer2013.csv with --data, and this file with --labels or --votes."
        )
    if label is None and (found["pixels"] is not None or len(pixels) >= MIN_SIDE**2):
        raise DataError(
            f"{path} has pixels but no labels (no column 'emotion'), like the test.csv of Kaggle's challenge: train on the file "
            "that has them, such as train.csv or icml_face_data.csv."
        )
    if label is None or not pixels:
        missing = "emotion" if label is None else "pixels"
        shown = ", ".join(printable(_shortened(name)) for name in header[:8])
        hint = ""
        if FILE_COLUMNS & set(header):
            hint = " It lists image files: put them into a folder per class, and name the folder above."
        raise DataError(
            f"{path} has no column {missing!r}: its first line must name emotion, pixels and perhaps Usage; it names "
            f"{shown or 'nothing'}.{hint}"
        )
    return _Columns(label, pixels, usage)


class _Labels:
    """Maps a file's labels to class names: by `names`, else as numbers in FER2013's order or as names; the first row
    decides."""

    def __init__(self, names: dict[str, str]):
        self.names = names
        self.numeric: bool | None = None

    def name_of(self, text: str) -> str:
        """The class name; ValueError for an invalid label."""
        number = _integer(text)
        key = unicodedata.normalize("NFC", text).lower() if number is None else str(number)
        if self.names:
            if key not in self.names and key not in self.names.values():
                raise ValueError(f"label {_shown(text)} is not in --names ({', '.join(self.names)})")
            return self.names.get(key, key)
        if self.numeric is None and text:
            self.numeric = number is not None
        if self.numeric is not False:
            if number is None or not 0 <= number < len(LABELS):
                raise ValueError(f"label {_shown(text)} is not 0 to {len(LABELS) - 1}")
            return LABELS[number]
        if number is not None or not _is_name(key):
            raise ValueError(f"label {_shown(text)} is no name of a class")
        return ALIASES.get(key, key)

    def classes(self, found: set[str]) -> tuple[str, ...]:
        """The classes in order, given the class names that occur."""
        if self.names:
            keys = sorted(self.names, key=lambda key: (not key.isdecimal(), int(key) if key.isdecimal() else 0, key))
            return tuple(dict.fromkeys(self.names[key] for key in keys))
        if self.numeric is not False:
            return tuple(name for index, name in enumerate(LABELS) if index < FER2013_CLASSES or name in found)
        return tuple(sorted(found, key=lambda name: (LABELS.index(name) if name in LABELS else len(LABELS), name)))


def _is_name(text: str) -> bool:
    """Whether a text can be a class name: letters with their marks, digits and a few other characters; no pixels, no
    formula."""
    valid = (char.isalnum() or char in NAME_CHARS or unicodedata.category(char) in ("Mn", "Mc") for char in text)
    return 0 < len(text) <= MAX_NAME and (text[0].isalnum() or text[0] == "_") and all(valid)


def _shown(text: str) -> str:
    """A cell for a message."""
    return repr(_shortened(text))


def _shortened(text: str) -> str:
    """A cell with an unclosed quote may be the rest of the file."""
    return text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}..."


def _integer(text: str) -> int | None:
    """3 for "3" and "3.0", None for anything else."""
    return int(match[1]) if (match := re.fullmatch(r"(-?[0-9]{1,9})(?:\.0*)?", text)) else None


class _PixelParser:
    """Parses pixels to square gray images; all images of a file must have the first one's size."""

    def __init__(self) -> None:
        self.count = 0

    def parse(self, text: str) -> np.ndarray:
        """uint8 [side, side]; ValueError for another size or values outside 0..255."""
        values = _numbers(text)
        expected = self.count or FER2013_SIDE**2
        side = math.isqrt(len(values))
        if len(values) != expected and (self.count or side**2 != len(values) or side < MIN_SIDE):
            raise ValueError(f"{len(values):,} pixels instead of {expected:,}")
        if values.min() < 0 or values.max() > 255:
            raise ValueError(f"a pixel of {values.max() if values.max() > 255 else values.min()} is outside 0 to 255")
        self.count = len(values)
        return values.astype(np.uint8).reshape(side, side)


def _numbers(text: str) -> np.ndarray:
    """Integers, int64 [n], from "1 2 3", "1.0 2.0 3.0" or "[1, 2, 3]"; ValueError for anything else."""
    text = text.strip().strip("[]()").replace(",", " ")
    try:
        return _parse(text, np.int64)
    except (ValueError, DeprecationWarning):
        pass
    if "..." in text:
        raise ValueError("a pixel is not a whole number: the list was shortened to '...' when it was written")
    try:
        values = _parse(text, np.float64)
    except (ValueError, DeprecationWarning):
        raise ValueError("a pixel is not a whole number") from None
    if len(values) and np.isfinite(values).all() and (values == np.floor(values)).all():
        return np.clip(values, -(2**31), 2**31).astype(np.int64)
    if len(values) and values.min() >= 0 and values.max() <= 1:
        raise ValueError("a pixel is not a whole number: they lie between 0 and 1; multiply them by 255 and round")
    raise ValueError("a pixel is not a whole number")


def _parse(text: str, dtype: type) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy only warns where a pixel is not a number
        return np.fromstring(text, dtype, sep=" ")  # eight times as fast as splitting
