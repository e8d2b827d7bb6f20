"""The public API: one call for an image, a crop, a video; each error is one sentence; the same safeguards as the command."""

import itertools
import json
import shutil
import time

import cv2
import numpy as np
import pytest

import edgefer
from edgefer import drawn, parity
from edgefer.card import Limits
from edgefer.devices import loop
from edgefer.devices import reader as readers
from edgefer.devices.reader import SourceOptions
from edgefer.errors import BundleError, EdgeferError, ImageError, IncompleteError, InputError, RuntimeFault, SourceError
from edgefer.records import UNSURE

IMAGE = next(drawn.scene())[0].image_bgr


@pytest.fixture(scope="module")
def reader():
    return edgefer.load("ferplus-small")


def test_a_path_an_array_and_a_pil_image_give_the_same_faces(reader, tmp_path):
    pil = pytest.importorskip("PIL.Image")
    cv2.imwrite(str(tmp_path / "photo.png"), IMAGE)
    faces = [reader(given) for given in (IMAGE, tmp_path / "photo.png", str(tmp_path / "photo.png"))]
    faces.append(reader(pil.fromarray(IMAGE[:, :, ::-1])))
    assert all(list(one) == list(faces[0]) for one in faces) and len(faces[0]) == 2
    assert faces[1].source == "photo.png" and faces[0].source == ""
    for face in faces[0]:
        assert face.unsure or face.score == face.scores[face.label] == max(face.scores.values()) >= 0.45
    assert list(reader(np.ascontiguousarray(IMAGE[:, :, 0]))) is not None, "gray"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (IMAGE / 255.0, "An image of float64 cannot be read"),
        (IMAGE.astype(np.int32), "An image of int32 cannot be read"),
        (IMAGE[:, :, :2], r"An image of shape \[360, 480, 2\]"),
        (IMAGE[None], r"An image of shape \[1, 360, 480, 3\]"),
        (np.empty((0, 5, 3), np.uint8), r"An image of shape \[0, 5, 3\]"),
        (None, "None is not an image: give a path"),
        ([1, 2], r"\[1, 2\] is not an image"),
        (b"\xff\xd8", "is not an image"),
    ],
)
def test_invalid_image_gives_a_one_sentence_error(reader, image, message):
    for read in (reader, reader.classify):
        with pytest.raises(InputError, match=message) as caught:
            read(image)
        assert "uint8" in str(caught.value) and str(caught.value).count("\n") == 0


