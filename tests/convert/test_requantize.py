"""int8 of networks that were imported as a float32 .tflite, with no Keras file."""

import json

import numpy as np
import pytest

from edgefer.bundle import Bundle, Form, write_bundle
from edgefer.card import InputSpec
from edgefer.checks import Status
from edgefer.convert import pipeline, search
from edgefer.convert.calibrate import calibrate
from edgefer.convert.contract import parse_scale
from edgefer.convert.pipeline import convert
from edgefer.convert.quantize import run_converter, to_float32, to_int8
from edgefer.convert.requantize import tflite_to_int8
from edgefer.convert.work import Plan
from edgefer.errors import InputError, RuntimeFault
from edgefer.interpreter import Network
from edgefer.lineage import SUBJECT, check_origin, origin_form
from edgefer.parity import verify
from edgefer.progress import SILENT
from edgefer.tflite.flatbuffer import quantization, read_model
from edgefer.train.backend import tensorflow
from edgefer.train.evaluate import keras_logits
from edgefer.train.networks import load_keras
from tests.convert.foreign_files import import_file, int8_file

# The first test also trains the network, while other tests run.
pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("forked_conversion")]


@pytest.fixture(scope="module")
def network(trained):
    tensorflow()
    return load_keras(Bundle.open(trained), Form.KERAS)


@pytest.fixture(scope="module")
def labels(trained) -> tuple[str, ...]:
    return Bundle.open(trained).card.labels


@pytest.fixture(scope="module")
def theirs(network, labels, tmp_path_factory) -> Bundle:
    """The trained network as a third party's .tflite: -1..1 in, probabilities out."""
    import tf_keras

    folder, pixels = tmp_path_factory.mktemp("theirs"), tf_keras.Input((48, 48, 1))
    rescaled = tf_keras.layers.Rescaling(0.5, offset=0.5)(pixels)
    model = tf_keras.Model(pixels, tf_keras.layers.Softmax()(network(rescaled)))
    (folder / "theirs.tflite").write_bytes(to_float32(model))
    stated = {"scale": parse_scale("-1..1"), "labels": labels}
    return import_file(folder / "theirs.tflite", folder / "bundle", **stated).bundle


def test_the_same_int8_as_from_the_keras_network(network, labels, builtin):
    images, spec = builtin.split("train").images[:200], InputSpec(height=48, width=48)
    answers = []
    for content in (to_int8(network, images), tflite_to_int8(to_float32(network), spec, images)):
        made = Network(content, spec, len(labels))  # which refuses an input other than pixels - 128
        answers.append(made.raw(builtin.split("valid").images))
    assert np.abs(answers[0].astype(int) - answers[1]).max() <= 1
    assert (answers[0] == answers[1]).mean() > 0.95


def test_a_float_tflite_becomes_int8_and_is_compared_with_itself(theirs, network, builtin, edgefer, tmp_path):
    out = tmp_path / "int8"
    done = edgefer("convert", theirs.path, "--int8", "--data", "builtin", "--out", out)
    assert "int8 calibrated on 512 training images" in done.stdout
    bundle, images = Bundle.open(out), builtin.split("valid").images
    assert bundle.read(Form.FLOAT32) == theirs.read(Form.FLOAT32) and not bundle.has(Form.KERAS)
    assert origin_form(bundle.card) is Form.FLOAT32
    made = Network.open(bundle, Form.INT8)
    assert made.dtype == made.answer_dtype == np.int8
    expected = keras_logits(network, images).argmax(axis=1)
    assert (made.logits(images).argmax(axis=1) == expected).mean() > 0.95
    assert bundle.card.lineage.cost.variant == "int8" and not bundle.card.lineage.retrained
    held = builtin.with_labels(bundle.card.labels).split("valid")
    assert bundle.card.temperature == pytest.approx(calibrate(made.logits(held.images), held.labels).value)
    assert all(check.passed for check in verify(bundle))
    proof = json.loads(edgefer("verify", out, "--data", "builtin", "--json").stdout)
    rows = {row["subject"]: row for row in proof["checks"]}
    assert rows[SUBJECT]["status"] == "pass" and "float32.tflite" in rows[SUBJECT]["detail"]
    assert rows["int8 on litert against float32 on litert"]["status"] == "pass"


