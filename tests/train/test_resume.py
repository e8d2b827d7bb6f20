"""Resuming a training: damaged checkpoints, weights and histories, changed data, full disks."""

import os
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from forks import Fork

from edgefer.errors import DataError, EdgeferError
from edgefer.progress import Progress
from edgefer.train.backend import tensorflow
from edgefer.train.data.dataset import Dataset, Split
from edgefer.train.history import read_history
from edgefer.train.journal import Journal
from edgefer.train.networks import build_for
from edgefer.train.objective import create_variables, make_optimizer
from edgefer.train.pipeline import SOFT_TARGETS
from edgefer.train.recipes import load_recipe
from edgefer.train.run import FitFolder, RunFolder

TINY = ("model.layers=C8/2 C8/2", "schedule.name=constant", "fit.batch_size=16", "optimizer.rate=0.01")


class Lines(Progress):
    def __init__(self):
        self.lines: list[str] = []

    def log(self, text):
        self.lines.append(text)

    @property
    def text(self):
        return "\n".join(self.lines)


def two_shades(seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    labels = (np.arange(64) % 2).astype(np.int64)
    images = (rng.integers(0, 100, (64, 48, 48, 1)) + 60 * labels[:, None, None, None]).astype(np.uint8)
    split = Split(images=images, labels=labels, ids=np.arange(64).astype(str))
    return Dataset(name="small", labels=("dark", "light"), splits={"train": split, "valid": split})


@pytest.fixture(scope="module")
def small() -> Dataset:
    return two_shades()


class Copied(Lines):
    """Copies the folder after so many epochs, as a kill would leave it."""

    def __init__(self, folder: Path, copy: Path, after: int):
        super().__init__()
        self.folder, self.copy, self.after = folder, copy, after

    def epoch(self, row, best):
        if row.epoch == self.after:
            shutil.copytree(self.folder, self.copy)


def run_fit(small, folder: Path, epochs: int, *changes: str, progress: Lines | None = None) -> Lines:
    from edgefer.train.fit import fit

    progress = progress or Lines()
    folder.mkdir(exist_ok=True)
    fit(load_recipe("demo", (*TINY, f"fit.epochs={epochs}", *changes)), small, folder, progress)
    return progress


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory) -> Path:
    """A fit of five epochs, which was never interrupted, and beside it, as "three", what was there after three."""
    folder = tmp_path_factory.mktemp("whole") / "five"
    run_fit(small, folder, 5, progress=Copied(folder, folder.with_name("three"), after=3))
    return folder


@pytest.fixture(scope="module")
def three(whole) -> Path:
    """A fit after three of its five epochs."""
    return whole.with_name("three")


@pytest.fixture(scope="module")
def five(whole) -> list[float]:
    """The losses of the fit that was never damaged."""
    return [row.loss for row in read_history(whole / "history.csv")]


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def garble(file: Path) -> None:
    file.write_bytes(b"\xff\x00 no protocol buffer \xfe")


@cache
def another() -> Path:
    """A run of the same shapes on other data."""
    folder = Path(tempfile.mkdtemp())
    run_fit(two_shades(seed=1), folder, 3)
    return folder


def exchange(fit: FitFolder, *files: Path) -> None:
    """Replace files with intact ones of the same shapes from another run."""
    for file in files:
        shutil.copy(another() / file.relative_to(fit.path), file)


def check(run: RunFolder, data: Dataset, derived: str = "") -> str:
    return run.check_data(data.content_hash, data.sizes, derived=derived)


DAMAGE = {
    "index cut": (lambda fit: cut(fit.checkpoints / "ckpt-3.index"), "ckpt-3 is damaged.*after epoch 2"),
    "index missing": (lambda fit: (fit.checkpoints / "ckpt-3.index").unlink(), "ckpt-3 is damaged.*after epoch 2"),
    "data cut": (lambda fit: cut(fit.checkpoints / "ckpt-3.data-00000-of-00001"), "ckpt-3 is damaged.*after epoch 2"),
    "data missing": (lambda fit: (fit.checkpoints / "ckpt-3.data-00000-of-00001").unlink(), "ckpt-3 is damaged.*after epoch 2"),
    "both missing": (lambda fit: [file.unlink() for file in fit.checkpoints.glob("ckpt-3.*")], "epoch 3 is missing.*after epoch 2"),
    "list missing": (lambda fit: (fit.checkpoints / "checkpoint").unlink(), None),
    "list garbled": (lambda fit: garble(fit.checkpoints / "checkpoint"), None),
    "history cut": (lambda fit: cut(fit.history), None),
    "history missing": (lambda fit: fit.history.unlink(), None),
    "weights cut": (lambda fit: cut(fit.best_weights), "best weights of the first 3 epochs are lost"),
    "weights of another run": (lambda fit: exchange(fit, fit.best_weights), "best weights of the first 3 epochs are lost"),
    "checkpoint of another run": (lambda fit: exchange(fit, *fit.checkpoints.glob("ckpt-3.*")), "ckpt-3 is damaged.*after epoch 2"),
    "history of another run": (lambda fit: fit.history.write_bytes(re.sub(rb"0[.]5", b"0.6", fit.history.read_bytes())), None),
    "sums missing": (lambda fit: fit.sums.unlink(), None),
    "sums garbled": (lambda fit: garble(fit.sums), None),
    "weights missing": (lambda fit: fit.best_weights.unlink(), "best weights of the first 3 epochs are lost"),
}  # fmt: skip