def test_file_that_is_not_an_image_gives_a_one_sentence_error(reader, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    for name in ("a.jpg", "missing.jpg"):
        with pytest.raises(ImageError, match=name):
            reader(tmp_path / name)


def test_error_for_a_folder_points_to_watch_and_repr_names_the_network(reader, tmp_path):
    with pytest.raises(InputError, match=r"is a folder: reader\.watch\(folder\) reads the images in it"):
        reader(tmp_path)
    assert repr(reader).startswith(f"<edgefer.Reader of {reader.card.name}: {reader.labels[0]}, ")


def test_classify_takes_a_cropped_face_as_it_is(reader):
    face = reader(IMAGE)[0]
    left, top, right, bottom = face.box_xyxy
    crop = IMAGE[max(0, top) : bottom, max(0, left) : right]
    answer = reader.classify(crop)
    assert set(answer.scores) == set(reader.labels) and answer.box_xyxy[2:] == (crop.shape[1], crop.shape[0])
    assert sum(answer.scores.values()) == pytest.approx(1)


def test_watching_names_arguments_and_not_options(reader):
    with pytest.raises(SourceError, match=r'no camera is connected; try source="builtin"|is connected'):
        next(reader.watch(97))
    with pytest.raises(InputError, match="wait=True is for cameras and streams: builtin"):
        next(reader.watch("builtin", wait=True))


def test_watch_yields_frames_whose_faces_keep_their_ids(reader):
    seen = []
    for frame in reader.watch("builtin"):
        seen.append(frame)
        if frame.index == 40:
            break
    assert [frame.index for frame in seen] == list(range(41)) and {frame.source for frame in seen} == {"builtin"}
    assert all(sorted(face.id for face in frame) == [1, 2] for frame in seen)
    assert seen[0].changed and 1 <= sum(frame.changed for frame in seen) < 20
    for before, now in itertools.pairwise(seen):
        labels = [sorted(face.label for face in frame) for frame in (before, now)]
        assert now.changed == (labels[0] != labels[1])


def test_each_image_of_a_folder_with_faces_has_changed(reader, tmp_path):
    for number, image in enumerate((IMAGE, IMAGE, np.full_like(IMAGE, 90), IMAGE)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    assert [frame.changed for frame in reader.watch(tmp_path)] == [True, True, False, True]


def test_frame_can_be_drawn_displayed_and_converted_to_rows(reader):
    frame = reader(IMAGE)
    assert (edgefer.draw(frame) != IMAGE).any() and not np.shares_memory(edgefer.draw(frame), edgefer.draw(frame))
    page = frame._repr_html_()
    assert "data:image/jpeg;base64," in page and page.count("<tr>") == 3
    assert json.loads(json.dumps(frame.to_dict()))["faces"][0]["box_xyxy"] == list(frame[0].box_xyxy)
    rows = frame.rows()
    assert [row["id"] for row in rows] == [1, 2] and rows[0][f"score_{frame[0].top}"] == frame[0].score


def test_untrusted_names_are_escaped_for_display(reader):
    from dataclasses import replace

    page = replace(reader(IMAGE), source="<script>alert(1)</script>\x1b[31m")._repr_html_()
    assert "<script>" not in page and "\x1b" not in page


def test_stored_answers_are_checked_at_load_unless_disabled(monkeypatch):
    asked = []
    monkeypatch.setattr(readers, "check_at_load", lambda *given: asked.append(given) or parity.check_at_load(*given))
    edgefer.load("fer-nano")
    assert len(asked) == 1
    edgefer.load("fer-nano", check=False)
    assert len(asked) == 1

    def fails(*given):
        raise RuntimeFault("it does not give this bundle's stored answers")

    monkeypatch.setattr(readers, "check_at_load", fails)
    with pytest.raises(RuntimeFault, match="stored answers"):
        edgefer.load("fer-nano")


def test_reader_puts_watchdogs_around_classifier_and_detector(monkeypatch):
    """The watchdog lives in the Reader and not in the command."""
    assert isinstance(edgefer.load("fer-nano").classifier, readers.WatchedClassifier)
    assert isinstance(edgefer.load("fer-nano").detector, readers.WatchedDetector)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detector": "hog"}, "detector 'hog' is not known: choose auto, own, yunet, haar"),
        ({"smooth": "very"}, "choose off, responsive, calm"),
        ({"reject": 2}, r"reject 2\.0 is not a probability"),
        ({"reject": float("nan")}, "reject nan is not a probability"),
        ({"threads": 0}, "threads 0 is not a number from 1 to 256"),
        ({"threads": 100_000}, "threads 100000 is not a number from 1 to 256"),
        ({"target_fps": float("inf")}, "target_fps inf is not a number from 0.1 to 1000"),
        ({"threads": True}, "threads True is not right"),
        ({"min_face": -1}, "min_face -1 is not a number from 0 up"),
        ({"finder": 3}, "finder 3 is not a path: give text or a pathlib.Path"),
        ({"roi": (0, 0, 0, 5)}, "is not a region"),
        ({"detector": "haar", "yunet": "x.onnx"}, 'yunet is for detector="yunet"'),
    ],
)
def test_invalid_option_gives_a_one_sentence_error(options, message):
    with pytest.raises(InputError, match=message):
        edgefer.load("fer-nano", **options)