def test_conversion_again_begins_with_the_imported_network(theirs, builtin, tmp_path):
    first = convert(theirs, builtin, Plan(), tmp_path / "first", SILENT).bundle
    again = convert(first, builtin, Plan(), tmp_path / "again", SILENT).bundle
    assert again.read(Form.INT8) == first.read(Form.INT8) and again.card.lineage == first.card.lineage


def test_a_target_that_needs_int8_names_the_conversion(theirs, edgefer, tmp_path):
    refused = edgefer("export", "c", theirs.path, tmp_path / "c", expect=2)
    assert f"run `edgefer convert {theirs.path}` first" in refused.stderr


def test_what_needs_the_keras_network_is_refused(theirs, edgefer, tmp_path):
    for option in ("--qat", "--float16", "--prune=0.5", "--no-int8"):
        refused = edgefer("convert", theirs.path, option, "--data", "builtin", "--out", tmp_path / "out", expect=2)
        assert f"{option.split('=')[0]} needs the Keras network" in refused.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["int8", "dynamic-range"])
def test_a_quantized_tflite_is_not_quantized_again(kind, network, labels, edgefer, tmp_path):
    import tensorflow as tf

    file = tmp_path / "theirs.tflite"
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    file.write_bytes(int8_file() if kind == "int8" else run_converter(converter))
    import_file(file, tmp_path / "bundle", scale=parse_scale("0..1"), labels=labels)
    refused = edgefer("convert", tmp_path / "bundle", "--data", "builtin", expect=2)
    expected = "holds no Keras network" if kind == "int8" else "quantized before it was imported (dynamic-range)"
    assert expected in refused.stderr


def test_the_worst_layers_are_named_if_int8_loses_too_much(theirs, builtin, tmp_path):
    plan = Plan(max_drop=0)
    object.__setattr__(plan, "max_drop", -101.0)  # which Plan itself would refuse
    converted = convert(theirs, builtin, plan, tmp_path / "out", SILENT)
    quantized = converted.quantized
    assert not quantized.holds and all("calibrated" in attempt.way for attempt in quantized.attempts)
    errors = [layer.error for layer in quantized.layers]
    assert len(errors) >= 4 and errors == sorted(errors, reverse=True)
    assert {layer.operator for layer in quantized.layers} >= {"CONV_2D", "FULLY_CONNECTED"}


def test_verify_names_what_is_possible_without_a_keras_network(theirs, builtin, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "MIN_AGREEMENT", 1.1)
    converted = convert(theirs, builtin, Plan(), tmp_path / "out", SILENT)
    assert "run its float32 form" in converted.warning


def with_note(content: bytes, name: bytes) -> bytes:
    """The .tflite with a metadata entry of this name."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    entry = schema.MetadataT()
    entry.name, entry.buffer = name, 0
    model.metadata = [*model.metadata, entry]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_litert_torch_s_files_are_quantized_whole(network, builtin):
    """Their metadata makes TensorFlow's quantizer leave all convolutions in float, and say nothing."""
    content, images = to_float32(network), builtin.split("train").images[:50]
    spec = InputSpec(height=48, width=48)
    theirs = with_note(content, b"keep_stablehlo_constant")
    made = tflite_to_int8(theirs, spec, images)
    assert quantization(read_model(made, "made")) == "int8"
    assert made == tflite_to_int8(content, spec, images)


def test_an_operator_that_stays_in_float_is_named(builtin):
    import tf_keras

    pixels = tf_keras.Input((48, 48, 1))
    x = tf_keras.layers.Conv2D(4, 3, strides=4)(pixels)
    x = tf_keras.layers.GlobalAveragePooling2D()(tensorflow().math.sin(x))
    content = to_float32(tf_keras.Model(pixels, tf_keras.layers.Dense(7)(x)))
    with pytest.raises(RuntimeFault, match=r"^TensorFlow leaves SIN in float32, .* replace it in the network"):
        tflite_to_int8(content, InputSpec(height=48, width=48), builtin.split("train").images[:2])


