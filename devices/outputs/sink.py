"""What every output is: it takes frames with their faces, one after the other."""

import re
from datetime import UTC, datetime

from edgefer.records import Frame
from edgefer.text import printable

FORMULA = re.compile(r"[=+\-@\t\r]")  # what a spreadsheet takes for a formula when a cell begins with it (OWASP)


class Sink:
    """Takes every frame in turn; `write` raises EdgeferError or OSError when it can take no more.

    name: how a sentence calls it. every_frame: a gap is a loss, as in a file. closed: the person has ended it.
    trouble: why nothing gets through right now, "" when all is well. errors: how often that happened. dropped: frames
    left out because it was too slow. ends_run: the run ends once it is closed. lost: once closed, what it wrote is gone.
    unsent: once closed, whether its last results never left. close_s: how long it may take to close where no file waits.
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

    def write(self, frame: Frame) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """End it, with what was written whole."""

    def kept(self) -> str:
        """Once it is closed: what there is of it, such as "its first 20 frames are in out.mp4", or ""."""
        return ""


def utc_now() -> str:
    """The clock's time in UTC to the millisecond: 2026-11-27T04:52:42.863Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def cell(text: str) -> str:
    """A stranger's text as a cell of CSV: no control characters, and nothing that a spreadsheet runs as a formula."""
    shown = printable(text)
    return f"'{shown}" if FORMULA.match(shown.lstrip()) else shown
