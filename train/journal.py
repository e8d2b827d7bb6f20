"""The checkpoints that a training goes on from after a kill, with its best weights and its history."""

import csv
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgefer.bundle import write_file
from edgefer.errors import DataError, EdgeferError
from edgefer.progress import SILENT, Epoch, Progress
from edgefer.train.backend import tensorflow
from edgefer.train.checksums import Checksums
from edgefer.train.history import history_bytes, read_history, write_history
from edgefer.train.networks import weights_bytes
from edgefer.train.run import FitFolder


class Journal:
    """What survives a kill: checkpoints of network and optimizer, the best weights, and the history.

    The history is written first, then the checkpoint, which names its epoch: a row after that belongs to an epoch that
    will be run again, and is dropped. All is read from `folder` and written into `written`, the same folder but for a worker that
    is not the chief.
    """

    def __init__(self, folder: Path, model, patience: int, keep: str = "best", *, written: Path | None = None):
        tf = tensorflow()
        self.model, self.patience, self.last = model, patience, keep == "last"
        self.read, self.written = FitFolder(folder), FitFolder(written or folder)
        self.best_weights = self.written.best_weights
        self.sums = Checksums(self.written.sums if written else self.read.sums)
        self.epoch = tf.Variable(0, dtype=tf.int64)
        self.checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer, epoch=self.epoch)
        self.rows: list[Epoch] = []
        self.first_kept = 1  # weights of epochs before this one are lost
        self.manager = checkpoint_manager(self.checkpoint, self.written.checkpoints)

    def restore(self, epochs: int = 0, progress: Progress = SILENT) -> int:
        """Load the newest checkpoint that is whole; returns how many epochs are done, of `epochs`.

        What is damaged or missing is reported, and trained again where it can be. DataError when there were checkpoints and
        none is whole, or the history is lost: a training never begins again in silence.
        """
        numbers, recorded = self.read.checkpoint_numbers(), self._recorded()
        begun = bool(numbers or recorded)
        weights_lost = begun and (
            self.sums.is_other("weights", self.read.best_weights) or not _whole_weights(self.read.best_weights)
        )
        damaged: list[int] = []
        for number in numbers:
            if not self._load(number):
                damaged.append(number)
            elif not (
                weights_lost and epochs and int(self.epoch) >= epochs
            ):  # an epoch must be left to get weights from
                break
        else:
            return self._nothing(max(recorded, *numbers, 0), progress) if begun else 0
        done = int(self.epoch)
        self.rows = self._history(done)
        if damaged or recorded > done:
            what = f"ckpt-{damaged[0]} is damaged or not whole" if damaged else f"that of epoch {recorded} is missing"
            progress.log(
                f"Of the checkpoints in {self.read.checkpoints}, {what}: going on from the one before, after epoch {done}. Later epochs "
                "are trained again."
            )
        if weights_lost:
            self.first_kept = done + 1
            progress.log(
                f"{self.read.best_weights} is damaged or missing: the best weights of the first {done} epochs are lost, and the best "
                "of those that follow will be kept."
            )
        return done

    def _nothing(self, epochs: int, progress: Progress) -> int:
        """No checkpoint is whole, of so many epochs: the first can have been cut off, more were lost."""
        if epochs > 1:
            raise DataError(
                f"Nothing in {self.read.checkpoints} can be read, though {epochs} epochs were finished: copy it back from where it is "
                "whole, or train again with another --out."
            )
        progress.log(f"Epoch 1 was not kept whole in {self.read.checkpoints}: it is trained again.")
        self.epoch.assign(0)
        return 0

    def _recorded(self) -> int:
        """How many epochs the history names; 0 where there is none that can be read."""
        counts = [0]
        for file in (self.read.history, self.read.spare_history):
            with suppress(OSError, ValueError, KeyError, TypeError, csv.Error):
                counts.append(len(read_history(file)))
        return max(counts)

    def _load(self, number: int) -> bool:
        prefix = self.read.checkpoints / f"ckpt-{number}"
        return not self.sums.is_other(prefix.name, *_files_of(prefix)) and load_checkpoint(self.checkpoint, prefix)

    def _history(self, done: int) -> list[Epoch]:
        for file in (self.read.history, self.read.spare_history):
            if self.sums.is_other("history", file):
                continue
            with suppress(OSError, ValueError, KeyError, TypeError, csv.Error):
                rows = read_history(file)[:done]
                if [row.epoch for row in rows] == list(range(1, done + 1)):
                    return rows
        raise DataError(
            f"{self.read.history} and its copy are damaged, and with them which epoch was the best: copy one back from where it is "
            "whole, or train again with another --out."
        )

    def judge(self, row: Epoch) -> None:
        """Note an epoch; its weights, as the network has them now, are kept if they are the best so far, or the last
        are wanted."""
        self.rows.append(row)
        if self.kept() is row:
            with _naming_resume():
                content = weights_bytes(self.model)
                self.sums.note("weights", [content], self.best_weights)
                write_file(self.best_weights, content)

    def keep(self) -> None:
        """Write the checkpoint from which training goes on after the epoch that was judged last."""
        self.written.checkpoints.mkdir(parents=True, exist_ok=True)
        with _naming_resume():
            self.sums.note("history", [history_bytes(self.rows)], self.written.history)
            for file in (self.written.history, self.written.spare_history):
                write_history(file, self.rows)
        self.epoch.assign(self.rows[-1].epoch)
        saved = save_checkpoint(self.manager)
        with _naming_resume():
            self.sums.note(saved.name, [file.read_bytes() for file in _files_of(saved) if file.exists()])

    def kept(self) -> Epoch:
        """The epoch whose weights are kept."""
        return self.rows[-1] if self.last else self.best()

    def best(self) -> Epoch:
        """The best epoch whose weights are not lost, or of all where they all are."""
        return max(list(self._candidates()) or self.rows, key=lambda row: row.val_accuracy)

    def _candidates(self) -> Iterator[Epoch]:
        return (row for row in self.rows if row.epoch >= self.first_kept)

    def plateaus(self, epochs: float) -> int:
        """How many times `epochs` have passed without a better one, each time counted again."""
        count, since, best = 0, 0, -1.0
        for row in self.rows:
            since, best = (0, row.val_accuracy) if row.val_accuracy > best else (since + 1, best)
            if since >= epochs:
                count, since = count + 1, 0
        return count

    def exhausted(self) -> bool:
        """Whether `patience` epochs have passed without a better one."""
        return bool(
            self.patience and any(self._candidates()) and self.rows[-1].epoch - self.best().epoch >= self.patience
        )


