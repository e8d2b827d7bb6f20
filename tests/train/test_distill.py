"""Targets other than a label: FER+ votes, teachers, soft labels from a file; and initial weights."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from edgefer.bundle import Bundle, shipped_bundles
from edgefer.card import InputSpec
from edgefer.errors import DataError, InputError
from edgefer.train.config import Supervision, TrainConfig
from edgefer.train.data.dataset import Split
from edgefer.train.data.ferplus import votes_file
from edgefer.train.data.load import DataOptions, load_dataset
from edgefer.train.distill import load_soft_labels, save_soft_labels, teacher_probabilities, with_soft_targets
from edgefer.train.recipes import load_recipe
from edgefer.train.run import RunFolder
from edgefer.train.soft_targets import soft_targets
from edgefer.train.start import TrainRequest

GRAY48 = InputSpec(height=48, width=48)
HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
VOTES = [  # usage, votes; FER2013's own label is 0 throughout
    ("Training", "4,0,0,1,3,2,0,0,0,0"),  # the single vote for sadness is noise
    ("Training", "0,10,0,0,0,0,0,0,0,0"),
    ("Training", "0,0,5,0,0,0,5,0,0,0"),  # a tie of expressions is a target too
    ("Training", "2,0,0,0,0,0,0,0,8,0"),  # unknown: left out
    ("Training", "0,0,0,0,0,0,0,6,0,4"),
    ("Training", "0,0,0,4,0,6,0,0,0,0"),
    ("Training", "0,0,0,2,8,0,0,0,0,0"),
    ("Training", "0,0,0,9,0,0,1,0,0,0"),
    ("Training", "0,0,8,0,0,0,2,0,0,0"),
    ("Training", "0,0,3,0,0,0,7,0,0,0"),
    ("PublicTest", "6,4,0,0,0,0,0,0,0,0"),
    ("PublicTest", "5,5,0,0,0,0,0,0,0,0"),  # no majority: not used for measuring
    ("PublicTest", "0,0,0,0,0,0,0,0,0,10"),
]


@pytest.fixture
def voted(tmp_path):
    """A FER2013 CSV with FER+'s votes beside it."""
    rng = np.random.default_rng(0)
    rows = [f'0,"{" ".join(map(str, rng.integers(0, 256, 2304)))}",{usage}' for usage, _ in VOTES]
    (tmp_path / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]))
    lines = [f"{usage},fer{i}.png,{votes}" for i, (usage, votes) in enumerate(VOTES)]
    (tmp_path / "fer2013new.csv").write_text("\n".join([HEADER, *lines]))
    return tmp_path / "fer2013.csv"


def test_votes_become_targets_joined_by_row(voted):
    data = load_dataset(voted, GRAY48, DataOptions(labels="ferplus"))
    train, valid = data.split("train"), data.split("valid")
    assert data.labels == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt")
    assert train.ids.tolist() == [f"row {n}" for n in (1, 2, 3, 5, 6, 7, 8, 9, 10)]
    assert [data.labels[label] for label in train.labels[[0, 1, 3]]] == ["neutral", "happy", "contempt"]
    np.testing.assert_allclose(train.targets[0], np.array([3, 2, 0, 0, 0, 0, 4, 0]) / 9, atol=1e-6)
    assert train.targets[2][[2, 5]].tolist() == [0.5, 0.5]
    assert valid.ids.tolist() == ["row 11"] and data.labels[valid.labels[0]] == "neutral"
    turned = data.with_labels(tuple(reversed(data.labels)))
    np.testing.assert_array_equal(turned.split("train").targets[:, ::-1], train.targets)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda lines: lines[:-1], "must match row by row"),
        (lambda lines: [lines[0], *lines[:0:-1]], "not in the same order"),
        (lambda lines: [*lines[:3], lines[3].replace(",5", ",five", 1), *lines[4:]], "row 3"),
        (lambda lines: [*lines[:3], lines[3].replace(",5", ",inf", 1), *lines[4:]], "row 3 .*inf votes cannot be"),
        (lambda lines: [*lines[:3], lines[3].replace(",5", ",-5", 1), *lines[4:]], "row 3 .*-5 votes cannot be"),
        (lambda lines: [*lines[:3], lines[3].replace(",5", ",nan", 1), *lines[4:]], "row 3 .*nan votes"),
        (lambda lines: [*lines[:3], lines[3].replace(",5", ",-5", 1), *lines[4:]], "row 3 .*-5 votes"),
    ],
)
def test_votes_that_do_not_belong_to_the_images_are_refused(voted, change, complaint):
    file = voted.with_name("fer2013new.csv")
    file.write_text("\n".join(change(file.read_text().splitlines())))
    with pytest.raises(DataError, match=complaint):
        load_dataset(voted, GRAY48, DataOptions(labels="ferplus"))


