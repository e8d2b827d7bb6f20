"""The journal of a training: its history, its best weights, and the checkpoint it goes on from after a kill."""

import csv
from dataclasses import dataclass
from pathlib import Path

from edgefer.train.backend import tensorflow

COLUMNS = ("epoch", "seconds", "rate", "loss", "accuracy", "val_loss", "val_accuracy")


@dataclass(frozen=True)
class Epoch:
    """A line of history.csv: losses are mean cross-entropies, accuracies fractions; `epoch` counts from 1.

    val_loss and val_accuracy are NaN where no validation split is held back.
    """

    epoch: int
    seconds: float
    rate: float
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float


class Journal:
    """What survives a kill: checkpoints of network and optimizer, the best weights, and the history.

    The history is written first, then the checkpoint, which names its epoch: a row after that belongs to an epoch that
    will be run again, and is dropped. All is read from `folder` and written into `written`, the same folder but for a worker that
    is not the chief.
    """

    def __init__(self, folder: Path, model, patience: int, keep: str = "best", *, written: Path | None = None):
        tf = tensorflow()
        self.model, self.patience, self.last = model, patience, keep == "last"
        self.folder, self.written = folder, written or folder
        self.history = self.written / "history.csv"
        self.best_weights = self.written / "best.weights.h5"
        self.epoch = tf.Variable(0, dtype=tf.int64)
        checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer, epoch=self.epoch)
        self.manager = tf.train.CheckpointManager(checkpoint, self.written / "checkpoints", max_to_keep=2)
        self.rows: list[Epoch] = []

    def restore(self) -> int:
        """Load the newest checkpoint if there is one; returns how many epochs are done."""
        newest = tensorflow().train.latest_checkpoint(self.folder / "checkpoints")
        if newest:
            self.manager.checkpoint.restore(newest).assert_existing_objects_matched()
            self.rows = read_history(self.folder / "history.csv")[: int(self.epoch)]
        return int(self.epoch)

    def judge(self, row: Epoch) -> None:
        """Note an epoch; its weights, as the network has them now, are kept if they are the best so far, or the last
        are wanted."""
        self.rows.append(row)
        if self.kept() is row:
            partial = self.best_weights.with_name("partial.weights.h5")
            self.model.save_weights(partial)
            partial.replace(self.best_weights)

    def keep(self) -> None:
        """Write the checkpoint from which training goes on after the epoch that was judged last."""
        write_history(self.history, self.rows)
        self.epoch.assign(self.rows[-1].epoch)
        self.manager.save()

    def kept(self) -> Epoch:
        """The epoch whose weights are kept."""
        return self.rows[-1] if self.last else self.best()

    def best(self) -> Epoch:
        return max(self.rows, key=lambda row: row.val_accuracy)

    def plateaus(self, epochs: float) -> int:
        """How many times `epochs` have passed without a better one, each time counted anew."""
        count, since, best = 0, 0, -1.0
        for row in self.rows:
            since, best = (0, row.val_accuracy) if row.val_accuracy > best else (since + 1, best)
            if since >= epochs:
                count, since = count + 1, 0
        return count

    def exhausted(self) -> bool:
        """Whether `patience` epochs have passed without a better one."""
        return bool(self.patience and self.rows and self.rows[-1].epoch - self.best().epoch >= self.patience)


def write_history(file: Path, rows: list[Epoch]) -> None:
    partial = file.with_suffix(".partial")
    with partial.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(COLUMNS)
        writer.writerows([row.epoch, *(f"{getattr(row, name):.6g}" for name in COLUMNS[1:])] for row in rows)
    partial.replace(file)


def read_history(file: Path) -> list[Epoch]:
    """history.csv as written by `fit`."""
    with file.open(newline="") as text:
        return [
            Epoch(int(row["epoch"]), **{name: float(row[name]) for name in COLUMNS[1:]}) for row in csv.DictReader(text)
        ]