def _files_of(checkpoint: Path) -> list[Path]:
    """The files that TensorFlow writes of a checkpoint on one machine."""
    return [Path(f"{checkpoint}{suffix}") for suffix in (".index", ".data-00000-of-00001")]


@contextmanager
def _naming_resume() -> Iterator[None]:
    """Add to the sentence of a file that cannot be written that the training may go on."""
    try:
        yield
    except EdgeferError as error:
        raise EdgeferError(f"{error} Finished epochs are kept: --resume goes on from them.") from None


def checkpoint_manager(checkpoint, folder: Path):
    """TensorFlow's manager of the checkpoints in a folder, of which two are kept."""
    tf = tensorflow()
    try:
        return tf.train.CheckpointManager(checkpoint, folder, max_to_keep=2)
    except (tf.errors.OpError, ValueError):  # its list of checkpoints is damaged; the files are not
        (folder / "checkpoint").unlink(missing_ok=True)
        return tf.train.CheckpointManager(checkpoint, folder, max_to_keep=2)


def load_checkpoint(checkpoint, prefix: Path) -> bool:
    """Whether the checkpoint is whole, and loaded."""
    try:
        checkpoint.restore(str(prefix)).assert_existing_objects_matched()
    except (tensorflow().errors.OpError, ValueError, AssertionError, LookupError, RuntimeError, OSError):
        return False
    return True


def save_checkpoint(manager) -> Path:
    """Save the next checkpoint; EdgeferError, in one sentence, where it cannot be written."""
    try:
        return Path(manager.save())
    except tensorflow().errors.OpError as error:
        raise _unwritable(Path(manager.directory), error) from None


def _unwritable(file: Path, error: Exception) -> EdgeferError:
    """One sentence for what TensorFlow says in ten lines of a disk that is full."""
    number = getattr(error, "errno", None)
    if number is None and (match := re.search(r"errno = (\d+)", str(error))):
        number = int(match[1])
    reason = os.strerror(number) if number else str(error).strip().splitlines()[0][-160:] or type(error).__name__
    return EdgeferError(
        f"{file} cannot be written: {reason}. Make room there: what was finished is kept, and --resume goes on from them."
    )


def _whole_weights(file: Path) -> bool:
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
