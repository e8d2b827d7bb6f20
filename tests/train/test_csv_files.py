"""CSV files in the formats in use, and archives of them: read, or refused with a sentence that says what to do."""

import os
import tarfile
import unicodedata
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import GRAY48

from edgefer.errors import DataError
from edgefer.train.data.csv import open_csv
from edgefer.train.data.load import DataOptions, load_dataset, summary

FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
USAGES = ("Training", "Training", "PublicTest", "PrivateTest")


def image(seed: int, side: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)


def pixels(seed: int, side: int = 48, join: str = " ", form: str = "{}") -> str:
    return join.join(form.format(value) for value in image(seed, side).ravel().tolist())


def write(path: Path, header: str, *columns, separator: str = ",", encoding: str = "utf-8") -> Path:
    """A CSV of 28 rows, four of each class; each column gives the text of (row, label, usage)."""
    lines = [header]
    for row in range(28):
        lines.append(separator.join(column(row, row % 7, USAGES[row // 7]) for column in columns))
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


LABEL, USAGE = (lambda row, label, usage: str(label)), (lambda row, label, usage: usage)
PIXELS = lambda row, label, usage: pixels(row)  # noqa: E731
CSVS = {
    "semicolons": ("emotion;pixels;Usage", (LABEL, PIXELS, USAGE), ";"),
    "tabs and other columns": ("\temotion\tUsage\tpixels", (lambda r, *_: str(r), LABEL, USAGE, PIXELS), "\t"),
    "labels as 3.0": ("emotion,pixels,Usage", (lambda r, label, u: f"{label}.0", PIXELS, USAGE), ","),
    "labels by name": ("Label,Pixels,Split", (lambda r, label, u: FER2013[label].title(), PIXELS, USAGE), ","),
    "pixels as 12.0": ("emotion,pixels,Usage", (LABEL, lambda r, *_: pixels(r, form="{}.0"), USAGE), ","),
    "pixels as a list": ("emotion,pixels,Usage", (LABEL, lambda r, *_: f'"[{pixels(r, join=", ")}]"', USAGE), ","),
    "a column per pixel": (
        f"emotion,{','.join(f'pixel{at}' for at in range(2304))},Usage", (LABEL, lambda r, *_: pixels(r, join=","), USAGE), ",",
    ),
    "other names of splits": ("emotion,pixels,usage", (LABEL, PIXELS, lambda r, label, u: {"Training": "Train", "PublicTest": "Val"}.get(u, "Test")), ","),
}  # fmt: skip


@pytest.mark.parametrize("name", CSVS)
def test_common_csv_variants_are_read(tmp_path, name):
    header, columns, separator = CSVS[name]
    dataset = load_dataset(write(tmp_path / "faces.csv", header, *columns, separator=separator), GRAY48)
    assert dataset.labels == FER2013
    assert {split: len(part) for split, part in dataset.splits.items()} == {"train": 14, "valid": 7, "test": 7}
    for split, first in {"train": 0, "valid": 14, "test": 21}.items():
        assert np.array_equal(dataset.split(split).images[3, :, :, 0], image(first + 3))
        assert dataset.split(split).labels[3] == 3


def test_csv_without_usage_is_split_like_folders_and_reports_it(tmp_path):
    dataset = load_dataset(write(tmp_path / "train.csv", "emotion,pixels", LABEL, PIXELS), GRAY48)
    assert {split: len(part) for split, part in dataset.splits.items()} == {"train": 21, "valid": 7}
    lines = summary(dataset)
    assert lines[0].split() == ["class", "train", "valid"] and lines[4].split() == ["happy", "3", "1"]
    assert "7 of its training images (20% of each class) are held out" in lines[-1]


def test_ck_csv_has_an_eighth_class_and_larger_images_are_resized(tmp_path):
    column = lambda row, label, usage: str(row % 8 if usage == "Training" else label)  # noqa: E731
    dataset = load_dataset(write(tmp_path / "ck.csv", "emotion,pixels,Usage", column, PIXELS, USAGE), GRAY48)
    assert dataset.labels == (*FER2013, "contempt")
    large = write(tmp_path / "large.csv", "emotion,pixels,Usage", LABEL, lambda r, *_: pixels(r, 224), USAGE)
    assert load_dataset(large, GRAY48).split("train").images.shape == (14, 48, 48, 1)


def test_class_names_map_numeric_labels(tmp_path):
    file = write(tmp_path / "data.csv", "label,pixels", LABEL, PIXELS)
    names = ",".join(
        f"{at}={name}" for at, name in enumerate(("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"))
    )
    dataset = load_dataset(file, GRAY48, DataOptions(names=names))
    assert dataset.labels[0] == "surprise" and dataset.labels[5] == "angry"
    with pytest.raises(DataError, match=r"row 3: label '2' is not in --names"):
        load_dataset(file, GRAY48, DataOptions(names="0=happy,1=sad"))
    with pytest.raises(DataError, match=r"write each label once with its class, such as 0=neutral"):
        load_dataset(file, GRAY48, DataOptions(names="0:happy"))


def test_kaggle_tar_gz_is_read_and_a_truncated_one_is_refused(tmp_path):
    write(tmp_path / "fer2013.csv", "emotion,pixels,Usage", LABEL, PIXELS, USAGE)
    (tmp_path / "readme").write_text("x")
    with tarfile.open(tmp_path / "fer2013.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "fer2013.csv", "fer2013/fer2013.csv")
        archive.add(tmp_path / "readme", "fer2013/README")
    assert len(load_dataset(tmp_path / "fer2013.tar.gz", GRAY48)) == 28
    whole = (tmp_path / "fer2013.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        load_dataset(tmp_path / "cut.tar.gz", GRAY48)


@pytest.mark.parametrize(("directory", "local", "value"), [(8, 6, 1), (10, 8, 99)])
def test_encrypted_or_unsupported_zip_gives_a_clear_error(tmp_path, directory, local, value):
    """directory, local: offsets of the flags, or of the method, in the two headers of a file."""
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        archive.writestr("fer2013.csv", "emotion,pixels\n0,1 2 3\n")
    content = bytearray((tmp_path / "odd.zip").read_bytes())
    content[content.index(b"PK\x01\x02") + directory] = value
    content[content.index(b"PK\x03\x04") + local] = value
    (tmp_path / "odd.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"odd\.zip cannot be read .*(encrypted|not supported)"):
        load_dataset(tmp_path / "odd.zip", GRAY48)


@pytest.mark.parametrize(
    ("header", "columns", "encoding", "complaint"),
    [
        ("pixels", (PIXELS,), "utf-8", "pixels but no labels"),
        (f"0,{pixels(0)},Training", (LABEL, PIXELS, USAGE), "utf-8", r"no column 'emotion': .{1,200}$"),
        (f"emotion,pixel{'1' * 5000}", (LABEL, LABEL), "utf-8", "no column 'pixels'"),
        ("emotion,pixels,Usage", (LABEL, PIXELS, USAGE), "utf-16", "is UTF-16 text: save it as UTF-8"),
        ("Usage,Image name,neutral,happiness,contempt,NF", (USAGE, *[LABEL] * 5), "utf-8", "FER\\+'s votes and no pixels"),
        ("image,label", (LABEL, LABEL), "utf-8", "no column 'pixels'.*a folder per class"),
        ("emotion,pixels", (LABEL, lambda r, *_: pixels(r, form="0.{}")), "utf-8", "lie between 0 and 1; multiply them"),
        ("emotion,pixels", (LABEL, lambda *_: "[ 70 80 82 ... 106 109 82]"), "utf-8", "shortened to"),
        ("emotion,pixels", (LABEL, lambda *_: "nan " * 2304), "utf-8", "not a whole number"),
    ],
)  # fmt: skip
def test_a_csv_unusable_for_training_is_refused_with_the_reason(tmp_path, header, columns, encoding, complaint):
    with pytest.raises(DataError, match=complaint):
        load_dataset(write(tmp_path / "odd.csv", header, *columns, encoding=encoding), GRAY48)


def test_a_csv_of_some_numeric_classes_is_trained_on_by_their_names(tmp_path):
    file = write(tmp_path / "two.csv", "emotion,pixels", lambda row, *_: str(3 + row % 2), PIXELS)
    with pytest.raises(DataError, match=r"no training image of class 'angry'.*--names 3=happy,4=sad"):
        load_dataset(file, GRAY48)
    assert load_dataset(file, GRAY48, DataOptions(names="3=happy,4=sad")).labels == ("happy", "sad")


def test_rows_that_are_all_bad_keep_their_reason(tmp_path):
    file = write(tmp_path / "bad.csv", "emotion,pixels", LABEL, lambda *_: "1 2 3")
    with pytest.raises(
        DataError, match=r"no usable rows or images: 28 are bad, the first is row 1: 3 pixels instead of 2,304"
    ):
        load_dataset(file, GRAY48, DataOptions(skip_bad=True))


def test_very_long_line_and_fifo_are_refused(tmp_path):
    (tmp_path / "endless.csv").write_bytes(b"emotion,pixels\n" + b"1 " * (20 << 20))
    with pytest.raises(DataError, match=r"a line of more than 16,777,216 characters"):
        load_dataset(tmp_path / "endless.csv", GRAY48)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="is a FIFO"):
        load_dataset(tmp_path / "pipe.csv", GRAY48)


def zipped(tmp_path, change=lambda content: content, name="fer2013.csv") -> Path:
    """A zip of a CSV, with `change` applied to its bytes."""
    csv = write(tmp_path / "plain.csv", "emotion,pixels,Usage", LABEL, PIXELS, USAGE)
    file = tmp_path / "faces.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(csv, name)
    content = bytearray(file.read_bytes())
    change(content)
    file.write_bytes(content)
    return file


def encrypted(content: bytearray) -> None:
    content[6] |= 1
    content[content.find(b"PK\1\2") + 8] |= 1


def with_another_method(content: bytearray) -> None:
    content[8] = content[content.find(b"PK\1\2") + 10] = 93  # Zstandard


def with_a_later_version(content: bytearray) -> None:
    content[content.find(b"PK\1\2") + 6] = 99


def test_a_picture_in_place_of_a_csv_is_not_text(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(60))
    with pytest.raises(
        DataError, match=r"photo\.jpg cannot be read as a FER2013 CSV: it is not UTF-8 text\. Name one, or"
    ):
        load_dataset(str(tmp_path / "photo.jpg"), GRAY48)


@pytest.mark.parametrize("change", [encrypted, with_another_method, with_a_later_version])
def test_archive_that_cannot_be_unpacked_gives_a_clear_error(tmp_path, change):
    with pytest.raises(DataError, match=r"cannot be read as a FER2013 CSV: .*\. Name one, or a folder of images\.$"):
        load_dataset(zipped(tmp_path, change), GRAY48)


def test_csv_name_in_an_archive_may_be_uppercase(tmp_path):
    assert len(load_dataset(zipped(tmp_path, name="FER2013.CSV"), GRAY48)) == 28


def test_symlink_in_an_archive_is_not_followed(tmp_path):
    csv = write(tmp_path / "plain.csv", "emotion,pixels,Usage", LABEL, PIXELS, USAGE)
    link = tarfile.TarInfo("fer2013.csv")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "faces.tar", "w") as tar:
        tar.add(csv, "fer2013.csv")
        tar.addfile(link)
    assert len(load_dataset(tmp_path / "faces.tar", GRAY48)) == 28


def test_class_names_may_contain_combining_marks(tmp_path):
    names = ["खुश", "İyi", "می‌خندد", "sad", "angry", "fear", "neutral"]
    csv = write(tmp_path / "faces.csv", "emotion,pixels,Usage", lambda r, label, u: names[label], PIXELS, USAGE)
    assert {"खुश", "می‌خندد"} < set(load_dataset(csv, GRAY48).labels)
    formula = write(tmp_path / "other.csv", "emotion,pixels,Usage", lambda r, label, u: "=cmd()", PIXELS, USAGE)
    with pytest.raises(DataError, match="no name of a class"):
        load_dataset(formula, GRAY48)


def test_unterminated_cell_gives_a_short_error(tmp_path):
    csv = write(tmp_path / "faces.csv", "emotion,pixels,Usage", LABEL, PIXELS, USAGE)
    csv.write_text(csv.read_text().replace("\n0,", '\n"0,', 1))
    with pytest.raises(DataError) as refused:
        load_dataset(csv, GRAY48)
    assert len(str(refused.value)) < 400


def test_reading_rows_does_not_change_the_warning_filters(tmp_path):
    before = list(warnings.filters)
    rows = iter(open_csv(write(tmp_path / "a.csv", "emotion,pixels,Usage", LABEL, PIXELS, USAGE)).stream)
    assert next(rows).image is not None and warnings.filters == before
    rows.close()


def test_accents_match_in_either_unicode_form(tmp_path):
    names = [unicodedata.normalize(form, "Überrascht") for form in ("NFC", "NFD")]
    labels = ("froh", *names, "froh")
    file = write(tmp_path / "faces.csv", "emotion,pixels", lambda row, *_: labels[row % 4], PIXELS)
    assert load_dataset(file, GRAY48).labels == ("froh", "überrascht")
