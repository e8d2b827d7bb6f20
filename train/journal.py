"""The checkpoints, kept weights and history of a fit, from which an interrupted training resumes."""

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgefer.errors import DataError, EdgeferError
from edgefer.files import write_file
from edgefer.progress import SILENT, Epoch, Progress
from edgefer.text import counted
from edgefer.train.backend import tensorflow
from edgefer.train.checksums import Checksums
from edgefer.train.history import history_bytes, read_history, write_history
from edgefer.train.networks import weights_bytes
from edgefer.train.run import FitFolder

UNREADABLE_HISTORY = (OSError, ValueError, KeyError, TypeError, csv.Error)


class Journal:
    """Records epochs: checkpoints of network and optimizer, the weights of the epoch that is kept, and the history.

    The history is written before the checkpoint, which holds its epoch: rows after that are of epochs that will be
    trained again, and are dropped. Files are read from `folder` and written to `output`, which differs for a worker
    that is not the chief.
    """

    def __init__(self, folder: Path, model, patience: int, keep: str = "best", *, output: Path | None = None):
        tf = tensorflow()
        self.model, self.patience, self.keep_last = model, patience, keep == "last"
        self.folder, self.output = FitFolder(folder), FitFolder(output or folder)
        self.best_weights = self.output.best_weights
        self.checksums = Checksums(self.output.sums)
        self.epoch = tf.Variable(0, dtype=tf.int64)
        self.checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer, epoch=self.epoch)
        self.rows: list[Epoch] = []
        self.first_with_weights = 1  # the weights of earlier epochs are lost
        self.manager = checkpoint_manager(self.checkpoint, self.output.checkpoints)

    def restore(self, epochs: int = 0, progress: Progress = SILENT) -> int:
        """Load the newest intact checkpoint; returns how many of the `epochs` are done.

        Logs what is damaged or missing and will be trained again. DataError where no checkpoint or no history is
        intact: training never silently starts again.
        """
        numbers, recorded = self.folder.checkpoint_numbers(), self._epochs_in_history()
        started = bool(numbers or recorded)
        weights_lost = started and (
            self.checksums.differ("weights", self.folder.best_weights) or not _is_intact(self.folder.best_weights)
        )
        damaged: list[int] = []
        for number in numbers:
            if not self._load(number):
                damaged.append(number)
            elif not (weights_lost and epochs and int(self.epoch) >= epochs):  # one epoch is left to get weights from
                break
        else:
            return self._start_again(max(recorded, *numbers, 0), progress) if started else 0
        done = int(self.epoch)
        self.rows = self._history(done)
        if damaged or recorded > done:
            problem = f"ckpt-{damaged[0]} is damaged" if damaged else f"that of epoch {recorded} is missing"
            progress.log(
                f"Of the checkpoints in {self.folder.checkpoints}, {problem}: resuming from the one before, after epoch {done}. Later "
                "epochs are trained again."
            )
        if weights_lost:
            self.first_with_weights = done + 1
            progress.log(
                f"{self.folder.best_weights} is damaged or missing: the best weights of the first {counted(done, 'epoch')} are lost, and the best "
                "of those that follow will be kept."
            )
        return done

    def _start_again(self, epochs: int, progress: Progress) -> int:
        """No checkpoint is intact, after so many epochs: that of a first epoch may have been cut off, later ones must
        not be lost."""
        if epochs > 1:
            raise DataError(
                f"Nothing in {self.folder.checkpoints} can be read, though {epochs} epochs were finished: restore it from a backup, "
                "or train again with another --out."
            )
        progress.log(
            f"The checkpoint of epoch 1 in {self.folder.checkpoints} is incomplete: the epoch is trained again."
        )
        self.epoch.assign(0)
        return 0

    def _epochs_in_history(self) -> int:
        """How many epochs the history has; 0 where it cannot be read."""
        counts = [0]
        for file in (self.folder.history, self.folder.spare_history):
            with suppress(*UNREADABLE_HISTORY):
                counts.append(len(read_history(file)))
        return max(counts)

    def _load(self, number: int) -> bool:
        prefix = self.folder.checkpoints / f"ckpt-{number}"
        return not self.checksums.differ(prefix.name, *_files_of(prefix)) and load_checkpoint(self.checkpoint, prefix)

    def _history(self, done: int) -> list[Epoch]:
        for file in (self.folder.history, self.folder.spare_history):
            if self.checksums.differ("history", file):
                continue
            with suppress(*UNREADABLE_HISTORY):
                rows = read_history(file)[:done]
                if [row.epoch for row in rows] == list(range(1, done + 1)):
                    return rows
        raise DataError(
            f"{self.folder.history} and its copy are damaged, and with them which epoch was the best: restore one from a backup, or "
            "train again with another --out."
        )

    def record(self, row: Epoch) -> None:
        """Add an epoch, and write the network's current weights where this is the epoch to keep."""
        self.rows.append(row)
        if self.kept_epoch() is row:
            with self._suggesting_resume():
                content = weights_bytes(self.model)
                self.checksums.record("weights", [content], self.best_weights)
                write_file(self.best_weights, content)

    def save(self) -> None:
        """Write history and checkpoint after the last recorded epoch."""
        self.output.checkpoints.mkdir(parents=True, exist_ok=True)
        with self._suggesting_resume():
            self.checksums.record("history", [history_bytes(self.rows)], self.output.history)
            for file in (self.output.history, self.output.spare_history):
                write_history(file, self.rows)
        self.epoch.assign(self.rows[-1].epoch)
        saved = save_checkpoint(self.manager)
        with self._suggesting_resume():
            self.checksums.record(saved.name, [file.read_bytes() for file in _files_of(saved) if file.exists()])

    @contextmanager
    def _suggesting_resume(self) -> Iterator[None]:
        """Adds to the message of a file that cannot be written that the training can be resumed, after a first epoch."""
        try:
            yield
        except EdgeferError as error:
            advice = " Finished epochs are kept: --resume goes on from them." if len(self.rows) > 1 else ""
            raise EdgeferError(f"{error}{advice}") from None

    def kept_epoch(self) -> Epoch:
        """The epoch whose weights are kept."""
        return self.rows[-1] if self.keep_last else self.best()

    def best(self) -> Epoch:
        """The epoch with the best validation accuracy whose weights are not lost; of all where they all are."""
        return max(list(self._candidates()) or self.rows, key=lambda row: row.val_accuracy)

    def _candidates(self) -> Iterator[Epoch]:
        return (row for row in self.rows if row.epoch >= self.first_with_weights)

    def plateau_count(self, epochs: float) -> int:
        """How many times `epochs` epochs have passed without a better validation accuracy; the count restarts each
        time."""
        count, since, best = 0, 0, -1.0
        for row in self.rows:
            since, best = (0, row.val_accuracy) if row.val_accuracy > best else (since + 1, best)
            if since >= epochs:
                count, since = count + 1, 0
        return count

    def out_of_patience(self) -> bool:
        """Whether `patience` epochs have passed without a better validation accuracy."""
        return bool(
            self.patience and any(self._candidates()) and self.rows[-1].epoch - self.best().epoch >= self.patience
        )


