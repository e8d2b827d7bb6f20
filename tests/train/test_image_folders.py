"""Folders of images in the layouts in use: read, or refused with a sentence that says what to do."""

import os
import unicodedata
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from conftest import GRAY48

from edgefer.errors import DataError, EdgeferError
from edgefer.images import encode_image
from edgefer.train.data.audit import audit
from edgefer.train.data.load import DataOptions, load_dataset


def image(seed: int, side: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)


def put(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    suffix = file.suffix if file.suffix in (".png", ".tiff") else ".jpg"
    file.write_bytes(encode_image(image(seed), suffix))


def classes(top: Path, names=("happy", "sad"), count: int = 5, name: str = "{}.png") -> None:
    for label, folder in enumerate(names):
        for number in range(count):
            put(top / folder / name.format(number), 100 * label + number)


def test_split_folders_may_be_nested_and_beside_other_files(tmp_path):
    for split in ("train", "validation"):
        classes(tmp_path / "set" / "images" / split)
    (tmp_path / "set" / "labels.csv").write_text("x")
    dataset = load_dataset(tmp_path, GRAY48)
    assert {split: len(part) for split, part in dataset.splits.items()} == {"train": 10, "valid": 10}
    assert dataset.split("train").ids[0] == "set/images/train/happy/0.png"


def test_second_copy_of_a_dataset_is_ignored_and_a_different_one_is_refused(tmp_path):
    for top in (tmp_path, tmp_path / "images"):
        classes(top / "train")
        classes(top / "test")
    dataset = load_dataset(tmp_path, GRAY48)
    assert len(dataset) == 20 and "images/ is a copy" in dataset.notes[0]
    put(tmp_path / "images" / "train" / "sad" / "more.png", 7)
    with pytest.raises(DataError, match=r"other ones in images/: name the one to read, .*/images, or move it away"):
        load_dataset(tmp_path, GRAY48)


def test_numeric_class_folders_are_sorted_as_numbers_and_can_be_named(tmp_path):
    classes(tmp_path / "train", [str(number) for number in range(12)], count=2)
    dataset = load_dataset(tmp_path, GRAY48)
    assert dataset.labels == tuple(str(number) for number in range(12))
    assert "name them with --names 0=NAME,1=NAME" in dataset.notes[0]
    names = ",".join(f"{number}=class {number}" for number in range(12))
    assert load_dataset(tmp_path, GRAY48, DataOptions(names=names)).labels[11] == "class 11"
    with pytest.raises(DataError, match="--names says nothing of the class folder '1'"):
        load_dataset(tmp_path, GRAY48, DataOptions(names="0=happy"))


def test_every_image_type_is_read_and_other_files_are_counted_and_named(tmp_path):
    for name in ("{}.jfif", "{}.jpg", "without{}"):
        classes(tmp_path, name=name)
    (tmp_path / "sad" / "notes.txt").write_text("x")
    (tmp_path / "sad" / "._0.jpg").write_text("x")
    (tmp_path / "__MACOSX" / "sad").mkdir(parents=True)
    dataset = load_dataset(tmp_path, GRAY48)
    assert len(dataset) == 30
    assert dataset.notes[0] == "2 files are not read as images: sad/._0.jpg, sad/notes.txt"


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (("train/images/a.jpg", "train/labels/a.txt", "data.yaml"), "YOLO's layout.*export it for classification"),
        (("train/a.jpg", "train/_annotations.coco.json"), "COCO's layout"),
        (("Image/aligned/a.jpg", "EmoLabel/list_patition_label.txt"), "RAF-DB's original layout.*--names 1=surprise"),
        (("KA.AN1.39.tiff", "KA.HA2.40.tiff"), "JAFFE's layout"),
        (("a.jpg", "b.jpg"), "2 images and no folder per class"),
        (("fer2013.csv",), "no folder per class, but fer2013.csv: name that file"),
        (
            ("train/happy/a.jpg", "train/sad/a.jpg", "test/happy/a.jpg", "test/angry/b.jpg"),
            "test/angry is a class that",
        ),
    ],
)
def test_unsupported_layout_is_named_with_what_to_do(tmp_path, files, complaint):
    for number, file in enumerate(files):
        put(tmp_path / file, number)
    with pytest.raises(DataError, match=complaint):
        load_dataset(tmp_path, GRAY48)


