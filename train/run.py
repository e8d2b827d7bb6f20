"""The folder of a training: its files, whether it can be resumed, and whether its data has changed."""

import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgefer.bundle import CARD, TRAINING
from edgefer.errors import DataError, EdgeferError, InputError
from edgefer.files import MAX_CARD, read_regular, write_file
from edgefer.text import counted
from edgefer.train.history import read_history

STALE_S = 24 * 3600  # age of a temporary file whose process must have been killed


@dataclass(frozen=True)
class FitFolder:
    """The files of one fit."""

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
    def step_history(self) -> Path:
        """Of a network that finds faces: one JSON object per checkpoint."""
        return self.path / "history.jsonl"

    @property
    def sums(self) -> Path:
        return self.path / "sums.json"

    @property
    def best_weights(self) -> Path:
        return self.path / "best.weights.h5"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def started(self) -> bool:
        """Whether there is a finished epoch."""
        return bool(self.checkpoint_numbers()) or self.history.exists()

    def checkpoint_numbers(self) -> list[int]:
        """The numbers of the checkpoints, whole or not, the newest first."""
        names = (re.match(r"ckpt-(\d+)\.", file.name) for file in self.checkpoints.glob("ckpt-*"))
        return sorted({int(match[1]) for match in names if match}, reverse=True)