def _files_of(checkpoint: Path) -> list[Path]:
    """The files of a checkpoint that one machine has written."""
    return [Path(f"{checkpoint}{suffix}") for suffix in (".index", ".data-00000-of-00001")]


def checkpoint_manager(checkpoint, folder: Path, keep: int = 2):
    """A tf.train.CheckpointManager that keeps so many checkpoints."""
    tf = tensorflow()
    try:
        return tf.train.CheckpointManager(checkpoint, folder, max_to_keep=keep)
    except (tf.errors.OpError, ValueError):  # its list of checkpoints is damaged
        (folder / "checkpoint").unlink(missing_ok=True)
        return tf.train.CheckpointManager(checkpoint, folder, max_to_keep=keep)


def load_checkpoint(checkpoint, prefix: Path) -> bool:
    """Load a checkpoint; False where it is damaged or of another network."""
    try:
        checkpoint.restore(str(prefix)).assert_existing_objects_matched()
    except (tensorflow().errors.OpError, ValueError, AssertionError, LookupError, RuntimeError, OSError):
        return False
    return True


def save_checkpoint(manager) -> Path:
    """Save the next checkpoint and return its prefix; EdgeferError where it cannot be written."""
    try:
        return Path(manager.save())
    except tensorflow().errors.OpError as error:
        raise _unwritable(Path(manager.directory), error) from None


def _unwritable(file: Path, error: Exception) -> EdgeferError:
    """One sentence for the ten lines that TensorFlow writes about a full disk."""
    first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    named = re.search(r"; ([^;]+?)(?: \[Op:\w+\])?$", first_line)  # after "<node> <temporary file>"
    reason = named[1] if named else first_line[-160:]
    return EdgeferError(
        f"{file} cannot be written: {reason}. Make room there: finished work is kept, and --resume goes on from it."
    )


def _is_intact(file: Path) -> bool:
    """Whether every array of an HDF5 file can be read."""
    import h5py

    try:
        with h5py.File(file, "r") as weights:
            arrays: list[h5py.Dataset] = []
            weights.visititems(lambda name, part: arrays.append(part) if isinstance(part, h5py.Dataset) else None)
            for array in arrays:
                array[()]
    except (OSError, ValueError, RuntimeError, KeyError):
        return False
    return True
