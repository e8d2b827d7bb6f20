"""Label smoothing: how often labels change on a steady face, how quickly they follow a change, and `unsure`."""

import itertools

import numpy as np
import pytest

from edgefer.devices.faces.quality import quality_fault
from edgefer.devices.faces.smoothing import EASE, LOW, PRESETS, LabelSmoother
from edgefer.interpreter import softmax
from edgefer.records import UNSURE, Detection, Face

LABELS = ("happy", "sad", "neutral")


def by_label(scores) -> dict[str, float]:
    """A frame's scores by label."""
    return dict(zip(LABELS, map(float, scores), strict=True))


def settle(smoother, track, time_s, scores, fault="") -> Face:
    scores, unsure = smoother.settle(track, time_s, scores, fault)
    return Face(box_xyxy=(0, 0, 9, 9), scores=scores, unsure=unsure)


def noisy(fps: float, held_s: float, seconds: float = 60, lead: float = 1.2) -> list[dict[str, float]]:
    """A network's scores of one face, with noise on the logits about as large as the right one's lead.

    held_s: the correlation time of the noise; a camera's noise is new in every frame, a head's sway is not.
    """
    rng = np.random.default_rng(1)
    kept = np.exp(-1 / fps / held_s) if held_s else 0.0
    logits = np.zeros((round(seconds * fps), len(LABELS)))
    for before, row in itertools.pairwise(logits):
        row += kept * before + np.sqrt(1 - kept**2) * rng.normal(0, 1, len(LABELS))
    logits[:, 0] += lead
    return [by_label(row) for row in softmax(1.5 * logits)]


def shown(answers, preset: str, fps: float, reject: float = 0.0) -> list[str]:
    smoother = LabelSmoother(PRESETS[preset], reject=reject)
    return [settle(smoother, 1, index / fps, each).label for index, each in enumerate(answers)]


def changes(labels) -> int:
    return sum(one != other for one, other in itertools.pairwise(labels))


def test_off_shows_the_networks_output():
    answers = noisy(15, 0.0)
    assert shown(answers, "off", 15) == [max(each, key=each.get) for each in answers]


@pytest.mark.parametrize("fps", [10, 15, 30])
@pytest.mark.parametrize("held_s", [0.0, 0.1, 0.4])
def test_calm_flickers_at_most_a_sixth_as_often_on_a_steady_face(fps, held_s):
    answers = noisy(fps, held_s)
    plain, responsive, calm = (changes(shown(answers, preset, fps)) for preset in PRESETS)
    assert plain > 60, "the noise must make it flicker, or nothing is tested"
    assert calm <= plain / 6 and calm <= responsive < plain / 2


@pytest.mark.parametrize("fps", [5, 15, 30])
@pytest.mark.parametrize(("preset", "most_s"), [("off", 0.01), ("responsive", 0.4), ("calm", 0.6)])
def test_a_clear_change_is_shown_in_time(preset, most_s, fps):
    """From the first frame of the new expression to the first that shows it."""
    before, after = [by_label([0.9, 0.05, 0.05])] * (2 * fps), [by_label([0.05, 0.9, 0.05])] * (2 * fps)
    labels = shown(before + after, preset, fps)
    assert labels[2 * fps - 1] == "happy" and changes(labels) == 1
    assert (labels.index("sad") - 2 * fps) / fps <= most_s


@pytest.mark.parametrize("fps", [10, 15, 30])
@pytest.mark.parametrize("preset", ["responsive", "calm"])
def test_talking_does_not_change_the_label_but_an_equally_clear_expression_does(preset, fps):
    """A mouth that opens for a seventh of a second, three times a second, looks surprised while it is open."""
    resting, open_mouth = by_label([0.75, 0.15, 0.1]), by_label([0.15, 0.75, 0.1])
    talk = [open_mouth if index / fps % 0.34 < 0.14 else resting for index in range(10 * fps)]
    assert changes(shown([resting] * fps + talk, "off", fps)) > 40
    labels = shown([resting] * fps + talk + [open_mouth] * fps, preset, fps)
    assert changes(labels) == 1 and labels[10 * fps] == "happy" and labels[-1] == "sad"


@pytest.mark.parametrize("preset", ["responsive", "calm"])
def test_new_label_with_a_small_lead_is_shown_within_the_patience(preset):
    fps = 15
    labels = shown([by_label([0.9, 0.05, 0.05])] * fps + [by_label([0.45, 0.47, 0.08])] * (4 * fps), preset, fps)
    delay_s = (labels.index("sad") - fps) / fps
    settings = PRESETS[preset]
    # The mean must cross first: 0.85 e^(-t / mean_s) = 0.02.
    assert settings.patience_s < delay_s <= settings.patience_s + 3.8 * settings.mean_s + 1 / fps


