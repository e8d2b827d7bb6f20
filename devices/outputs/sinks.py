"""Where results go, each to one place: JSON lines, CSV, changes as text, an annotated video, a window.

Sinks that need more than the base install are in modules of their own: mqtt, prometheus, web.
"""

import csv
import errno
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np

from edgefer.devices.outputs.overlay import draw
from edgefer.errors import EdgeferError, SourceError
from edgefer.records import Face, Frame

KEEP_FREE_BYTES = 20_000_000  # of the disk, for the rest of the system
WINDOW_S = 30.0  # a display that has not shown one by then will not
STILLS = (".png", ".jpg")
INDEX_BYTES = 16  # a frame of a video takes at most so many more when it is finished: an AVI 16.0, an MP4 4.2 to 4.8


@dataclass(frozen=True, kw_only=True)
class Result:
    """A frame and its faces, as sinks get them. They may keep it for a while: nothing writes to it any more."""

    frame: Frame
    faces: list[Face]
    _drawn: list[np.ndarray] = field(default_factory=list, repr=False)
    _drawing: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def picture(self) -> np.ndarray:
        """The annotated frame, uint8 BGR [h, w, 3]: drawn for the first sink that asks, the same for all. Not to be written to."""
        with self._drawing:
            if not self._drawn:
                self._drawn.append(draw(self.frame.image_bgr, self.faces))
            return self._drawn[0]


class Sink:
    """Takes every result in turn; `write` raises EdgeferError or OSError when it can take no more.

    name: how a sentence calls it. every_frame: a gap is a loss, as in a file. closed: the person has ended it.
    trouble: why nothing gets through right now, "" when all is well. errors: how often that happened. dropped: frames
    left out because it was too slow.
    """

    name = ""
    every_frame = False
    closed = False
    trouble = ""
    errors = 0
    dropped = 0

    def write(self, result: Result) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """End it, with what was written whole."""


def face_to_json(face: Face) -> dict:
    """A face as JSON lines, MQTT and the web page have it: id, box_xyxy, label, score, scores, and why it is unsure."""
    prediction = face.prediction
    return {
        "id": face.track,
        "box_xyxy": face.box_xyxy,
        "label": prediction.label,
        "score": round(prediction.score, 4),
        "scores": {label: round(score, 4) for label, score in prediction.scores.items()},
    } | ({"unsure": prediction.unsure} if prediction.unsure else {})


class TextSink(Sink):
    """Writes lines; `closed` once the program that read them has gone."""

    every_frame = True

    def __init__(self, out: TextIO, name: str = "stdout"):
        self.out, self.name = out, name

    def line(self, text: str) -> None:
        try:
            self.out.write(text + "\n")
            self.out.flush()
        except BrokenPipeError:
            self.closed = True
            raise


class JsonLines(TextSink):
    """One JSON object a frame: frame, time_s, faces with id, box_xyxy, label, score, scores, and why one is unsure."""

    def write(self, result: Result) -> None:
        frame = result.frame
        faces = [face_to_json(face) for face in result.faces]
        self.line(json.dumps({"frame": frame.index, "time_s": round(frame.time_s, 4), "faces": faces}))


class Changes(TextSink):
    """For a person at a terminal: a line whenever the labels in view change."""

    _last: list[str] | None = None

    def write(self, result: Result) -> None:
        labels = sorted(face.prediction.label for face in result.faces)
        if labels != self._last:
            seen = ", ".join(
                f"{said.label} ({said.unsure})" if said.unsure else f"{said.label} {said.score:.0%}"
                for said in (face.prediction for face in result.faces)
            )
            self.line(f"{result.frame.time_s:8.2f} s  {seen or 'no face'}")
            self._last = labels


COLUMNS = ("time", "frame", "time_s", "id", "left", "top", "right", "bottom", "label", "score", "unsure")


def check_room(folder: Path, more: int = 0) -> None:
    """EdgeferError when the folder's disk has less than KEEP_FREE_BYTES, and `more`, left."""
    least = KEEP_FREE_BYTES + more
    if shutil.disk_usage(folder).free < least:
        raise EdgeferError(f"the disk is full (less than {least / 1e6:.0f} MB free)")


class Csv(Sink):
    """One row a face, added to the end of the file, so that a program that is started again goes on with it.

    COLUMNS, of which `time` is the clock's in UTC, then each label's probability.
    """

    every_frame = True

    def __init__(self, path: Path, labels: tuple[str, ...]):
        if not path.parent.is_dir():
            raise SourceError(f"There is no folder {path.parent} to write {path.name} in.")
        if path.exists() and not path.is_file():
            raise SourceError(f"{path} is a folder or a device: name a file.")
        self.name, self._folder, self._labels = str(path), path.parent, labels
        header = _row([*COLUMNS, *labels])
        self._file = path.open("ab+", buffering=0)
        self._file.seek(0)
        there = self._file.read(len(header) + 1).replace(b"\r\n", b"\n")[
            : len(header)
        ]  # a spreadsheet may have saved it
        if there != header and header.startswith(there):  # a new file, or one whose first line was cut short
            self._file.truncate(0)
            self._append(header)
        elif there != header:
            self._file.close()
            raise SourceError(f"{path} has other columns than this network's results: choose another name.")
        self._cut_to_last_line()

    def _cut_to_last_line(self) -> None:
        """Take off a last row that was cut short when the program was killed."""
        tail_at = max(0, self._file.seek(0, os.SEEK_END) - 65536)
        self._file.seek(tail_at)
        self._file.truncate(tail_at + self._file.read().rfind(b"\n") + 1)

    def _append(self, lines: bytes) -> None:
        """All of it, or nothing and an OSError: a disk can take half a row and be full."""
        whole = self._file.seek(0, os.SEEK_END)
        if self._file.write(lines) != len(lines):
            self._file.truncate(whole)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, result: Result) -> None:
        frame, now = result.frame, datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        rows = b""
        for face in result.faces:
            said = face.prediction
            row = [now, frame.index, f"{frame.time_s:.4f}", face.track, *face.box_xyxy, said.label]
            row += [f"{said.score:.4f}", said.unsure, *(f"{said.scores[label]:.4f}" for label in self._labels)]
            rows += _row(row)
        if rows:
            check_room(self._folder)
            self._append(rows)

    def close(self) -> None:
        self._file.close()


