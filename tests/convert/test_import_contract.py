"""The contract of an imported network: labels and scales as they are given, and the choice that labelled images settle."""

from types import SimpleNamespace

import numpy as np
import pytest

from edgefer.card import InputSpec, OutputSpec
from edgefer.convert.contract import (
    Hypothesis,
    Stated,
    best_order,
    candidates,
    choose,
    describe,
    doubt,
    measure,
    parse_scale,
    stated_scale,
)
from edgefer.convert.importing import measured_images
from edgefer.convert.label_files import parse_labels, read_labels
from edgefer.convert.label_order import LABEL_ORDERS, is_unusual, suggested_order
from edgefer.errors import InputError
from edgefer.options import Color
from edgefer.train.data.dataset import Split


def test_labels_in_the_wrong_order_are_refused_and_the_right_order_is_suggested():
    names, classes = ("calm", "joy", "wow"), 3
    labels = np.tile(np.arange(classes), 20)
    split = Split(images=np.zeros((60, 1, 1, 1), np.uint8), labels=labels, ids=np.arange(60))
    known = Stated(scale=parse_scale("0..1"), color=Color.GRAY, labels=("joy", "wow", "calm"))
    found = measure(candidates(known, 1, classes, names), split, names, lambda _: np.eye(classes)[labels])
    with pytest.raises(InputError, match=r"0\.0%.*by these images that is calm,joy,wow"):
        choose(found, "x.h5")
    blind = measure(candidates(known, 1, classes, names), split, names, lambda _: np.eye(classes)[0 * labels])
    assert [one.reordered for one in blind] == [None]


EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def confused(count: int, labels=EMOTIONS) -> tuple[Split, np.ndarray]:
    """Images and logits of a network that is right in two of three, and otherwise gives the next label."""
    truth = np.random.default_rng(0).choice(len(labels), count, p=np.array([4, 1, 4, 7, 5, 3, 5]) / 29)
    answers = np.where(np.arange(count) % 3 > 0, truth, (truth + 1) % len(labels))
    return Split(images=np.zeros((count, 1, 1, 1), np.uint8), labels=truth, ids=np.arange(count)), np.eye(len(labels))[
        answers
    ]


def measured_order(given, count=600):
    split, logits = confused(count)
    known = Stated(scale=parse_scale("0..1"), color=Color.GRAY, labels=tuple(given))
    return measure(candidates(known, 1, len(given), EMOTIONS), split, EMOTIONS, lambda _: logits)


@pytest.mark.parametrize("pair", [(0, 6), (1, 3), (2, 4)])
def test_two_labels_in_each_other_s_place_give_a_warning_with_the_order_that_fits(pair):
    """It is still right more often than guessing, so the import goes on."""
    given, (one, other) = list(EMOTIONS), pair
    given[one], given[other] = given[other], given[one]
    found = measured_order(given)
    assert choose(found, "x.h5").labels == tuple(given)
    warning = doubt(found[0], best_order(found))
    assert warning.startswith("Check --labels: on these images it is right in ")
    assert f"but in 66.7% with 0..1, gray, labels as they suggest ({','.join(EMOTIONS)})." in warning


def test_a_label_that_the_data_call_otherwise_gives_a_warning_too():
    found = measured_order([*EMOTIONS[:3], "happiness", *EMOTIONS[4:]])
    assert ",".join(EMOTIONS) in doubt(found[0], best_order(found))


def test_the_right_order_of_a_network_that_is_often_wrong_gives_no_warning():
    assert best_order(measured_order(EMOTIONS)) is None
    blind = np.random.default_rng(0).integers(0, 7, 600)
    order, right = suggested_order(blind, np.array(EMOTIONS)[np.arange(600) % 7], EMOTIONS)
    assert sorted(order) == sorted(EMOTIONS) and right.mean() < 0.2  # each half by the order of the other


def test_a_network_that_knows_little_suggests_no_order():
    truth = np.arange(2000) % 7
    rng = np.random.default_rng(0)
    answers = np.where(rng.random(2000) < 1 / 15, (truth + 1) % 7, rng.integers(0, 7, 2000))
    split = Split(images=np.zeros((2000, 1, 1, 1), np.uint8), labels=truth, ids=np.arange(2000))
    known = Stated(scale=parse_scale("0..1"), color=Color.GRAY, labels=EMOTIONS)
    found = measure(candidates(known, 1, 7, EMOTIONS), split, EMOTIONS, lambda _: np.eye(7)[answers])
    assert found[0].accuracy < 0.15 and best_order(found) is None


def test_few_images_suggest_no_order():
    given = [EMOTIONS[1], EMOTIONS[0], *EMOTIONS[2:]]
    assert best_order(measured_order(given, count=12)) is None


def test_answers_that_are_never_given_keep_their_label_if_it_is_free():
    truth = np.array(["a", "b"] * 20)
    assert suggested_order(np.array([1, 0] * 20), truth, ("a", "b", "c"))[0] == ("b", "a", "c")
    assert suggested_order(np.array([2, 0] * 20), truth, ("a", "b", "c"))[0] == ("b", "c", "a")


