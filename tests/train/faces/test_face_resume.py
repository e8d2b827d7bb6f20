"""Face trainings that are interrupted and resumed: only with the data that they began with."""

import json

import cv2
import numpy as np
import pytest

from edgefer.errors import DataError, InputError, Interrupted
from edgefer.train.faces import run, scenes
from edgefer.train.faces.recipe import load_face_recipe
from edgefer.train.faces.run import FaceConfig
from edgefer.train.faces.start import resumed, start
from edgefer.train.faces.teacher import TaughtFace
from edgefer.train.run import RunFolder

FACE = np.array([10.0, 10, 50, 50])


class OneFace:
    """A teacher that finds the same face in every image."""

    def __init__(self, file):
        pass

    def faces(self, image_bgr):
        return [TaughtFace(FACE, np.full((5, 2), 30.0), 0.9, 0.0)]


class Miner:
    """Proposes a box far from the face and one on it, and counts its calls."""

    def __init__(self):
        self.calls, self.left = 0, 52.0

    def __call__(self, pictures):
        self.calls += 1
        return [(one, box) for one in pictures for box in (np.array([self.left, 52, 62, 62]), FACE)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with two images, whose teacher finds a face in each."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(scenes, "Teacher", OneFace)
    (tmp_path / "yunet.onnx").write_bytes(b"")
    (tmp_path / "scenes" / "own").mkdir(parents=True)
    for name in "ab":
        write(tmp_path / "scenes" / "own" / f"{name}.png", seed=ord(name))
    return tmp_path


def write(file, seed):
    cv2.imwrite(str(file), np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.fixture
def interrupted(folder, monkeypatch):
    """A function that starts or resumes a training of a recipe and interrupts it after its first checkpoint."""
    path, batches = folder / "run", []

    def fit(task, schedule, training, report):
        batches.append(task.batch(0))
        training.checkpoints.mkdir(exist_ok=True)
        (training.checkpoints / "ckpt-1.index").write_bytes(b"")
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "fit", fit)

    def train(recipe="face-finder", miner=None):
        if RunFolder(path).resumable:
            config = resumed(path)
        else:
            loaded = load_face_recipe(recipe, ("fit.batch_size=6",))
            config = FaceConfig(
                recipe=loaded, data=str(folder / "scenes"), teacher=str(folder / "yunet.onnx"), finder="mine"
            )
        monkeypatch.setattr("edgefer.train.faces.start.Bundle.open", lambda path: path)
        try:
            start(config, path, lambda bundle: miner or Miner())
        except DataError:
            raise
        except Interrupted as stopped:
            assert str(stopped) == f"Stopped. Continue with: edgefer train --resume --out {path}"
        return batches[-1] if batches else None

    return train


def test_resumed_training_gets_the_same_batches(interrupted):
    for first, again in zip(interrupted(), interrupted(), strict=True):
        np.testing.assert_array_equal(first, again)


def test_images_changed_since_the_interrupt_are_refused(interrupted, folder):
    interrupted()
    write(folder / "scenes" / "own" / "a.png", seed=5)
    with pytest.raises(DataError, match=r"data has changed since .*run was stopped: as many images .* not the same"):
        interrupted()
    write(folder / "scenes" / "own" / "a.png", seed=ord("a"))
    interrupted()
    write(folder / "scenes" / "own" / "c.png", seed=6)
    with pytest.raises(DataError, match="it had train 2, held out 0 images, and has train 3, held out 0"):
        interrupted()
    assert RunFolder(folder / "run").resumable


def test_boxes_changed_since_the_interrupt_are_refused(interrupted, folder):
    interrupted()
    (folder / "scenes" / "own" / "boxes.json").write_text(json.dumps({"a.png": [[0, 0, 0, 9, 12]]}))
    with pytest.raises(DataError, match=r"the images are the same, but the annotation of their faces \(boxes.json"):
        interrupted()


def test_candidates_are_mined_once_and_other_candidates_are_refused(interrupted, folder):
    miner = Miner()
    first = interrupted("face-refiner", miner)
    again = interrupted(miner=miner)
    np.testing.assert_array_equal(first[0], again[0])
    assert miner.calls == 1
    RunFolder(folder / "run").candidates.write_bytes(b"damaged")
    interrupted(miner=miner)
    assert miner.calls == 2
    RunFolder(folder / "run").candidates.unlink()
    miner.left = 50.0
    with pytest.raises(DataError, match=r"but the annotation of their faces .*the finder"):
        interrupted(miner=miner)


def test_training_interrupted_during_mining_can_be_resumed(folder, interrupted):
    class InterruptedMiner(Miner):
        def __call__(self, pictures):
            raise KeyboardInterrupt

    assert interrupted("face-refiner", InterruptedMiner()) is None
    assert RunFolder(folder / "run").resumable and not RunFolder(folder / "run").started()
    assert interrupted() is not None


def test_failed_training_without_a_checkpoint_leaves_no_files(folder, monkeypatch):
    def fit(*arguments):
        raise DataError("The loss is nan after 100 steps")

    monkeypatch.setattr(run, "fit", fit)
    config = FaceConfig(
        recipe=load_face_recipe("face-finder"), data=str(folder / "scenes"), teacher=str(folder / "yunet.onnx")
    )
    with pytest.raises(DataError, match="nan"):
        start(config, folder / "runs" / "face-finder-1", lambda bundle: None)
    assert not (folder / "runs").exists()


def test_configuration_is_read_from_its_second_copy_if_the_first_is_damaged(interrupted, folder):
    interrupted()
    run_folder = RunFolder(folder / "run")
    config = FaceConfig.load(run_folder.path)
    run_folder.face_config.write_bytes(b"{")
    assert FaceConfig.load(run_folder.path) == config
    run_folder.face_config.unlink()
    assert run_folder.resumable and FaceConfig.load(run_folder.path) == config
    run_folder.spare_face_config.write_bytes(b"{")
    with pytest.raises(InputError, match="is not the configuration of a face training"):
        FaceConfig.load(run_folder.path)