def _row(cells: Sequence) -> bytes:
    """A line of CSV."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue().encode()


class VideoFile(Sink):
    """An annotated MP4 video, or a picture when the name ends in .png or .jpg (the last frame is kept).

    Written under another name and renamed at the end, so that a file of that name is always a whole one.
    live: frames come when they come, so each is shown until the next one's time; else every frame is shown once.
    """

    every_frame = True

    def __init__(self, path: Path, fps: float, *, live: bool = False):
        if path.suffix.lower() not in (".mp4", ".avi", *STILLS):
            raise SourceError(f"Cannot save to {path}: name a .mp4 or .avi video, or a .png or .jpg picture.")
        if path.exists():
            raise SourceError(f"{path} is there already: choose another name, or remove it first.")
        if not path.parent.is_dir():
            raise SourceError(f"There is no folder {path.parent} to save {path.name} in.")
        if not os.access(path.parent, os.W_OK):
            raise SourceError(
                f"You may not write to the folder {path.parent}: name another one to save {path.name} in."
            )
        self.name, self.path, self.fps, self.live = str(path), path, fps, live
        self._still = path.suffix.lower() in STILLS
        self.partial = path.absolute().with_name(
            f".partial-{path.name}"
        )  # FFmpeg takes the 10 of 10:30.mp4 for a protocol
        self._writer: cv2.VideoWriter | None = None
        self._last: Result | None = None
        self._written, self._lead_s = 0, 0.0
        try:
            check_room(path.parent)
        except EdgeferError as error:
            raise SourceError(f"{path} cannot be written: {error}. Make room, or name a file elsewhere.") from None

    def write(self, result: Result) -> None:
        last, self._last = self._last, result
        if self._still:
            return
        check_room(self.path.parent, INDEX_BYTES * self._written)
        picture = result.picture()
        if self._writer is None:
            self._open(picture)
        assert self._writer is not None
        if (picture.shape[1], picture.shape[0]) != self.size:
            picture = cv2.resize(picture, self.size)  # pictures of a folder may differ in size, a video's may not
        for _ in range(self._times(result, last)):
            self._writer.write(picture)
            self._written += 1

    def _open(self, picture: np.ndarray) -> None:
        self.size = picture.shape[1], picture.shape[0]
        codec = cv2.VideoWriter.fourcc(*("mp4v" if self.path.suffix.lower() == ".mp4" else "MJPG"))
        self._writer = cv2.VideoWriter(str(self.partial), codec, self.fps, self.size)
        if not self._writer.isOpened():
            self._writer = None
            raise EdgeferError("a video cannot be written there: is the folder writable and the disk not full?")

    def _times(self, result: Result, last: Result | None) -> int:
        """How often to show a frame so that a live video keeps time; a pause in the source is cut to a second."""
        if not self.live or last is None:
            return 1
        self._lead_s += min(1.0, result.frame.time_s - last.frame.time_s)
        times = max(0, round(self._lead_s * self.fps))
        self._lead_s -= times / self.fps
        return times

    def close(self) -> None:
        writer, self._writer = self._writer, None
        last, self._last = self._last, None
        try:
            if writer is not None:
                writer.release()  # which tells of no failure
                if not cv2.VideoCapture(str(self.partial)).isOpened():
                    raise EdgeferError("the video could not be finished, and is gone: is the disk full?")
            elif self._still and last is not None:
                self.partial.write_bytes(cv2.imencode(self.path.suffix, last.picture())[1].tobytes())
            else:
                return
            self.partial.replace(self.path)
        finally:
            self.partial.unlink(missing_ok=True)


class Window(Sink):
    """A window on the display; `closed` once the user has closed it or pressed q or Escape."""

    name = "the window"
    TITLE = "edgefer (q to quit)"

    @staticmethod
    def possible() -> bool:
        """Whether a window opens here. Tried in a process of its own: on a display that refuses, Qt ends the process."""
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            return False
        command = [sys.executable, "-c", "import cv2; cv2.namedWindow('edgefer'); cv2.waitKey(1)"]
        try:
            return subprocess.run(command, capture_output=True, timeout=WINDOW_S).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def write(self, result: Result) -> None:
        cv2.imshow(self.TITLE, result.picture())
        key = cv2.waitKey(1) & 0xFF
        self.closed = key in (ord("q"), 27) or cv2.getWindowProperty(self.TITLE, cv2.WND_PROP_VISIBLE) < 1

    def close(self) -> None:
        cv2.destroyAllWindows()
