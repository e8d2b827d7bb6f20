"""The labels of an imported network beside those of the data: in another case, misspelt, foreign, in another order."""

import re
from dataclasses import replace

import numpy as np
import pytest

from edgefer.bundle import Bundle, shipped_bundles
from edgefer.convert.contract import Stated, candidates, choose, measure
from edgefer.convert.import_options import Request
from edgefer.convert.importing import import_network
from edgefer.convert.label_order import is_unusual, possible_orders
from edgefer.errors import InputError
from edgefer.options import Color
from edgefer.progress import Lines
from edgefer.train.data.dataset import Dataset, Split
from tests.convert.foreign_files import int8_file

FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("theirs") / "theirs.tflite"
    path.write_bytes(int8_file())
    return path


@pytest.fixture(scope="module")
def answered(builtin):
    """Drawn faces labelled with what the network says of them, so that it is always right."""
    from edgefer.interpreter import Network

    bundle = Bundle.open(shipped_bundles()["fer-nano"])
    network = Network.open(bundle, "int8")
    splits = {}
    for name, split in builtin.splits.items():
        splits[name] = replace(split, labels=network.logits(split.images).argmax(axis=1))
    return Dataset(name="faces", labels=bundle.card.labels, splits=splits).without_empty_classes()


def imported(file, out, data, labels, log=None):
    load = (lambda spec: data) if data else None
    return import_network(
        Request(path=file, stated=Stated(labels=labels), load=load, progress=Lines(log or (lambda text: None))), out
    )


def test_capitals_in_labels_match_folders_and_stay_as_they_are_written(file, answered, tmp_path):
    labels, logged = tuple(map(str.capitalize, FER2013)), []
    done = imported(file, tmp_path / "out", answered, labels, logged.append)
    assert done.bundle.card.labels == labels and not done.warning
    assert done.measured[0].accuracy == 1 and done.bundle.card.metrics["valid"]["int8"].accuracy == 1
    absent = set(FER2013) - set(answered.labels)
    assert absent, "drawn faces do not get every label"
    assert any(line.startswith("No images of ") for line in logged)
    assert is_unusual(("Happy", *labels[:3], *labels[4:])) and not is_unusual(labels)
    assert possible_orders(7, labels)["RAF-DB"][0] == "Surprise"


def test_a_misspelt_label_is_named_before_anything_is_measured(file, answered, tmp_path):
    wrong = ("angri", *FER2013[1:])
    assert "angry" in answered.labels
    with pytest.raises(
        InputError, match=r"angri \(for angry\?\).* no labels of this data.*import again with the right --labels"
    ):
        imported(file, tmp_path / "out", answered, wrong)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", [tuple("1234567"), ("wut", "ekel", "angst", "freude", "trauer", "staunen", "nichts")])
def test_numbers_and_foreign_words_for_classes_are_told_from_a_wrong_scale(file, answered, names, tmp_path):
    foreign = replace(answered, labels=names[: len(answered.labels)])
    with pytest.raises(InputError) as refused:
        imported(file, tmp_path / "out", foreign, FER2013)
    assert f"are no labels of this data, faces ({', '.join(foreign.labels)})" in str(refused.value)
    assert f"give {', '.join(foreign.labels)} the network's names with --names" in str(refused.value)


def test_images_of_a_class_that_the_network_lacks_are_named(file, builtin, tmp_path):
    eight = Dataset(
        name="faces", labels=(*builtin.labels, "contempt"),
        splits={name: replace(split, labels=np.where(split.labels == 0, 7, split.labels)) for name, split in builtin.splits.items()},
    )  # fmt: skip
    with pytest.raises(InputError, match=r"faces has images of contempt, .*remove these images"):
        imported(file, tmp_path / "out", eight, builtin.labels)


def test_labels_in_a_wrong_order_are_suspected_where_the_scale_is_not_settled_either():
    """Under a wrong order most ways to feed it look equally bad, and the likely order is in the message."""
    count = 700
    truth = np.random.default_rng(1).integers(0, 7, count)
    answers = np.where(np.arange(count) % 3 > 0, truth, 0)
    split = Split(images=np.zeros((count, 1, 1, 1), np.uint8), labels=truth, ids=np.arange(count))
    given = ("happy", "disgust", "fear", "angry", "sad", "neutral", "surprise")
    known = Stated(color=Color.GRAY, labels=given)
    found = measure(candidates(known, 1, 7, FER2013), split, FER2013, lambda _: np.eye(7)[answers])
    with pytest.raises(InputError) as refused:
        choose(found, "my.keras")
    text = str(refused.value)
    assert "do not decide" in text and f"--labels are more likely {','.join(FER2013)} (7" in text, text
    assert re.search(r"check them\. If they are right, state --scale, or give more images\.$", text)
