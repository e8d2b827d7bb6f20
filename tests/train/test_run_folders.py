"""The folder of a training: refused or unwritable, its order, several unfinished ones, leftovers of killed processes."""

import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from edgefer.errors import EdgeferError, InputError
from edgefer.train.config import Supervision, TrainConfig
from edgefer.train.recipes import load_recipe
from edgefer.train.run import RunFolder, unfinished_run


def folder_of(top: Path) -> Path:
    from edgefer.images import write_image

    for label in ("dark", "light"):
        for number in range(10):
            noise = np.random.default_rng([len(label), number]).integers(0, 200, (48, 48), np.uint8)
            write_image(top / label / f"{number}.png", noise)
    return top


def order(data: Path, **fields) -> TrainConfig:
    recipe = load_recipe("demo", ("model.layers=C8/2 C8/2", "fit.epochs=1", "fit.batch_size=8"))
    return TrainConfig(recipe=recipe, data=str(data), **fields)


@pytest.mark.parametrize(
    "refused",
    [
        {"supervision": Supervision(soft_labels="nowhere.npz")},
        {"supervision": Supervision(init_from="nowhere")},
        {"supervision": Supervision(teachers=("nowhere",))},
        {"valid_fraction": 0.0},
    ],
)
def test_refused_training_leaves_no_folder(tmp_path, refused):
    from edgefer.train.pipeline import train

    with pytest.raises(EdgeferError):
        train(order(folder_of(tmp_path / "data"), **refused), tmp_path / "runs" / "one")
    assert not (tmp_path / "runs" / "one").exists()


def test_an_unwritable_output_is_reported_before_any_work(tmp_path):
    from edgefer.train.pipeline import train

    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"file/run cannot be written \(Not a directory\): choose another --out"):
        train(order(tmp_path / "nowhere"), tmp_path / "file" / "run")


def test_a_full_disk_after_the_last_epoch_leaves_a_training_to_finish(tmp_path, monkeypatch):
    from edgefer.train import pipeline

    def full(*_):
        raise EdgeferError("history.png could not be written: No space left on device.")

    monkeypatch.setattr(pipeline, "write_bundle", full)
    with pytest.raises(EdgeferError, match=r"No space left on device\. .* kept: --resume finishes it"):
        pipeline.train(order(folder_of(tmp_path / "data")), tmp_path / "run")
    assert RunFolder(tmp_path / "run").resumable


def test_resume_lists_the_unfinished_runs_if_there_are_several(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no unfinished training under runs/"):
        unfinished_run()
    for name in ("a-1", "b-1"):
        run = RunFolder(Path("runs") / name)
        run.training.path.mkdir(parents=True)
        order(tmp_path).save(run)
    with pytest.raises(InputError, match=r"runs/a-1 \(0 epochs done\), runs/b-1 \(0 epochs done\). Name the one"):
        unfinished_run()
    (Path("runs") / "b-1" / "card.json").write_text("{}")
    assert unfinished_run().path == Path("runs/a-1")
    for stage in ("first", "second"):
        (RunFolder(Path("runs") / "a-1").stage(stage) / "training").mkdir(parents=True)
    (RunFolder(Path("runs") / "a-1").stage("first") / "card.json").write_text("{}")
    faces = RunFolder(Path("runs") / "face-finder-1")
    faces.training.checkpoints.mkdir(parents=True)
    faces.face_config.write_text("{}")
    (faces.training.checkpoints / "ckpt-3.index").write_bytes(b"")
    with pytest.raises(
        InputError, match=r"runs/a-1 \(1 stage, 0 epochs done\), runs/face-finder-1 \(3 checkpoints done\)"
    ):
        unfinished_run()


def test_order_file_survives_damage_and_older_ones_are_read(tmp_path):
    run = RunFolder(tmp_path)
    asked = order(tmp_path, supervision=Supervision(teachers=("a", "b"), init_from="c"), names="0=x,1=y", skip_bad=True)
    asked.save(run)
    assert TrainConfig.load(run) == asked
    os.truncate(run.config, run.config.stat().st_size // 2)
    assert TrainConfig.load(run) == asked
    older = json.loads(run.spare_config.read_bytes())
    older["witnesses"] = older.pop("auxiliary")
    del older["names"]
    run.config.write_text(json.dumps(older))
    assert TrainConfig.load(run).supervision == asked.supervision
    for file in (run.config, run.spare_config):
        file.write_text("{")
    with pytest.raises(InputError, match=r"order\.json cannot be read .*with another --out"):
        TrainConfig.load(run)


def test_only_leftovers_of_killed_processes_are_cleaned(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run = RunFolder(tmp_path / "fer-1")
    run.training.checkpoints.mkdir(parents=True)
    half = [
        run.training.path / ".order.json.partial",
        run.training.path / "partial.weights.h5",
        tmp_path / "__autograph_generated_fileold.py",
    ]
    kept = [run.training.history, tmp_path / "__autograph_generated_filenew.py", tmp_path / ".fer-1.abcdefgh"]
    for file in (*half, *kept):
        file.write_text("x")
    os.utime(half[2], (0, time.time() - 2 * 24 * 3600))
    run.clean()
    assert not any(file.exists() for file in half) and all(file.exists() for file in kept)