def test_one_odd_frame_changes_nothing():
    good, odd = by_label([0.8, 0.1, 0.1]), by_label([0.01, 0.98, 0.01])
    assert set(shown([good] * 10 + [odd] + [good] * 10, "responsive", 15)) == {"happy"}


def test_each_face_is_smoothed_separately_and_a_gap_resets_it():
    smoother = LabelSmoother(PRESETS["calm"])
    for index in range(15):
        assert settle(smoother, 1, index / 15, by_label([0.9, 0.1, 0])).label == "happy"
        assert settle(smoother, 2, index / 15, by_label([0.1, 0.9, 0])).label == "sad"
    later = settle(smoother, 1, 2.0, by_label([0, 0.1, 0.9]))
    assert later.label == "neutral" and later.scores["happy"] == 0
    rewound = settle(smoother, 1, 0.0, by_label([0, 0.9, 0.1]))
    assert rewound.label == "sad" and rewound.score == 0.9


def test_unsure_below_the_threshold_without_flickering_at_it():
    low, high = by_label([0.43, 0.3, 0.27]), by_label([0.47, 0.3, 0.23])
    alternating = [low, high] * 60
    assert changes(shown(alternating, "off", 15, reject=0.45)) == 119
    assert changes(shown(alternating, "responsive", 15, reject=0.45)) <= 1
    slowly = ([low] * 15 + [high] * 15) * 4  # too slow for the mean to help: only hysteresis at the threshold does
    assert changes(shown(slowly, "off", 15, reject=0.45)) == 7
    assert changes(shown(slowly, "responsive", 15, reject=0.45)) <= 1
    smoother = LabelSmoother(PRESETS["responsive"], reject=0.45)
    answer = settle(smoother, 1, 0.0, low)
    assert (answer.label, answer.unsure, answer.score) == (UNSURE, LOW, 0.43) and answer.scores == low
    assert shown([low], "responsive", 15, reject=0) == ["happy"]


def test_unreadable_frames_do_not_change_the_mean():
    smoother = LabelSmoother(PRESETS["calm"], reject=0.45)
    good, nonsense = by_label([0.9, 0.05, 0.05]), by_label([0.0, 1.0, 0.0])
    settle(smoother, 1, 0.0, good)
    one = settle(smoother, 1, 0.07, nonsense, "blurred")
    assert (one.label, one.scores) == ("happy", good), "one blurred frame is ignored"
    for index in range(2, 10):
        last = settle(smoother, 1, 0.07 * index, nonsense, "blurred")
    assert (last.label, last.unsure, last.scores) == (UNSURE, "blurred", good)
    again = [settle(smoother, 1, 0.07 * index, good).label for index in range(10, 20)]
    assert again[0] == UNSURE and again[-1] == "happy"
    never = LabelSmoother(PRESETS["calm"], reject=0)
    assert settle(never, 1, 0.0, nonsense, "dark").label == "sad"


FACE = np.clip(128 + 40 * np.random.default_rng(2).normal(size=(48, 48, 1)), 0, 255).astype(np.uint8)
EYES = {"eyes_xy": ((30.0, 40.0), (70.0, 40.0))}


