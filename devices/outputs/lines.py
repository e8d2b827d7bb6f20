"""Results as lines of text: JSON for programs, changes for people."""

import json
from typing import TextIO

from edgefer.devices.outputs.sink import Sink, utc_now
from edgefer.records import Frame
from edgefer.text import printable


class TextSink(Sink):
    """Writes lines; `closed` once the reading program has ended."""

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
    """One JSON object per frame: frame, time_s, source, detector, and faces, each with id, box_xyxy, label, score, scores,
    and the reason if it is unsure.

    network: the network's name, for lines of many devices; omitted if "". clock: begin with `time`, the current UTC time
    as in the CSV; not for files, for which a second run must write the same lines.
    """

    def __init__(self, out: TextIO, *, network: str = "", clock: bool = False):
        super().__init__(out)
        self._facts, self._clock = {"network": network} if network else {}, clock

    def write(self, frame: Frame) -> None:
        seen = frame.to_dict()
        faces = {"faces": seen.pop("faces")}
        self.line(json.dumps(({"time": utc_now()} if self._clock else {}) | seen | self._facts | faces))


class Changes(TextSink):
    """For a terminal: a line whenever the visible labels change."""

    def __init__(self, out: TextIO, *, named: bool = False):
        """named: begin each line with the source's name, for several sources."""
        super().__init__(out)
        self._last: dict[int, list[str]] = {}
        self._named = named

    def write(self, frame: Frame) -> None:
        labels = sorted(face.label for face in frame.faces)
        if labels != self._last.get(frame.stream):
            seen = ", ".join(
                f"unsure ({face.unsure})" if face.unsure else f"{face.label} {face.score:.0%}" for face in frame.faces
            )
            name = f"{frame.source}  " if self._named else ""
            self.line(printable(f"{name}{frame.time_s:8.2f} s  {seen or 'no face'}"))
            self._last[frame.stream] = labels


class FaceLines(TextSink):
    """For images read at a terminal: one line per face of each image."""

    def write(self, frame: Frame) -> None:
        if not frame.faces:
            self.line(printable(f"{frame.source}: no face"))
        for face in frame.faces:
            left, top, right, bottom = face.box_xyxy
            read = f"unsure ({face.unsure})" if face.unsure else f"{face.label} {face.score:.0%}"
            self.line(printable(f"{frame.source}: {read}, {right - left}x{bottom - top} pixels at {left},{top}"))
