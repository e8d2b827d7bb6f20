"""Untrusted input files of training: only regular files of bounded size are read, and a FIFO never blocks."""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgefer.errors import DataError, InputError
from edgefer.train.config import TrainConfig
from edgefer.train.data.dataset import Split
from edgefer.train.distill import load_soft_labels
from edgefer.train.faces.recipe import is_face_recipe, load_face_recipe
from edgefer.train.faces.run import FaceConfig
from edgefer.train.recipes import load_recipe
from edgefer.train.run import RunFolder

SPLIT = Split(images=np.zeros((2, 16, 16, 1), np.uint8), labels=np.array([0, 1]), ids=np.array(["a", "b"]))


def make(kind: str, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path


@pytest.mark.parametrize("kind", ["fifo", "endless", "folder"])
def test_a_non_regular_file_is_refused_at_once_in_one_sentence(tmp_path, kind):
    for load in (
        lambda f: load_soft_labels(f, SPLIT, ("no", "yes")),
        lambda f: load_recipe(str(f)),
        lambda f: load_face_recipe(str(f)),
    ):
        with pytest.raises(InputError, match="not a regular file"):
            load(make(kind, tmp_path / f"{len(list(tmp_path.iterdir()))}.toml"))
    assert not is_face_recipe(str(make(kind, tmp_path / "faces.toml")))
    run = RunFolder(tmp_path / "run")
    make(kind, run.config)
    with pytest.raises(InputError, match="cannot be read"):
        TrainConfig.load(run)
    make(kind, RunFolder(tmp_path / "faces").face_config)
    with pytest.raises(InputError):
        FaceConfig.load(tmp_path / "faces")


@pytest.mark.parametrize("data", [5, None, ["a"], {"a": 1}])
def test_configuration_with_wrong_types_gives_a_clear_error(tmp_path, data):
    run = RunFolder(tmp_path / "run")
    run.config.parent.mkdir(parents=True)
    config = {"recipe": load_recipe("demo").model_dump(mode="json"), "data": data}
    run.config.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"order\.json cannot be read \(data .* is not right"):
        TrainConfig.load(run)
    config = {"recipe": load_face_recipe("face-finder").model_dump(), "data": "scenes", "teacher": data}
    RunFolder(tmp_path / "run").face_config.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"teacher .* is not right"):
        FaceConfig.load(tmp_path / "run")


def as_npz(**arrays: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return out.getvalue()


def as_npy(descr: str, shape: str, data: bytes) -> bytes:
    head = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + data


@pytest.mark.parametrize(
    "probabilities",
    [
        as_npy("<f4", "(2, 999999999)", b""),
        as_npy("<f4", "(9999999999, 2)", bytes(64)),
        as_npy("<f4", "(16777216, 1000)", bytes(1 << 20)),
        as_npy("|O", "(2, 2)", bytes(64)),
        as_npy("<f4", "()", bytes(4)),
        b"",
    ],
)
def test_soft_labels_with_a_false_size_take_no_memory(tmp_path, probabilities):
    labels = io.BytesIO()
    np.save(labels, np.array(["no", "yes"]))
    (tmp_path / "soft.npz").write_bytes(as_npz(probabilities=probabilities, labels=labels.getvalue()))
    with pytest.raises(DataError, match="not a file of soft labels"):
        load_soft_labels(tmp_path / "soft.npz", SPLIT, ("no", "yes"))
