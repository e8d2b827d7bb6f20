"""Faces keep their ids: between detections, when the detector misses them, side by side, and no longer than they should."""

import io
import json
import math
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from edgefer import drawn
from edgefer.bundle import Bundle, shipped_bundles
from edgefer.card import NOT_FITTED
from edgefer.devices import loop
from edgefer.devices.faces.detectors import Detector, HaarDetector, RegionDetector, WrappingDetector
from edgefer.devices.faces.own import OwnDetector
from edgefer.devices.faces.smoothing import PRESETS
from edgefer.devices.faces.tracking import FORGET_S, Pace, Tracker, overlap
from edgefer.devices.outputs.lines import JsonLines
from edgefer.devices.outputs.overlay import draw
from edgefer.devices.reader import Reader
from edgefer.devices.session import Session
from edgefer.devices.watchdogs import WatchedDetector
from edgefer.errors import InputError
from edgefer.interpreter import Classifier
from edgefer.options import ReaderOptions
from edgefer.records import Detection, Face, Frame

BLANK = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
ONE, OTHER = (40, 60, 120, 140), (200, 60, 280, 140)


class Script(Detector):
    """A detector that returns scripted boxes, frame by frame."""

    name = "haar"

    def __init__(self, *frames):
        self.frames, self.calls = list(frames), 0

    def find(self, image_bgr, near=None):
        self.calls += 1
        return [Detection(box_xyxy=box) for box in self.frames.pop(0)]


def ids(tracker, times_s):
    return [
        [face.id for face in tracker.follow(Frame(index=i, time_s=t, image_bgr=BLANK))] for i, t in enumerate(times_s)
    ]


def shipped():
    return Classifier.load(Bundle.open(shipped_bundles()["fer-small"]))


def at(count, fps=15.0):
    return [index / fps for index in range(count)]


def test_one_frame_false_alarm_is_hidden_and_a_new_face_appears_in_its_second_frame():
    tracker = Tracker(Script([ONE], [ONE, OTHER], [ONE], [ONE, OTHER], [ONE, OTHER], [ONE, OTHER]))
    assert ids(tracker, at(6)) == [[1], [1], [1], [1], [1, 3], [1, 3]]


def test_low_score_face_is_shown_only_in_the_first_frame_until_it_scored_high_once():
    class Scored(Script):
        min_new_score = 0.7

        def find(self, image_bgr, near=None):
            self.calls += 1
            return [Detection(box_xyxy=box, score=score) for box, score in self.frames.pop(0)]

    doubted = [[(ONE, 0.65)] for _ in range(4)]
    assert ids(Tracker(Scored(*doubted)), at(4)) == [[1], [], [], []]
    once = [[(ONE, 0.65)], [(ONE, 0.65)], [(ONE, 0.71)], [(ONE, 0.61)], [(ONE, 0.6)]]
    detector = Scored(*once)
    tracker = Tracker(WatchedDetector(lambda: detector))
    assert ids(tracker, at(5)) == [[1], [], [1], [1], [1]], "through the watchdog too"


def test_short_detector_misses_are_bridged_and_long_ones_are_not():
    tracker = Tracker(Script([ONE], [ONE], [], [], [ONE], [], [], [], []))
    assert ids(tracker, at(9)) == [[1], [1], [1], [1], [1], [1], [1], [], []]


def test_face_found_again_within_a_second_keeps_its_id_even_if_it_moved():
    moved = tuple(edge + 50 for edge in ONE)
    tracker = Tracker(Script([ONE], *[[]] * 10, [moved]))
    assert ids(tracker, at(12))[-1] == [1]
    tracker = Tracker(Script([ONE], *[[]] * 20, [ONE], [ONE]))
    assert ids(tracker, at(23))[-2:] == [[], [2]]
    tracker = Tracker(Script([ONE], *[[]] * 10, [OTHER], [OTHER]))
    assert ids(tracker, at(13))[-2:] == [[], [2]], "a face elsewhere is another one"


def test_gap_or_jump_back_in_time_gives_new_ids():
    tracker = Tracker(Script([ONE], [ONE], [ONE]))
    assert ids(tracker, [0.0, FORGET_S, 0.5]) == [[1], [2], [3]]


