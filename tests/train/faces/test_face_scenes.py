"""Untrusted folders and archives of images for training face detectors."""

import io
import json
import tracemalloc
import zipfile

import cv2
import numpy as np
import pytest

from edgefer.errors import DataError, InputError, Interrupted
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
    """A folder of scenes with one image in its subfolder `own`, and a teacher that finds no face."""
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
def test_unreadable_image_is_named(folder, content, complaint):
    (folder / "own" / "b.jpg").write_bytes(content)
    with pytest.raises(DataError, match=rf"^b\.jpg of own .*{complaint}"):
        read(folder)


def test_damaged_archive_is_an_error_of_one_sentence(folder):
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
def test_invalid_boxes_are_refused(folder, box, complaint):
    (folder / "own" / "boxes.json").write_text(json.dumps({"a.png": [box]}))
    with pytest.raises(DataError, match=complaint):
        read(folder)


def test_box_may_extend_beyond_its_image(folder):
    (folder / "own" / "boxes.json").write_text(json.dumps({"a.png": [[0, -40, -40, 0.3, 0.3], [0, 10, 10, 90, 90]]}))
    pictures = gallery(read(folder))
    assert len(pictures[0].faces) == 2 and same_photographs(pictures).tolist() == [0]


def test_boxes_shrink_with_their_image_along_each_axis(folder):
    image = cv2.imencode(".png", np.zeros((3, 1024, 3), np.uint8))[1].tobytes()
    (folder / "own" / "a.png").write_bytes(image)
    (folder / "own" / "boxes.json").write_text(json.dumps({"a.png": [[0, 512, 0, 1024, 3]]}))
    (source,) = read(folder)
    assert source.images[0].shape == (1, 256) and source.marked.tolist() == [[0, 128, 0, 256, 1]]


def test_archive_with_a_false_size_is_not_unpacked_beyond_the_limit(folder, monkeypatch):
    size = 8 << 20
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(size))
    falsified = out.getvalue().replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    (folder / "bomb.zip").write_bytes(falsified)
    monkeypatch.setattr(scenes, "MAX_BYTES", 1 << 20)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"a\.png in .*bomb\.zip cannot be unpacked"):
        read(folder)
    assert tracemalloc.get_traced_memory()[1] < size
    tracemalloc.stop()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_image_listed_twice_in_an_archive_is_read_once(folder):
    with zipfile.ZipFile(folder / "zipped.zip", "w") as archive:
        for _ in range(2):
            archive.writestr("b.png", PNG)
    assert read(folder)[1].names == ("b.png",)


def test_archive_entry_without_a_name_is_ignored(folder):
    with zipfile.ZipFile(folder / "zipped.zip", "w") as archive:
        archive.writestr("b.png", PNG)
        archive.writestr("x", b"")
        archive.filelist[1].filename = ""
    assert read(folder)[1].names == ("b.png",)


def test_tiff_images_are_read_whatever_the_case_of_their_extension(folder):
    (folder / "own" / "b.TIFF").write_bytes(cv2.imencode(".tiff", PIXELS)[1].tobytes())
    assert [source.names for source in read(folder)] == [("a.png", "b.TIFF")]


def test_dot_in_the_name_of_a_folder_is_kept(folder):
    for name in ("v1.1", "v1.2"):
        (folder / name).mkdir()
        (folder / name / "a.png").write_bytes(PNG)
    assert [source.name for source in read(folder)] == ["own", "v1.1", "v1.2"]


def test_archive_beside_its_unpacked_folder_is_refused(folder):
    with zipfile.ZipFile(folder / "own.zip", "w") as archive:
        archive.writestr("a.png", PNG)
    with pytest.raises(DataError, match=r"scenes holds both own and own\.zip, which would be one source: remove"):
        read(folder)


def test_missing_teacher_file_is_named(folder):
    (folder.parent / "yunet.onnx").unlink()
    with pytest.raises(DataError, match=r"There is no .*yunet\.onnx: put YuNet's \.onnx back"):
        read(folder)


def test_changed_teacher_file_of_the_same_size_is_run_again(folder, monkeypatch):
    loaded = []
    monkeypatch.setattr(scenes, "Teacher", lambda file: loaded.append(file) or Blind(file))
    for content in (b"a", b"b", b"b"):
        (folder.parent / "yunet.onnx").write_bytes(content)
        read(folder)
    assert len(loaded) == 2


