"""Groups that stay together, in splits and in folds."""

import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edgefer.card import InputSpec, ModelCard, Provenance
from edgefer.commands.inputs import training_data, usual_split
from edgefer.errors import DataError
from edgefer.train.data.dataset import Dataset, Split
from edgefer.train.data.groups import assign_folds, group_images, holdout_mask
from edgefer.train.data.load import DataOptions, load_dataset
from edgefer.train.data.trained import has_other_holdout
from edgefer.train.folds import divide_folds
from edgefer.train.recipes import load_recipe

RGB32 = InputSpec(height=32, width=32, color="rgb")
RULE = r"([^/]+)/(?P<copy>aug-\d+-)?([^/]+)$"


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    """Two classes of 20 images and two copies of each; an image's colour is its class, its brightness its number."""
    root = tmp_path_factory.mktemp("animals")
    for label, name in enumerate(("Cat", "dog")):
        (root / name).mkdir()
        for number in range(20):
            image = np.zeros((40, 40, 3), np.uint8)
            image[..., 2 * label] = 50 + 10 * number
            image[::2] += np.random.default_rng([label, number]).integers(0, 40, (20, 40, 3), dtype=np.uint8)
            for prefix in ("", "aug-1-", f"aug-{20 + number}-"):
                cv2.imwrite(str(root / name / f"{prefix}{number:02}.png"), image)
    return root


def test_a_rule_names_groups_and_copies():
    ids = np.array(["train/Sad/012.jpg", "train/Sad/aug-3-012.jpg", "train/happy/012.jpg"])
    groups, copies = group_images(ids, RULE)
    assert groups[0] == groups[1] != groups[2]
    assert copies.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [("(", "not a regular expression"), ("Sad", "captures nothing"), ("(?P<copy>a)", "captures nothing"), (r"(\d{9})", "does not match")],
)  # fmt: skip
def test_invalid_grouping_rule_is_refused(rule, complaint):
    with pytest.raises(DataError, match=complaint):
        group_images(np.array(["Sad/aug-1-2.jpg"]), rule)


def test_folds_keep_groups_whole_and_classes_even():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 150, 600)
    labels = groups % 4
    folds = assign_folds(labels, groups, tuple("abcd"), folds=5, seed=3)
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups))
    for label in range(4):
        shares = np.bincount(folds[labels == label], minlength=5) / (labels == label).sum()
        assert shares.min() > 0.15 and shares.max() < 0.25
    assert np.array_equal(folds, assign_folds(labels, groups, tuple("abcd"), folds=5, seed=3))
    assert not np.array_equal(folds, assign_folds(labels, groups, tuple("abcd"), folds=5, seed=4))


def test_too_few_groups_for_the_folds_are_refused():
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    with pytest.raises(DataError, match="'sad' has only 4 images to divide: too few for --folds 5"):
        assign_folds(labels, np.arange(9), ("happy", "sad"), folds=5, seed=0)
    with pytest.raises(DataError, match="'sad' has only 3 groups of images"):
        assign_folds(labels, np.array([0, 1, 2, 3, 4, 5, 6, 7, 7]), ("happy", "sad"), folds=4, seed=0)


