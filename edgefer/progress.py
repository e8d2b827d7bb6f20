"""What long work reports to while it goes on. Library functions take a Progress and are silent without one."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Epoch:
    """What an epoch of a fit came to: losses are mean cross-entropies, accuracies fractions; `epoch` counts from 1.

    val_loss and val_accuracy are NaN where no validation split is held back.
    """

    epoch: int
    seconds: float
    rate: float
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float


class Progress:
    """Reports nothing; edgefer.console.Terminal is the one that people see. Any method may be overridden alone.

    A fit calls begin, then step after each batch and epoch after each epoch, and end, also when it fails.
    """

    def __repr__(self) -> str:
        return "SILENT" if type(self) is Progress else super().__repr__()

    def log(self, text: str) -> None:
        """A line about what is being done."""

    def track(self, items: Iterable[Item], total: int, description: str) -> Iterable[Item]:
        """The items, showing how many of `total` were taken."""
        return items

    def stage(self, description: str) -> AbstractContextManager[None]:
        """Work goes on inside it that cannot tell how far it has come. Nothing is tracked or fitted meanwhile."""
        return nullcontext()

    def begin(self, first_epoch: int, epochs: int, steps: int) -> None:
        """A network is to be fitted: epochs first_epoch .. epochs - 1, of `steps` batches each."""

    def step(self, loss: float, accuracy: float) -> None:
        """A batch was fitted; the means of the epoch so far."""

    def epoch(self, row: Epoch, best: Epoch | None) -> None:
        """An epoch has ended; `best` is the one whose weights are kept."""

    def end(self) -> None:
        """Nothing more is fitted."""


class Lines(Progress):
    """Reports lines to a function, and nothing else."""

    def __init__(self, log: Callable[[str], None]):
        self._log = log

    def log(self, text: str) -> None:
        self._log(text)


SILENT = Progress()
