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
from edgefer.convert.foreign import parse_labels, read_foreign, read_labels
from edgefer.convert.import_options import Request
from edgefer.convert.importing import import_network, measured_images
from edgefer.errors import BundleError, EdgeferError, InputError
from edgefer.interpreter import Network, softmax
from edgefer.options import Color
from edgefer.parity import verify
from edgefer.train.backend import tensorflow
from edgefer.train.data.dataset import Split
from edgefer.train.evaluate import evaluate, keras_logits
from edgefer.train.networks import load_keras
from tests.convert.foreign_files import changed, int8_file, labelled

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


def classifier(keras, pixels, x):
    """A small network of three labels from `pixels`, with random weights for `x`."""
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


def quantized(tmp_path, step, zero):
    """fer-nano, with an integer input of another scale."""

    def change(image, _):
        image.quantization.scale, image.quantization.zeroPoint = np.float32([step]), np.int64([zero])

    (tmp_path / "theirs.tflite").write_bytes(changed(change))
    return tmp_path / "theirs.tflite"


LETTERS = tuple("abcdefg")


@pytest.mark.parametrize(
    ("step", "zero"), [(2 / 255, 0), (2 / 255, -1), (1 / 128, 0), (0.996 / 255, -128), (1.0, -128)]
)
def test_an_integer_input_of_a_usual_range_takes_pixels_and_the_name_of_the_range_is_no_contradiction(
    tmp_path, step, zero
):
    file = quantized(tmp_path, step, zero)
    card = import_file(file, tmp_path / "silent", labels=LETTERS).bundle.card
    assert np.allclose((card.input.scale, card.input.offset), (step, -(zero + 128) * step))
    name = "-1..1" if zero > -128 else "0..1" if step < 1 else "0..255"
    card = import_file(file, tmp_path / "stated", labels=LETTERS, scale=parse_scale(name)).bundle.card
    assert (card.input.scale, card.input.offset) == parse_scale(name)[1]
    with pytest.raises(InputError, match="itself says that it takes"):
        import_file(file, tmp_path / "wrong", labels=LETTERS, scale=parse_scale("0..255" if step < 1 else "0..1"))


@pytest.mark.parametrize(("step", "zero"), [(0.5 / 255, -128), (0.0186577, -14)])
def test_an_integer_input_of_another_range_only_says_what_numbers_calibration_saw(tmp_path, step, zero):
    """Such as 0..0.5, on dark images, or -2.1..2.6, the ends of three channels that are scaled differently."""
    file = quantized(tmp_path, step, zero)
    with pytest.raises(
        InputError, match=r"does not say how it is fed \(its INT8 input stands for [^)]*\): state --scale"
    ):
        import_file(file, tmp_path / "silent", labels=LETTERS)
    scale = parse_scale("0..1") if zero == -128 else parse_scale("0.0171,-2.1")
    card = import_file(file, tmp_path / "stated", labels=LETTERS, scale=scale).bundle.card
    assert (card.input.scale, card.input.offset) == scale[1]
    with pytest.raises(InputError, match=r"and pixels as 0\.\.255 would fill too little of it: state the --scale"):
        import_file(file, tmp_path / "wrong", labels=LETTERS, scale=parse_scale("0..255"))


def test_another_kind_of_output_in_its_card_fails_the_proof(tmp_path):
    bundle = import_file(quantized(tmp_path, 1 / 255, -128), tmp_path / "out", labels=LETTERS).bundle
    assert verify(bundle)
    card = json.loads((bundle.path / "card.json").read_text())
    card["output"] = {"values": "probabilities"}
    (bundle.path / "card.json").write_text(json.dumps(card))
    with pytest.raises(BundleError, match="output is probabilities but its parity vectors were made with logits"):
        verify(Bundle.open(bundle.path))


def test_what_an_integer_input_of_another_range_takes_is_measured(tmp_path):
    foreign = read_foreign(quantized(tmp_path, 0.5 / 255, -128))
    open_ones = candidates(replace(foreign.stated, labels=LETTERS), 1, 7)
    spec = [one.spec(48, 48) for one in open_ones]
    fitting = [one.scale for one, spec in zip(open_ones, spec, strict=True) if foreign.stated.quanta.holds(spec)]
    assert [one.scale for one in open_ones] == ["0..1", "0..255", "-1..1", "quantized"] and fitting == [
        "0..1",
        "quantized",
    ]


def test_per_channel_scale_is_parsed():
    assert parse_scale("0.01,0.02,0.03,-1,-2,-3") == ("stated", ((0.01, 0.02, 0.03), (-1.0, -2.0, -3.0)))


@pytest.mark.parametrize("text", ["0..2", "1", "nan,0", "0,1", "1,2,3"])
def test_an_invalid_scale_is_refused(text):
    with pytest.raises(InputError, match="--scale"):
        parse_scale(text)
