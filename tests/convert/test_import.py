"""Third-party networks: their input scaling is measured or must be stated, and their answers stay the same."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from edgefer.bundle import Bundle, shipped_bundles
from edgefer.card import OutputSpec
from edgefer.cli import app
from edgefer.convert.contract import (
    Stated,
    parse_scale,
)
from edgefer.convert.foreign import read_foreign
from edgefer.convert.import_options import Request
from edgefer.convert.importing import import_network
from edgefer.convert.quantize import converter_of
from edgefer.errors import EdgeferError, InputError
from edgefer.interpreter import Network, softmax
from edgefer.options import Color
from edgefer.parity import verify
from edgefer.progress import Lines
from edgefer.train.backend import tensorflow
from edgefer.train.evaluate import evaluate, keras_logits
from edgefer.train.networks import load_keras
from tests.convert.foreign_files import changed, import_file, int8_file, labelled

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


def test_labels_in_another_order_than_the_network_s_give_a_warning_with_the_order_that_fits(
    keras, network, labels, builtin, tmp_path
):
    """Its order is that of no known data set, and the stated one is: FER2013's."""
    order, logged = (*labels[::-2], *labels[1::2]), []
    swap = keras.layers.Dense(7, use_bias=False)
    model = keras.Sequential([network, swap])
    swap.set_weights([np.eye(7)[:, [labels.index(label) for label in order]]])
    model.save(tmp_path / "theirs.keras")

    def import_with(stated, out, **data):
        logged.clear()
        stated = Stated(labels=stated, scale=parse_scale("0..1"))
        request = Request(path=tmp_path / "theirs.keras", stated=stated, progress=Lines(logged.append), **data)
        imported = import_network(request, tmp_path / out)
        return imported, [line for line in logged if line.startswith("Check --labels")]

    stated = (order[1], order[0], *order[2:])
    imported, (warning,) = import_with(stated, "swapped", load=lambda spec: builtin)
    assert (
        imported.settled()["warning"]
        == warning
        == json.loads((imported.bundle.path / "report" / "import.json").read_text())["warning"]
    )
    assert imported.contract.labels == stated and f", labels as they suggest ({','.join(order)})." in warning
    assert import_with(order, "right", load=lambda spec: builtin)[1] == []
    assert import_with(stated, "unmeasured")[1][0].startswith("Check --labels: no known data set has")
    assert import_with(labels, "known")[1] == []


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


def classifier(keras, pixels, x):
    """A small network of three labels from `pixels`, with random weights for `x`."""
    keras.utils.set_random_seed(1)  # with some other seeds none of the filters ever answers
    x = keras.layers.Conv2D(4, 3, strides=4, activation="relu")(x)
    return keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalMaxPooling2D()(x)))


@pytest.mark.parametrize("kind", ["branch", "two", "shared", "per pixel", "inverted"])
def test_layers_that_do_not_scale_all_pixels_alike_stay_in_the_network(keras, tmp_path, kind):
    layers, pixels = keras.layers, keras.Input((16, 16, 3))
    rescaling = layers.Rescaling(0.5, offset=-1.0)
    if kind == "branch":
        x = layers.Concatenate()([rescaling(pixels), pixels])
    elif kind == "two":
        x = layers.Concatenate()([rescaling(pixels), layers.Rescaling(1 / 128)(pixels)])
    elif kind == "shared":
        x = rescaling(rescaling(pixels))
    elif kind == "per pixel":
        x = layers.Normalization(axis=(1, 2, 3))
        x.adapt(np.random.default_rng(0).random((8, 16, 16, 3)).astype(np.float32) * 255)
        x = x(pixels)
    else:
        x = layers.Normalization(mean=0.5, variance=0.25, invert=True)(pixels)
    network = classifier(keras, pixels, x)
    network.save(tmp_path / "theirs.keras")
    stated = {"labels": ("a", "b", "c"), "color": Color.RGB}
    with pytest.raises(InputError, match="state --scale"):
        import_file(tmp_path / "theirs.keras", tmp_path / "silent", **stated)
    bundle = import_file(tmp_path / "theirs.keras", tmp_path / "out", scale=parse_scale("-1..1"), **stated).bundle
    images = np.random.default_rng(1).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    expected = network(images / np.float32(127.5) - 1, training=False).numpy()
    answers = softmax(Network.of(bundle.read("float32"), bundle.card).logits(images))
    assert np.abs(answers - expected).max() < 1e-5


