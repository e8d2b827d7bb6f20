"""An exported page follows the rules of `edgefer run`: detector, tracks, labels, unreadable faces."""

import base64
import html
import json
import re
import zlib
from dataclasses import replace
from itertools import chain

import cv2
import numpy as np
import pytest
import skimage.data

from edgefer import drawn
from edgefer.card import InputSpec
from edgefer.commands.page_rules import device_of
from edgefer.convert.web.questions import noise
from edgefer.convert.web.site import make_site
from edgefer.devices.faces.detectors import Detector
from edgefer.devices.faces.own import OwnDetector
from edgefer.devices.faces.quality import quality_fault
from edgefer.devices.faces.smoothing import PRESETS, LabelSmoother
from edgefer.devices.faces.tracking import Tracker
from edgefer.devices.session import Session
from edgefer.interpreter import Classifier
from edgefer.preprocess import prepare
from edgefer.records import Detection, Face, Frame
from tests.convert.pages import browse, with_script

LABELS = """
  const given = %s
  document.body.dataset.result = JSON.stringify(given.map(({ steps }) => {
    const smoother = new LabelSmoother(BUNDLE.rules.presets.off, 0, BUNDLE.rules)
    return steps.map(([preset, reject, id, time_s, scores, fault]) => {
      if (preset) smoother.change(BUNDLE.rules.presets[preset], reject)
      const { scores: shown, unsure } = smoother.settle(id, time_s, scores, fault)
      return [shown.map(score => Number(score.toFixed(9))), unsure]
    })
  }))"""


def result_of(page: str):
    """What a script left in the body's data-result, as JSON."""
    return json.loads(html.unescape(re.search(r'data-result="([^"]*)"', browse(page))[1]))


STEPS = 25


