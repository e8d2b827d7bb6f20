"""edgefer's own detector: what it finds, how it crops, and which detector is chosen by default."""

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from skimage import data

from edgefer import drawn
from edgefer.bundle import FACE_NETWORKS, Bundle, shipped_bundles, shipped_networks
from edgefer.card import CropSpec
from edgefer.checks import Status
from edgefer.devices import loop
from edgefer.devices.bench import run_bench, to_markdown
from edgefer.devices.faces import choice
from edgefer.devices.faces import own as own_module
from edgefer.devices.faces.canvas import shrunk
from edgefer.devices.faces.detectors import Detector, HaarDetector
from edgefer.devices.faces.own import OwnDetector, RefinedDetector, Refiner, Square, cut, square_around
from edgefer.devices.outputs.csvfile import Csv
from edgefer.devices.outputs.lines import JsonLines
from edgefer.devices.outputs.mqtt import state_of
from edgefer.devices.outputs.prometheus import StatsCollector
from edgefer.devices.outputs.settings import LiveSettings, RunSettings
from edgefer.devices.outputs.sink import Sink
from edgefer.devices.outputs.stats import RunStats
from edgefer.devices.reader import Reader, detector_maker
from edgefer.devices.session import Session
from edgefer.errors import BundleError, InputError, SourceError
from edgefer.interpreter import Classifier
from edgefer.options import DetectorFiles, DetectorName, ReaderOptions
from edgefer.parity import check_pixels
from edgefer.records import Detection, Frame
from edgefer.vectors import Vectors

ASTRONAUT = (179, 60, 270, 178)  # where her face is, of 512x512, by YuNet


@pytest.fixture(scope="module")
def astronaut():
    return cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR)


@pytest.fixture(scope="module")
def own():
    return OwnDetector.shipped()