@pytest.mark.parametrize("copies", [("cat", "dog"), ("dog",)])
def test_a_class_of_nothing_but_copies_is_not_divided_into_folds(copies):
    ids = [f"{name}/{'aug-1-' if name in copies else ''}{number}" for name in ("cat", "dog") for number in range(9)]
    split = Split(images=np.zeros((18, 16, 16, 1), np.uint8), labels=np.arange(18) // 9, ids=np.array(ids))
    dataset = Dataset(name="d", labels=("cat", "dog"), splits={"train": split})
    recipe = load_recipe("cnn-mlp", ("fit.keep=last", "schedule.name=constant"))
    with pytest.raises(DataError, match=rf"takes every image of class '{copies[0]}' for a copy"):
        divide_folds(dataset, recipe, folds=2, group_by=RULE, valid_fraction=0.2)


def test_held_out_split_has_whole_groups_of_each_class():
    groups = np.repeat(np.arange(30), 4)
    held = holdout_mask(groups % 3, groups, 0.2, seed=1)
    assert all(len(set(held[groups == group])) == 1 for group in range(30))
    assert [(held & (groups % 3 == label)).sum() for label in range(3)] == [8, 8, 8]


def test_copies_never_leave_training(animals):
    loose = load_dataset(animals, RGB32)
    grouped = load_dataset(animals, RGB32, DataOptions(group_by=RULE))

    def shared(dataset):
        groups = [set(group_images(split.ids, RULE)[0]) for split in dataset.splits.values()]
        return groups[0] & groups[1]

    assert shared(loose) and not shared(grouped)
    assert len(grouped.split("valid")) == 8 and len(grouped.split("train")) == 96
    assert not any("aug" in one for one in grouped.split("valid").ids)


def test_a_group_in_two_splits_is_refused(animals, tmp_path):
    for split, name in (("train", "00.png"), ("train", "01.png"), ("valid", "aug-1-00.png")):
        for label in ("Cat", "dog"):
            (tmp_path / split / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / split / label / name).write_bytes((animals / label / name).read_bytes())
    with pytest.raises(DataError, match=r"aug-1-00\.png.*same group.*another split"):
        load_dataset(tmp_path, RGB32, DataOptions(group_by=RULE))
    pooled = load_dataset(tmp_path, RGB32, DataOptions(group_by=RULE, pooled=True))
    assert {name: len(split) for name, split in pooled.splits.items()} == {"train": 6}


def test_a_bundle_detects_changes_of_its_data(animals, tmp_path, capsys, monkeypatch):
    """A changed folder is split differently, so that training images could end up in the measured split."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rule = r"(?P<copy>aug-\d+-)?(\d+)\.png$"
    copied = shutil.copytree(animals, tmp_path / "pets")
    fields = {"split_sizes": {}, "recipe": {}, "seed": 0, "epoch": 1, "versions": {}, "group_by": rule}
    dataset = load_dataset(copied, RGB32, DataOptions(group_by=rule))
    card = ModelCard(
        name="pets",
        labels=("cat", "dog"),
        input=RGB32,
        provenance=Provenance(data="pets", held_images=dataset.holdout_hash, **fields),
    )
    bundle = SimpleNamespace(path=tmp_path, card=card)

    def warning(folder):
        training_data(bundle, str(folder), False)
        return " ".join(capsys.readouterr().err.split())

    assert warning(copied) == ""
    (copied / dataset.split("valid").ids[0]).unlink()
    assert "has changed since pets was trained on it" in warning(copied)
    changed = load_dataset(copied, RGB32, DataOptions(group_by=rule))
    assert has_other_holdout(card, changed) and not has_other_holdout(card, dataset)
    for label in ("Cat", "dog"):
        (tmp_path / "others" / label).mkdir(parents=True)
        for number in range(5):
            shutil.copy(animals / label / "01.png", tmp_path / "others" / label / f"{'abcde'[number]}.png")
    assert warning(tmp_path / "others") == "", "the grouping rule is not applied to other data"
    for split in ("train", "test"):
        shutil.copytree(animals, tmp_path / "same names" / split)
    assert warning(tmp_path / "same names") == "", "nor where it would put two splits into one group"


def test_only_the_training_images_of_a_cross_validated_network_are_called_so(capsys):
    provenance = Provenance(
        data="pets", folds=5, held_images="1f", split_sizes={}, recipe={}, seed=0, epoch=1, versions={}
    )
    card = ModelCard(name="pets", labels=("cat", "dog"), input=RGB32, provenance=provenance)
    split = Split(images=np.zeros((2, 32, 32, 3), np.uint8), labels=np.arange(2), ids=np.array(["cat/1", "dog/1"]))

    def logged(name):
        assert usual_split(card, Dataset(name=name, labels=card.labels, splits={"train": split})) == "train"
        return capsys.readouterr().err

    assert "was trained on these images" in logged("pets") and logged("mine") == ""


def test_grouping_is_only_for_folders():
    with pytest.raises(DataError, match="is not a folder"):
        load_dataset("builtin", RGB32, DataOptions(group_by=RULE))
