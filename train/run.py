"""A training's folder: where everything lies in it, and whether it can be gone on with."""

import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgefer.bundle import CARD, TRAINING, write_file
from edgefer.errors import DataError, InputError
from edgefer.files import MAX_CARD, read_regular
from edgefer.train.data.dataset import Dataset
from edgefer.train.history import read_history

STALE_S = 24 * 3600


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
    def sums(self) -> Path:
        return self.path / "sums.json"

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
        return FitFolder(self.path / TRAINING)

    @property
    def order(self) -> Path:
        return self.training.path / "order.json"

    @property
    def spare_order(self) -> Path:
        return self.training.path / "order-copy.json"

    @property
    def face_order(self) -> Path:
        """The order of a training of a network that finds faces."""
        return self.training.path / "faces.json"

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
    def blank(self) -> bool:
        """Whether it is what a training leaves that was killed before it wrote anything."""
        return [*self.path.rglob("*")] == [self.training.path] and self.training.path.is_dir()

    @property
    def resumable(self) -> bool:
        orders = (self.order, self.spare_order, self.plan, self.face_order)
        return not self.finished and any(file.exists() for file in orders)

    def begun(self) -> bool:
        """Whether an epoch of the network or of a fold has been finished."""
        return any(FitFolder(folder).begun() for folder in (self.training.path, *self.training.path.glob("folds/*")))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the run's folder and lock it for this process; it is removed again if nothing was written there. InputError
        when it cannot be written, or another process is training there."""
        folder = self.training.path
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(b"\0")
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error.strerror}): choose another --out.") from None
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise InputError(
                f"{self.path} is being trained by another process: wait for it, or choose another --out."
            ) from None
        except OSError:
            pass  # a file system without locks
        try:
            yield
        finally:
            for empty in (folder, self.path):
                with suppress(OSError):
                    empty.rmdir()
            os.close(handle)

    def clear(self) -> None:
        """Remove what a refused training has left, and the run's directory when nothing else is in it."""
        shutil.rmtree(self.training.path, ignore_errors=True)
        with suppress(OSError):
            self.path.rmdir()

    def clean(self) -> None:
        """Remove what a killed process has left half written; of a bundle's own files write_bundle does it. Only for who holds
        the run."""
        half = [*self.training.path.rglob("*.partial"), *self.training.path.rglob("partial.weights.h5")]
        # TensorFlow writes the code that it generates there, and removes it when it ends, but not when it is killed.
        half += [file for file in Path(tempfile.gettempdir()).glob("__autograph_generated_file*.py") if _is_stale(file)]
        for file in half:
            with suppress(OSError):
                file.unlink()

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
        return ""


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
        listed = ", ".join(f"{run.path} ({_done(run)} done)" for run in found)
        raise InputError(f"Several trainings are unfinished: {listed}. Name the one to resume with --out DIR.")
    return found[0]


def _done(run: RunFolder) -> str:
    if run.face_order.exists():
        return f"{max([0, *run.training.checkpoint_numbers()])} checkpoints"
    try:
        return f"{len(read_history(run.training.history))} epochs"
    except (OSError, ValueError, KeyError, TypeError):
        return "0 epochs"