def test_unknown_bundle_error_names_the_available_ones():
    with pytest.raises(BundleError, match="ferplus-small"):
        edgefer.load("fer-smal")
    assert issubclass(BundleError, EdgeferError)


def test_roi_limits_the_search_and_min_face_drops_small_faces():
    whole = edgefer.load("fer-nano")(IMAGE)
    assert len(whole) == 2
    left = min(whole, key=lambda face: face.box_xyxy[0])
    (inside,) = edgefer.load("fer-nano", roi=(0, 0, 240, 360))(IMAGE)
    assert np.abs(np.subtract(inside.box_xyxy, left.box_xyxy)).max() < 20
    (right,) = edgefer.load("fer-nano", roi=(240, 60, 240, 300))(IMAGE)
    assert right.box_xyxy[0] > 240, "in pixels of the whole image"
    sides = sorted(sum(np.subtract(face.box_xyxy[2:], face.box_xyxy[:2])) / 2 for face in whole)
    assert len(edgefer.load("fer-nano", min_face=int(sides[0]) + 2)(IMAGE)) == 1
    with pytest.raises(InputError, match="is outside of the frame"):
        edgefer.load("fer-nano", roi=(2000, 0, 10, 10))(IMAGE)


def test_images_outside_of_the_region_are_named_after_the_others_were_read(tmp_path):
    for name, width in (("a.png", 300), ("b.png", 90), ("c.png", 300)):
        cv2.imwrite(str(tmp_path / name), np.zeros((120, width, 3), np.uint8))
    reader = edgefer.load("fer-nano", roi=(100, 0, 100, 100))
    frames = reader.watch(tmp_path)
    assert [next(frames).source, next(frames).source] == ["a.png", "c.png"]
    with pytest.raises(IncompleteError, match=r"^b\.png: The region 100,0,100x100 is outside .* 1 image was not"):
        next(frames)
    shutil.copy(tmp_path / "b.png", tmp_path / "d.png")
    with pytest.raises(IncompleteError, match=r"^b\.png: .* 2 images were not searched; the results of the others are"):
        list(reader.watch(tmp_path))
    for name in ("a.png", "c.png", "d.png"):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match=r"^b\.png: The region 100,0,100x100 is outside of the frame: name one.*it\.$"):
        next(reader.watch(tmp_path))


def test_face_below_the_threshold_is_unsure_and_keeps_its_score():
    (one, other) = edgefer.load("ferplus-small", reject=0.9999)(IMAGE)
    for face in (one, other):
        assert face.label == UNSURE and face.unsure == "low score" and face.score == max(face.scores.values()) < 0.9999


def test_unreadable_faces_depend_on_the_limits_of_the_network(reader, monkeypatch):
    assert {face.unsure for face in reader(IMAGE)} <= {"", "low score"}
    for limits, fault in (
        (Limits(min_light=250, max_light=255), "dark"),
        (Limits(min_light=0, max_light=1), "overexposed"),
        (Limits(min_sharpness=1e6), "blurred"),
    ):
        monkeypatch.setattr(reader.classifier, "card", reader.card.model_copy(update={"limits": limits}))
        assert [face.unsure for face in reader(IMAGE)] == [fault, fault]


def test_verify_from_python():
    checks = edgefer.verify("fer-nano")
    assert len(checks) >= 2 and all(check.passed for check in checks)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16"])
def test_pil_image_gives_the_same_result_as_its_file(reader, tmp_path, mode):
    pil = pytest.importorskip("PIL.Image")
    gray = pil.fromarray(IMAGE[:, :, 1])
    if mode == "I;16":
        stored = pil.fromarray(IMAGE[:, :, 1].astype(np.uint16) * 257)
    else:
        stored = gray.convert(mode)
        stored.putalpha(
            pil.fromarray(np.where(np.arange(IMAGE.shape[1]) < 250, 255, 0).astype(np.uint8)[None].repeat(360, 0))
        )
    stored.save(tmp_path / "photo.png")
    read, given = reader(tmp_path / "photo.png"), reader(pil.open(tmp_path / "photo.png"))
    assert np.array_equal(read.image_bgr, given.image_bgr) and list(read) == list(given)