@dataclass(frozen=True)
class RunFolder:
    """The folder of a training, which becomes a bundle. Only here are the names of the files beside the bundle's own."""

    path: Path

    @property
    def training(self) -> FitFolder:
        return FitFolder(self.path / TRAINING)

    @property
    def config(self) -> Path:
        return self.training.path / "order.json"

    @property
    def spare_config(self) -> Path:
        return self.training.path / "order-copy.json"

    @property
    def face_config(self) -> Path:
        """The configuration of a face training."""
        return self.training.path / "faces.json"

    @property
    def spare_face_config(self) -> Path:
        return self.training.path / "faces-copy.json"

    @property
    def plan(self) -> Path:
        """The configuration of a training in stages; each stage has one of its own."""
        return self.training.path / "stages.json"

    @property
    def spare_plan(self) -> Path:
        return self.training.path / "stages-copy.json"

    def stage(self, name: str) -> Path:
        """The run folder of a stage but the last, which has this one."""
        return self.training.path / "stages" / name

    def stages(self) -> list["RunFolder"]:
        """The run folders of the stages that were started, but the last."""
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

    @property
    def candidates(self) -> Path:
        """What the finder proposed on a refiner's training images."""
        return self.training.path / "candidates.npz"

    def fold(self, number: int) -> FitFolder:
        return FitFolder(self.training.path / "folds" / str(number))

    @property
    def finished(self) -> bool:
        return (self.path / CARD).exists()

    @property
    def blank(self) -> bool:
        """Whether it is an empty folder, or has only an empty one for the training, as one leaves it that was killed
        before it wrote anything."""
        inside = [*self.path.iterdir()] if self.path.is_dir() else [self.path]
        if inside == [self.training.path] and self.training.path.is_dir():
            inside = [*self.training.path.iterdir()]
        return not inside

    @property
    def finds_faces(self) -> bool:
        """Whether this is a face training."""
        return self.face_config.is_file() or self.spare_face_config.is_file()

    @property
    def resumable(self) -> bool:
        configs = (self.config, self.spare_config, self.plan, self.spare_plan)
        return not self.finished and (self.finds_faces or any(file.exists() for file in configs))

    def started(self) -> bool:
        """Whether there is a finished epoch, of the network or of a fold."""
        return any(FitFolder(folder).started() for folder in (self.training.path, *self.training.path.glob("folds/*")))

    def holds_nothing_after(self, error: BaseException) -> bool:
        """Whether what ended a new training leaves nothing in the folder that is worth resuming: no finished epoch, nor, after
        Ctrl-C, what may have taken as long, such as the outputs of teachers and the preparation of a face training."""
        if self.started() or any(stage.started() or stage.finished for stage in self.stages()):
            return False
        prepared = self.finds_faces or self.soft_labels.exists() or self.candidates.exists()
        interrupted = isinstance(error, KeyboardInterrupt) and not prepared
        return interrupted or isinstance(error, EdgeferError) or not self.resumable

    @contextmanager
    def session(self) -> Iterator[None]:
        """Lock the folder for one training. One that fails or is interrupted before its first epoch leaves nothing behind,
        see holds_nothing_after."""
        resumed = self.resumable
        with self.locked():
            try:
                self.clean()
                yield
            except BaseException as error:
                if not resumed and self.holds_nothing_after(error):
                    self.clear()
                raise

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and lock it for this process; it is removed again where nothing was written to it.

        InputError where it cannot be written, or another process is training in it.
        """
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
        """Remove the training's files, and the folder where nothing else is in it."""
        shutil.rmtree(self.training.path, ignore_errors=True)
        with suppress(OSError):
            self.path.rmdir()

    def clean(self) -> None:
        """Remove the partial files of killed processes, but those of the bundle, which write_bundle removes. Needs the
        lock."""
        partial = [*self.training.path.rglob("*.partial"), *self.training.path.rglob("partial.weights.h5")]
        # TensorFlow removes the code that it generates when it exits, but not when it is killed.
        partial += [
            file for file in Path(tempfile.gettempdir()).glob("__autograph_generated_file*.py") if _is_stale(file)
        ]
        for file in partial:
            with suppress(OSError):
                file.unlink()

    def check_data(self, content_hash: str, sizes: Mapping[str, int], *, derived: str = "") -> str:
        """Record what is trained on; DataError when a resumed training finds something else.

        content_hash: of everything that is trained on. sizes: images by split. derived: what the hash covers beside the
        images, such as the outputs of teachers; "" for the data as it was read. Returns a sentence where there is no
        record to compare with, else "".
        """
        file = self.soft_data if derived else self.data
        try:
            recorded = json.loads(read_regular(file, MAX_CARD))
            changed = recorded["hash"] != content_hash
            before, now = (
                ", ".join(f"{name} {n:,}" for name, n in some.items()) for some in (recorded["counts"], sizes)
            )
        except (InputError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            write_file(file, json.dumps({"hash": content_hash, "counts": dict(sizes)}).encode())
            if not self.started():
                return ""
            return f"{file} is damaged or missing: whether the data has changed since the training was stopped is not known."
        if not changed:
            return ""
        if before != now:
            found = f"it had {before} images, and has {now}"
        elif derived:
            found = f"the images are the same, but {derived} is not"
        else:
            found = f"as many images ({now}), but not the same"
        raise DataError(
            f"The data has changed since the training in {self.path} was stopped: {found}. Restore it, or "
            "train again with another --out."
        )


def _is_stale(file: Path) -> bool:
    with suppress(OSError):
        status = file.stat()
        return status.st_uid == os.getuid() and time.time() - status.st_mtime > STALE_S
    return False


def unfinished_run(runs: Path = Path("runs")) -> RunFolder:
    """The only run under `runs` that can be resumed. InputError where there is none, or several, which it lists."""
    found = [run for run in map(RunFolder, sorted(runs.glob("*"))) if run.resumable]
    if not found:
        raise InputError("There is no unfinished training under runs/: name one with --out DIR.")
    if len(found) > 1:
        listed = ", ".join(f"{run.path} ({_done(run)} done)" for run in found)
        raise InputError(f"Several trainings are unfinished: {listed}. Name the one to resume with --out DIR.")
    return found[0]


def _done(run: RunFolder) -> str:
    """How far a training is, such as "2 stages, 7 epochs"."""
    if run.finds_faces:
        return counted(max([0, *run.training.checkpoint_numbers()]), "checkpoint")
    stages = run.stages()
    finished = sum(stage.finished for stage in stages)
    current = next((stage for stage in stages if not stage.finished), run)
    try:
        epochs = len(read_history(current.training.history))
    except (OSError, ValueError, KeyError, TypeError):
        epochs = 0
    return f"{counted(finished, 'stage')}, {counted(epochs, 'epoch')}" if stages else counted(epochs, "epoch")
