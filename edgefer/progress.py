"""Progress reports of long work. Library functions take a Progress and are silent without one."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Epoch:
    """The results of an epoch: losses are mean cross-entropies, accuracies fractions; `epoch` counts from 1.

    val_loss and val_accuracy are NaN without a validation split.
    """

    epoch: int
    seconds: float
    rate: float
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float


class Progress:
    """Reports nothing; edgefer.console.Terminal shows it to users. Each method may be overridden on its own.

    Training calls begin, then step after each batch and epoch after each epoch, and end, also when it fails.
    """

    def __repr__(self) -> str:
        return "SILENT" if type(self) is Progress else super().__repr__()

    def log(self, text: str) -> None:
        """Log a line."""

    def track(self, items: Iterable[Item], total: int, description: str) -> Iterable[Item]:
        """Yield the items, showing how many of `total` are done."""
        return items

    def stage(self, description: str) -> AbstractContextManager[None]:
        """A context for work of unknown length. Nothing is tracked or trained inside it."""
        return nullcontext()

    def begin(self, first_epoch: int, epochs: int, steps: int) -> None:
        """Training begins: epochs first_epoch .. epochs - 1, of `steps` batches each."""

    def step(self, loss: float, accuracy: float) -> None:
        """A batch is done; the means of the epoch so far."""

    def epoch(self, row: Epoch, best: Epoch | None) -> None:
        """An epoch has ended; `best` is the one whose weights are kept."""

    def end(self) -> None:
        """Training has ended."""


class Lines(Progress):
    """Passes only logged lines to a function."""

    def __init__(self, log: Callable[[str], None]):
        self._log = log

    def log(self, text: str) -> None:
        self._log(text)


SILENT = Progress()