def test_labels_of_a_known_data_set_in_an_order_of_none_are_unusual():
    assert is_unusual(("happy", *(label for label in EMOTIONS if label != "happy")))
    assert not any(is_unusual(order) for order in (*LABEL_ORDERS.values(), ("calm", "joy"), EMOTIONS[:3]))


def test_stated_values_that_fit_worse_than_others_give_a_warning():
    stated, other = candidates(Stated(color=Color.GRAY, labels=("a", "b")), 1, 2)[:2]
    right = np.arange(400) % 10 < 9
    worse = Hypothesis(stated, right & (np.arange(400) % 3 > 0))
    assert doubt(worse, Hypothesis(other, right)).startswith("Check --scale: on these images it is right in 6")
    assert doubt(Hypothesis(stated, right), Hypothesis(other, right)) == ""


def test_scale_of_1_255_in_float32_is_described_as_0_to_1():
    assert describe(stated_scale((np.float32(1 / 255), 0))) == "pixels as 0..1"
    assert describe(stated_scale((0.0039, 0))) == "pixels * 0.0039 + 0"
    assert describe(stated_scale((1 / 127.5, -0.996078))) == "pixels * 0.00784314 - 0.996078"


def test_contract_is_refused_if_the_images_do_not_decide_it():
    spec = InputSpec(height=48, width=48, color="rgb")
    known = Stated(labels=("a", "b"), output=OutputSpec())
    contracts = candidates(known, spec.channels, 2)
    assert {one.color for one in contracts} == {Color.RGB, Color.BGR} and len(contracts) == 10
    right = np.arange(400) % 10 < 9
    with pytest.raises(InputError, match=r"do not decide .*\. State --color, or give images in color\.$"):
        choose([Hypothesis(contracts[0], right), Hypothesis(contracts[1], right)], "it")
    with pytest.raises(InputError, match=r"\. State --scale and --color, or give more images\.$"):
        choose([Hypothesis(one, right) for one in contracts], "it")
    worse = right & (np.arange(400) % 7 > 0)
    assert choose([Hypothesis(contracts[0], right), Hypothesis(contracts[1], worse)], "it") == contracts[0]
    with pytest.raises(InputError, match=r"more often than guessing.* as it is stated, leave --data out\.$"):
        choose([Hypothesis(contracts[0], np.arange(400) % 2 < 1)], "it")


def test_a_constant_answer_is_no_better_than_guessing_however_frequent_its_label_is():
    """A network that is fed wrongly often gives every image the same label, which may be the most frequent one."""
    names = ("angry", "happy", "sad", "neutral")
    truth = np.repeat([0, 1, 2, 3], [50, 300, 25, 25])
    split = Split(images=np.zeros((400, 1)), labels=truth, ids=np.arange(400).astype(str))
    contracts = candidates(Stated(labels=names, scale=parse_scale("0..1"), output=OutputSpec()), 1, 4, names)
    constant, informed = np.eye(4)[np.full(400, 1)], np.eye(4)[np.where(np.arange(400) % 10, truth, 1)]
    with pytest.raises(InputError, match="more often than guessing"):
        choose(measure(contracts, split, names, lambda contract: constant), "it")
    assert choose(measure(contracts, split, names, lambda contract: informed), "it") == contracts[0]


def test_few_images_are_all_measured_with_held_out_ones_first():
    def split(*values):
        numbers = np.array(values, np.uint8)
        return Split(images=numbers.reshape(-1, 1, 1, 1), labels=numbers.astype(int), ids=numbers.astype(str))

    splits = {"train": split(*range(3, 9)), "valid": split(0, 1, 2), "test": split(9)}
    measured = measured_images(SimpleNamespace(splits=splits))
    assert list(measured.labels) == list(range(9)) == measured.images.ravel().tolist()
    assert list(measured_images(SimpleNamespace(splits={"test": split(9)})).labels) == [9]
    assert (
        len(measured_images(SimpleNamespace(splits={"valid": split(*range(200)).take(np.arange(3000) % 200)}))) == 2000
    )


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("happy\nsad\n", ("happy", "sad")),
        ("0 happy\n1 very sad\n", ("happy", "very sad")),
        ("0\thappy\n1\tsad\n", ("happy", "sad")),
        ("0: happy\n1: sad\n", ("happy", "sad")),
        ("0,happy\r\n\r\n1,sad\r\n", ("happy", "sad")),
        ("0\n1\n", ("0", "1")),
        ("1 happy\n2 sad\n", ("1 happy", "2 sad")),
        ("", ()),
    ],
)
def test_labels_are_read_from_every_usual_kind_of_file(text, labels, tmp_path):
    assert parse_labels(text) == labels
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())  # as Windows' editors write it
    assert read_labels(tmp_path / "labels.txt") == labels


def test_per_channel_scale_is_parsed():
    assert parse_scale("0.01,0.02,0.03,-1,-2,-3") == ("stated", ((0.01, 0.02, 0.03), (-1.0, -2.0, -3.0)))


@pytest.mark.parametrize("text", ["0..2", "1", "nan,0", "0,1", "1,2,3"])
def test_an_invalid_scale_is_refused(text):
    with pytest.raises(InputError, match="--scale"):
        parse_scale(text)
