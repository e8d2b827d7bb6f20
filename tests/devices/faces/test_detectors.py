"""The detectors, the levelled crop, and the download of YuNet."""

import functools
import hashlib
import http.server
import json
import math
import threading

import cv2
import numpy as np
import pytest

from edgefer import drawn, portrait
from edgefer.bundle import Bundle, shipped_bundles
from edgefer.card import CropSpec, InputSpec
from edgefer.devices.faces import yunet
from edgefer.devices.faces.detectors import HaarDetector
from edgefer.devices.faces.yunet import YuNetDetector, fetch_yunet
from edgefer.devices.reader import detector_maker
from edgefer.errors import EdgeferError, InputError, SourceError
from edgefer.options import DetectorName, ReaderOptions
from edgefer.preprocess import crop_square, face_pixels
from edgefer.records import Detection

RNG = np.random.default_rng(0)
BOX = (60, 40, 140, 120)


# The levelled crop


@pytest.mark.parametrize("size", [(1, 10000), (5, 5000), (5000, 5), (1, 1)])
def test_no_face_is_found_in_a_very_narrow_image(size):
    assert HaarDetector().find(np.zeros((*size, 3), np.uint8)) == []


def test_zero_roll_crops_the_same_pixels():
    frame = RNG.integers(0, 256, (160, 200, 3), dtype=np.uint8)
    for box in (BOX, (-20, 100, 60, 180)):
        plain = crop_square(frame, box, CropSpec(scale=1.1))
        assert np.array_equal(crop_square(frame, box, CropSpec(scale=1.1), 0.0), plain)
        assert np.array_equal(crop_square(frame, box, CropSpec(scale=1.1), None), plain)
        # A tiny roll takes the other code path: the same pixels to within one rounding step.
        nearly = crop_square(frame, box, CropSpec(scale=1.1), 1e-6)
        assert nearly.shape == plain.shape and np.abs(nearly.astype(int) - plain).max() <= 1


def test_a_quarter_turn_is_exact():
    frame = RNG.integers(0, 256, (160, 200, 3), dtype=np.uint8)
    upright = crop_square(frame, BOX, CropSpec())
    assert np.array_equal(crop_square(frame, BOX, CropSpec(), 90.0), np.rot90(upright))