def labelled(rng) -> tuple[list[tuple], list[list]]:
    """Scores of a few faces over time, with gaps, a clock that jumps back, ties and changes of settings, and what `run`
    shows of them."""
    smoother, names, leaning = LabelSmoother(PRESETS["off"]), "abc", rng.dirichlet((1, 1, 1))
    presets = np.where(rng.random(STEPS) < 0.04, rng.choice(list(PRESETS), STEPS), "")
    presets[0] = rng.choice(list(PRESETS))
    rejects = rng.choice([0.0, 0.45, 0.9, 0.97], STEPS)
    times = np.cumsum(rng.choice([0.0, 0.03, 0.1, 0.3, 1.2, -0.5], STEPS, p=[0.1, 0.4, 0.3, 0.14, 0.04, 0.02]))
    leanings = np.array([leaning, *rng.dirichlet((0.5, 0.5, 0.5), 2)])[np.arange(1, STEPS + 1) // 9]
    scores = 0.6 * leanings + 0.4 * rng.dirichlet((1, 1, 1), STEPS)
    scores = np.where(rng.random((STEPS, 1)) < 0.5, scores.round(1), scores.round(6))
    faults, tracks = rng.choice(["", "", "", "dark"], STEPS), rng.integers(1, 3, STEPS)
    columns = (presets, rejects, tracks, times, scores, faults)
    steps, shown = list(zip(*(column.tolist() for column in columns), strict=True)), []
    for preset, reject, track, time_s, given, fault in steps:
        if preset:
            smoother.change(PRESETS[preset], reject)
        kept, unsure = smoother.settle(track, time_s, dict(zip(names, given, strict=True)), fault)
        shown.append([list(kept.values()), unsure])
    return steps, shown


@pytest.mark.chromium
def test_smoothing_and_unsure_match_run_in_2_000_sequences(site, tmp_path):
    rng = np.random.default_rng(2)
    steps, expected = zip(*(labelled(rng) for _ in range(2000)), strict=True)
    got = result_of(with_script(site, tmp_path, LABELS % json.dumps([{"steps": one} for one in steps])))
    here, there = [*chain(*expected)], [*chain(*got)]
    assert [unsure for _, unsure in there] == [unsure for _, unsure in here]
    assert np.allclose([scores for scores, _ in there], [scores for scores, _ in here], atol=2e-9)
    assert {unsure for shown in expected for _, unsure in shown} == {"", "dark", "low score"}


@pytest.mark.chromium
def test_unsure_faces_are_named_as_in_run_even_if_a_label_is_named_unsure(site, tmp_path):
    networks = [["a", "unsure"], ["a", "b"], ["(unsure)", "unsure"]]
    script = f"document.body.dataset.result = JSON.stringify({json.dumps(networks)}.map(unsureLabel))"
    faces = [Face(box_xyxy=(0, 0, 9, 9), scores=dict.fromkeys(labels, 0.5), unsure="dark") for labels in networks]
    assert result_of(with_script(site, tmp_path, script)) == [face.label for face in faces]
    assert [face.label for face in faces] == ["(unsure)", "unsure", "((unsure))"]


@pytest.mark.chromium
def test_page_starts_with_the_threshold_of_the_export(nano, tmp_path):
    """Even if it lies between the steps of the slider."""
    (tmp_path / "site").mkdir()
    for name, content in make_site(nano, device_of(nano.bundle.card, reject=0.47)).items():
        (tmp_path / "site" / name).write_bytes(content)
    script = "document.body.dataset.result = JSON.stringify(smoother.reject)"
    assert result_of(with_script(tmp_path / "site", tmp_path, script)) == 0.47


FAULTS = """
  document.body.dataset.result = JSON.stringify(%s.map(({ face, pixels, input }) =>
    qualityFault(face, Uint8Array.from(atob(pixels), letter => letter.charCodeAt(0)), input, BUNDLE.rules)))"""


@pytest.mark.chromium
def test_unreadable_faces_are_the_same_as_in_run(site, subject, tmp_path):
    """Faces of many brightness and sharpness levels, for networks of several sizes and colours."""
    rng, given, expected = np.random.default_rng(3), [], []
    for number, image in enumerate([*drawn.face_set(8, 5)[0]] * 6):
        side, color = int(rng.choice([48, 64, 96, 100])), str(rng.choice(["gray", "rgb", "bgr"]))
        light, blur = float(rng.choice([0.05, 0.3, 1, 1, 9])), float(rng.uniform(0.3, 8))
        changed = cv2.GaussianBlur(np.clip(image * light, 0, 255).astype(np.uint8), (0, 0), blur)
        spec = InputSpec(height=side, width=side, color=color)
        pixels = prepare((changed * np.array([1, 0.98, 0.95])).astype(np.uint8), spec)
        box = (0, 0, *rng.integers(20, 90, 2).tolist())
        nose = float(rng.uniform(0, 60))
        face = Detection(box_xyxy=box, eyes_xy=((0, 0), (100, 0)), nose_xy=(50 + nose, 60)) if number % 2 else None
        face = face or Detection(box_xyxy=box)
        expected.append(quality_fault(face, pixels, color, subject.bundle.card.limits))
        given.append(
            {
                "face": {"box": box, "turn": face.turn or 0},
                "pixels": base64.b64encode(pixels.tobytes()).decode(),
                "input": {"height": side, "width": side, "color": color, "channels": spec.channels},
            }
        )
    assert result_of(with_script(site, tmp_path, FAULTS % json.dumps(given))) == expected
    assert set(expected) == {"", "small", "dark", "overexposed", "blurred", "turned away"}


FACES = """
  const given = %s, out = []
  Engine.start(BUNDLE).then(async engine => {
    for (const { pixels, height, width } of given)
      out.push(engine.detector.find(engine.take({ pixels: await unpack(pixels), height, width, format: 'bgr' })))
    document.body.dataset.result = JSON.stringify(out)
  })"""


@pytest.mark.chromium
def test_page_finds_the_same_faces_as_the_own_detector(site, tmp_path):
    """On a photograph at several sizes and tilts, and on drawn people; with the runtime that is installed here."""
    photo = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)
    turned = cv2.warpAffine(photo, cv2.getRotationMatrix2D((256, 256), 25, 1.0), (512, 400))
    small, tall = cv2.resize(photo, (150, 150), interpolation=cv2.INTER_AREA), cv2.resize(photo, (700, 1000))
    crowd = next(iter(drawn.scene(seconds=1, fps=1, size=(640, 360), people=3, seed=8)))[0].image_bgr
    frames = [photo, turned, small, tall, crowd, photo[:, 120:300], np.zeros((90, 100, 3), np.uint8)]
    given = [
        {
            "pixels": base64.b64encode(zlib.compress(np.ascontiguousarray(frame).tobytes())).decode(),
            "height": frame.shape[0],
            "width": frame.shape[1],
        }
        for frame in frames
    ]
    detector = OwnDetector.shipped()
    expected = [detector.find(frame) for frame in frames]
    got = result_of(with_script(site, tmp_path, FACES % json.dumps(given)))
    assert [[tuple(face["box"]) for face in found] for found in got] == [
        [face.box_xyxy for face in found] for found in expected
    ]
    for here, there in zip(chain(*got), chain(*expected), strict=True):
        result = here["score"], here["rollDeg"], here["turn"]
        assert result == pytest.approx((there.score, there.roll_deg, there.turn), abs=1e-6)
    assert [len(found) for found in expected][:4] == [1, 1, 1, 1] and len(expected[4]) >= 2 and not expected[6]