def test_ignored_files_do_not_cause_the_teacher_to_run_again(folder, monkeypatch):
    (first,) = read(folder)
    for name in (".DS_Store", "notes.txt"):
        (folder / "own" / name).write_bytes(b"opened")
    monkeypatch.setattr(scenes, "Teacher", lambda file: pytest.fail("the teacher runs again"))
    assert read(folder)[0].names == first.names


def test_damaged_cache_entry_is_rebuilt(folder):
    (first,) = read(folder)
    (entry,) = (folder.parent / "cache").glob("own-*.npz")
    for content in (b"", b"PK\x03\x04 damaged", entry.read_bytes()[:-100]):
        entry.write_bytes(content)
        (again,) = read(folder)
        assert again.names == first.names and np.array_equal(again.images[0], first.images[0])


@pytest.mark.parametrize("recipe", ["face-finder", "face-refiner"])
def test_images_without_any_face_are_refused_before_training(folder, recipe, monkeypatch):
    monkeypatch.setattr(run, "fit", lambda *arguments: pytest.fail("it trains"))
    config = FaceConfig(recipe=load_face_recipe(recipe), data=str(folder), teacher=str(folder.parent / "yunet.onnx"))
    with pytest.raises(DataError, match=r"scenes has no face to learn from in its 1 pictures: no boxes"):
        train_faces(config, folder.parent / "run", folder.parent / "cache")
    assert not (folder.parent / "run").exists()


def config_of(folder):
    return FaceConfig(
        recipe=load_face_recipe("face-finder"), data=str(folder), teacher=str(folder.parent / "yunet.onnx")
    )


def test_second_training_in_the_same_folder_is_refused(folder):
    path = folder.parent / "runs" / "face-finder-1"
    with RunFolder(path).locked(), pytest.raises(InputError, match="face-finder-1 is being trained by another process"):
        start(config_of(folder), path, lambda bundle: None)


def test_training_stopped_before_its_first_step_leaves_nothing_to_resume(folder, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "read_scenes", interrupt)
    with pytest.raises(Interrupted, match=r"^Stopped before training began: start it again with the same command"):
        start(config_of(folder), folder.parent / "runs" / "face-finder-1", lambda bundle: None)
    assert not (folder.parent / "runs").exists()


def test_hidden_files_are_ignored(folder):
    (folder / "own" / ".thumbs").mkdir()
    (folder / "own" / ".thumbs" / "a.png").write_bytes(PNG)
    (folder / "own" / "._a.png").write_bytes(b"from a Mac")
    with zipfile.ZipFile(folder / "zipped.zip", "w") as archive:
        archive.writestr("b.png", PNG)
        archive.writestr("__MACOSX/._b.png", b"from a Mac")
    assert [source.names for source in read(folder)] == [("a.png",), ("b.png",)]


@pytest.mark.parametrize("listed", [["own/a.png"], ["a.png", "own/a.png"]])
def test_boxes_of_missing_images_are_refused(folder, listed):
    """For example, a path in boxes.json that begins with the folder's own name: its image would count as unmarked."""
    (folder / "own" / "boxes.json").write_text(json.dumps({name: [[0, 10, 10, 20, 20]] for name in listed}))
    with pytest.raises(
        DataError, match=r"^boxes\.json of own names 1 images .* such as 'own/a\.png'.* such as 'a\.png'"
    ):
        read(folder)


def test_boxes_json_inside_a_zipped_folder_is_found(folder):
    """As when "Compress" packs the folder itself: its boxes.json is not at the top level."""
    with zipfile.ZipFile(folder / "zipped.zip", "w") as archive:
        archive.writestr("zipped/b.png", PNG)
        archive.writestr("zipped/boxes.json", json.dumps({"b.png": [[0, 10, 10, 30, 30]]}))
        archive.writestr("__MACOSX/zipped/._boxes.json", b"from a Mac")
    source = read(folder)[1]
    assert source.has_marks and source.names == ("zipped/b.png",) and source.marked.tolist() == [[0, 10, 10, 30, 30]]


def test_unwritable_cache_changes_no_result(folder):
    (folder.parent / "cache").write_text("a file where the folder should be")
    (source,) = read(folder)
    assert source.names == ("a.png",) and np.array_equal(source.images[0], read(folder)[0].images[0])