@pytest.mark.parametrize("apart_s", [1.5, 10.0, 600.0])
def test_face_keeps_its_id_in_a_source_whose_frames_are_far_apart(apart_s):
    times_s = [number * apart_s for number in range(7)]
    tracker = Tracker(Script([ONE], [ONE], [ONE], [], [ONE], [ONE, OTHER], [ONE]))
    assert ids(tracker, times_s) == [[1], [2], [2], [], [2], [2, 3], [2]], "known after two frames; a new face at once"
    tracker = Tracker(Script(*[[ONE]] * 3, [], [], [], [ONE]))
    assert ids(tracker, times_s) == [[1], [2], [2], [], [], [], [3]]


def test_one_pause_does_not_make_a_source_slow():
    tracker = Tracker(Script(*[[ONE]] * 6))
    assert ids(tracker, [0.0, 0.1, 0.2, 9.0, 9.1, 12.0]) == [[1], [1], [1], [2], [2], [3]]


def test_faces_of_images_a_second_apart_have_ids_of_their_own():
    tracker = Tracker(Script(*[[ONE]] * 4))
    frames = [Frame(index=i, time_s=float(i), image_bgr=BLANK, source=f"{i}.jpg") for i in range(4)]
    assert [[face.id for face in tracker.follow(frame)] for frame in frames] == [[1], [2], [3], [4]]


def test_two_faces_that_come_close_keep_their_ids():
    def pair(step):
        return [(40 + 8 * step, 60, 120 + 8 * step, 140), (280 - 8 * step, 60, 360 - 8 * step, 140)]

    steps = [*range(10), *range(9, -1, -1)]
    script = Script(*[pair(step)[:: 1 - 2 * (step % 2)] for step in steps])  # found in either order
    tracker = Tracker(script)
    for index, step in enumerate(steps):
        faces = tracker.follow(Frame(index=index, time_s=index / 15, image_bgr=np.zeros((240, 400, 3), np.uint8)))
        by_id = {face.id: face.box_xyxy for face in faces}
        assert [by_id[1], by_id[2]] == pair(step)


@pytest.mark.parametrize("every", [2, 4])
def test_between_detections_the_boxes_follow_the_faces(every, monkeypatch):
    """The boxes stay close to the truth, with the same two ids throughout."""
    monkeypatch.setattr(Pace, "apart", every)
    detector = HaarDetector(width=240)
    calls = []
    monkeypatch.setattr(detector, "find", lambda image, find=detector.find: calls.append(1) or find(image))
    tracker = Tracker(detector)
    off = []
    for frame, truths in drawn.scene(seconds=3):
        faces = tracker.follow(frame)
        assert sorted(face.id for face in faces) == [1, 2]
        for truth in truths:
            x, y = middle(truth.box_xyxy)
            off += [min(math.dist((x, y), middle(face.box_xyxy)) / face.side for face in faces)]
    assert len(calls) < 45 / every + 6
    assert np.percentile(off, 95) < 0.13


def middle(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def test_face_that_leaves_between_detections_is_dropped(monkeypatch):
    monkeypatch.setattr(Pace, "apart", 7)
    frames = [frame for frame, _ in drawn.scene(seconds=0.2, people=1)]
    tracker = Tracker(HaarDetector(width=240))
    assert [len(tracker.follow(frame)) for frame in frames] == [1] * len(frames)
    wall = Frame(
        index=9, time_s=0.3, image_bgr=np.random.default_rng(1).integers(0, 256, (360, 480, 3), dtype=np.uint8)
    )
    assert tracker.follow(wall) == []


@pytest.mark.parametrize("axis", [0, 1])
def test_face_entering_at_the_border_is_tracked_by_its_visible_part(axis):
    """Also once its box is whole in the frame, and while it stands still."""
    face = cv2.GaussianBlur(np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8), (0, 0), 3)
    face = cv2.normalize(face, None, 0, 255, cv2.NORM_MINMAX)
    tracker = Tracker(Script([(-24, 60, 40, 124) if axis == 0 else (60, -24, 124, 40)]), follow=99)
    for index, edge in enumerate([-24, -16, -16, -16, -8, 0, 8, 16, 24, 24, 24]):
        image = np.full((200, 300, 3), 90, np.uint8)
        image[60:124, max(0, edge) : edge + 64] = face[:, max(0, -edge) :]
        image = image if axis == 0 else np.ascontiguousarray(image.transpose(1, 0, 2))
        (shown,) = tracker.follow(Frame(index=index, time_s=index / 30, image_bgr=image))
        assert shown.box_xyxy[axis] == pytest.approx(edge, abs=3)