TRACKS = """
  const given = %s
  // As composed() makes it.
  function compose({ height, width, number, people }) {
    const made = noise(4 * number, height, width, 3), pixels = new Uint8Array(4 * height * width).fill(255)
    for (const [texture, size, left, top] of people) {
      const face = noise(texture, size, size, 3)
      for (let y = Math.max(0, top); y < Math.min(height, top + size); y++)
        for (let x = Math.max(0, left); x < Math.min(width, left + size); x++)
          for (let c = 0; c < 3; c++) made[3 * (y * width + x) + c] = face[3 * ((y - top) * size + x - left) + c]
    }
    for (let at = 0; at < height * width; at++) for (let c = 0; c < 3; c++) pixels[4 * at + c] = made[3 * at + 2 - c]
    return { pixels, height, width }
  }
  document.body.dataset.result = JSON.stringify(given.map(steps => {
    const tracker = new Tracker(BUNDLE.rules)
    return steps.map(([faces, time_s, frame]) => tracker.follow(faces, time_s, compose(frame)).map(face => [face.id, face.box, face.rollDeg]))
  }))"""


class Scripted(Detector):
    """A detector that returns scripted faces."""

    name, min_new_score = "scripted", OwnDetector.min_new_score

    def __init__(self, steps):
        self.steps = iter(steps)

    def find(self, image_bgr, near=None):
        return next(self.steps)


def composed(frame: dict) -> np.ndarray:
    """uint8 BGR [h, w, 3]: faces in front of a background, both of generated noise."""
    height, width = frame["height"], frame["width"]
    image = noise(4 * frame["number"], height, width, 3).copy()
    for texture, size, left, top in frame["people"]:
        x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + size), min(height, top + size)
        image[y0:y1, x0:x1] = noise(texture, size, size, 3)[y0 - top : y1 - top, x0 - left : x1 - left]
    return image


def tracked(rng) -> list[tuple[list[Detection], float, dict]]:
    """A detector's output for up to three moving faces, some fast, in frames with gaps: it misses one in four, finds
    some false ones, and some are covered. (detections, time, frame) of each."""
    height, width = (int(side) for side in rng.integers(90, 160, 2))
    people = [
        {
            "texture": 4 * int(rng.integers(1, 200)) + int(rng.choice([1, 2])),
            "size": int(rng.integers(16, 80)),
            "at": rng.uniform(0, 60, 2),
            "speed": rng.normal(0, float(rng.choice([0.5, 3, 12])), 2),
        }
        for _ in range(int(rng.integers(1, 4)))
    ]
    steps, time_s, number = [], 0.0, int(rng.integers(200))
    for _ in range(16):
        time_s += float(rng.choice([0.03, 0.06, 0.1, 0.2, 0.5, 1.3], p=[0.5, 0.25, 0.15, 0.05, 0.03, 0.02]))
        faces, seen = [], []
        for one in people:
            size, limit = one["size"], np.array([width, height]) - one["size"] / 2
            one["at"] = np.clip(one["at"] + one["speed"], -one["size"] / 2, limit)
            left, top = (round(place) for place in one["at"])
            if rng.random() > 0.05:
                seen.append((one["texture"], size, left, top))
            if rng.random() > 0.25:
                x, y = left + int(rng.integers(-1, 2)), top + int(rng.integers(-1, 2))
                faces.append((x, y, x + size, y + size, rng.uniform(0.6, 1)))
        if rng.random() < 0.1:
            x, y = (int(place) for place in rng.integers(0, 80, 2))
            faces.append((x, y, x + 40, y + 44, 0.65))
        found = [
            Detection(box_xyxy=box, score=score, roll_deg=rng.uniform(-180, 180)) for *box, score in map(list, faces)
        ]
        found = [replace(face, box_xyxy=tuple(face.box_xyxy)) for face in found]
        steps.append((found, time_s, {"height": height, "width": width, "number": number, "people": seen}))
    return steps