def restored(model, folder: Path) -> tuple[list[np.ndarray], list[float], str]:
    """What a fit of five epochs would continue from: all variables, the losses so far, and what it logs."""
    lines = Lines()
    for variable in (*model.weights, *model.optimizer.variables):
        variable.assign(tensorflow().zeros_like(variable))
    journal = Journal(folder, model, patience=0)
    journal.restore(5, lines)
    values = [variable.numpy() for variable in (*model.weights, *model.optimizer.variables)]
    return values, [row.loss for row in journal.rows], lines.text


@pytest.fixture(scope="module")
def model(small):
    recipe = load_recipe("demo", TINY)
    network = build_for(recipe, small)
    network.compile(make_optimizer(recipe, 4), "mse")
    create_variables(network, tensorflow().zeros([1, 2]))
    return network


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_latest_intact_state_is_restored(small, model, three, five, tmp_path, damage):
    act, message = DAMAGE[damage]
    done = 2 if message and "after epoch 2" in message else 3
    shutil.copytree(three, tmp_path / "fit")
    shutil.copytree(three, tmp_path / "whole")
    if done == 2:
        for file in FitFolder(tmp_path / "whole").checkpoints.glob("ckpt-3.*"):
            file.unlink()
    act(FitFolder(tmp_path / "fit"))
    (values, losses, text), (expected, *_) = (restored(model, tmp_path / name) for name in ("fit", "whole"))
    assert losses == pytest.approx(five[:done])
    assert all(np.array_equal(value, whole) for value, whole in zip(values, expected, strict=True))
    assert any(value.any() for value in values)
    assert text == "" if message is None else re.search(message, text), text


@pytest.mark.parametrize("damage", ["index cut", "history cut", "weights cut"])
def test_resuming_with_a_damaged_file_gives_the_same_losses(small, three, five, tmp_path, damage):
    shutil.copytree(three, tmp_path / "fit")
    DAMAGE[damage][0](FitFolder(tmp_path / "fit"))
    run_fit(small, tmp_path / "fit", 5)
    losses = [row.loss for row in read_history(tmp_path / "fit" / "history.csv")]
    assert losses == pytest.approx(five, rel=1e-3)


def test_weights_lost_after_the_last_epoch_are_trained_again(small, three, tmp_path):
    shutil.copytree(three, tmp_path / "fit")
    FitFolder(tmp_path / "fit").best_weights.unlink()
    lines = run_fit(small, tmp_path / "fit", 3)
    assert "best weights of the first 2 epochs are lost" in lines.text
    assert FitFolder(tmp_path / "fit").best_weights.is_file()


def test_unreadable_checkpoints_are_an_error_and_not_a_silent_restart(small, three, tmp_path):
    shutil.copytree(three, tmp_path / "fit")
    for file in (tmp_path / "fit" / "checkpoints").glob("ckpt-*"):
        cut(file)
    with pytest.raises(DataError, match=r"Nothing in .*checkpoints can be read, though 3 epochs were finished"):
        run_fit(small, tmp_path / "fit", 5)
    shutil.rmtree(tmp_path / "fit" / "checkpoints")
    with pytest.raises(DataError, match="though 3 epochs were finished"):
        run_fit(small, tmp_path / "fit", 5)