def test_missing_votes_are_named(tmp_path):
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n")
    with pytest.raises(DataError, match=r"There are no FER\+ votes"):
        votes_file("ferplus", tmp_path / "fer2013.csv")
    with pytest.raises(DataError, match="labels of its own"):
        load_dataset("builtin", GRAY48, DataOptions(labels="ferplus"))
    for read in (
        lambda: votes_file("ferplus", "none.csv"),
        lambda: load_dataset("none.csv", GRAY48, DataOptions(labels="ferplus")),
    ):
        with pytest.raises(DataError, match=r"There is no data at none\.csv"):
            read()


def test_teacher_outputs_are_reordered_to_the_students_labels(trained, builtin):
    teacher, split = Bundle.open(trained), builtin.split("valid")
    given = teacher_probabilities(teacher, split, builtin.labels, 1.0)
    assert given.shape == (len(split), 7) and np.allclose(given.sum(axis=1), 1, atol=1e-5)
    assert (given.argmax(axis=1) == split.labels).mean() > 0.8
    few = builtin.labels[:1:-1]
    some = teacher_probabilities(teacher, split, few, 1.0)
    known = np.isin(split.labels, [builtin.labels.index(label) for label in few])
    expected = [few.index(builtin.labels[label]) for label in split.labels[known]]
    assert (some[known].argmax(axis=1) == expected).mean() > 0.8
    hot = teacher_probabilities(teacher, split, builtin.labels, 4.0)
    assert hot.max(axis=1).mean() < given.max(axis=1).mean()
    with pytest.raises(InputError, match="does not know bored"):
        teacher_probabilities(teacher, split, ("happy", "bored"), 1.0)


