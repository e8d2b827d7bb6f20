"""What the command line shows: results on stdout, talk and progress on stderr."""

import contextlib
import math
import re
import time
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from edgefer.text import json_text, printable

# Without emoji, or ":b:" in an IPv6 address becomes one.
out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def say(text: str) -> None:
    """A line of progress, to stderr; nobody may be there any more to hear it."""
    with contextlib.suppress(OSError):
        err.print(printable(text, keep="\n"), markup=False)


def show(text: str) -> None:
    """A line of result, to stdout."""
    out.print(printable(text, keep="\n"), markup=False)


def show_json(value: object) -> None:
    """A value as indented JSON, to stdout."""
    print(json_text(value, indent=2))


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; columns of figures are set to the right."""
    cells = [[printable(str(cell), keep="\n") for cell in row] for row in rows]
    table = Table(title=printable(title), title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        figures = all(re.fullmatch(r"[+-]?[\d.,]*%?", row[number]) for row in cells)
        name = number == 0 and all(len(row[0]) <= 16 for row in cells)  # to be typed, so in one piece
        table.add_column(printable(column), justify="right" if figures else "left", overflow="fold", no_wrap=name)
    for row in cells:
        table.add_row(*row)
    Console(highlight=False, emoji=False, width=None if out.is_terminal else 110).print(table, markup=False)


def track(items: Iterable, total: int, what: str) -> Iterable:
    """The items, with a progress bar on a terminal that goes away when it is done."""
    with _bar() as progress:
        yield from progress.track(items, total=total, description=what)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )


class TrainingProgress:
    """A Watcher (edgefer.train.fit): a bar over all steps with ETA, and a line for each epoch."""

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

    def epoch(self, row, best) -> None:
        held = not math.isnan(row.val_accuracy)
        mark = "  best" if held and row is best else ""
        validation = f"validation {row.val_accuracy:.1%}  " if held else ""
        say(
            f"epoch {row.epoch:3d}/{self.epochs}  loss {row.loss:.3f}  accuracy {row.accuracy:.1%}  "
            f"{validation}rate {row.rate:.2g}  {row.seconds:.0f} s{mark}"
        )

    def end(self) -> None:
        self.bar.stop()
