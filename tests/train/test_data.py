"""Reading FER2013 CSVs and image folders, and keeping labels with their images."""

import csv
import gzip
import os
import struct
import time
import zipfile
import zlib

import cv2
import numpy as np
import pytest
from conftest import GRAY48

from edgefer.card import InputSpec
from edgefer.errors import DataError
from edgefer.train.data import cache as cache_module
from edgefer.train.data.dataset import stratified_rows, stratified_split
from edgefer.train.data.load import DataOptions, load_dataset

USAGES = ("Training", "PublicTest", "PrivateTest")


def labelled_image(label: int, number: int) -> np.ndarray:
    """An image that encodes its own label: its mean says which class it is."""
    return np.random.default_rng([label, number]).integers(30 * label, 30 * label + 20, (48, 48), dtype=np.uint8)


def rows(per_class: int = 4) -> list[tuple[str, str, str]]:
    return [
        (str(label), " ".join(map(str, labelled_image(label, 10 * u + n).ravel())), usage)
        for u, usage in enumerate(USAGES)
        for n in range(per_class)
        for label in range(7)
    ]


def write_csv(path, table, header=("emotion", "pixels", "Usage"), order=(0, 1, 2)):
    with path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow([header[i] for i in order])
        writer.writerows([row[i] for i in order] for row in table)
    return path


def assert_labels_match(dataset):
    for split in dataset.splits.values():
        assert np.array_equal(split.images.mean(axis=(1, 2, 3)) // 30, split.labels)


def test_both_kaggle_csv_forms_are_read_plain_gz_and_zip(tmp_path):
    plain = write_csv(tmp_path / "fer2013.csv", rows())
    icml = write_csv(tmp_path / "icml_face_data.csv", rows(), (" emotion", " pixels", " Usage"), (0, 2, 1))
    packed = tmp_path / "fer2013.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    marked = tmp_path / "excel.csv"
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    archive = tmp_path / "challenges.zip"
    with zipfile.ZipFile(archive, "w") as z:
        z.write(icml, "icml_face_data.csv")
        z.writestr("train.csv", "emotion,pixels\n")
    loaded = [load_dataset(path, GRAY48) for path in (plain, icml, packed, marked, archive)]
    for dataset in loaded:
        assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 28, "valid": 28, "test": 28}
        assert dataset.labels == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
        assert_labels_match(dataset)
        assert np.array_equal(dataset.splits["test"].images, loaded[0].splits["test"].images)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (("3", " ".join(["7"] * 2303), "Training"), "2,303 pixels instead of 2,304"),
        (("9", " ".join(["7"] * 2304), "Training"), "label '9' is not 0 to 7"),
        (("", " ".join(["7"] * 2304), "Training"), "label '' is not 0 to 7"),
        (("3", " ".join(["7"] * 2303 + ["300"]), "Training"), "pixel of 300 is outside 0 to 255"),
        (("3", " ".join(["7"] * 2303 + ["x"]), "Training"), "not a whole number"),
        (("3", " ".join(["7"] * 2304), "Secret"), "Usage 'Secret'"),
        (("3", "", "Training"), "0 pixels"),
    ],
)
def test_a_bad_row_is_named_or_skipped(tmp_path, row, complaint):
    file = write_csv(tmp_path / "fer2013.csv", [*rows(), row])
    with pytest.raises(DataError, match=r"row 85.*--skip-bad") as error:
        load_dataset(file, GRAY48)
    assert complaint in str(error.value)
    dataset = load_dataset(file, GRAY48, DataOptions(skip_bad=True))
    assert len(dataset.skipped) == 1 and complaint in dataset.skipped[0]
    assert len(dataset.splits["train"]) == 28


def test_invalid_fer2013_files_are_refused(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"emotion,pixels,Usage\n")[:-9])
    (tmp_path / "noise.csv").write_bytes(bytes(range(256)) * 20)
    write_csv(tmp_path / "none.csv", [])
    write_csv(tmp_path / "untrained.csv", [row for row in rows() if row[2] != "Training"])
    write_csv(tmp_path / "classless.csv", [row for row in rows() if row[0] != "1"])
    for name, complaint in {
        "other.csv": "no column 'emotion'",
        "cut.csv.gz": "cannot be read",
        "noise.csv": "cannot be read",
        "none.csv": "no usable rows",
        "untrained.csv": "no training images",
        "classless.csv": "no training image of class 'disgust'",
        "absent.csv": "There is no data at",
    }.items():
        with pytest.raises(DataError, match=complaint):
            load_dataset(tmp_path / name, GRAY48)