def test_roll_is_smoothed():
    def eyes(roll_deg):
        dx, dy = 20 * math.cos(math.radians(roll_deg)), 20 * math.sin(math.radians(roll_deg))
        return Detection(box_xyxy=ONE, eyes_xy=((80 - dx, 90 - dy), (80 + dx, 90 + dy)))

    detector = Script()
    rolls = iter([10, 14, 10, 6] * 10)
    detector.find = lambda image: [eyes(next(rolls))]
    tracker = Tracker(detector)
    seen = [tracker.follow(Frame(index=i, time_s=i / 15, image_bgr=BLANK))[0].roll_deg for i in range(40)]
    assert seen[0] == pytest.approx(10)
    assert np.ptp(seen[8:]) < 4 and np.mean(seen[8:]) == pytest.approx(10, abs=0.3), "out of 8 degrees of jitter"


@pytest.mark.parametrize(
    ("detect_ms", "rest_ms", "target_fps", "apart"),
    [
        (40, 3, None, 1),
        (40, 3, 15, 1),
        (40, 3, 30, 2),
        (100, 3, 15, 2),
        (100, 20, 30, 9),
        (500, 100, 15, 4),
        (350, 20, 5, 2),
    ],
)
def test_detection_interval_follows_the_target_frame_rate(detect_ms, rest_ms, target_fps, apart):
    pace = Pace(target_fps)
    for _ in range(50):
        pace.detected(detect_ms / 1000)
        pace.rest(rest_ms / 1000)
    pace.followed(0.001)
    assert pace.apart == apart
    if target_fps and rest_ms < 50:
        assert (detect_ms / apart + 1 + rest_ms) / 1000 <= 1.1 / target_fps, "and so the rate is kept"


def test_overlap():
    assert overlap(ONE, ONE) == 1 and overlap(ONE, OTHER) == 0
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)


def test_the_loop_detects_less_often_to_reach_the_rate():
    class Slow(Script):
        def find(self, image_bgr, near=None):
            self.calls += 1
            time.sleep(0.06)
            return [Detection(box_xyxy=ONE)]

    detector = Slow()
    frames = (Frame(index=i, time_s=i / 30, image_bgr=BLANK) for i in range(60))
    summary = loop.run(frames, Session(shipped(), detector, target_fps=30), [])
    assert summary.faces == 60 and 8 <= detector.calls <= 40