def test_non_utf8_folder_and_file_names_are_read(tmp_path):
    top = os.fsencode(tmp_path) + b"/d\xe9part"
    for label in (b"d\xe9go\xfbt", b"joie"):
        os.makedirs(top + b"/" + label)
        for number in range(5):
            with open(top + b"/" + label + b"/caf\xe9%d.png" % number, "wb") as file:
                file.write(encode_image(image(number), ".png"))
    path = Path(os.fsdecode(top))
    dataset = load_dataset(path, GRAY48, cache=tmp_path / "cache")
    again = load_dataset(path, GRAY48, cache=tmp_path / "cache")
    assert dataset.labels == ("dégoût", "joie") and dataset.name == "départ" and len(again) == 10
    assert dataset.holdout_hash == again.holdout_hash and dataset.content_hash == again.content_hash
    (path / "joie" / os.fsdecode(b"bad\xe9.png")).write_bytes(b"")
    with pytest.raises(EdgeferError, match=r"is an empty file"):
        load_dataset(path, GRAY48)


def test_a_folder_that_may_not_be_read_is_named():
    """Its images would be missing without a message."""
    root = os.geteuid() == 0
    with TemporaryDirectory(dir="/tmp") as top:
        for number, label in enumerate(("happy", "sad", "sad/closed")):
            put(Path(top) / label / "1.png", number)
        Path(top).chmod(0o755)
        (Path(top) / "sad" / "closed").chmod(0)
        if root:  # which no permission stops
            os.seteuid(65534)
        try:
            with pytest.raises(DataError, match=r"sad/closed cannot be read \(Permission denied\)"):
                load_dataset(top, GRAY48)
        finally:
            if root:
                os.seteuid(0)
            (Path(top) / "sad" / "closed").chmod(0o755)


def test_accents_in_names_of_folders_match_in_either_unicode_form(tmp_path):
    for split, form in (("train", "NFD"), ("valid", "NFC")):
        for number, label in enumerate((unicodedata.normalize(form, "Überrascht"), "froh")):
            put(tmp_path / "faces" / split / label / "1.png", number)
    folder = load_dataset(tmp_path / "faces", GRAY48)
    assert folder.labels == ("froh", "überrascht") and folder.sizes == {"train": 2, "valid": 2}


def test_broken_links_count_as_bad_images(tmp_path):
    for label in ("dark", "light"):
        (tmp_path / label).mkdir()
        for number in range(6):
            (tmp_path / label / f"{number}.png").write_bytes(encode_image(image(number), ".png"))
    (tmp_path / "dark" / "gone.png").symlink_to("/nonexistent/image.png")
    (tmp_path / "light" / "loop.png").symlink_to("loop.png")
    with pytest.raises(DataError, match=r"gone\.png cannot be read: No such file"):
        load_dataset(tmp_path, GRAY48, DataOptions())
    skipped = load_dataset(tmp_path, GRAY48, DataOptions(skip_bad=True)).skipped
    assert [line.split()[0] for line in skipped] == ["dark/gone.png", "light/loop.png"]


@pytest.mark.parametrize("name", ["x" * 70, "a\x1b[31m", "a\nb", "\u202ehappy"])
def test_invalid_class_name_is_refused_by_training_and_by_data_check(tmp_path, name):
    faces = tmp_path / "faces"
    classes(faces, (name, "sad"))
    with pytest.raises(DataError, match="a label has at most 64 characters"):
        load_dataset(faces, GRAY48)
    (trainable,) = [check for check in audit(faces).checks if check.subject == "can be trained on"]
    assert not trainable.passed and "a label has at most 64 characters" in trainable.detail


def test_digit_that_is_not_a_number_is_a_class_name(tmp_path):
    classes(tmp_path, ("²", "3"))
    assert load_dataset(tmp_path, GRAY48).labels == ("3", "²")


def test_skipped_links_and_stray_images_are_reported(tmp_path):
    faces = tmp_path / "faces"
    classes(faces, count=4)
    (faces / "happy" / "more").symlink_to(faces / "sad", target_is_directory=True)
    (faces / "happy" / "up").symlink_to("..", target_is_directory=True)
    (faces / "stray.png").write_bytes(encode_image(image(99), ".png"))
    (faces / "readme.txt").write_text("nothing to read")
    dataset = load_dataset(faces, GRAY48)
    assert len(dataset) == 8
    assert "3 files are not read as images: stray.png, happy/more, happy/up" in dataset.notes