def entering() -> list[tuple[list[Detection], float, dict]]:
    """A face that comes in over the left border, is found once, and then stands still; as tracked()."""
    frame = {"height": 120, "width": 160, "number": 3}
    found = [Detection(box_xyxy=(-24, 30, 40, 94), roll_deg=0.0)]
    return [
        ([] if number else found, number / 30, {**frame, "people": [(402, 64, left, 30)]})
        for number, left in enumerate([-24, -16, -16])
    ]


@pytest.mark.chromium
def test_ids_boxes_and_roll_match_run(site, tmp_path):
    """Also over frames in which faces are not detected but tracked by their pixels."""
    rng = np.random.default_rng(6)
    runs, expected, followed = [tracked(rng) for _ in range(80)], [], 0
    runs += [[(found, 20 * at, frame) for found, at, frame in steps] for steps in runs[:20]]  # about a frame in 2 s
    runs.append(entering())
    for steps in runs:
        tracker = Tracker(Scripted([found for found, _, _ in steps]))
        shown = [tracker.follow(Frame(index=0, image_bgr=composed(frame), time_s=at)) for _, at, frame in steps]
        boxes = [{face.box_xyxy for face in found} for found, _, _ in steps]
        followed += sum(face.box_xyxy not in found for faces, found in zip(shown, boxes, strict=True) for face in faces)
        expected.append(shown)
    given = [
        [
            [
                [{"box": f.box_xyxy, "score": f.score, "rollDeg": f.roll_deg, "turn": 0} for f in found],
                time_s,
                frame,
            ]
            for found, time_s, frame in steps
        ]
        for steps in runs
    ]
    got = result_of(with_script(site, tmp_path, TRACKS % json.dumps(given)))
    assert followed > 150
    assert [[face.box_xyxy[0] for face in shown] for shown in expected[-1]] == [[-24], [-16], [-16]]
    for number, (there, here) in enumerate(zip(got, expected, strict=True)):
        assert [[(one[0], tuple(one[1])) for one in shown] for shown in there] == [
            [(face.id, face.box_xyxy) for face in shown] for shown in here
        ], number
        for shown, faces in zip(there, here, strict=True):
            assert [one[2] for one in shown] == pytest.approx([face.roll_deg for face in faces], abs=1e-9)


VIDEO = """
  const given = %s
  Engine.start(BUNDLE).then(async started => {
    engine = started
    const shown = []
    for (const { pixels, height, width, time_s } of given)
      shown.push(look({ pixels: await unpack(pixels), height, width, format: 'rgba' }, time_s))
    document.body.dataset.result = JSON.stringify(shown)
  })"""


@pytest.mark.chromium
def test_video_gives_the_same_results_as_run(site, tmp_path, subject):
    """From frame to label: moving people, a face that is covered for a moment, and one dark frame."""
    frames = [frame.image_bgr for frame, _ in drawn.scene(seconds=2, fps=15, size=(320, 240), people=2, seed=8)]
    boxes = [face.box_xyxy for face in OwnDetector.shipped().find(frames[10])]
    for number in (10, 11, 20):
        x0, y0, x1, y1 = boxes[0]
        frames[number] = frames[number].copy()
        frames[number][(y0 + y1) // 2 : y1, x0:x1] = 90  # a hand in front of the mouth
    frames[15] = frames[15] // 30
    classifier = Classifier.load(subject.bundle)
    session = Session(classifier, OwnDetector.shipped(), smooth=PRESETS["responsive"], reject=0.45)
    times = [number / 15 for number in range(len(frames))]
    expected = [
        session.read(session.detect(Frame(index=number, image_bgr=frame, time_s=at)))
        for number, (frame, at) in enumerate(zip(frames, times, strict=True))
    ]
    given = [
        {
            "pixels": base64.b64encode(zlib.compress(cv2.cvtColor(frame, cv2.COLOR_BGR2RGBA).tobytes())).decode(),
            "height": frame.shape[0],
            "width": frame.shape[1],
            "time_s": at,
        }
        for frame, at in zip(frames, times, strict=True)
    ]
    got = result_of(with_script(site, tmp_path, VIDEO % json.dumps(given)))
    for here, there in zip(expected, got, strict=True):
        assert [(face["id"], tuple(face["box"]), face["unsure"]) for face in there] == [
            (face.id, face.box_xyxy, face.unsure) for face in here
        ]
        for face, shown in zip(here, there, strict=True):
            assert list(face.scores.values()) == pytest.approx(shown["scores"], abs=1e-6)
    found = [len(OwnDetector.shipped().find(frame)) for frame in frames]
    assert any(len(here) > seen for here, seen in zip(expected, found, strict=True)), "one is tracked by its pixels"
    assert max(found) == 2
