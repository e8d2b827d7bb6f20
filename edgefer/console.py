"""The command line's output: results on stdout, log lines and progress bars on stderr.

Every text goes through edgefer.text.printable: names, labels and messages may come from untrusted files.
"""

import contextlib
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from edgefer.progress import Epoch, Item, Progress
from edgefer.text import json_text, printable


class Stderr(Console):
    """A console whose reader may end before this program does: results and long work do not depend on messages."""

    def on_broken_pipe(self) -> None:  # rich would end the program, and discard what is written to stdout
        self.quiet = True


# Without emoji, or ":b:" in an IPv6 address becomes one.
out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Stderr(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def log(text: str) -> None:
    """Log a line to stderr, which may be closed."""
    with contextlib.suppress(OSError):
        err.print(printable(text, keep="\n"), markup=False)


def show(text: str) -> None:
    """Print a line of results to stdout."""
    out.print(printable(text, keep="\n"), markup=False)


def show_json(value: object) -> None:
    """Print a value as indented JSON to stdout; in ASCII if its encoding cannot represent the texts."""
    text = json_text(value, indent=2)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # the stream's own escapes are not valid JSON
        text = json.dumps(value, indent=2)
    print(text)


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to stdout; columns of figures are right-aligned."""
    cells = [[printable(str(cell), keep="\n") for cell in row] for row in rows]
    table = Table(title=Text(printable(title)), title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        figures = all(re.fullmatch(r"[+-]?[\d.,]*%?", row[number]) for row in cells)
        name = number == 0 and all(len(row[0]) <= 16 for row in cells)  # users type it, so do not wrap it
        table.add_column(printable(column), justify="right" if figures else "left", overflow="fold", no_wrap=name)
    for row in cells:
        table.add_row(*row)
    Console(highlight=False, emoji=False, width=None if out.is_terminal else 110).print(table, markup=False)


class Terminal(Progress):
    """Progress on stderr: lines and, on a terminal, transient bars and spinners."""

    def log(self, text: str) -> None:
        log(text)

    def track(self, items: Iterable[Item], total: int, description: str) -> Iterable[Item]:
        with _bar() as bar:
            yield from bar.track(items, total=total, description=printable(description))

    @contextlib.contextmanager
    def stage(self, description: str) -> Iterator[None]:
        if not err.is_terminal:
            log(description)
            yield
            return
        with _unheld() as terminal, Bar(*STAGE, console=terminal, transient=True) as spinner:
            spinner.add_task(printable(description), total=None)
            yield

    def begin(self, first_epoch: int, epochs: int, steps: int) -> None:
        self.epochs, self.steps = epochs, steps
        self.done = first_epoch * steps
        self.bar = _bar()
        self.task = self.bar.add_task("", total=epochs * steps, completed=self.done)
        self.bar.start()
        self.shown = 0.0

    def step(self, loss: float, accuracy: float) -> None:
        self.done += 1
        if time.monotonic() - self.shown > 0.2:
            self.shown = time.monotonic()
            epoch = min(self.epochs, self.done // self.steps + 1)
            text = f"epoch {epoch}/{self.epochs}  loss {loss:.3f}  accuracy {accuracy:.1%}"
            self.bar.update(self.task, completed=self.done, description=text)

    def epoch(self, row: Epoch, best: Epoch | None) -> None:
        held = not math.isnan(row.val_accuracy)
        mark = "  best" if held and row is best else ""
        validation = f"validation {row.val_accuracy:.1%}  " if held else ""
        log(
            f"epoch {row.epoch:3d}/{self.epochs}  loss {row.loss:.3f}  accuracy {row.accuracy:.1%}  "
            f"{validation}rate {row.rate:.2g}  {row.seconds:.0f} s{mark}"
        )

    def end(self) -> None:
        self.bar.stop()


PROGRESS = Terminal()
STAGE = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())


@contextlib.contextmanager
def _unheld() -> Iterator[Console]:
    """stderr on a duplicated descriptor, so that edgefer.quiet does not hold back progress bars."""
    try:
        copy = os.fdopen(os.dup(err.file.fileno()), "w", encoding=err.encoding, errors="backslashreplace")
    except OSError:  # without a descriptor
        yield err
        return
    with copy:
        yield Stderr(file=copy, force_terminal=True, highlight=False, soft_wrap=True, emoji=False)


def _bar() -> Bar:
    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