def test_a_csv_without_public_test_gets_a_stratified_validation_split(tmp_path):
    file = write_csv(tmp_path / "fer2013.csv", [row for row in rows(10) if row[2] == "Training"])
    dataset = load_dataset(file, GRAY48)
    assert np.array_equal(np.bincount(dataset.split("valid").labels), [2] * 7)
    assert not set(dataset.split("valid").ids) & set(dataset.split("train").ids)
    again = load_dataset(file, GRAY48)
    assert np.array_equal(again.split("valid").ids, dataset.split("valid").ids)
    assert not np.array_equal(
        load_dataset(file, GRAY48, DataOptions(seed=1)).split("valid").ids, dataset.split("valid").ids
    )
    with pytest.raises(DataError, match="has no test split"):
        dataset.split("test")


def write_folder(top, classes=("Angry", "happy", "Sad"), count=5):
    for label, name in enumerate(classes):
        (top / name).mkdir(parents=True)
        for number in range(count):
            cv2.imwrite(str(top / name / f"{number}.png"), labelled_image(label, number))
    return top


def test_folders_with_and_without_splits_are_read(tmp_path):
    one_level = load_dataset(write_folder(tmp_path / "flat"), GRAY48)
    assert one_level.labels == ("angry", "happy", "sad")
    assert {name: len(split) for name, split in one_level.splits.items()} == {"train": 12, "valid": 3}
    assert_labels_match(one_level)

    for split in ("train", "Validation", "test"):
        write_folder(tmp_path / "full" / split)
    full = load_dataset(tmp_path / "full", GRAY48)
    assert {name: len(split) for name, split in full.splits.items()} == {"train": 15, "valid": 15, "test": 15}
    assert_labels_match(full)

    for split in ("train", "test"):
        write_folder(tmp_path / "kaggle" / split)
    kaggle = load_dataset(tmp_path / "kaggle", GRAY48)
    assert {name: len(split) for name, split in kaggle.splits.items()} == {"train": 12, "valid": 3, "test": 15}


def test_no_split_may_lack_images_or_a_class(tmp_path, cache):
    together = load_dataset("builtin", GRAY48, DataOptions(pooled=True), cache=cache / "edgefer" / "datasets")
    assert {name: len(split) for name, split in together.splits.items()} == {"train": 1120}
    files = write_folder(tmp_path / "flat", count=6)
    one_sad = r"(Sad|\d)\.?"  # all images of a class are one group, which cannot be divided
    with pytest.raises(DataError, match=r"too few groups of images of class 'sad'"):
        load_dataset(files, GRAY48, DataOptions(group_by=one_sad))
    for split in ("train", "test"):
        write_folder(tmp_path / "full" / split)
    with pytest.raises(DataError, match=r"No image of the test split .* is left"):
        load_dataset(tmp_path / "full", GRAY48, DataOptions(group_by=r"^((?P<copy>test)?.+)"))


def test_colour_and_size_follow_the_input_spec(tmp_path):
    folder = tmp_path / "colour"
    for name, bgr in {"blue": (200, 0, 0), "red": (0, 0, 200)}.items():
        (folder / name).mkdir(parents=True)
        for number in range(5):
            cv2.imwrite(str(folder / name / f"{number}.png"), np.full((60, 80, 3), bgr, np.uint8))
    dataset = load_dataset(folder, InputSpec(height=32, width=24, color="rgb"))
    images = dataset.split("train").images
    assert images.shape[1:] == (32, 24, 3)
    red = images[dataset.split("train").labels == dataset.labels.index("red")]
    assert (red[..., 0] == 200).all() and (red[..., 2] == 0).all()


