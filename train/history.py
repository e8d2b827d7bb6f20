"""history.csv: one row per epoch of a training."""

import csv
from pathlib import Path

from edgefer.files import write_file
from edgefer.progress import Epoch

COLUMNS = ("epoch", "seconds", "rate", "loss", "accuracy", "val_loss", "val_accuracy")


def history_bytes(rows: list[Epoch]) -> bytes:
    """The content of history.csv."""
    lines = [",".join(COLUMNS)]
    lines += [",".join([str(row.epoch), *(f"{getattr(row, name):.6g}" for name in COLUMNS[1:])]) for row in rows]
    return ("\r\n".join(lines) + "\r\n").encode()


def write_history(file: Path, rows: list[Epoch]) -> None:
    write_file(file, history_bytes(rows))


def read_history(file: Path) -> list[Epoch]:
    """The rows of history.csv."""
    with file.open(newline="") as text:
        return [
            Epoch(int(row["epoch"]), **{name: float(row[name]) for name in COLUMNS[1:]}) for row in csv.DictReader(text)
        ]