def test_an_operator_that_tflite_lacks_is_named_in_the_message(keras, tmp_path):
    pixels = keras.Input((16, 16, 3))
    network = classifier(keras, pixels, keras.layers.Resizing(20, 20, interpolation="bicubic")(pixels))
    network.save(tmp_path / "theirs.keras")
    stated = {"labels": ("a", "b", "c"), "color": Color.RGB, "scale": parse_scale("0..1")}
    with pytest.raises(EdgeferError, match=r"could not convert the network: 'tf\.ResizeBicubic' op is neither"):
        import_file(tmp_path / "theirs.keras", tmp_path / "out", **stated)
    assert not (tmp_path / "out").exists()


def test_layers_within_that_have_the_names_of_those_left_out_stay(keras, tmp_path):
    layers, inside, pixels = keras.layers, keras.Input((16, 16, 3)), keras.Input((16, 16, 3))
    attention = layers.Softmax(name="softmax")(layers.Rescaling(2.0, name="rescaling")(inside))
    within = keras.Model(inside, layers.Multiply()([inside, attention]))
    x = layers.Conv2D(3, 3, padding="same")(layers.Rescaling(1 / 255, name="rescaling")(pixels))
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(within(x)))
    network = keras.Model(pixels, layers.Softmax(name="softmax")(x))
    network.save(tmp_path / "theirs.keras")
    bundle = import_file(tmp_path / "theirs.keras", tmp_path / "out", labels=("a", "b", "c"), color=Color.BGR).bundle
    images = np.random.default_rng(1).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    answers = softmax(Network.of(bundle.read("float32"), bundle.card).logits(images))
    assert np.abs(answers - network(images.astype(np.float32)).numpy()).max() < 1e-5


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
    function = tf.function(model, autograph=False).get_concrete_function(tf.TensorSpec((1, 48, 48, 1)))
    converter = converter_of(function)
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


@pytest.mark.parametrize(
    ("activation", "names"),
    [("relu", ()), ("swish", ("1 LOGISTIC (use ReLU in place of swish", "1 MUL (use ReLU in place of swish"))],
)
def test_import_names_the_operators_that_export_will_refuse(keras, tmp_path, activation, names):
    pixels = keras.Input((16, 16, 1))
    features = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, padding="same")(pixels))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Activation(activation)(features))
    keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(pooled)).save(tmp_path / "theirs.keras")
    stated = ("--labels", "a,b,c", "--scale", "-1..1", "--out", str(tmp_path / "bundle"))
    shown = CliRunner().invoke(app, ["import", str(tmp_path / "theirs.keras"), *stated])
    assert shown.exit_code == 0 and ("Not supported by `edgefer export c` and" in shown.stdout) is bool(names)
    assert all(name in shown.stdout for name in names)


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
    module.batch = tf.function(network.call, input_signature=[tf.TensorSpec((8, 16, 16, 1))])
    module.any_size = tf.function(
        lambda image: network(tf.image.resize(image, (16, 16))), input_signature=[tf.TensorSpec((1, None, None, 1))]
    )
    module.two = tf.function(lambda image: {"a": network(image), "b": network(image)}, input_signature=[image])
    for signatures, message in (
        ({"other": module.one}, "but other"),
        ({"serving_default": module.two}, "gives 2 outputs"),
        ({"serving_default": module.batch}, r"takes \(8, 16, 16, 1\), not one image"),
        ({"serving_default": module.any_size}, r"takes \(1, None, None, 1\), not one image"),
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


def test_a_labels_file_that_is_missing_is_no_label(edgefer, tmp_path):
    (tmp_path / "theirs.tflite").write_bytes(int8_file())
    done = edgefer("import", tmp_path / "theirs.tflite", "--labels", "lables.txt", "--out", tmp_path / "out", expect=2)
    assert "There is no labels file 'lables.txt'" in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("channels", "color"), [(1, "rgb"), (1, "bgr"), (3, "gray")])
def test_a_color_that_is_not_that_of_its_input_is_refused(keras, tmp_path, channels, color):
    pixels = keras.Input((16, 16, channels))
    keras.Model(pixels, keras.layers.Dense(2)(keras.layers.Flatten()(pixels))).save(tmp_path / "theirs.keras")
    stated = {"scale": parse_scale("0..1"), "labels": ("a", "b"), "color": Color(color)}
    with pytest.raises(InputError, match=f"takes images of {channels} channels?, not {color} ones"):
        import_file(tmp_path / "theirs.keras", tmp_path / "out", **stated)