def test_bad_folders_are_named(tmp_path):
    flat = write_folder(tmp_path / "flat")
    (flat / "happy" / "3.png").write_bytes(b"")
    (flat / "Sad" / "1.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"Sad/1\.png is not an image of a type"):
        load_dataset(flat, GRAY48)
    dataset = load_dataset(flat, GRAY48, DataOptions(skip_bad=True))
    assert [line.split()[0] for line in dataset.skipped] == ["Sad/1.png", "happy/3.png"]
    assert dataset.skipped[1] == "happy/3.png is an empty file"
    assert sum(len(split) for split in dataset.splits.values()) == 13

    (flat / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no images"):
        load_dataset(flat, GRAY48)
    (tmp_path / "only" / "test").mkdir(parents=True)
    with pytest.raises(DataError, match="has no train folder"):
        load_dataset(tmp_path / "only", GRAY48)
    write_folder(tmp_path / "mixed" / "train")
    write_folder(tmp_path / "mixed", classes=("happy",))
    with pytest.raises(DataError, match="mixes split folders with 'happy'"):
        load_dataset(tmp_path / "mixed", GRAY48)
    write_folder(tmp_path / "more" / "train")
    write_folder(tmp_path / "more" / "test", classes=("Angry", "bored"))
    with pytest.raises(DataError, match="bored is a class that the training split does not have"):
        load_dataset(tmp_path / "more", GRAY48)


def test_two_folders_of_one_split_are_named(tmp_path):
    for split in ("train", "val", "valid"):
        write_folder(tmp_path / split)
    with pytest.raises(DataError, match="two folders of one split"):
        load_dataset(tmp_path, GRAY48)


def test_image_that_claims_a_huge_size_is_refused(tmp_path):
    flat = write_folder(tmp_path / "flat")
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (flat / "happy" / "3.png").write_bytes(png + struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND")))
    with pytest.raises(DataError, match=r"3\.png claims to have 60,000 x 60,000 pixels"):
        load_dataset(flat, GRAY48)
    assert len(load_dataset(flat, GRAY48, DataOptions(skip_bad=True)).skipped) == 1


def test_hidden_files_are_ignored(tmp_path):
    flat = write_folder(tmp_path)
    (flat / "happy" / ".ipynb_checkpoints").mkdir()
    for copy in (".ipynb_checkpoints/3-checkpoint.png", "._3.png"):
        (flat / "happy" / copy).write_bytes((flat / "happy" / "3.png").read_bytes())
    assert sum(len(split) for split in load_dataset(flat, GRAY48).splits.values()) == 15


def test_changes_in_linked_folders_are_detected(tmp_path):
    write_folder(tmp_path / "disk")
    (tmp_path / "data").mkdir()
    for top in (tmp_path / "disk").iterdir():
        (tmp_path / "data" / top.name).symlink_to(top)
    first = load_dataset(tmp_path / "data", GRAY48, cache=tmp_path / "cache")
    (tmp_path / "disk" / "happy" / "4.png").unlink()
    second = load_dataset(tmp_path / "data", GRAY48, cache=tmp_path / "cache")
    assert [sum(len(split) for split in data.splits.values()) for data in (first, second)] == [15, 14]
    assert first.holdout_hash != second.holdout_hash


def test_labels_follow_their_images_through_every_shuffle(tmp_path):
    """The older system's fault: labels and predictions out of step. A perfect reader must score 100% in any order."""
    from edgefer.train.evaluate import evaluate

    dataset = load_dataset(write_csv(tmp_path / "fer2013.csv", rows(10)), GRAY48)
    rng = np.random.default_rng(0)
    for split in dataset.splits.values():
        for _ in range(5):
            split = split.take(rng.permutation(len(split)))
            seen = np.eye(7)[(split.images.mean(axis=(1, 2, 3)) // 30).astype(int)]
            assert evaluate(split, seen).accuracy == 1.0
            assert evaluate(split, np.roll(seen, 1, axis=0)).accuracy < 0.5  # and the test can fail
    swapped = dataset.with_labels(dataset.labels[::-1])
    for name, split in swapped.splits.items():
        there = [swapped.labels[i] for i in split.labels]
        assert there == [dataset.labels[i] for i in dataset.splits[name].labels]
    with pytest.raises(DataError, match="does not know"):
        dataset.with_labels(("angry", "happy"))


def test_the_second_load_comes_from_the_cache(tmp_path):
    """Rows are parsed once; the second load takes less than a fifth of the work, and a changed file is read again."""
    file = write_csv(tmp_path / "fer2013.csv", rows(10) * 30)
    began = time.process_time()
    first = load_dataset(file, GRAY48, cache=tmp_path / "cache")
    parsed = time.process_time()
    assert sum(len(split) for split in first.splits.values()) == 6300
    second = load_dataset(file, GRAY48, cache=tmp_path / "cache")
    assert time.process_time() - parsed < 0.2 * (parsed - began)
    for name, split in first.splits.items():
        for part in ("images", "labels", "ids"):
            assert np.array_equal(getattr(split, part), getattr(second.splits[name], part))
    write_csv(file, rows(3))
    assert len(load_dataset(file, GRAY48, cache=tmp_path / "small").splits["train"]) == 21
    stored = next((tmp_path / "small").iterdir())
    whole = stored.read_bytes()
    for damaged in (b"damaged", whole[: len(whole) // 2], whole[:60] + b"?" + whole[61:]):
        stored.write_bytes(damaged)
        assert len(load_dataset(file, GRAY48, cache=tmp_path / "small").splits["train"]) == 21
    assert len(load_dataset(file, GRAY48, cache=tmp_path / "cache").splits["train"]) == 21


def test_notes_on_other_files_are_not_those_of_an_earlier_load(tmp_path):
    for name in ("happy", "sad"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for number in range(5):
            cv2.imwrite(str(tmp_path / "faces" / name / f"{number}.png"), labelled_image(len(name), number))
    for other in ("notes.txt", "list.txt"):
        file = tmp_path / "faces" / "sad" / other
        file.write_text("of no image")
        notes = load_dataset(tmp_path / "faces", GRAY48, cache=tmp_path / "cache").notes
        assert f"1 file is not read as images: sad/{other}" in notes
        file.unlink()


def test_the_cache_forgets_what_was_not_used_for_longest(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "MAX_BYTES", 100_000)
    long_ago = time.time() - 2 * cache_module.STALE_S
    for age, name in enumerate(("newest", "used", "older", "oldest")):
        cache_module.store_arrays(tmp_path / f"{name}.npz", {"pixels": np.zeros(40_000, np.uint8)})
        os.utime(tmp_path / f"{name}.npz", (long_ago, long_ago - age))
    assert cache_module.load_arrays(tmp_path / "used.npz")
    cache_module.store_arrays(tmp_path / "new.npz", {})
    assert {file.stem for file in tmp_path.iterdir()} == {"new", "used", "newest"}
    monkeypatch.setattr(cache_module, "MAX_BYTES", 0)
    cache_module.store_arrays(tmp_path / "new.npz", {})
    assert {file.stem for file in tmp_path.iterdir()} == {"new", "used"}  # a training may need more than is kept


def test_built_in_faces_are_drawn_once_for_all_folders(cache, builtin, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stored = sorted((cache / "edgefer" / "datasets").iterdir())
    load_dataset("builtin", GRAY48, cache=cache / "edgefer" / "datasets")
    assert sorted((cache / "edgefer" / "datasets").iterdir()) == stored


def test_stratified_rows_keep_the_class_shares():
    labels = np.repeat([0, 1, 2], [700, 290, 10])
    drawn = stratified_rows(labels, 100, seed=3)
    assert np.array_equal(np.bincount(labels[drawn]), [70, 29, 1])
    assert len(set(drawn)) == 100
    assert np.bincount(labels[stratified_rows(labels, 3, seed=3)]).min() == 1


def test_stratified_rows_have_the_requested_count_with_many_rare_classes():
    labels = np.repeat(np.arange(40), [2000] + [3] * 39)
    for count in (40, 64, 128, 256):
        drawn = labels[stratified_rows(labels, count, seed=0)]
        assert len(drawn) == count and len(set(drawn.tolist())) == 40
    assert len(stratified_rows(labels, 10, seed=0)) == 40


def test_stratified_split_loses_no_image(builtin):
    rest, held = stratified_split(builtin.split("train"), 0.25, seed=1)
    assert sorted([*rest.ids, *held.ids]) == sorted(builtin.split("train").ids)
    assert len(held) == 210