def test_exif_orientation_applies_to_an_opened_pil_image_but_not_to_a_derived_one(reader, tmp_path):
    pil = pytest.importorskip("PIL.Image")
    exif = pil.Exif()
    exif[0x112] = 6
    pil.fromarray(IMAGE[:, :, ::-1]).transpose(pil.Transpose.ROTATE_90).save(tmp_path / "photo.png", exif=exif)
    opened = pil.open(tmp_path / "photo.png")
    assert np.array_equal(reader(opened).image_bgr, IMAGE)
    assert np.array_equal(reader(opened.transpose(pil.Transpose.ROTATE_270)).image_bgr, IMAGE)


def test_unreadable_pil_image_gives_a_one_sentence_error(reader, tmp_path):
    pil = pytest.importorskip("PIL.Image")
    cv2.imwrite(str(tmp_path / "photo.jpg"), IMAGE)
    (tmp_path / "photo.jpg").write_bytes((tmp_path / "photo.jpg").read_bytes()[:3000])
    closed = pil.open(tmp_path / "photo.jpg")
    closed.close()
    for image in (
        pil.open(tmp_path / "photo.jpg"),
        closed,
        pil.new("RGB", (0, 5)),
        pil.new("F", (9, 9)),
        pil.new("I", (9, 9)),
    ):
        with pytest.raises(InputError, match="The PIL image "):
            reader(image)


def test_matrix_and_bytes_path_are_accepted(reader, tmp_path):
    class Named:
        def __fspath__(self) -> bytes:
            return bytes(tmp_path / "photo.png")

    cv2.imwrite(str(tmp_path / "photo.png"), IMAGE)
    assert list(reader(Named())) == list(reader(IMAGE))
    assert list(reader(np.matrix(IMAGE[:, :, 0]))) == list(reader(IMAGE[:, :, 0]))


def test_readers_leave_no_threads():
    import gc
    import threading

    before = threading.active_count()
    for _ in range(3):
        edgefer.load("fer-nano", check=False)(IMAGE)
    gc.collect()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_pauses_of_realtime_playback_are_not_mistaken_for_a_hang(reader, tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "HANG_S", 0.3)
    writer = cv2.VideoWriter(str(tmp_path / "slow.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 1, (96, 64))
    for _ in range(3):
        writer.write(np.zeros((64, 96, 3), np.uint8))
    writer.release()
    assert [frame.time_s for frame in reader.watch(tmp_path / "slow.avi", realtime=True)] == [0, 1, 2]
    source = reader.open_sources([str(tmp_path / "slow.avi")], SourceOptions(realtime=True))
    with source as opened:
        assert loop.run(opened, reader.session(), [], overlap=True, limit_s=None).frames == 3
    with pytest.raises(EdgeferError, match="it hangs"), source as opened:
        loop.run(opened, reader.session(), [], overlap=True, limit_s=0.3)


def test_watch_takes_the_settings_of_the_command_line_by_their_names(reader):
    frames = reader.watch("builtin", loop=True, rotate=90)
    assert [next(frames).index for _ in range(130)][-1] == 129, "the scene has 120"
    assert next(frames).image_bgr.shape == (480, 360, 3)
    frames.close()
    with pytest.raises(
        InputError, match=r"There is no option 'lop': choose size, fps, mjpg, loop, .*rotate.*skip_bad, wait"
    ):
        next(reader.watch("builtin", lop=True))
    with pytest.raises(InputError, match="loop 'yes' is not right: give True or False"):
        next(reader.watch("builtin", loop="yes"))
    with pytest.raises(InputError, match="are for cameras"):
        next(reader.watch("builtin", fps=10))