def overlap(one, other):
    width, height = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    both = max(0, width) * max(0, height)
    return both / ((one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - both)


def turned(image, angle_deg):
    """Clockwise about the middle of the astronaut's face."""
    centre = ((ASTRONAUT[0] + ASTRONAUT[2]) / 2, (ASTRONAUT[1] + ASTRONAUT[3]) / 2)
    matrix = cv2.getRotationMatrix2D(centre, -angle_deg, 1)
    return cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def test_shipped_pair_is_small_and_cannot_be_used_as_a_classifier():
    assert sum(Bundle.open(shipped_networks()[name]).card.variants["int8"].bytes for name in FACE_NETWORKS) <= 400_000
    assert not set(FACE_NETWORKS) & set(shipped_bundles()), "they are not classifiers"
    with pytest.raises(BundleError, match="detects faces and does not classify them"):
        Classifier.load(Bundle.open(shipped_networks()["face-refiner"]))


@pytest.mark.parametrize("scale", [0.35, 0.5, 1.0, 2.0])
def test_face_is_found_once_at_every_image_size(own, astronaut, scale):
    image = cv2.resize(
        astronaut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    (face,) = own.find(image)
    assert overlap(face.box_xyxy, np.array(ASTRONAUT) * scale) > 0.6
    (x0, y0), (x1, y1) = face.eyes_xy
    assert x0 < face.nose_xy[0] < x1 and max(y0, y1) < face.nose_xy[1]
    assert own.detect(image) == [face.box_xyxy]


@pytest.mark.parametrize("angle_deg", [-25, -12, 12, 25])
def test_roll_follows_the_head(own, astronaut, angle_deg):
    (level,), (face,) = own.find(astronaut), own.find(turned(astronaut, angle_deg))
    assert face.roll_deg - level.roll_deg == pytest.approx(angle_deg, abs=7)


@pytest.mark.parametrize(("angle_deg", "again"), [(0, False), (30, True)])
def test_only_a_tilted_face_is_refined_again_where_it_was_found(astronaut, monkeypatch, angle_deg, again):
    detector, looked, image = OwnDetector.shipped(), [], turned(astronaut, angle_deg)
    refine = detector._refiner.refine
    monkeypatch.setattr(detector._refiner, "refine", lambda image, box: looked.append(box) or refine(image, box))
    (face,) = detector.find(image)
    assert not again or overlap(looked[-1], face.box_xyxy) > 0.8
    refined = len(looked)
    monkeypatch.setattr(own_module, "MAX_ROLL_DEG", 180.0)
    detector.find(image)
    assert (refined > len(looked) - refined) == again


def test_small_face_in_a_large_frame_is_found_with_min_face(own, astronaut):
    frame = np.full((1080, 1920, 3), 90, np.uint8)
    small = cv2.resize(astronaut, None, fx=0.42, fy=0.42, interpolation=cv2.INTER_AREA)  # her face: 44 pixels
    frame[500 : 500 + small.shape[0], 1200 : 1200 + small.shape[1]] = small
    (face,) = OwnDetector.shipped(min_face=40).find(frame)
    assert overlap(face.box_xyxy, np.array(ASTRONAUT) * 0.42 + [1200, 500, 1200, 500]) > 0.5
    sides = {least: OwnDetector.shipped(min_face=least).sides(frame.shape) for least in (0, 250, 160, 40)}
    assert sides == {0: [160], 250: [160], 160: [192], 40: [160, 768]}, "one canvas, up to the size of the training's"


def test_small_drawn_face_in_full_hd_is_found_with_min_face():
    frame = np.repeat(np.tile(np.linspace(60, 190, 1920).astype(np.uint8), (1080, 1))[..., None], 3, axis=2)
    small, truths = next(iter(drawn.scene(0.1, size=(160, 98), people=1)))
    frame[300:398, 1300:1460] = small.image_bgr
    box = truths[0].box_xyxy
    assert 40 <= box[2] - box[0] <= 48, "pixels: 2.3% of the frame's width"
    plain, asked = (
        Reader.open(
            Bundle.open(shipped_bundles()["fer-small"]), ReaderOptions(detector="own", min_face=least, reject=0.0)
        )
        for least in (0, 24)
    )
    assert len(plain(frame)) == 0
    (face,) = asked(frame)
    assert overlap(face.box_xyxy, np.add(box, [1300, 300, 1300, 300])) > 0.5


def test_every_face_of_a_large_group_is_found(astronaut):
    left, top, right, bottom = ASTRONAUT
    person = cv2.resize(astronaut[top - 40 : bottom + 40, left - 40 : right + 40], (192, 192))
    assert len(OwnDetector.shipped(min_face=40).find(np.tile(person, (5, 10, 1)))) == 50


def test_skipping_low_score_candidates_does_not_change_the_faces(astronaut, monkeypatch):
    detector = OwnDetector.shipped(min_face=12)
    asked: list[int] = []
    refine = detector._refiner.refine
    monkeypatch.setattr(detector._refiner, "refine", lambda image, box: asked.append(1) or refine(image, box))
    images = [astronaut, *(picture()[..., ::-1].copy() for picture in (data.chelsea, data.coffee, data.rocket))]
    faces = [detector.find(image) for image in images]
    skipping = sum(asked)
    asked.clear()
    monkeypatch.setattr(own_module, "min_candidate_score", lambda min_score: own_module.MIN_CANDIDATE_SCORE)
    assert [detector.find(image) for image in images] == faces
    assert skipping < sum(asked)


def test_a_face_too_large_for_the_fine_canvas_is_found_on_the_coarse_one(astronaut):
    large = cv2.resize(astronaut[40:220, 130:320], (950, 900))
    faces = OwnDetector.shipped(min_face=20).find(large)
    assert any(face.side > 350 for face in faces)


@pytest.mark.parametrize(
    "image", [np.zeros((240, 320, 3)), np.full((1, 900, 3), 128), np.full((900, 1, 3), 200), np.zeros((1, 1, 3))]
)
def test_no_face_is_found_in_a_uniform_image(own, image):
    assert own.find(image.astype(np.uint8)) == []


def test_crop_beyond_the_frame_repeats_the_border():
    frame = np.full((100, 100, 3), 200, np.uint8)
    for square in (
        Square(-40, -40, 80, 1), Square(185, 35, 30, 1), Square(-505, -505, 10, 1), Square(-450, -450, 1000, 10)
    ):  # fmt: skip
        crop = cut(frame, square)
        assert crop.shape == (48, 48, 1) and (crop == 200).all()


def test_refiner_crop_is_the_requested_square():
    ramp = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
    frame = np.repeat(ramp[..., None], 3, 2)
    square = square_around(np.array([85.0, 85.0, 115.0, 115.0]))
    assert square == Square(76, 76, 48, 1)
    assert (cut(frame, square)[24, :, 0] == np.arange(76, 124)).all(), "at its own size, pixels are unchanged"
    wide = square_around(np.array([55.0, 55.0, 145.0, 145.0]))
    assert wide == Square(28, 28, 144, 1)
    shown = cut(frame, wide)[24, :, 0].astype(float)
    assert abs(shown - (29 + 3 * np.arange(48))).max() <= 1, "a larger one is shrunk about its centre"
    assert square_around(np.array([0.0, 0.0, 305.0, 300.0])).side % 5 == 0, (
        "of a large one, only every few rows are read"
    )


@pytest.mark.parametrize("channels", [(), (3,)])
def test_refiner_crop_equals_a_shrunk_strided_gray_crop(channels):
    rng = np.random.default_rng(5)
    frame = rng.integers(0, 256, (210, 330, *channels), dtype=np.uint8)
    gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if channels else frame
    for left, top, side, step in rng.integers((-300, -200, 10, 1), (400, 300, 60, 6), (200, 4)).tolist():
        square = Square(left, top, side * step, step)
        reach = np.arange(side) * step + step // 2
        seen = gray[np.clip(top + reach, 0, 209)][:, np.clip(left + reach, 0, 329)]
        assert np.array_equal(cut(frame, square)[..., 0], shrunk(seen, (48, 48)))


class Claims(Detector):
    """A detector that returns fixed faces."""

    name = "claims"

    def __init__(self, *faces):
        self.faces = list(faces)

    def find(self, image_bgr, near=None):
        return self.faces


def test_refiner_adds_roll_and_drops_false_faces_of_another_detector(astronaut):
    face = Detection(box_xyxy=ASTRONAUT, score=0.95, eyes_xy=((204, 105), (246, 105)), nose_xy=(222, 128))
    ghost = Detection(box_xyxy=(380, 380, 460, 470), score=0.75)
    (kept,) = RefinedDetector(Claims(face, ghost), Refiner.of()).find(turned(astronaut, 20))
    assert kept.box_xyxy == face.box_xyxy and abs(kept.roll_deg - 20) < 10


def test_faces_dropped_by_the_refiner_appear_in_no_output(astronaut, tmp_path):
    face = Detection(box_xyxy=ASTRONAUT, score=0.95)
    ghost = Detection(box_xyxy=(380, 380, 460, 470), score=0.75)
    detector = RefinedDetector(Claims(face, ghost), Refiner.of())
    classifier = Classifier.load(Bundle.open(shipped_bundles()["fer-small"]))
    frames = [Frame(index=number, time_s=number / 15, image_bgr=astronaut) for number in range(3)]
    lines, stats = io.StringIO(), RunStats()

    class Last(Sink):
        def write(self, frame):
            self.frame = frame

    last = Last()
    csv = Csv(tmp_path / "out.csv", tuple(classifier.card.labels))
    loop.run(frames, Session(classifier, detector), [JsonLines(lines), csv, last], stats=stats, overlap=False)
    boxes = [[one["box_xyxy"] for one in json.loads(line)["faces"]] for line in lines.getvalue().splitlines()]
    assert boxes == [[list(ASTRONAUT)]] * 3
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + 3
    assert state_of(last.frame)["count"] == 1 and stats.faces == 3
    registry = CollectorRegistry()
    registry.register(StatsCollector(stats, tuple(classifier.card.labels), {}, lambda: 0))
    metrics = generate_latest(registry).decode()
    assert sum(float(line.split()[-1]) for line in metrics.splitlines() if line.startswith("edgefer_faces_total{")) == 3


# Which detector


def test_without_a_yunet_file_own_is_chosen_and_nothing_is_downloaded(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(choice, "fetch_yunet", lambda to: pytest.fail("nothing may be downloaded"))
    chosen = choice.automatic()
    assert chosen.detector.name == "own" and "--detector yunet, a download, finds more small ones" in chosen.reason


def test_unreadable_cache_counts_as_having_no_yunet(monkeypatch, tmp_path):
    """As for a service whose user may not read its home; a name that is too long fails for root as well."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ("x" * 300)))
    assert choice.automatic().detector.name == "own"


def test_a_user_without_a_home_gets_the_own_detector(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert choice.automatic().detector.name == "own"


def test_bad_cached_yunet_falls_back_to_own_and_a_bad_named_one_is_refused(monkeypatch, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    monkeypatch.setattr(choice, "cached_yunet", lambda: tmp_path / "bad.onnx")
    chosen = choice.automatic()
    assert chosen.detector.name == "own" and "bad.onnx" in chosen.reason
    with pytest.raises(SourceError, match=r"bad\.onnx"):
        choice.automatic(DetectorFiles(yunet=tmp_path / "bad.onnx"))
    with pytest.raises(SourceError, match="There is no file"):
        choice.automatic(DetectorFiles(yunet=tmp_path / "none.onnx"))


def test_detector_choice_is_logged_once_and_cats_keep_their_cascade(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    card, logged = Bundle.open(shipped_bundles()["fer-small"]).card, []
    make = detector_maker(ReaderOptions(), card, logged.append)
    assert make(DetectorName.AUTO).name == make(DetectorName.AUTO).name == "own"
    assert len(logged) == 1 and "own detector" in logged[0] and len(logged[0]) <= 100, "one line of a terminal"
    reader = Reader.open(Bundle.open(shipped_bundles()["fer-small"]), ReaderOptions())
    assert reader.reasons == {"auto": logged[0]}
    settings = RunSettings(smooth="off", reject=0.0, detector="auto")
    live = LiveSettings(settings, smooths=("off",), detectors=("auto", "own"), reasons=reader.reasons)
    assert live.to_json()["detector_reason"] == logged[0], "the page shows it"
    live.change({"detector": "own"})
    assert live.to_json()["detector_reason"] == "", "no reason is known for a detector that was not opened"
    result = run_bench(reader, minutes=0.1 / 60, warm_up=1)
    assert result.detector_reason == logged[0] and f"| detector | {reader.detector.described} |" in to_markdown(result)
    assert "face-finder " in result.detector and "face-refiner " in result.detector, "with their hashes"
    assert isinstance(detector_maker(ReaderOptions(faces="cat"), card)(DetectorName.AUTO), HaarDetector)
    with pytest.raises(InputError, match="finds human faces"):
        detector_maker(ReaderOptions(faces="cat"), card)(DetectorName.OWN)


def test_crop_of_own_falls_back_to_that_of_its_teacher():
    card = Bundle.open(shipped_bundles()["fer-small"]).card
    older = card.model_copy(update={"crops": {"yunet": CropSpec(scale=1.3, faces=200)}})
    assert older.crop_for("own").scale == 1.3 and older.crop_for("nothing") == CropSpec()
    assert card.crop_for("own") == card.crops["own"] != card.crop_for("yunet")


@pytest.mark.parametrize("name", ["fer-nano", "fer-small", "ferplus-small"])
def test_shipped_cards_hold_a_crop_for_every_face_detector_and_pass_the_pixel_check(name):
    bundle = Bundle.open(shipped_bundles()[name])
    crops = bundle.card.crops
    assert {"haar", "yunet", "own"} <= set(crops) and all(crop.faces >= 60 for crop in crops.values())
    assert crops["own"].scale == pytest.approx(crops["yunet"].scale, abs=0.1), "its boxes are like its teacher's"
    assert {check.status for check in check_pixels(bundle, Vectors.load(bundle))} == {Status.PASS}
