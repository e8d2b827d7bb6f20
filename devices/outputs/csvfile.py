"""Results as CSV: one row per face, added to the end of a file."""

import csv
import errno
import io
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from edgefer.devices.outputs.files import check_folder, check_room, lock
from edgefer.devices.outputs.sink import Sink, cell, utc_now
from edgefer.errors import SourceError
from edgefer.records import Frame
from edgefer.text import counted, printable

COLUMNS = ("time", "frame", "time_s", "id", "left", "top", "right", "bottom", "label", "score", "unsure", "source")


def label_column(label: str) -> str:
    """The column of a label's probability: its name, or p_NAME if another column has that."""
    return f"p_{label}" if label in COLUMNS else label


class Csv(Sink):
    """One row per face, appended to the file, so that a restarted program continues it.

    COLUMNS, with `time` in UTC, then each label's probability (label_column). A cell that a spreadsheet would run as a
    formula begins with an apostrophe. One run at a time: SourceError for a second one. A file that is renamed, removed or
    emptied during the run, as by logrotate, is begun again, with its header.
    """

    every_frame = True

    def __init__(self, path: Path, labels: tuple[str, ...]):
        shown = printable(str(path))
        check_folder(path, "write")
        self.name, self.path, self._labels = shown, path, labels
        try:
            self._open()
        except OSError as error:
            raise SourceError(f"{shown} cannot be written: {error.strerror}.") from None

    def _open(self) -> None:
        self._file = self.path.open("ab+", buffering=0)
        try:
            lock(self._file.fileno(), self.path)
            self._start()
        except BaseException:
            self._file.close()
            raise

    def _start(self) -> None:
        """Write the header, or check that it is the same."""
        self._rows = 0
        header = _row([*COLUMNS, *(cell(label_column(label)) for label in self._labels)])
        self._file.seek(0)
        # A spreadsheet may have saved it with other line endings.
        there = self._file.read(len(header) + 1).replace(b"\r\n", b"\n")[: len(header)]
        if there != header and header.startswith(there):  # a new file, or one whose first line was cut short
            self._file.truncate(0)
            self._append(header)
        elif there != header:
            raise SourceError(f"{self.name} has other columns than this network's results: choose another name.")
        self._cut_to_last_line()

    def _cut_to_last_line(self) -> None:
        """Remove a last row that was truncated when the program was killed."""
        tail_at = max(0, self._file.seek(0, os.SEEK_END) - 65536)
        self._file.seek(tail_at)
        self._file.truncate(tail_at + self._file.read().rfind(b"\n") + 1)

    def _follow_rotation(self) -> None:
        """Begin the file again if it is no longer at its path, or is empty."""
        ours = os.fstat(self._file.fileno())
        try:
            moved = not os.path.samestat(ours, self.path.stat())
        except OSError:
            moved = True
        if moved:
            self._file.close()
            self._rows = 0
            self._open()
        elif not ours.st_size:
            self._start()

    def _append(self, lines: bytes) -> None:
        """Write all of it, or nothing and an OSError: a disk may be full after half a row."""
        whole = self._file.seek(0, os.SEEK_END)
        if self._file.write(lines) != len(lines):
            self._file.truncate(whole)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, frame: Frame) -> None:
        now = utc_now()
        rows = b""
        for face in frame.faces:
            row = [now, frame.index, f"{frame.time_s:.4f}", face.id, *face.box_xyxy, cell(face.label)]
            row += [
                f"{face.score:.4f}",
                cell(face.unsure),
                cell(frame.source),
                *(f"{face.scores[label]:.4f}" for label in self._labels),
            ]
            rows += _row(row)
        if rows:
            self._follow_rotation()
            check_room(self.path.parent)
            self._append(rows)
            self._rows += len(frame.faces)

    def close(self) -> None:
        self._file.close()

    def summary(self) -> str:
        rows = self._rows_left()
        if not rows:
            return ""
        return f"{self.name}, {counted(rows, 'row')} of this run; next: edgefer report {shlex.quote(self.name)}"

    def kept(self) -> str:
        rows = self._rows_left()
        return f"{counted(rows, 'row of this run is', 'rows of this run are')} in it" if rows else ""

    def _rows_left(self) -> int:
        """The rows of this run that are in the file: none if it has been removed since the last one."""
        return self._rows if os.path.exists(self.path) else 0


def _row(cells: Sequence) -> bytes:
    """A line of CSV."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue().encode(errors="replace")
