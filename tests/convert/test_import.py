"""Third-party networks: their input scaling is measured or must be stated, and their answers stay the same."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from edgefer.bundle import Bundle, shipped_bundles
from edgefer.card import InputSpec, OutputSpec
from edgefer.convert.contract import (
    Hypothesis,
    Stated,
    candidates,
    choose,
    describe,
    measure,
    parse_scale,
    stated_scale,
)
from edgefer.convert.foreign import parse_labels, read_foreign
from edgefer.convert.import_options import Request
from edgefer.convert.importing import import_network, measured_images
from edgefer.errors import EdgeferError, InputError
from edgefer.interpreter import Network
from edgefer.options import Color
from edgefer.parity import verify
from edgefer.train.backend import tensorflow
from edgefer.train.data.dataset import Split
from edgefer.train.evaluate import evaluate, keras_logits
from edgefer.train.networks import load_keras
from tests.convert.foreign_files import changed, labelled

pytestmark = pytest.mark.timeout(900)  # the first test also trains the network, while other tests run


@pytest.fixture(scope="module")
def keras():
    tensorflow()
    import tf_keras

    return tf_keras


@pytest.fixture(scope="module")
def network(keras, trained):
    return load_keras(Bundle.open(trained), "keras")


@pytest.fixture(scope="module")
def small(keras):
    """One that nobody trained, where answers do not matter."""
    pixels = keras.Input((48, 48, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, strides=4, activation="relu")(pixels))
    return keras.Model(pixels, keras.layers.Dense(7)(x))


@pytest.fixture(scope="module")
def labels(trained) -> tuple[str, ...]:
    return Bundle.open(trained).card.labels


def wrapped(keras, network, scale, offset):
    """The trained network as a third party might have built it: pixels / 255 = scale * input + offset, probabilities out."""
    pixels = keras.Input((48, 48, 1))
    x = keras.layers.Rescaling(scale, offset=offset)(pixels)
    return keras.Model(pixels, keras.layers.Softmax()(network(x)))


def import_file(path, out, **stated):
    return import_network(Request(path=path, stated=Stated(**stated)), out)


def test_input_scaling_is_measured_and_accuracy_is_kept(keras, network, labels, builtin, edgefer, tmp_path):
    wrapped(keras, network, 0.5, 0.5).save(tmp_path / "theirs.keras")
    out = tmp_path / "bundle"
    done = edgefer("import", tmp_path / "theirs.keras", "--data", "builtin", "--labels", ",".join(labels), "--out", out)
    assert "-1..1" in done.stdout and "taken" in done.stdout
    bundle = Bundle.open(out)
    assert bundle.card.labels == labels and not bundle.card.input.stated
    valid = builtin.with_labels(labels).split("valid")
    ours, theirs = load_keras(bundle, "keras"), network
    assert np.abs(keras_logits(ours, valid.images) - keras_logits(theirs, valid.images)).max() < 1e-3
    assert bundle.card.metrics["valid"]["float32"] == evaluate(valid, keras_logits(theirs, valid.images))
    assert bundle.card.provenance.conversion[0].startswith("limits fitted on valid with float32: light ")
    assert all(check.passed for check in verify(bundle))
    edgefer("convert", out, "--int8", "--data", "builtin", "--out", tmp_path / "int8")
    converted = Bundle.open(tmp_path / "int8")
    int8 = Network.of(converted.read("int8"), converted.card)
    same = int8.logits(valid.images).argmax(axis=1) == keras_logits(theirs, valid.images).argmax(axis=1)
    assert same.mean() > 0.95


def test_import_with_data_measures_the_crop_for_each_detector(keras, network, labels, builtin, tmp_path):
    """The images are faces as the network was trained on: boxes of half their side need a crop scale of 2."""
    wrapped(keras, network, 0.5, 0.5).save(tmp_path / "theirs.keras")
    request = Request(
        path=tmp_path / "theirs.keras", stated=Stated(labels=labels),
        load=lambda spec: replace(builtin, splits={name: split.take(np.arange(140)) for name, split in builtin.splits.items()}),
        detectors={"half": lambda image: [(144, 144, 240, 240)], "blind": lambda image: []},
    )  # fmt: skip
    crops = import_network(request, tmp_path / "bundle").bundle.card.crops
    assert list(crops) == ["half"] and crops["half"].scale == 2.0 and crops["half"].faces > 20


def test_scaling_inside_the_network_is_detected_and_not_applied_twice(keras, small, labels, tmp_path):
    file = tmp_path / "theirs.h5"
    wrapped(keras, small, 1 / 255, 0.0).save(file)
    imported = import_file(file, tmp_path / "bundle", labels=labels)
    assert imported.contract.scale == "0..255" and "scale pixels of 0..255" in imported.because[0]
    names = [layer.name for layer in load_keras(imported.bundle, "keras").layers]
    assert "edgefer_scaling" not in names and not any("rescaling" in name or "softmax" in name for name in names)
    with pytest.raises(InputError, match="scaled twice"):
        import_file(file, tmp_path / "other", labels=labels, scale=parse_scale("0..1"))
    with pytest.raises(InputError, match="softmax would be applied twice"):
        import_file(file, tmp_path / "other", labels=labels, output=OutputSpec(values="logits"))
    assert not (tmp_path / "other").exists()


def test_scaling_is_detected_behind_augmentation_layers(keras, small, labels, tmp_path):
    """As in Keras's tutorial on image classification."""
    augment = keras.Sequential([keras.layers.RandomFlip("horizontal"), keras.layers.RandomZoom(0.1)])
    keras.Sequential(
        [keras.Input((48, 48, 1)), augment, keras.layers.Rescaling(1 / 255), small, keras.layers.Softmax()]
    ).save(tmp_path / "theirs.keras")
    imported = import_file(tmp_path / "theirs.keras", tmp_path / "bundle", labels=labels)
    assert imported.contract.scale == "0..255" and "scale pixels of 0..255 to 0..1" in imported.because[0]