def test_dark_face_is_unsure_with_reason_and_id_in_every_line():
    frames = [
        Frame(index=i, time_s=i / 15, image_bgr=np.where(BLANK > 230, BLANK // 5, 0).astype(np.uint8)) for i in range(3)
    ]
    out, classifier = io.StringIO(), shipped()
    classifier.card = classifier.card.model_copy(update={"limits": NOT_FITTED})
    script = Script([ONE, OTHER], [ONE], [ONE, OTHER])
    loop.run(frames, Session(classifier, script, smooth=PRESETS["calm"], reject=0.45), [JsonLines(out)])
    for line in out.getvalue().splitlines():
        faces = json.loads(line)["faces"]
        assert [(face["id"], face["label"], face["unsure"]) for face in faces] == [
            (1, "unsure", "dark"),
            (2, "unsure", "dark"),
        ]
        assert faces[0]["score"] == max(faces[0]["scores"].values())
    session = Session(shipped(), Script([ONE]), smooth=PRESETS["calm"])
    (face,) = session.read(session.detect(frames[0]))
    assert face.label in face.scores and face.unsure == ""


def test_frame_names_the_detector_used_for_it():
    session, frame = Session(shipped(), Script([ONE])), Frame(index=0, time_s=0, image_bgr=BLANK)
    before = session.detect(frame)
    other = Script([ONE])
    other.name, other.networks = "own", ("finder 0123", "refiner 4567")
    session.use(other)
    assert session.read(before).detector == "haar"
    assert session.read(session.detect(frame)).detector == "own (finder 0123, refiner 4567)"


def test_another_detector_searches_its_first_frame():
    session = Session(shipped(), Script(*[[ONE]] * 9), follow=5)
    larger = (35, 55, 125, 145)
    first, second = (Frame(index=index, time_s=time_s, image_bgr=BLANK) for index, time_s in enumerate(at(2)))
    session.detect(first)
    session.use(Script([larger]))
    (face,) = session.detect(second).detections
    assert face.box_xyxy == larger and face.id == 1


def test_an_unsure_face_is_drawn_in_gray_with_its_reason():
    face = Face(box_xyxy=ONE, scores={"happy": 0.4, "sad": 0.3}, unsure="dark", id=1)
    image = draw(np.zeros_like(BLANK), [face])
    _, top, right, bottom = ONE
    edge = image[(top + bottom) // 2, right]
    assert edge.any() and edge[0] == edge[1] == edge[2]


# Around known faces only


class Counted(WrappingDetector):
    """Counts a detector's searches of whole frames and of windows."""

    def __init__(self, detector):
        super().__init__(detector)
        self.whole = self.near = 0

    def find(self, image_bgr, near=None):
        self.whole, self.near = self.whole + (near is None), self.near + (near is not None)
        return self.inner.find(image_bgr, near)


@pytest.mark.parametrize("steady", [True, False])
def test_searching_around_known_faces_finds_the_same_as_searching_every_frame(steady):
    frames = [frame for frame, _ in drawn.scene(seconds=2, size=(640, 480))]
    frames = frames if steady else list(drawn.shaken(frames))
    own = Counted(OwnDetector.shipped())
    every, followed = Tracker(own.inner), Tracker(own, follow=15)
    shared = []
    for frame in frames:
        faces = {face.id: face.box_xyxy for face in followed.follow(frame)}
        shared += [overlap(face.box_xyxy, faces.get(face.id, (0, 0, 0, 0))) for face in every.follow(frame)]
    assert own.whole <= 4 and own.near >= 26
    assert len(shared) == 2 * len(frames) and np.mean(shared) > 0.95 and min(shared) > 0.8


def test_face_lost_from_its_window_triggers_a_whole_frame_search_at_once():
    frames = [frame for frame, _ in drawn.scene(seconds=1, people=1, size=(640, 480))]
    own = Counted(OwnDetector.shipped())
    tracker = Tracker(own, follow=100)
    assert [len(tracker.follow(frame)) for frame in frames[:6]] == [1] * 6
    assert (own.whole, own.near) == (1, 5)
    jumped = replace(frames[6], image_bgr=np.ascontiguousarray(np.roll(frames[6].image_bgr, 180, axis=1)))
    assert [face.id for face in tracker.follow(jumped)] == [1]
    assert own.whole == 2, "it was not in the window, so the whole frame was searched in the same call"
    wall = replace(frames[7], image_bgr=np.full_like(frames[7].image_bgr, 90))
    left = [tracker.follow(replace(wall, index=number, time_s=number / 15)) for number in range(7, 40)]
    assert left[-1] == [] and 2 + 13 <= own.whole <= 2 + 16, (
        "whole frames are searched for a second, then the face is dropped"
    )


def test_new_face_is_found_at_the_next_whole_frame_search():
    first, both = [ONE], [ONE, OTHER]

    class Scripted(Script):
        looks_near = True

        def find(self, image_bgr, near=None):
            found = super().find(image_bgr)
            return found if near is None else found[: len(near)]

    tracker = Tracker(Scripted(first, *[both] * 9), follow=5)
    assert ids(tracker, at(10)) == [[1]] * 6 + [[1, 2]] * 4


def test_files_are_searched_in_every_frame_unless_follow_is_set():
    reader = Reader.open(Bundle.open(shipped_bundles()["fer-small"]), ReaderOptions(detector="own", follow=10))
    plain = Reader.open(Bundle.open(shipped_bundles()["fer-small"]), ReaderOptions(detector="own"))
    assert reader.session().follow == 10 and plain.session().follow == 1
    assert reader.detector.looks_near, "through the watchdog too"
    assert Pace(None, 10).apart == 10 and Pace().apart == 1
    with pytest.raises(InputError, match="follow"):
        ReaderOptions(follow=0)


def test_search_windows_are_shifted_into_the_region():
    frame = next(iter(drawn.scene(seconds=0.1, people=1, size=(640, 480))))[0].image_bgr
    wide = np.zeros((700, 900, 3), np.uint8)
    wide[100:580, 200:840] = frame
    region = RegionDetector(OwnDetector.shipped(), (200, 100, 640, 480))
    (face,) = region.find(wide)
    (again,) = region.find(wide, [face.box_xyxy])
    assert overlap(face.box_xyxy, again.box_xyxy) > 0.9
    assert region.find(wide, [(220, 120, 250, 150)]) == []
