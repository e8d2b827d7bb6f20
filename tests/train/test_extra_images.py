"""Images that are only trained on: --also PATH[:SHARE]."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from edgefer.bundle import Bundle
from edgefer.card import InputSpec
from edgefer.errors import DataError, InputError
from edgefer.train.data.load import DataOptions, load_dataset, load_extra, summary
from edgefer.train.folds import divide_folds
from edgefer.train.recipes import load_recipe
from edgefer.train.start import parse_also

GRAY48 = InputSpec(height=48, width=48, color="gray")


def folder(root, classes, count):
    rng = np.random.default_rng(len(classes))
    for shade, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(0, 100, (48, 48), np.uint8) + np.uint8(60 * shade)
            cv2.imwrite(str(root / name / f"{number:02}.png"), image)
    return root


@pytest.fixture
def own(tmp_path):
    return folder(tmp_path / "own", ("angry", "happy", "sad"), 8)


@pytest.fixture
def others(tmp_path):
    return folder(tmp_path / "others", ("angry", "sad"), 5)


def test_share_is_parsed_after_the_path_and_defaults_to_half(tmp_path):
    assert parse_also("") == ("", 0.5)
    assert parse_also(str(tmp_path)) == (str(tmp_path), 0.5)
    assert parse_also(f"{tmp_path}:0.75") == (str(tmp_path), 0.75)
    for share in ("0", "1", "-1", "nan", "much"):
        with pytest.raises(InputError, match="between 0 and 1"):
            parse_also(f"{tmp_path}:{share}")


def test_path_may_contain_a_colon(tmp_path):
    odd = tmp_path / "dogs:2"
    odd.mkdir()
    assert parse_also(str(odd)) == (str(odd), 0.5)


def test_extra_images_are_matched_by_class_name_and_stay_out_of_every_fold(own, others):
    dataset = load_dataset(own, GRAY48, DataOptions(pooled=True))
    extra = load_extra(others, 0.5, dataset, GRAY48)
    assert [dataset.labels[label] for label in extra.split.labels] == ["angry"] * 5 + ["sad"] * 5
    alone = dataset.content_hash
    dataset = replace(dataset, extra=extra)
    assert dataset.content_hash != alone
    assert any("10 images for training only" in line for line in summary(dataset))
    recipe = load_recipe("demo", ("fit.keep=last", "schedule.name=constant"))
    folds = divide_folds(dataset, recipe, folds=2, group_by="", valid_fraction=0.2)
    assert sum(len(fold.holdout) for fold in folds) == 24
    assert all(fold.dataset.extra is extra for fold in folds)


def test_extra_images_of_an_unknown_class_are_refused(own, others):
    dataset = load_dataset(others, GRAY48, DataOptions(pooled=True))
    with pytest.raises(DataError, match="class 'happy'"):
        load_extra(own, 0.5, dataset, GRAY48)


def test_an_extra_csv_may_lack_classes_that_the_data_lacks_too(own, tmp_path):
    rng = np.random.default_rng(1)
    rows = [f"{label},{' '.join(map(str, rng.integers(0, 256, 48 * 48)))}" for label in (3, 4, 4)]
    (tmp_path / "some.csv").write_text("emotion,pixels\n" + "\n".join(rows) + "\n")
    dataset = load_dataset(own, GRAY48)
    extra = load_extra(tmp_path / "some.csv", 0.5, dataset, GRAY48)
    assert [dataset.labels[label] for label in extra.split.labels] == ["happy", "sad", "sad"]


def test_extra_images_that_the_data_has_too_are_left_out(own, others):
    """Otherwise held-out images would be trained on, and the measured accuracy would be too high."""
    dataset = load_dataset(own, GRAY48)
    for source, name in ((own / "angry", "angry"), (own / "sad", "sad")):
        for file in source.iterdir():
            (others / name / f"copy-{file.name}").write_bytes(file.read_bytes())
    extra = load_extra(others, 0.5, dataset, GRAY48)
    assert len(extra.split) == 10 and extra.repeated == 16
    held_out = {image.tobytes() for image in dataset.split("valid").images}
    assert not held_out & {image.tobytes() for image in extra.split.images}
    lines = summary(replace(dataset, extra=extra))
    assert "16 images of others are in own too, and left out." in lines
    with pytest.raises(DataError, match="own has no images that own does not have: leave --also out"):
        load_extra(own, 0.5, dataset, GRAY48)


def test_bad_extra_images_are_skipped_with_skip_bad(own, others):
    (others / "sad" / "cut.png").write_bytes(b"")
    dataset = load_dataset(own, GRAY48)
    with pytest.raises(DataError, match=r"sad/cut\.png is an empty file.*--skip-bad"):
        load_extra(others, 0.5, dataset, GRAY48)
    extra = load_extra(others, 0.5, dataset, GRAY48, skip_bad=True)
    assert len(extra.split) == 10 and extra.skipped == ("sad/cut.png is an empty file",)
    lines = summary(replace(dataset, extra=extra))
    assert "1 bad row or image of others is left out, the first: sad/cut.png is an empty file." in lines


def test_training_uses_extra_images_and_its_card_names_them(edgefer, own, others, tmp_path):
    out = tmp_path / "run"
    edgefer(
        "train", "--data", own, "--also", f"{others}:0.25", "--recipe", "demo", "--epochs", 2, "--batch-size", 8,
        "--folds", 2, "--set", "fit.keep=last", "--set", "schedule.name=constant", "--set", "model.layers=C8/2 C8/2",
        "--out", out,
    )  # fmt: skip
    card = Bundle.open(out).card
    assert card.provenance.steps == ("train", "25% of each batch from 10 extra images: others")
    assert card.metrics["2-fold"]["keras"].count == 24 and card.provenance.split_sizes == {"train": 24}
    assert json.loads((out / "training" / "order.json").read_text())["also"] == str(others)