def test_an_import_requires_the_options_that_the_file_leaves_open(small, labels, tmp_path):
    small.save(tmp_path / "theirs.keras")
    with pytest.raises(InputError, match=r"state --scale, or give --data"):
        import_file(tmp_path / "theirs.keras", tmp_path / "bundle", labels=labels)
    with pytest.raises(InputError, match="--labels"):
        import_file(tmp_path / "theirs.keras", tmp_path / "bundle", scale=parse_scale("0..1"))
    with pytest.raises(InputError, match="2 labels are named"):
        import_file(tmp_path / "theirs.keras", tmp_path / "bundle", scale=parse_scale("0..1"), labels=("a", "b"))
    imported = import_file(
        tmp_path / "theirs.keras", tmp_path / "bundle", labels=labels, scale=parse_scale("0.00392156862745098,0")
    )
    assert len(load_keras(imported.bundle, "keras").layers) == len(small.layers)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_tflite_file_is_imported_unchanged(keras, network, labels, builtin, edgefer, tmp_path, dtype):
    import tensorflow as tf

    model = wrapped(keras, network, 1.0, 0.0)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]  # float32 ends: dynamic range
    if dtype == "uint8":
        images = builtin.split("train").images[::8].astype(np.float32) / 255
        converter.representative_dataset = lambda: ([one[None]] for one in images)
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    (tmp_path / "model.tflite").write_bytes(converter.convert())
    (tmp_path / "labels.txt").write_text("".join(f"{number} {label}\n" for number, label in enumerate(labels)))
    edgefer(
        "import",
        tmp_path / "model.tflite",
        *([] if dtype == "uint8" else ["--scale", "0..1"]),
        "--out",
        tmp_path / "out",
    )
    bundle = Bundle.open(tmp_path / "out")
    assert bundle.card.labels == labels and bundle.card.output.values == "probabilities"
    assert bundle.read(bundle.best_tflite()) == (tmp_path / "model.tflite").read_bytes()
    valid = builtin.with_labels(labels).split("valid")
    answers = Network.of(bundle.read(bundle.best_tflite()), bundle.card).logits(valid.images)
    assert (answers.argmax(axis=1) == keras_logits(network, valid.images).argmax(axis=1)).mean() > 0.95
    edgefer("verify", bundle.path)
    done = edgefer("run", bundle.path, "--source", "builtin", "--headless", "--frames", "2", "--json")
    assert set(json.loads(done.stdout.splitlines()[0])["faces"][0]["scores"]) == set(labels)


def test_author_and_licence_come_from_tflite_metadata_unless_given(edgefer, tmp_path):
    file = labelled(tmp_path, author="Ada\nLovelace\x1b[31m", license="CC BY 4.0 " + "x" * 500)
    done = edgefer("import", file, "--out", tmp_path / "one")
    card = Bundle.open(tmp_path / "one").card
    assert card.author == "Ada Lovelace\\x1b[31m" and card.license == f"CC BY 4.0 {'x' * 190}"
    assert "its metadata says: author Ada Lovelace\\x1b[31m, licence CC BY 4.0" in done.stdout.replace("\n", " ")
    edgefer("import", file, "--author", "Me", "--license", "MIT", "--out", tmp_path / "other")
    card = Bundle.open(tmp_path / "other").card
    assert (card.author, card.license) == ("Me", "MIT")


def test_a_saved_model_is_imported(keras, network, labels, tmp_path):
    network.export(str(tmp_path / "theirs"))
    imported = import_file(tmp_path / "theirs", tmp_path / "bundle", labels=labels, scale=parse_scale("0..1"))
    images = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 1), dtype=np.uint8)
    answers = Network.of(imported.bundle.read("float32"), imported.bundle.card).logits(images)
    assert np.abs(answers - keras_logits(network, images)).max() < 1e-3


