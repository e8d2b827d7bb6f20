"""The labels of an imported network, in text files and in the metadata of a .tflite."""

import io
import re
import zipfile
from pathlib import Path

from edgefer.errors import InputError
from edgefer.files import MAX_CARD, read_member, read_regular
from edgefer.npz import check_end

NUMBERED = re.compile(r"(\d{1,4})(?:\s*[:,]\s*|\s+)(\S.*)")


def packed_labels(content: bytes, classes: int) -> tuple[str, ...] | None:
    """The labels.txt that TFLite Metadata appends to a file, if it has `classes` labels."""
    from edgefer.train.data.archives import DAMAGE

    try:
        check_end(content)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".txt"))
            labels = parse_labels(read_member(archive, name, 1 << 16).decode("utf-8-sig"))
    except (*DAMAGE, StopIteration, ValueError):
        return None
    return labels if len(labels) == classes else None


def parse_labels(text: str) -> tuple[str, ...]:
    """The labels of a file with one per line, as "happy" or numbered from 0, as "0 happy" (Teachable Machine), "0: happy" or
    "0,happy"."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    numbered = [NUMBERED.fullmatch(line) for line in lines]
    if all(found and int(found[1]) == at for at, found in enumerate(numbered)):
        return tuple(found[2] for found in numbered if found)
    return tuple(lines)


def read_labels(file: Path) -> tuple[str, ...]:
    """The labels of a text file, see parse_labels. InputError where it cannot be read."""
    try:
        return parse_labels(
            read_regular(file, MAX_CARD).decode("utf-8-sig")
        )  # Windows' editors begin a file with a BOM
    except UnicodeDecodeError:
        raise InputError(f"{file} is not a UTF-8 text file of labels.") from None