def test_resumed_fit_draws_the_same_dropout_masks_and_goes_on_averaging_weights(small, tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    changes = ("model.dropout=0.5", "fit.ema=0.9")
    run_fit(small, whole, 2, *changes, progress=Copied(whole, resumed, after=1))
    assert len(read_history(resumed / "history.csv")) == 1
    run_fit(small, resumed, 2, *changes)
    rows = [[(row.loss, row.val_loss) for row in read_history(folder / "history.csv")] for folder in (whole, resumed)]
    assert rows[0] == rows[1]


def test_training_scales_pixels_exactly_as_preprocess_does(small):
    """All 256 values, bit for bit: dividing by 255 differs from preprocess in 126 of them."""
    from edgefer.preprocess import to_float
    from edgefer.train.batches import EpochSize, batches, validation_batches

    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    split = Split(images=np.stack([values] * 4), labels=np.array([0, 1, 0, 1]), ids=np.arange(4).astype(str))
    recipe = load_recipe("demo", (*TINY, *(f"augment.{name}=0" for name in ("rotate_deg", "zoom", "shift", "brightness", "contrast", "erase")), "augment.flip=false"))  # fmt: skip
    fed = next(iter(batches(recipe, split, 2, EpochSize(4, 1), epochs=range(1))))[0].numpy()
    judged = next(iter(validation_batches(split, 2)))[0].numpy()
    for seen in (fed, judged):
        assert np.array_equal(seen, np.stack([to_float(values)] * 4))


def test_a_full_disk_is_named_in_one_sentence():
    """TensorFlow's own has the node, and a temporary file."""
    from edgefer.train.journal import _unwritable

    text = "{{node /job:localhost/device:CPU:0}} /runs/a/ckpt-1_temp/part-0.tempstate1; No space left on device [Op:SaveV2]"
    message = str(_unwritable(Path("checkpoints"), OSError(text)))
    assert message.startswith("checkpoints cannot be written: No space left on device. Make room")


def test_resuming_is_not_suggested_before_a_first_epoch_is_kept(tmp_path, small, monkeypatch):
    from edgefer.train import journal
    from edgefer.train.fit import fit

    def full(*_):
        raise EdgeferError("best.weights.h5 could not be written.")

    monkeypatch.setattr(journal, "write_file", full)
    with pytest.raises(EdgeferError) as error:
        fit(load_recipe("demo", TINY), small, tmp_path)
    assert "--resume" not in str(error.value)


def test_data_changed_since_the_interruption_is_detected(tmp_path, small):
    run = RunFolder(tmp_path / "run")
    run.training.path.mkdir(parents=True)
    check(run, small)
    check(run, small)
    fewer = Dataset(
        name="small", labels=small.labels, splits={**small.splits, "train": small.split("train").take(np.arange(63))}
    )
    with pytest.raises(
        DataError, match=r"has changed since .* it had train 64, valid 64 images, and has train 63, valid 64"
    ):
        check(run, fewer)
    other = small.split("train").images.copy()
    other[0, 0, 0, 0] ^= 1
    split = Split(images=other, labels=small.split("train").labels, ids=small.split("train").ids)
    with pytest.raises(DataError, match=r"as many images .* but not the same"):
        check(run, Dataset(name="small", labels=small.labels, splits={**small.splits, "train": split}))


@pytest.mark.parametrize("change", ["labels", "order", "names"])
def test_changed_labels_order_or_names_are_detected(tmp_path, small, change):
    run = RunFolder(tmp_path / "run")
    run.training.path.mkdir(parents=True)
    assert check(run, small) == ""
    train = small.split("train")
    if change == "order":
        other = train.take(np.arange(64)[::-1])
    elif change == "labels":
        other = Split(images=train.images, labels=1 - train.labels, ids=train.ids)
    else:
        other = Split(images=train.images, labels=train.labels, ids=np.array([f"{one}a" for one in train.ids]))
    with pytest.raises(DataError, match="has changed since"):
        check(run, Dataset(name="small", labels=small.labels, splits={**small.splits, "train": other}))


def test_changed_soft_labels_are_detected_and_a_lost_note_is_reported(tmp_path, small, three):
    from edgefer.train.distill import with_soft_targets

    run = RunFolder(tmp_path / "run")
    shutil.copytree(three, run.training.path)

    def taught(share: float) -> Dataset:
        soft = np.full((64, 2), [share, 1 - share], np.float32)
        return Dataset(
            name="small", labels=small.labels, splits={"train": with_soft_targets(small.split("train"), soft, 0.5)}
        )

    assert "is not known" in check(run, taught(0.3), derived=SOFT_TARGETS)  # an epoch is done, and no hash was stored
    assert check(run, taught(0.3), derived=SOFT_TARGETS) == ""
    with pytest.raises(DataError, match="what teachers, votes or --soft-labels say"):
        check(run, taught(0.4), derived=SOFT_TARGETS)
    check(run, small)
    for damage in (cut, garble, Path.unlink):
        damage(run.data)
        assert "is not known" in check(run, small)
        assert check(run, small) == ""


FULL_DISK = """
import pathlib, resource, runpy, sys
here = runpy.run_path(sys.argv[1])
data = here["two_shades"]()
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))  # as on a full disk: no file grows beyond it
try:
    here["run_fit"](data, pathlib.Path(sys.argv[2]), 2)
except here["EdgeferError"] as full:
    print(full)
from tf_keras.src.saving.saving_lib import H5IOStore  # HDF5 goes on in this process
print(dict(H5IOStore(__import__("io").BytesIO(), mode="w").h5_file))
"""


def test_a_full_disk_names_the_file_in_one_sentence(tmp_path):
    """In a separate process, whose HDF5 must keep working: after a failed write it would crash on any file."""
    (tmp_path / "full.py").write_text(FULL_DISK)
    done = Fork((__file__, tmp_path / "fit"), dict(os.environ), tmp_path, tmp_path / "full.py").done(timeout=240)
    sentence, after = done.stdout.splitlines()
    assert re.match(
        r"/.*(best\.weights\.h5|checkpoints|history\.csv) (could not|cannot) be written: File too large\. Make room",
        sentence,
    )
    assert len(sentence) < 400 and after == "{}" and done.returncode == 0 and "HDF5" not in done.stderr, done.stderr