def test_saved_model_needs_a_signature_with_one_output(keras, forked_conversion, tmp_path):
    tf = tensorflow()
    pixels = keras.Input((16, 16, 1))
    module = tf.Module()
    module.network = network = keras.Model(pixels, keras.layers.Dense(3)(keras.layers.Flatten()(pixels)))
    image = tf.TensorSpec((1, 16, 16, 1))
    module.one = tf.function(lambda image: {"logits": network(image)}, input_signature=[image])
    module.two = tf.function(lambda image: {"a": network(image), "b": network(image)}, input_signature=[image])
    for signatures, message in (
        ({"other": module.one}, "but other"),
        ({"serving_default": module.two}, "gives 2 outputs"),
    ):
        tf.saved_model.save(module, str(tmp_path / "theirs"), signatures=signatures)
        with pytest.raises(InputError, match=message):
            read_foreign(tmp_path / "theirs")


def test_keras_network_with_constant_answers_is_refused(keras, tmp_path):
    pixels = keras.Input((16, 16, 1))
    answers = keras.layers.Dense(3, kernel_initializer="zeros")(keras.layers.Flatten()(pixels))
    keras.Model(pixels, answers).save(tmp_path / "theirs.keras")
    stated = Stated(scale=parse_scale("0..1"), color=Color.GRAY, labels=("a", "b", "c"))
    with pytest.raises(EdgeferError, match="the same answer to every image"):
        import_network(Request(path=tmp_path / "theirs.keras", stated=stated), tmp_path / "out")


def test_softmax_inside_the_last_dense_layer_is_applied_once(keras, tmp_path):
    """The usual end of a network: it is removed from the layer, and the answers stay the same."""
    layers = keras.layers
    parts = (
        layers.Rescaling(1 / 127.5, offset=-1),
        layers.Conv2D(4, 3),
        layers.Flatten(),
        layers.Dense(7, activation="softmax"),
    )
    keras.Sequential([keras.Input((24, 24, 1)), *parts]).save(tmp_path / "theirs.h5")
    imported = import_file(tmp_path / "theirs.h5", tmp_path / "bundle", labels=tuple("abcdefg"))
    assert all(check.passed for check in imported.checks) and imported.contract.output.values == "probabilities"
    assert load_keras(imported.bundle, "keras").layers[-1].activation.__name__ == "linear"


def test_labels_in_the_wrong_order_are_refused_and_the_right_order_is_suggested():
    names, classes = ("calm", "joy", "wow"), 3
    labels = np.tile(np.arange(classes), 20)
    split = Split(images=np.zeros((60, 1, 1, 1), np.uint8), labels=labels, ids=np.arange(60))
    known = Stated(scale=parse_scale("0..1"), color=Color.GRAY, labels=("joy", "wow", "calm"))
    found = measure(candidates(known, 1, classes, names), split, names, lambda _: np.eye(classes)[labels])
    with pytest.raises(InputError, match=r"0\.0%.*by these images that is calm,joy,wow"):
        choose(found, "x.h5")
    blind = measure(candidates(known, 1, classes, names), split, names, lambda _: np.eye(classes)[0 * labels])
    assert [one.suggested for one in blind] == [()]


def test_scale_of_1_255_in_float32_is_described_as_0_to_1():
    assert describe(stated_scale((np.float32(1 / 255), 0))) == "pixels as 0..1"
    assert describe(stated_scale((0.0039, 0))) == "pixels * 0.0039 + 0"


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


def test_labels_come_from_the_options_then_the_file_then_labels_txt(edgefer, tmp_path):
    from edgefer import import_model

    file, letters = labelled(tmp_path), tuple("abcdefg")
    own = Bundle.open(shipped_bundles()["fer-nano"]).card.labels
    (tmp_path / "labels.txt").write_text("\n".join(letters))
    bare = tmp_path / "bare.tflite"
    bare.write_bytes(changed(lambda image, answer: None))  # without the appended labels
    assert import_model(file, out=tmp_path / "1").card.labels == own
    assert import_model(bare, out=tmp_path / "2").card.labels == letters
    assert import_model(bare, labels=list(own), out=tmp_path / "3").card.labels == own
    done = edgefer("import", bare, "--out", tmp_path / "4")
    assert Bundle.open(tmp_path / "4").card.labels == letters and "the labels.txt beside it" in done.stdout
    edgefer("import", file, "--out", tmp_path / "5")
    assert Bundle.open(tmp_path / "5").card.labels == own
    done = edgefer("import", bare, "--labels", ",".join(f"label{number}" for number in range(60)), expect=2)
    assert "gives 7 answers, and 60 labels are named" in done.stderr


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
    [("happy\nsad\n", ("happy", "sad")), ("0 happy\n1 very sad\n", ("happy", "very sad")), ("0\n1\n", ("0", "1"))],
)
def test_labels_are_read_from_both_kinds_of_file(text, labels):
    assert parse_labels(text) == labels


def test_per_channel_scale_is_parsed():
    assert parse_scale("0.01,0.02,0.03,-1,-2,-3") == ("stated", ((0.01, 0.02, 0.03), (-1.0, -2.0, -3.0)))


@pytest.mark.parametrize("text", ["0..2", "1", "nan,0", "0,1", "1,2,3"])
def test_an_invalid_scale_is_refused(text):
    with pytest.raises(InputError, match="--scale"):
        parse_scale(text)
