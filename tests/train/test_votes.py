"""FER+ votes as a teacher of FER2013's own labels."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from edgefer.bundle import Bundle, shipped_bundles
from edgefer.errors import InputError
from edgefer.progress import SILENT
from edgefer.train.data.dataset import Dataset, Split
from edgefer.train.votes import _features, labels_from_votes

HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"


def write_votes(file, votes):
    """Write the votes [n, 10] of training images in FER+'s format."""
    lines = [f"Training,fer{row:07d}.png,{','.join(map(str, counts))}" for row, counts in enumerate(votes)]
    file.write_text("\n".join([HEADER, *lines]))
    return file


def data_set(images, labels, names):
    ids = np.array([f"row {row + 1}" for row in range(len(labels))])
    return Dataset(name="some.csv", labels=names, splits={"train": Split(images=images, labels=labels, ids=ids)})


@pytest.fixture
def two_folds(monkeypatch):
    """Two folds prove as much as five."""
    monkeypatch.setattr("edgefer.train.votes.FOLDS", 2)


@pytest.fixture
def voted(two_folds, tmp_path):
    """1,500 blank images, labelled "no", "yes" or "maybe" with probabilities that depend only on their votes."""
    rng = np.random.default_rng(0)
    votes = np.zeros((1500, 10), int)
    votes[:, 0] = rng.integers(0, 11, len(votes))
    votes[:, 8] = 10 - votes[:, 0]
    probabilities = np.stack([votes[:, 0] / 20, 1 - votes[:, 0] / 10, votes[:, 0] / 20], axis=1)
    labels = np.array([rng.choice(3, p=row) for row in probabilities])
    data = data_set(np.zeros((len(votes), 1, 1, 1), np.uint8), labels, ("no", "yes", "maybe"))
    return data, write_votes(tmp_path / "ferplus.csv", votes), probabilities


def test_votes_give_the_probability_of_each_label(voted):
    data, file, probabilities = voted
    soft_labels = labels_from_votes(data, file, (), 0)
    np.testing.assert_allclose(soft_labels.sum(axis=1), 1, atol=1e-5)
    assert np.abs(soft_labels - probabilities).mean() < 0.05
    np.testing.assert_array_equal(labels_from_votes(data, file, (), 0), soft_labels)


def test_no_image_receives_its_own_label(two_folds, tmp_path):
    """Votes unrelated to the label but unique to each image: memorized labels would show up."""
    rng = np.random.default_rng(0)
    votes = rng.integers(0, 1000, (600, 10))
    labels = rng.integers(0, 3, len(votes))
    data = data_set(np.zeros((len(votes), 1, 1, 1), np.uint8), labels, ("no", "yes", "maybe"))
    soft_labels = labels_from_votes(data, write_votes(tmp_path / "ferplus.csv", votes), (), 0)
    assert (soft_labels.argmax(axis=1) == labels).mean() < 0.40


def test_a_second_network_adds_information_to_the_votes(two_folds, trained, builtin, tmp_path):
    split = builtin.split("train")
    file = write_votes(tmp_path / "ferplus.csv", np.ones((len(split), 10), int))
    data = data_set(split.images, split.labels, builtin.labels)
    alone = labels_from_votes(data, file, (), 0)
    helped = labels_from_votes(data, file, [Bundle.open(trained)], 0)
    assert (alone.argmax(axis=1) == split.labels).mean() < 0.3
    assert (helped.argmax(axis=1) == split.labels).mean() > 0.8
    small = replace(
        data, splits={"train": replace(split, images=split.images[:, :24, :24], ids=data.split("train").ids)}
    )
    with pytest.raises(InputError, match=r"takes images of .*: train with --set input\.height=\d+ --set input\.width="):
        labels_from_votes(small, file, [Bundle.open(trained)], 0)


@pytest.mark.parametrize("last", ["dense", "pooled"])
def test_a_second_network_may_be_imported(monkeypatch, last):
    """Its last layer may have any name, and need not be dense."""
    from tf_keras import Sequential, layers

    filters = 5 if last == "dense" else 3
    end = [layers.Dense(3, name="predictions")] if last == "dense" else []
    network = Sequential([layers.Conv2D(filters, 3, input_shape=(8, 8, 1)), layers.GlobalAveragePooling2D(), *end])
    monkeypatch.setattr("edgefer.train.votes.load_keras", lambda bundle, form: network)
    monkeypatch.setattr(
        "edgefer.train.votes.flip_averaged", lambda bundle, predict, split, progress: predict(split.images)
    )
    split = data_set(np.zeros((4, 8, 8, 1), np.uint8), np.arange(4) % 3, ("no", "yes", "maybe")).split("train")
    assert _features(None, split, SILENT).shape == (4, filters)


@pytest.fixture
def fer_csv(builtin, tmp_path):
    """140 drawn faces as a FER2013 CSV, with uninformative votes beside it."""
    rows = np.random.default_rng(0).permutation(len(builtin.split("train")))[:140]
    split = builtin.split("train").take(rows)
    lines = [
        f'{label},"{" ".join(map(str, image.ravel()))}",Training'
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    (tmp_path / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *lines]))
    write_votes(tmp_path / "ferplus.csv", np.ones((len(split), 10), int))
    return tmp_path / "fer2013.csv"


def test_a_training_learns_from_votes_and_a_resumed_one_does_not_need_its_teachers(
    edgefer, trained, builtin, fer_csv, tmp_path
):
    """A network that was trained on votes only helps to translate them; both were used before training started."""
    teacher, auxiliary = tmp_path / "teacher", tmp_path / "auxiliary"
    shutil.copytree(trained, teacher)
    shutil.copytree(shipped_bundles()["ferplus-small"], auxiliary)
    order = (
        "train",
        "--data",
        fer_csv,
        "--recipe",
        "demo",
        "--epochs",
        1,
        "--teacher",
        f"{teacher},{auxiliary}",
        "--set",
        "model.layers=C8/2 C8/2",
    )
    run = tmp_path / "run"
    edgefer(*order, "--votes", "ferplus", "--out", run)
    kept = json.loads((run / "training" / "order.json").read_text())
    assert kept["teachers"] == [str(teacher)] and kept["auxiliary"] == [str(auxiliary)]
    with np.load(run / "training" / "votes.npz") as stored:
        assert stored["probabilities"].shape[1] == 7 and json.loads(str(stored["labels"])) == list(builtin.labels)
    shutil.rmtree(teacher)
    shutil.rmtree(auxiliary)
    (run / "card.json").unlink()
    edgefer("train", "--resume", "--out", run)
    assert Bundle.open(run).card.provenance.steps == ("train, learning from teacher, auxiliary, FER+ votes too",)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--data", "builtin", "--votes", "ferplus"), "belong to a FER2013 CSV"),
        (("--data", "builtin", "--votes", "ferplus", "--folds", "2"), "leave --labels and --folds out"),
        (("--data", "fer2013.csv", "--votes", "ferplus", "--labels", "ferplus"), "leave --labels and --folds out"),
    ],
)
def test_votes_unusable_for_training_are_refused(edgefer, arguments, complaint, tmp_path):
    assert complaint in edgefer("train", *arguments, "--out", tmp_path / "run", expect=2).stderr
    assert not (tmp_path / "run").exists()