def test_soft_labels_are_matched_by_image_and_label(tmp_path):
    split = Split(images=np.zeros((3, 48, 48, 1), np.uint8), labels=np.array([0, 1, 1]), ids=np.array(["a", "b", "c"]))
    soft = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]], np.float32)
    save_soft_labels(tmp_path / "soft.npz", split, ("no", "yes"), soft)
    turned = split.take(np.array([2, 0]))
    np.testing.assert_allclose(load_soft_labels(tmp_path / "soft.npz", turned, ("yes", "no")), soft[[2, 0], ::-1])
    np.savez(tmp_path / "other.npz", probabilities=soft * 2, labels=["no", "yes"])
    np.testing.assert_allclose(load_soft_labels(tmp_path / "other.npz", split, ("no", "yes")), soft)
    np.testing.assert_allclose(with_soft_targets(split, soft, 0.5).targets[0], [0.95, 0.05])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"probabilities": np.ones((2, 2)), "labels": ["no", "yes"]}, "2 rows for 3"),
        ({"probabilities": np.ones((3, 2)), "labels": ["no", "maybe"]}, "no column for yes"),
        ({"probabilities": np.full((3, 2), np.nan), "labels": ["no", "yes"]}, "not probabilities"),
        ({"probabilities": np.ones((3, 2)), "labels": json.dumps(["no", "yes"]), "ids": ["a", "b", "x"]}, "nothing for c"),
        ({"probabilities": np.ones((4, 2)), "labels": ["no", "yes"], "ids": ["a", "b", "c", "a"]}, "more than one row"),
        ({"probabilities": np.ones((3, 2))}, "not a file of soft labels"),
        ({"probabilities": np.ones((3, 2)), "labels": "5"}, "not a file of soft labels"),
    ],
)  # fmt: skip
def test_soft_labels_that_do_not_fit_are_refused(tmp_path, content, complaint):
    split = Split(images=np.zeros((3, 48, 48, 1), np.uint8), labels=np.array([0, 1, 1]), ids=np.array(["a", "b", "c"]))
    np.savez(tmp_path / "soft.npz", **content)
    with pytest.raises(DataError, match=complaint):
        load_soft_labels(tmp_path / "soft.npz", split, ("no", "yes"))
    content = (tmp_path / "soft.npz").read_bytes()
    (tmp_path / "soft.npz").write_bytes(content[: len(content) // 2])
    np.save(tmp_path / "soft.npy", np.ones((3, 2)))
    for file in ("soft.npz", "soft.npy"):
        with pytest.raises(DataError, match="not a file of soft labels"):
            load_soft_labels(tmp_path / file, split, ("no", "yes"))


def test_damaged_teacher_answers_are_computed_again(builtin, tmp_path, monkeypatch):
    run, logged, calls = RunFolder(tmp_path), [], []

    def answers(teacher, split, labels, temperature, progress):
        calls.append(teacher)
        return np.full((len(split), len(labels)), 1 / len(labels), np.float32)

    monkeypatch.setattr("edgefer.train.soft_targets.teacher_probabilities", answers)
    monkeypatch.setattr("edgefer.train.soft_targets.Bundle.open", lambda path: path)
    progress = SimpleNamespace(log=logged.append)
    order = TrainConfig(recipe=load_recipe("demo"), data="builtin", supervision=Supervision(teachers=("one",)))
    first = soft_targets(order, builtin, run, progress=progress)
    assert np.array_equal(soft_targets(order, builtin, run, progress=progress), first) and len(calls) == 1
    run.soft_labels.write_bytes(run.soft_labels.read_bytes()[:-200])
    assert np.array_equal(soft_targets(order, builtin, run, progress=progress), first) and len(calls) == 2
    assert logged == [f"{run.soft_labels} is damaged: it is computed again."]


def test_distillation_combined_with_init_from(trained, cache, tmp_path):
    """One epoch from a trained network's weights is as good as that network; the card says where it comes from."""
    from edgefer.train.pipeline import train

    fields = {"recipe": "demo", "epochs": 1, "set": ("optimizer.rate=0.0001",)}
    order = TrainRequest(data="builtin", **fields, teacher=str(trained), init_from=str(trained)).config()
    train(order, tmp_path / "student", cache=cache / "edgefer" / "datasets")
    card, parent = Bundle.open(tmp_path / "student").card, Bundle.open(trained).card
    assert card.metrics["valid"]["keras"].accuracy > parent.metrics["valid"]["keras"].accuracy - 0.1
    assert card.provenance.steps == ("begin with the weights of trained", "train, learning from trained too")
    assert (tmp_path / "student" / "training" / "soft-labels.npz").is_file()


def test_gray_weights_initialize_an_rgb_network(trained, builtin):
    from edgefer.train.evaluate import keras_logits
    from edgefer.train.networks import build, initialize, load_keras
    from edgefer.train.recipes import load_recipe

    source, images = Bundle.open(trained), builtin.split("valid").images[:50]
    recipe = load_recipe("demo", ("input.color=rgb",))
    turned = tuple(reversed(builtin.labels))
    model = build(recipe.model, recipe.input, len(turned))
    assert initialize(model, turned, source) == len([layer for layer in model.layers if layer.weights])
    gray = keras_logits(load_keras(source, "keras"), images)
    np.testing.assert_allclose(keras_logits(model, images.repeat(3, axis=-1))[:, ::-1], gray, atol=0.01)
    other = load_recipe("demo", ("model.layers=C8 C16/2",))
    with pytest.raises(InputError, match="none of its weights fit"):
        initialize(build(other.model, other.input, 7), builtin.labels, source)
    frozen = load_recipe("demo", ("model.layers=C16/2 C8", "model.freeze=true"))
    with pytest.raises(InputError, match="would stay frozen"):
        initialize(build(frozen.model, frozen.input, 7), builtin.labels, source)


def test_deeper_network_initialized_from_a_smaller_one_gives_the_same_answers():
    from edgefer.train.evaluate import keras_logits
    from edgefer.train.networks import build, initialize, load_keras
    from edgefer.train.recipes import load_recipe

    source = Bundle.open(shipped_bundles()["fer-nano"])
    recipe = load_recipe("nano", ("model.layers=C16/2 C16 C32/2 R32 R32 C64/2 R64 R64 R64 C96/2",))
    model = build(recipe.model, recipe.input, 7)
    assert initialize(model, source.card.labels, source) == len([layer for layer in model.layers if layer.weights])
    images = np.random.default_rng(0).integers(0, 256, (20, 48, 48, 1), dtype=np.uint8)
    expected = keras_logits(load_keras(source, "keras"), images)
    np.testing.assert_allclose(keras_logits(model, images), expected, atol=1e-3 * np.abs(expected).max())
    wider = load_recipe("nano", ("model.layers=C16/2 C16 C32/2 C48 C64/2 C96/2",))
    assert initialize(build(wider.model, wider.input, 7), source.card.labels, source) == 6  # three convolutions, norms