@pytest.mark.parametrize("roll_deg", [-30, -12, 12, 30])
def test_rolled_face_is_levelled(roll_deg):
    """The roll that Detection computes from the eyes undoes the roll of the image."""
    face, _ = portrait.draw_face(portrait.Person.random(np.random.default_rng(1)), "neutral", np.random.default_rng(2))
    level = cv2.copyMakeBorder(face, 64, 64, 64, 64, cv2.BORDER_CONSTANT, value=(90, 90, 90))
    middle = (level.shape[0] - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), -roll_deg, 1)  # positive is clockwise here, not in OpenCV
    rolled = cv2.warpAffine(level, turn, level.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    eyes = np.array([[middle - 27, middle - 14, 1], [middle + 27, middle - 14, 1]]) @ turn.T
    found = Detection(box_xyxy=(80, 80, 240, 240), eyes_xy=(tuple(eyes[0]), tuple(eyes[1])))
    assert found.roll_deg == pytest.approx(roll_deg)
    spec = InputSpec(height=48, width=48)
    wanted = face_pixels(level, found.box_xyxy, CropSpec(), spec).astype(int)
    levelled = np.abs(face_pixels(rolled, found.box_xyxy, CropSpec(), spec, found.roll_deg) - wanted).mean()
    left = np.abs(face_pixels(rolled, found.box_xyxy, CropSpec(), spec) - wanted).mean()
    assert levelled < 3 and levelled < left / 3


def test_roll_and_turn_of_a_face():
    assert Detection(box_xyxy=BOX).roll_deg is None and Detection(box_xyxy=BOX).turn is None
    tilted = Detection(
        box_xyxy=BOX, eyes_xy=((0, 0), (30, 30)), nose_xy=(0, 30)
    )  # the nose straight below the eyes' middle
    assert tilted.roll_deg == pytest.approx(45) and tilted.turn == pytest.approx(0)
    aside = Detection(box_xyxy=BOX, eyes_xy=((0, 0), (40, 0)), nose_xy=(36, 25))
    assert aside.turn == pytest.approx(0.4)
    moved = aside.moved(3, -2)
    assert moved.box_xyxy == (63, 38, 143, 118) and moved.eyes_xy == ((3, -2), (43, -2)) and moved.nose_xy == (39, 23)


# YuNet


class FakeNet:
    """A cv2.FaceDetectorYN that finds one face: the bright part of the square it is given."""

    def detect(self, image):
        assert image.shape == (320, 320, 3) and image.dtype == np.uint8
        ys, xs = np.nonzero(image[..., 0] > 128)
        if not len(xs):
            return 1, None
        x, y, w, h = xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1
        right, left = (x + 0.7 * w, y + 0.4 * h), (x + 0.3 * w, y + 0.3 * h)
        small = [0, 0, 8, 8, *[0] * 10, 0.8]
        face = [x, y, w, h, *right, *left, x + 0.5 * w, y + 0.6 * h, *[0] * 4, 0.9]
        return 1, np.array([small, face], np.float32)


@pytest.fixture
def fake_yunet(monkeypatch, tmp_path):
    monkeypatch.setattr(cv2, "FaceDetectorYN", type("", (), {"create": staticmethod(lambda *_: FakeNet())}))
    file = tmp_path / "yunet.onnx"
    file.write_bytes(b"network")
    return YuNetDetector(file)


@pytest.mark.parametrize(("height", "width"), [(360, 640), (640, 360), (100, 120), (2000, 1500)])
def test_yunet_returns_boxes_and_eyes_in_frame_pixels(fake_yunet, height, width):
    frame = np.zeros((height, width, 3), np.uint8)
    box = (width // 4, height // 4, width // 2, height // 2)
    frame[box[1] : box[3], box[0] : box[2]] = 255
    largest, smallest = fake_yunet.find(frame)
    pixel = max(1, height / 320, width / 320)
    assert np.abs(np.array(largest.box_xyxy) - box).max() <= 1 + pixel
    (x0, y0), (x1, y1) = largest.eyes_xy
    assert x0 < x1, "the eye further left first, whichever the network gave first"
    side_x, side_y = box[2] - box[0], box[3] - box[1]
    assert np.allclose([x0, y0], [box[0] + 0.3 * side_x, box[1] + 0.3 * side_y], atol=2 * pixel)
    assert np.allclose([x1, y1], [box[0] + 0.7 * side_x, box[1] + 0.4 * side_y], atol=2 * pixel)
    roll_deg = math.degrees(math.atan2(0.1 * side_y, 0.4 * side_x))
    assert largest.roll_deg == pytest.approx(roll_deg, abs=3) and smallest.side < largest.side
    assert fake_yunet.find(np.zeros_like(frame)) == [], "nothing remains of the previous frame"
    assert fake_yunet.detect(frame) == [largest.box_xyxy, smallest.box_xyxy]


def test_error_names_a_file_that_is_not_yunet(tmp_path):
    with pytest.raises(SourceError, match=r"There is no file .*none\.onnx"):
        YuNetDetector(tmp_path / "none.onnx")
    (tmp_path / "other.onnx").write_bytes(b"something else")
    with pytest.raises(SourceError, match=r"other\.onnx is not a YuNet"):
        YuNetDetector(tmp_path / "other.onnx")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder served on loopback, and its URL."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


CONTENT = RNG.integers(0, 256, yunet.BYTES, dtype=np.uint8).tobytes()


def test_yunet_is_downloaded_once_verified_and_stored(server, tmp_path, monkeypatch):
    folder, url = server
    (folder / "a.onnx").write_bytes(CONTENT)
    monkeypatch.setattr(yunet, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    reported = []

    def track(chunks, total, what):
        for count, chunk in enumerate(chunks, 1):
            reported.append((count, total))
            yield chunk

    target = tmp_path / "cache" / "deep" / "yunet.onnx"
    assert fetch_yunet(target, url=f"{url}/a.onnx", track=track) == target
    assert target.read_bytes() == CONTENT and [file.name for file in target.parent.iterdir()] == ["yunet.onnx"]
    assert reported[-1] == (15, 15)
    (folder / "a.onnx").unlink()
    assert fetch_yunet(target, url=f"{url}/a.onnx") == target, "the second time nothing is downloaded"
    target.write_bytes(CONTENT[:-1])
    with pytest.raises(EdgeferError, match=r"Not Found|File not found"):
        fetch_yunet(target, url=f"{url}/a.onnx")


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"!", CONTENT[:1000], CONTENT * 3, b""])
def test_download_that_is_not_yunet_is_discarded(server, tmp_path, content):
    folder, url = server
    (folder / "a.onnx").write_bytes(content)
    target = tmp_path / "cache" / "yunet.onnx"
    with pytest.raises(EdgeferError, match=r"is not YuNet .*--yunet"):
        fetch_yunet(target, url=f"{url}/a.onnx")
    assert not target.exists()


def test_offline_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(
        EdgeferError,
        match=r"could not be downloaded \(.+\): download https://.+ --yunet, or leave --detector out",
    ):
        fetch_yunet(tmp_path / "yunet.onnx", url="http://127.0.0.1:9/")


# The command line


def test_missing_crop_for_the_detector_is_logged_once():
    card = Bundle.open(shipped_bundles()["fer-small"]).card
    measured = card.model_copy(update={"crops": card.crops | {"own": CropSpec(scale=1.02, faces=200)}})
    bare = card.model_copy(update={"crops": {"haar": CropSpec(faces=200)}})
    logged = []
    make = detector_maker(ReaderOptions(detector="own"), bare, logged.append)
    assert make(DetectorName.OWN).name == make(DetectorName.OWN).name == "own"
    assert sum("was not measured with the detector own" in line for line in logged) == 1
    detector_maker(ReaderOptions(detector="own"), measured, logged.append)(DetectorName.OWN)
    assert detector_maker(ReaderOptions(), bare, logged.append)(DetectorName.HAAR).name == "haar"
    assert sum("was not measured" in line for line in logged) == 1


@pytest.fixture(scope="module")
def cat(tmp_path_factory):
    """A public-domain photograph of a cat; its ears are cut off, so the cascade does not detect it."""
    data = pytest.importorskip("skimage.data")
    file = tmp_path_factory.mktemp("cat") / "chelsea.png"
    cv2.imwrite(str(file), cv2.cvtColor(data.chelsea(), cv2.COLOR_RGB2BGR))
    return file


def test_faces_frame_reads_the_centre_without_a_detector(edgefer, cat):
    done = edgefer("run", "fer-small", "--faces", "frame", "--source", cat, "--headless", "--json")
    (face,) = json.loads(done.stdout)["faces"]
    assert face["box_xyxy"] == [75, 0, 375, 300]
    assert "was not measured" not in done.stderr


def test_centre_of_the_frame_stays_the_centre_between_full_searches(edgefer):
    done = edgefer("run", "fer-small", "builtin", "--faces", "frame", "--follow", 10, "--frames", 25, "--json")
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    assert [face["box_xyxy"] for frame in frames for face in frame["faces"]] == [[60, 0, 420, 360]] * 25


@pytest.fixture(scope="module")
def person():
    """A square of 200 pixels with a public-domain photograph of a face of about 93."""
    data = pytest.importorskip("skimage.data")
    return cv2.resize(cv2.cvtColor(data.astronaut()[20:219, 125:324], cv2.COLOR_RGB2BGR), (200, 200))


def test_haar_finds_the_smaller_faces_of_min_face(person):
    frame = np.full((1080, 1920, 3), 128, np.uint8)
    frame[400:600, 800:1000] = person
    frame[100:160, 100:160] = cv2.resize(person, (60, 60), interpolation=cv2.INTER_AREA)
    card = Bundle.open(shipped_bundles()["fer-small"]).card

    def found(min_face):
        options = ReaderOptions(detector="haar", min_face=min_face)
        return [round(face.side) for face in detector_maker(options, card)(options.detector).find(frame)]

    assert found(0) == [] and len(found(60)) == 1 and len(found(24)) == 2


def test_haar_gives_equally_large_faces_in_the_same_order(person, monkeypatch):
    found, detector = np.array([[300, 0, 60, 60], [0, 300, 60, 60], [0, 0, 60, 60], [9, 9, 90, 90]]), HaarDetector()
    orders = []
    for rows in (found, found[::-1]):
        cascade = type("Cascade", (), {"detectMultiScale": lambda *_, rows=rows, **options: rows})
        monkeypatch.setattr(detector, "_cascade", cascade())
        orders.append(detector.detect(np.zeros((400, 400, 3), np.uint8)))
    assert orders[0] == orders[1] and orders[0][0] == (9, 9, 99, 99)


def test_cats_are_detected_with_their_own_cascade(edgefer, cat):
    done = edgefer("run", "fer-small", "--faces", "cat", "--source", cat, "--headless", "--json")
    assert "not measured with the detector haar-cat" in done.stderr and "--faces frame" in done.stderr
    people = next(frame.image_bgr for frame, _ in drawn.scene(seconds=1, fps=1, size=(320, 240), people=1, seed=1))
    of_people, of_cats = HaarDetector(), HaarDetector(faces="cat")
    assert of_people.detect(people) != of_cats.detect(people)
    assert of_cats.detect(np.full_like(people, 128)) == []


def test_card_selects_the_detector_for_its_faces(tmp_path):
    card = Bundle.open(shipped_bundles()["fer-small"]).card

    def opened(card, **options):
        options = ReaderOptions(**options)
        return detector_maker(options, card)(options.detector).name

    assert opened(card, detector="haar") == "haar" and opened(card) in (
        "own",
        "yunet",
    )  # depends on whether YuNet's file is here
    of_cats = card.model_copy(update={"faces": "cat"})
    assert opened(of_cats) == "haar-cat"
    assert opened(of_cats, faces="frame") == "frame"
    for faces, detector, message in (
        ("dog", "haar", "choose human, cat, frame"),
        ("cat", "yunet", "finds human faces"),
    ):
        with pytest.raises(InputError, match=message):
            opened(card, detector=detector, faces=faces)


def test_run_refuses_invalid_detector_options(edgefer, tmp_path):
    for arguments, message in (
        (["--detector", "hog"], "is not one of"),
        (["--detector", "haar", "--yunet", tmp_path / "x.onnx"], "--yunet is for --detector yunet"),
        (["--yunet", tmp_path / "x.onnx"], "There is no file"),
        (["--detector", "yunet", "--yunet", tmp_path / "x.onnx"], "There is no file"),
        (["--faces", "cat", "--yunet", tmp_path / "x.onnx"], "--yunet is for human faces"),
        (["--faces", "frame", "--yunet", tmp_path / "x.onnx"], "leave --yunet out"),
        (["--smooth", "very"], "is not one of"),
    ):
        done = edgefer("run", "fer-small", "--source", "builtin", "--headless", *arguments, expect=2)
        assert message in done.stderr
