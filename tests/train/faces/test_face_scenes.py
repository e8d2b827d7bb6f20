"""Untrusted folders and archives of images for training face detectors."""

import io
import json
import tracemalloc
import zipfile

import cv2
import numpy as np
import pytest

from edgefer.errors import DataError, EdgeferError, InputError
from edgefer.train.faces import run, scenes
from edgefer.train.faces.gallery import gallery, same_photographs
from edgefer.train.faces.recipe import load_face_recipe
from edgefer.train.faces.run import FaceConfig, train_faces
from edgefer.train.faces.scenes import read_scenes
from edgefer.train.faces.start import start
from edgefer.train.run import RunFolder

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
PNG = cv2.imencode(".png", PIXELS)[1].tobytes()


class Blind:
    """A teacher that finds no face."""

    def __init__(self, file):
        pass

    def faces(self, image_bgr):
        return []


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with one picture in a folder within, taught by a teacher that finds nothing."""
    monkeypatch.setattr(scenes, "Teacher", Blind)
    (tmp_path / "yunet.onnx").write_bytes(b"")
    (tmp_path / "scenes" / "own").mkdir(parents=True)
    (tmp_path / "scenes" / "own" / "a.png").write_bytes(PNG)
    return tmp_path / "scenes"


def read(folder):
    return read_scenes(
        folder, folder.parent / "cache", folder.parent / "yunet.onnx", lambda items, total, description: items
    )


@pytest.mark.parametrize(
    ("content", "complaint"), [(b"", "is an empty file"), (PNG[:60], "cut short"), (b"text", "not an image")]
)
def test_a_picture_that_cannot_be_read_is_named(folder, content, complaint):
    (folder / "own" / "b.jpg").write_bytes(content)
    with pytest.raises(DataError, match=rf"^b\.jpg of own .*{complaint}"):
        read(folder)


def test_an_archive_that_is_damaged_inside_is_one_sentence(folder):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(5000) + PNG)
    content = bytearray(out.getvalue())
    content[40:60] = b"\xff" * 20
    (folder / "damaged.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png in .*damaged\.zip cannot be unpacked"):
        read(folder)


@pytest.mark.parametrize(
    ("box", "complaint"),
    [
        ([0, 500, 500, 700, 700], "outside of a.png"),
        ([0, -90, 0, -10, 40], "outside of a.png"),
        ([0, 30, 30, 30, 40], "of a.png is a box whose .* not beyond the other"),
        ([0, 0.1, 0.2, 0.3, 0.4], "not beyond the other by a pixel"),
        ([0, 1, 2], "without four numbers"),
        ("1234", "without four numbers"),
        ([0, "1", "2", "30", "40"], "without four numbers"),
        ([0, 1, 1, 10**400, 9], "without four numbers"),
        ([0, -1e300, -1e300, 1e300, 1e300], "without four numbers"),
        ({"x0": 1}, "boxes.json of own is not"),
    ],
)
def test_a_box_that_is_no_face_of_its_picture_is_refused(folder, box, complaint):
    (folder / "own" / "boxes.json").write_text(json.dumps({"a.png": [box]}))
    with pytest.raises(DataError, match=complaint):
        read(folder)


def test_a_box_may_reach_beyond_its_picture(folder):
    (folder / "own" / "boxes.json").write_text(json.dumps({"a.png": [[0, -40, -40, 0.3, 0.3], [0, 10, 10, 90, 90]]}))
    pictures = gallery(read(folder))
    assert len(pictures[0].faces) == 2 and same_photographs(pictures).tolist() == [0]


def test_boxes_shrink_with_their_picture_along_each_axis(folder):
    image = cv2.imencode(".png", np.zeros((3, 1024, 3), np.uint8))[1].tobytes()
    (folder / "own" / "a.png").write_bytes(image)
    (folder / "own" / "boxes.json").write_text(json.dumps({"a.png": [[0, 512, 0, 1024, 3]]}))
    (source,) = read(folder)
    assert source.images[0].shape == (1, 256) and source.marked.tolist() == [[0, 128, 0, 256, 1]]


def test_an_archive_whose_directory_lies_about_a_size_is_not_unpacked_beyond_the_limit(folder, monkeypatch):
    size = 8 << 20
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(size))
    lying = out.getvalue().replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    (folder / "bomb.zip").write_bytes(lying)
    monkeypatch.setattr(scenes, "MAX_BYTES", 1 << 20)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"a\.png in .*bomb\.zip cannot be unpacked"):
        read(folder)
    assert tracemalloc.get_traced_memory()[1] < size
    tracemalloc.stop()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_picture_that_an_archive_lists_twice_is_one(folder):
    with zipfile.ZipFile(folder / "zipped.zip", "w") as archive:
        for _ in range(2):
            archive.writestr("b.png", PNG)
    assert read(folder)[1].names == ("b.png",)


def test_an_archive_may_list_a_file_without_a_name(folder):
    with zipfile.ZipFile(folder / "zipped.zip", "w") as archive:
        archive.writestr("b.png", PNG)
        archive.writestr("x", b"")
        archive.filelist[1].filename = ""
    assert read(folder)[1].names == ("b.png",)


def test_pictures_of_every_kind_that_is_read_elsewhere_are_read(folder):
    (folder / "own" / "b.TIFF").write_bytes(cv2.imencode(".tiff", PIXELS)[1].tobytes())
    assert [source.names for source in read(folder)] == [("a.png", "b.TIFF")]


def test_a_dot_in_a_folders_name_is_part_of_it(folder):
    for name in ("v1.1", "v1.2"):
        (folder / name).mkdir()
        (folder / name / "a.png").write_bytes(PNG)
    assert [source.name for source in read(folder)] == ["own", "v1.1", "v1.2"]


def test_an_archive_beside_its_unpacked_folder_is_refused(folder):
    with zipfile.ZipFile(folder / "own.zip", "w") as archive:
        archive.writestr("a.png", PNG)
    with pytest.raises(DataError, match=r"scenes holds both own and own\.zip, which would be one source: remove"):
        read(folder)


def test_a_teacher_that_is_gone_is_named(folder):
    (folder.parent / "yunet.onnx").unlink()
    with pytest.raises(DataError, match=r"There is no .*yunet\.onnx: put YuNet's \.onnx back"):
        read(folder)


def test_another_teacher_of_the_same_size_teaches_again(folder, monkeypatch):
    made = []
    monkeypatch.setattr(scenes, "Teacher", lambda file: made.append(file) or Blind(file))
    for content in (b"a", b"b", b"b"):
        (folder.parent / "yunet.onnx").write_bytes(content)
        read(folder)
    assert len(made) == 2


def test_files_that_are_not_read_teach_nothing_again(folder, monkeypatch):
    (first,) = read(folder)
    for name in (".DS_Store", "notes.txt"):
        (folder / "own" / name).write_bytes(b"opened")
    monkeypatch.setattr(scenes, "Teacher", lambda file: pytest.fail("it teaches again"))
    assert read(folder)[0].names == first.names


def test_a_damaged_cache_entry_is_rebuilt(folder):
    (first,) = read(folder)
    (kept,) = (folder.parent / "cache").glob("own-*.npz")
    for content in (b"", b"PK\x03\x04 damaged", kept.read_bytes()[:-100]):
        kept.write_bytes(content)
        (again,) = read(folder)
        assert again.names == first.names and np.array_equal(again.images[0], first.images[0])


@pytest.mark.parametrize("recipe", ["face-finder", "face-refiner"])
def test_pictures_without_any_face_are_refused_before_hours_of_training(folder, recipe, monkeypatch):
    monkeypatch.setattr(run, "fit", lambda *arguments: pytest.fail("it trains"))
    config = FaceConfig(recipe=load_face_recipe(recipe), data=str(folder), teacher=str(folder.parent / "yunet.onnx"))
    with pytest.raises(DataError, match=r"scenes has no face to learn from in its 1 pictures: no boxes"):
        train_faces(config, folder.parent / "run", folder.parent / "cache")
    assert not (folder.parent / "run").exists()


def a_config(folder):
    return FaceConfig(
        recipe=load_face_recipe("face-finder"), data=str(folder), teacher=str(folder.parent / "yunet.onnx")
    )


def test_two_trainings_never_write_into_one_folder(folder):
    path = folder.parent / "runs" / "face-finder-1"
    with RunFolder(path).locked(), pytest.raises(InputError, match="face-finder-1 is being trained by another process"):
        start(a_config(folder), path, lambda bundle: None)


def test_a_training_that_is_stopped_before_it_began_leaves_nothing_and_names_no_resume(folder, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "read_scenes", interrupt)
    with pytest.raises(EdgeferError, match=r"^Stopped before training began: start it again with the same command"):
        start(a_config(folder), folder.parent / "runs" / "face-finder-1", lambda bundle: None)
    assert not (folder.parent / "runs").exists()


def test_hidden_files_are_no_pictures(folder):
    (folder / "own" / ".thumbs").mkdir()
    (folder / "own" / ".thumbs" / "a.png").write_bytes(PNG)
    (folder / "own" / "._a.png").write_bytes(b"from a Mac")
    with zipfile.ZipFile(folder / "zipped.zip", "w") as archive:
        archive.writestr("b.png", PNG)
        archive.writestr("__MACOSX/._b.png", b"from a Mac")
    assert [source.names for source in read(folder)] == [("a.png",), ("b.png",)]


@pytest.mark.parametrize("listed", [["own/a.png"], ["a.png", "own/a.png"]])
def test_boxes_of_an_image_that_is_not_there_are_refused(folder, listed):
    """As where a path in boxes.json begins with the folder's own name: its faces would be taken for unmarked."""
    (folder / "own" / "boxes.json").write_text(json.dumps({name: [[0, 10, 10, 20, 20]] for name in listed}))
    with pytest.raises(
        DataError, match=r"^boxes\.json of own names 1 images .* such as 'own/a\.png'.* such as 'a\.png'"
    ):
        read(folder)


def test_the_boxes_of_a_zipped_folder_are_found_in_it(folder):
    """As where "Compress" packs the folder itself: its boxes.json is not at the top."""
    with zipfile.ZipFile(folder / "zipped.zip", "w") as archive:
        archive.writestr("zipped/b.png", PNG)
        archive.writestr("zipped/boxes.json", json.dumps({"b.png": [[0, 10, 10, 30, 30]]}))
        archive.writestr("__MACOSX/zipped/._boxes.json", b"from a Mac")
    source = read(folder)[1]
    assert source.has_marks and source.names == ("zipped/b.png",) and source.marked.tolist() == [[0, 10, 10, 30, 30]]


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(folder):
    (folder.parent / "cache").write_text("a file where the folder should be")
    (source,) = read(folder)
    assert source.names == ("a.png",) and np.array_equal(source.images[0], read(folder)[0].images[0])
