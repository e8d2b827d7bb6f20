"""The stream of rows that every reader of data returns, and that training and `data check` both consume."""

import os
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgefer.errors import DataError
from edgefer.files import mode_of

BUILT_IN = "builtin"
SPLITS = {
    "train": "train", "training": "train",
    "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid", "publictest": "valid",
    "test": "test", "testing": "test", "privatetest": "test",
}  # fmt: skip


def check_there(data: str | Path) -> None:
    """DataError unless `data` names a file, a folder or the built-in faces."""
    if not str(data):  # Path("") is the current folder
        raise DataError("The data has an empty name: name a fer2013.csv, a folder of images, or builtin.")
    if str(data) != BUILT_IN and not mode_of(Path(data), error=DataError):
        raise DataError(
            f"There is no data at {data}: name a fer2013.csv (or .gz, .zip, .tar.gz), a folder of images, or builtin."
        )


@dataclass(frozen=True, kw_only=True)
class Row:
    """One labelled image, or the problem with it.

    id: the row or file, unique in the data; split: "train", "valid" or "test"; label: the class name;
    image: uint8 [h, w] gray or [h, w, 3] BGR, None where there is a `problem`, which names the row or file itself.
    """

    id: str
    split: str = "train"
    label: str = ""
    image: np.ndarray | None = field(default=None, repr=False)
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Opened data: the stream is read lazily, once, and may raise DataError.

    classes: the class names in order, given the labels that occur. total: rows, perhaps an estimate. notes: sentences
    on what is ignored, or looks odd. fingerprint: changes when the data does.
    """

    name: str
    classes: Callable[[set[str]], tuple[str, ...]]
    total: int
    stream: Iterable[Row] = field(repr=False)
    fingerprint: list = field(repr=False)
    notes: tuple[str, ...] = ()


def parse_names(text: str) -> dict[str, str]:
    """The class name of each label or class folder in the data. DataError for anything but KEY=NAME pairs.

    >>> parse_names("0=neutral,1=happy")
    {'0': 'neutral', '1': 'happy'}
    """
    names: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in unicodedata.normalize("NFC", text).split(","))):
        key, separator, name = (piece.strip().lower() for piece in part.partition("="))
        if not (separator and key and name) or key in names:
            raise DataError(f"--names {text!r}: write each label once with its class, such as 0=neutral,1=happy.")
        names[key] = name
    return names


def utf8(text: str) -> str:
    """A file name as text that can be encoded: bytes that are not UTF-8 are read as Latin-1."""
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        return os.fsencode(text).decode("latin-1")