@pytest.mark.parametrize(
    ("found", "pixels", "fault"),
    [
        (Detection(box_xyxy=(0, 0, 100, 100)), FACE, ""),
        (Detection(box_xyxy=(0, 0, 20, 20)), FACE, "small"),
        (Detection(box_xyxy=(0, 0, 100, 100)), FACE // 5, ""),
        (Detection(box_xyxy=(0, 0, 100, 100)), FACE // 20, "dark"),
        (Detection(box_xyxy=(0, 0, 100, 100)), 255 - FACE // 10, "overexposed"),
        (Detection(box_xyxy=(0, 0, 100, 100)), np.full((48, 48, 1), 128, np.uint8), "blurred"),
        (Detection(box_xyxy=(0, 0, 100, 100), nose_xy=(55, 60), **EYES), FACE, ""),
        (Detection(box_xyxy=(0, 0, 100, 100), nose_xy=(66, 60), **EYES), FACE, "turned away"),
        (Detection(box_xyxy=(0, 0, 100, 100)), np.repeat(FACE // 20, 3, axis=2), "dark"),
    ],
)
def test_quality_fault_of_a_face_image(found, pixels, fault):
    assert quality_fault(found, pixels) == fault


def test_brightness_respects_the_channel_order_of_the_network():
    blue = (FACE * np.array([0.4, 0, 0])).astype(np.uint8)  # a ninth of what is seen, where red is a third
    found = Detection(box_xyxy=(0, 0, 100, 100))
    assert quality_fault(found, blue, "bgr") == "dark" and quality_fault(found, blue, "rgb") != "dark"


def test_shown_label_always_agrees_with_its_scores():
    """On replayed score sequences: the label is the likeliest of its scores, never below --reject, and never stale."""
    for preset, reject, fps, seed in itertools.product(PRESETS, (0.0, 0.45, 0.6), (5, 15, 30), range(3)):
        rng = np.random.default_rng(seed)
        steps = np.cumsum(rng.normal(0, 0.6, (20 * fps, len(LABELS))), axis=0) + rng.normal(
            0, 1.0, (20 * fps, len(LABELS))
        )
        smoother, held_s, before = LabelSmoother(PRESETS[preset], reject=reject), 0.0, None
        for index, row in enumerate(softmax(steps - steps.mean(axis=1, keepdims=True), 1.5)):
            fault = "dark" if rng.random() < 0.1 else ""
            face = settle(smoother, 1, index / fps, by_label(row), fault)
            assert face.score == max(face.scores.values()) and face.top == max(face.scores, key=face.scores.get)
            if face.unsure:
                assert face.label == UNSURE and reject > 0
                assert face.unsure != LOW or face.score < reject + EASE
            else:
                assert face.label == face.top and face.score == face.scores[face.label] >= reject
            held_s = held_s + 1 / fps if face.scores == before and not fault else 0.0
            before = face.scores
            assert held_s <= PRESETS[preset].patience_s + 1 / fps, "scores are held for the patience and no longer"


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("reject", [0.94, 0.97, 0.995])
def test_unsure_face_gets_its_label_back_at_any_reject_threshold(preset, reject):
    """A fixed margin above a threshold near 1 would exceed every probability."""
    smoother = LabelSmoother(PRESETS[preset], reject=reject)
    scores = [(0.5, 0.3, 0.2)] * 5 + [(0.999, 0.001, 0.0)] * 30
    labels = [settle(smoother, 1, index / 15, by_label(row)).label for index, row in enumerate(scores)]
    assert labels[4] == UNSURE and labels[-1] == "happy"


def test_label_named_unsure_is_distinguished_from_edgefers_own():
    """The decisions are those of the same network with other names, and the label cannot be confused with edgefer's own `unsure`."""
    rng, names = np.random.default_rng(4), ("unsure", "sad", "neutral")
    for preset, reject in itertools.product(PRESETS, (0.0, 0.45, 0.6)):
        one, other = (LabelSmoother(PRESETS[preset], reject=reject) for _ in range(2))
        for index, row in enumerate(rng.dirichlet((0.7, 0.5, 0.5), 400)):
            fault = "dark" if rng.random() < 0.1 else ""
            plain = settle(one, 1, index / 15, by_label(row), fault)
            named = settle(other, 1, index / 15, dict(zip(names, row.tolist(), strict=True)), fault)
            assert [*named.scores.values()] == [*plain.scores.values()] and named.unsure == plain.unsure
            assert named.label == ("(unsure)" if plain.unsure else names[LABELS.index(plain.top)])


def test_alternating_rivals_do_not_hold_a_label_forever():
    shown_labels = shown(
        [by_label([0.8, 0.1, 0.1])] * 15 + [by_label([0.3, 0.4, 0.3]), by_label([0.3, 0.3, 0.4])] * 30, "calm", 15
    )
    patience = round(15 * (PRESETS["calm"].patience_s + 0.2))
    assert shown_labels[14] == "happy" and "happy" not in shown_labels[15 + patience :]


@pytest.mark.parametrize("preset", PRESETS)
def test_changed_settings_apply_from_the_next_frame(preset):
    """A label that was decided under a lower --reject is not shown as certain under the new one, nor the other way round."""
    smoother, scores = LabelSmoother(PRESETS[preset], reject=0.45), by_label([0.6, 0.3, 0.1])
    assert [settle(smoother, 1, at / 15, scores).label for at in range(10)] == ["happy"] * 10
    smoother.change(PRESETS[preset], 0.9)
    assert settle(smoother, 1, 10 / 15, scores).unsure == LOW
    smoother.change(PRESETS[preset], 0.0)
    assert settle(smoother, 1, 11 / 15, scores).label == "happy"
