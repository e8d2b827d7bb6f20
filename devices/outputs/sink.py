"""The base class of all outputs, which receive frames with their faces in order."""

import re
from datetime import UTC, datetime

from edgefer.records import Frame
from edgefer.text import printable

# Characters with which a spreadsheet formula may begin, also full-width ones (OWASP).
BEGINS = r"[=+\-@\uff1d\uff0b\uff0d\uff20]"
FORMULA = re.compile(BEGINS)
NEXT_CELL = re.compile(rf"(;[\s\"]*)(?={BEGINS})")  # where cells are separated by semicolons, as in much of Europe


class Sink:
    """Receives every frame in order; `write` raises EdgeferError or OSError when it cannot continue.

    name: for messages. every_frame: no frame may be dropped, as in a file. closed: the user has closed it.
    trouble: why it cannot write right now, "" if it can. errors: how often that happened. dropped: frames
    left out because it was too slow. ends_run: closing it ends the run. lost: once closed, whether its output is lost.
    unsent: once closed, whether its last results were not sent. close_s: time limit of closing, if it writes no file.
    finish_s: how much longer than other files its file may take to finish, known once it is being closed.
    """

    name = ""
    every_frame = False
    closed = False
    trouble = ""
    errors = 0
    dropped = 0
    ends_run = False
    lost = False
    unsent = False
    close_s = 1.0
    finish_s = 0.0

    def write(self, frame: Frame) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Finish the output."""

    def summary(self) -> str:
        """Once closed: what a file or folder holds, such as "out, 20 images", or "" without one."""
        return ""

    def kept(self) -> str:
        """Once closed: what was saved, such as "its first 20 frames are in out.mp4", or ""."""
        return ""


def utc_now() -> str:
    """The current UTC time in milliseconds: 2026-11-27T04:52:42.863Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def cell(text: str) -> str:
    """Untrusted text as a CSV cell, without control characters and without formulas."""
    shown = NEXT_CELL.sub(r"\1'", printable(text))
    return f"'{shown}" if FORMULA.match(shown.lstrip()) else shown
