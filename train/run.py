"""A training's folder: where everything lies in it, its history, and the checkpoints it goes on from after a kill."""

import csv
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgefer.bundle import CARD, write_file
from edgefer.errors import DataError, EdgeferError, InputError
from edgefer.files import MAX_CARD, read_regular
from edgefer.progress import SILENT, Epoch, Progress
from edgefer.train.backend import tensorflow
from edgefer.train.data.dataset import Dataset

COLUMNS = ("epoch", "seconds", "rate", "loss", "accuracy", "val_loss", "val_accuracy")
STALE_S = 24 * 3600
MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class FitFolder:
    """Where one fit keeps what survives a kill."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def history(self) -> Path:
        return self.path / "history.csv"

    @property
    def spare_history(self) -> Path:
        return self.checkpoints / "history.csv"

    @property
    def best_weights(self) -> Path:
        return self.path / "best.weights.h5"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def begun(self) -> bool:
        """Whether an epoch has been finished."""
        return bool(self.checkpoint_numbers()) or self.history.exists()

    def checkpoint_numbers(self) -> list[int]:
        """Of the checkpoints of which any file is there, the newest first."""
        names = (re.match(r"ckpt-(\d+)\.", file.name) for file in self.checkpoints.glob("ckpt-*"))
        return sorted({int(match[1]) for match in names if match}, reverse=True)


@dataclass(frozen=True)
class RunFolder:
    """A directory that a training makes a bundle. Only this class knows how what is beside the bundle's files is called."""

    path: Path

    @property
    def training(self) -> FitFolder:
        return FitFolder(self.path / "training")

    @property
    def order(self) -> Path:
        return self.training.path / "order.json"

    @property
    def spare_order(self) -> Path:
        return self.training.path / "order-copy.json"

    @property
    def plan(self) -> Path:
        """The order of a training in stages; each stage has an order of its own."""
        return self.training.path / "stages.json"

    def stage(self, name: str) -> Path:
        """The run folder of a stage that is not the last."""
        return self.training.path / "stages" / name

    def stages(self) -> list["RunFolder"]:
        """The run folders of the stages that have begun."""
        return [RunFolder(path) for path in self.stage("").glob("*")]

    @property
    def data(self) -> Path:
        return self.training.path / "data.json"

    @property
    def soft_data(self) -> Path:
        return self.training.path / "soft-data.json"

    @property
    def soft_labels(self) -> Path:
        return self.training.path / "soft-labels.npz"

    @property
    def votes(self) -> Path:
        return self.training.path / "votes.npz"

    def fold(self, number: int) -> FitFolder:
        return FitFolder(self.training.path / "folds" / str(number))

    @property
    def finished(self) -> bool:
        return (self.path / CARD).exists()

    @property
    def resumable(self) -> bool:
        return not self.finished and any(file.exists() for file in (self.order, self.spare_order, self.plan))

    def begun(self) -> bool:
        """Whether an epoch of the network or of a fold has been finished."""
        return any(FitFolder(folder).begun() for folder in (self.training.path, *self.training.path.glob("folds/*")))

    def clear(self) -> None:
        """Remove what a refused training has left, and the run's directory when nothing else is in it."""
        shutil.rmtree(self.training.path, ignore_errors=True)
        with suppress(OSError):
            self.path.rmdir()

    def clean(self) -> None:
        """Remove what a killed process has left half written. Only for who holds the run."""
        half = [*self.training.path.rglob("*.partial"), *self.training.path.rglob("partial.weights.h5")]
        half += [file for file in self.path.parent.glob(".*") if _is_staging(file, self.path.name)]
        # TensorFlow writes the code that it generates there, and removes it when it ends, but not when it is killed.
        half += [file for file in Path(tempfile.gettempdir()).glob("__autograph_generated_file*.py") if _is_stale(file)]
        for file in half:
            with suppress(OSError):
                shutil.rmtree(file) if file.is_dir() else file.unlink()

    def check_data(self, dataset: Dataset, *, soft: bool = False) -> str:
        """Note what is trained on; DataError when it is not what was noted before the training was stopped.

        soft: its targets are those that teachers, votes or a file gave. Returns a sentence where it could not be compared.
        """
        file = self.soft_data if soft else self.data
        counts = {name: len(split) for name, split in dataset.splits.items()}
        now = {"hash": dataset.content_hash, "counts": counts}
        try:
            before = json.loads(read_regular(file, MAX_CARD))
            changed = before["hash"] != now["hash"]
            was, has = (", ".join(f"{name} {n:,}" for name, n in some.items()) for some in (before["counts"], counts))
        except (InputError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            write_file(file, json.dumps(now).encode())
            if not self.begun():
                return ""
            return f"{file} is damaged or missing: whether the data has changed since the training was stopped is not known."
        if changed:
            found = f"it had {was} images, and has {has}" if was != has else f"as many images ({has}), but not the same"
            if soft and was == has:
                found = "the images are the same, but what teachers, votes or --soft-labels say of them is not"
            raise DataError(
                f"The data has changed since the training in {self.path} was stopped: {found}. Bring back what it was, or "
                "train again with another --out."
            )


def _is_staging(file: Path, name: str) -> bool:
    """Whether it is where a bundle of this name was being put together (edgefer.bundle.write_bundle)."""
    return bool(re.fullmatch(rf"\.{re.escape(name)}\.[a-z0-9_]{{8}}", file.name))


def _is_stale(file: Path) -> bool:
    with suppress(OSError):
        status = file.stat()
        return status.st_uid == os.getuid() and time.time() - status.st_mtime > STALE_S
    return False


def unfinished_run(runs: Path = Path("runs")) -> RunFolder:
    """The only run under `runs` that can be resumed. InputError when there is none, or names them when there are several."""
    found = [run for run in map(RunFolder, sorted(runs.glob("*"))) if run.resumable]
    if not found:
        raise InputError("There is no unfinished training under runs/: name one with --out DIR.")
    if len(found) > 1:
        listed = ", ".join(f"{run.path} ({_epochs_done(run)} epochs done)" for run in found)
        raise InputError(f"Several trainings are unfinished: {listed}. Name the one to resume with --out DIR.")
    return found[0]


def _epochs_done(run: RunFolder) -> int:
    try:
        return len(read_history(run.training.history))
    except (OSError, ValueError, KeyError, TypeError):
        return 0


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
        self.epoch = tf.Variable(0, dtype=tf.int64)
        self.checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer, epoch=self.epoch)
        self.rows: list[Epoch] = []
        self.first_kept = 1  # weights of epochs before this one are lost
        state = self.written.checkpoints / "checkpoint"
        try:
            self.manager = self._manager()
        except (tf.errors.OpError, ValueError):  # its list of checkpoints is damaged; the files themselves tell
            state.unlink(missing_ok=True)
            self.manager = self._manager()

    def _manager(self):
        return tensorflow().train.CheckpointManager(self.checkpoint, self.written.checkpoints, max_to_keep=2)

    def restore(self, epochs: int = 0, progress: Progress = SILENT) -> int:
        """Load the newest checkpoint that is whole; returns how many epochs are done, of `epochs`.

        What is damaged or missing is reported, and trained again where it can be. DataError when there were checkpoints and
        none is whole, or the history is lost: a training never begins again in silence.
        """
        numbers, recorded = self.read.checkpoint_numbers(), self._recorded()
        begun = bool(numbers or recorded)
        weights_lost = begun and not _whole_weights(self.read.best_weights)
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
        errors = tensorflow().errors
        try:
            self.checkpoint.restore(str(self.read.checkpoints / f"ckpt-{number}")).assert_existing_objects_matched()
        except (errors.OpError, ValueError, AssertionError, LookupError, RuntimeError, OSError):
            return False
        return True

    def _history(self, done: int) -> list[Epoch]:
        for file in (self.read.history, self.read.spare_history):
            with suppress(OSError, ValueError, KeyError, TypeError, csv.Error):
                rows = read_history(file)[:done]
                if [row.epoch for row in rows] == list(range(1, done + 1)):
                    return rows
        raise DataError(
            f"{self.read.history} and its copy are damaged, and with them which epoch was the best: copy one back from where it is "
            "whole, or train anew with another --out."
        )

    def judge(self, row: Epoch) -> None:
        """Note an epoch; its weights, as the network has them now, are kept if they are the best so far, or the last
        are wanted."""
        self.rows.append(row)
        if self.kept() is row:
            # In memory first: HDF5 reports a full disk in ten lines, and again whenever Python drops one of its objects.
            with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as memory:
                file = Path(memory) / self.best_weights.name
                try:
                    self.model.save_weights(file)
                    write_file(self.best_weights, file.read_bytes())
                except OSError as error:
                    raise unwritable(self.best_weights, error) from None

    def keep(self) -> None:
        """Write the checkpoint from which training goes on after the epoch that was judged last."""
        self.written.checkpoints.mkdir(parents=True, exist_ok=True)
        for file in (self.written.history, self.written.spare_history):
            write_history(file, self.rows)
        self.epoch.assign(self.rows[-1].epoch)
        try:
            self.manager.save()
        except tensorflow().errors.OpError as error:
            raise unwritable(self.written.checkpoints, error) from None

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


def unwritable(file: Path, error: Exception) -> EdgeferError:
    """One sentence for what HDF5 or TensorFlow says in ten lines of a disk that is full."""
    number = getattr(error, "errno", None)
    if number is None and (match := re.search(r"errno = (\d+)", str(error))):
        number = int(match[1])
    reason = os.strerror(number) if number else str(error).strip().splitlines()[0][-160:] or type(error).__name__
    return EdgeferError(f"{file} cannot be written: {reason}. Finished epochs are kept: make room, then --resume.")


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


def write_history(file: Path, rows: list[Epoch]) -> None:
    lines = [",".join(COLUMNS)]
    lines += [",".join([str(row.epoch), *(f"{getattr(row, name):.6g}" for name in COLUMNS[1:])]) for row in rows]
    write_file(file, ("\r\n".join(lines) + "\r\n").encode())


def read_history(file: Path) -> list[Epoch]:
    """history.csv as written by `fit`."""
    with file.open(newline="") as text:
        return [
            Epoch(int(row["epoch"]), **{name: float(row[name]) for name in COLUMNS[1:]}) for row in csv.DictReader(text)
        ]