def test_what_tensorflow_cannot_quantize_is_one_sentence(builtin):
    images = builtin.split("train").images[:2]
    with pytest.raises(RuntimeFault, match=r"^TensorFlow could not quantize the network: [^\n]+$"):
        tflite_to_int8(empty(), InputSpec(height=48, width=48), images)


def empty() -> bytes:
    """A .tflite without anything to compute."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [], [], []
    builder = flatbuffers.Builder(64)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_each_channel_s_range_is_that_of_all_its_pixels():
    """ImageNet's scaling gives each channel another range; the input's scale must hold them all, whatever the images hold."""
    import tf_keras

    pixels = tf_keras.Input((32, 32, 3))
    pooled = tf_keras.layers.GlobalAveragePooling2D()(tf_keras.layers.Conv2D(4, 3, strides=2)(pixels))
    content = to_float32(tf_keras.Model(pixels, tf_keras.layers.Dense(3)(pooled)))
    scale, offset = parse_scale("imagenet")[1]
    spec = InputSpec(height=32, width=32, color="rgb", scale=scale, offset=offset)
    gray = np.full((4, 32, 32, 3), 128, np.uint8)
    made = Network(tflite_to_int8(content, spec, gray), spec, 3)
    ends = [made.feed(np.full((32, 32, 3), value, np.uint8)) for value in (0, 255)]
    assert ends[0].min() == -128 and ends[1].max() == 127


@pytest.mark.parametrize("change", ["beside its Keras network", "retrained", "not imported"])
def test_a_card_cannot_claim_that_a_float32_made_by_edgefer_is_the_trained_network(change, trained, builtin, tmp_path):
    source = convert(Bundle.open(trained), builtin, Plan(), tmp_path / "source", SILENT).bundle
    made = source.card
    claimed = made.lineage.model_copy(
        update={"sha256": made.variants[Form.FLOAT32].sha256, "retrained": change == "retrained"}
    )
    spec = made.input if change == "not imported" else made.input.model_copy(update={"scale": 1 / 255})
    kept = [Form.FLOAT32, *([Form.KERAS] if change.startswith("beside") else [])]
    card = made.model_copy(update={"lineage": claimed, "input": spec})
    edited = write_bundle(tmp_path / "edited", card, {form.value: source.read(form) for form in kept})
    assert origin_form(edited.card) is None and check_origin(edited).status is Status.FAIL
    with pytest.raises(InputError, match="does not hold its trained network"):
        convert(edited, builtin, Plan(max_drop=1.0), tmp_path / "refused", SILENT)


def test_a_tflite_whose_weights_are_variables_that_nothing_fills_is_refused(tmp_path):
    """As from_concrete_functions writes it of a Keras 3 network; its answers are whatever was in memory."""
    import keras

    tf, pixels = tensorflow(), keras.Input((48, 48, 1))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(pixels))
    model = keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(pooled))
    answer = tf.function(lambda image: model(image, training=False))
    image = tf.TensorSpec((1, 48, 48, 1), tf.float32)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([answer.get_concrete_function(image)], model)
    file = tmp_path / "theirs.tflite"
    file.write_bytes(run_converter(converter))
    with pytest.raises(
        InputError, match="holds no weights: it reads them from variables that nothing in the file fills"
    ):
        import_file(file, tmp_path / "out", scale=parse_scale("0..1"), labels=("a", "b", "c"))


def test_a_dead_layer_s_message_names_what_is_possible_without_a_keras_network(theirs, monkeypatch):
    def refused(*_):
        raise RuntimeFault("It cannot run.")

    monkeypatch.setattr(search.Network, "of", refused)
    monkeypatch.setattr(search, "DEAD_SCALE", 1e9)
    with pytest.raises(RuntimeFault, match=r"int8 cannot run, .* or run its float32 form"):
        search._loaded(int8_file(), theirs.card, keras=False)
