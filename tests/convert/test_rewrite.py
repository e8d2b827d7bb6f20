"""What is left out of a float32 .tflite, or turned, before it is quantized: with the same answers, or not at all."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edgefer.bundle import Form, write_bundle
from edgefer.c.prove import check_in_c
from edgefer.card import InputSpec, OutputSpec
from edgefer.checks import Status
from edgefer.convert.contract import parse_scale
from edgefer.convert.pipeline import convert
from edgefer.convert.prove import prove
from edgefer.convert.quantize import converter_of, run_converter
from edgefer.convert.requantize import for_int8, tflite_to_int8
from edgefer.convert.work import Plan
from edgefer.errors import BundleError
from edgefer.interpreter import Network, open_interpreter, softmax
from edgefer.parity import check_bundle
from edgefer.progress import SILENT
from edgefer.tflite.flatbuffer import quantization, read_model
from edgefer.tflite.layers import read_layers
from edgefer.tflite.portable import unsupported
from edgefer.tflite.rewrite import MADE_OF, int8_output, rewritten
from edgefer.train.backend import tensorflow
from tests.convert.foreign_files import import_file

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("forked_conversion")]
RNG = np.random.default_rng(1)
LETTERS = tuple("abcdefg")


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(0, 0.2, shape).astype(np.float32)


def network(end: Callable, *, batch: int | None = 1) -> bytes:
    """A float32 .tflite whose `end` gets tf and the [n, 6, 6, 8] of a convolution. batch: None leaves it open."""
    tf = tensorflow()

    def answer(pixels):
        return end(tf, tf.nn.max_pool2d(tf.nn.relu(tf.nn.conv2d(pixels, KERNEL, 2, "SAME")), 4, 4, "SAME"))

    return run_converter(
        converter_of(tf.function(answer).get_concrete_function(tf.TensorSpec((batch, 48, 48, 1), tf.float32)))
    )


KERNEL, SMALL = weights(3, 3, 1, 8), weights(1, 1, 8, 8)
DENSE, WIDE, BIAS = weights(8, 7), weights(288, 7), weights(7)


def first(tf, x):
    return tf.transpose(x, (0, 3, 1, 2))


def dense(tf, x):
    return tf.matmul(x, DENSE) + BIAS


ENDS: dict[str, Callable] = {
    "mean((2, 3))": lambda tf, x: dense(tf, tf.reduce_mean(first(tf, x), (2, 3))),
    "mean((-1, -2))": lambda tf, x: dense(tf, tf.reduce_mean(first(tf, x), (-1, -2))),
    "flatten(2).mean(-1)": lambda tf, x: dense(tf, tf.reduce_mean(tf.reshape(first(tf, x), (1, 8, 36)), -1)),
    "flatten(1)": lambda tf, x: tf.matmul(tf.reshape(first(tf, x), (1, 288)), WIDE) + BIAS,
    "softmax": lambda tf, x: tf.nn.softmax(dense(tf, tf.reduce_mean(x, (1, 2)))),
    "log_softmax": lambda tf, x: tf.nn.log_softmax(dense(tf, tf.reduce_mean(x, (1, 2)))),
    "reshaped softmax": lambda tf, x: tf.reshape(
        tf.nn.softmax(dense(tf, tf.reduce_mean(first(tf, x), (2, 3)))), (1, 1, 7)
    ),
    "softmax, squeeze()": lambda tf, x: tf.reshape(tf.nn.softmax(dense(tf, tf.reduce_mean(x, (1, 2)))), (7,)),
    "squeeze(), softmax": lambda tf, x: tf.nn.softmax(tf.reshape(dense(tf, tf.reduce_mean(x, (1, 2))), (7,))),
    "MaxPool2d(3, 2, 1)": lambda tf, x: dense(tf, tf.reduce_mean(padded_maximum(tf, convolved(tf, x)), (1, 2))),
    "nothing to change": lambda tf, x: dense(tf, tf.reduce_mean(x, (1, 2))),
}
# What is not provably the same, and so remains.
KEPT: dict[str, Callable] = {
    "one of two dimensions": lambda tf, x: dense(tf, tf.reduce_mean(tf.reduce_mean(first(tf, x), 3), 2)),
    "keepdims": lambda tf, x: dense(tf, tf.reshape(tf.reduce_mean(first(tf, x), (2, 3), keepdims=True) * 2, (1, 8))),
    "flatten that is used twice": lambda tf, x: twice(tf, tf.reshape(first(tf, x), (1, 288))),
    "largest": lambda tf, x: dense(tf, tf.reduce_max(first(tf, x), (2, 3))),
}


def convolved(tf, x):
    return tf.nn.relu(tf.nn.conv2d(x, SMALL, 1, "SAME"))


def padded_maximum(tf, x):
    padded = tf.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    return tf.nn.max_pool2d(padded, 3, 2, "VALID")


def twice(tf, x):
    return tf.matmul(x, WIDE) + tf.matmul(tf.tanh(x), WIDE)


def names(content: bytes) -> list[str]:
    return [operator.name for operator in read_model(content, "made").operators]


def run(content: bytes) -> np.ndarray:
    """Its answers to eight random images."""
    _, interpreter = open_interpreter(content)
    pixels = np.random.default_rng(0).random((8, 1, 48, 48, 1), np.float32)
    found = []
    for one in pixels:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], one)
        interpreter.invoke()
        found.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).ravel())
    return np.stack(found)


@pytest.mark.parametrize("name", ENDS)
def test_what_is_changed_gives_the_same_answers(name):
    content = network(ENDS[name])
    changed, answers = for_int8(content), run(content)
    made = run(changed)
    if "softmax" in name:
        made = np.log(softmax(made)) if name == "log_softmax" else softmax(made)
    assert np.abs(made - answers).max() < 1e-5
    assert not {"TRANSPOSE", "PADV2", *MADE_OF} & set(names(changed)) and not unsupported(read_model(content, "made"))
    assert names(changed) == [one.name for one in rewritten(read_model(content, "made")).operators]


@pytest.mark.parametrize("name", KEPT)
def test_what_is_not_provably_the_same_stays(name):
    content = network(KEPT[name])
    assert "TRANSPOSE" in names(content)
    assert names(for_int8(content)) == names(content) and (run(for_int8(content)) == run(content)).all()
    assert "TRANSPOSE" in unsupported(read_model(content, "made"))


def test_a_maximum_of_what_may_be_negative_keeps_its_padding():
    content = network(lambda tf, x: dense(tf, tf.reduce_mean(padded_maximum(tf, x - 0.5), (1, 2))))
    assert names(for_int8(content)) == names(content) and "PADV2" in names(content)


def test_a_softmax_with_a_factor_stays():
    content = network(ENDS["softmax"])
    model = read_model(content, "made")
    sharper = [replace(one, beta=2.0) if one.name == "SOFTMAX" else one for one in model.operators]
    sharp = replace(model, subgraphs=(replace(model.main, operators=tuple(sharper)),))
    assert rewritten(sharp).operators[-1].name == "SOFTMAX" and int8_output(sharp, OutputSpec()) == OutputSpec()
    assert int8_output(model, OutputSpec()).float32 == "probabilities"


def test_an_open_batch_size_becomes_1_and_a_flatten_s_shape_a_constant():
    """TFLiteConverter.from_keras_model writes a Flatten so: SHAPE, STRIDED_SLICE and PACK beside the RESHAPE."""
    content = network(lambda tf, x: tf.matmul(tf.reshape(x, (tf.shape(x)[0], 288)), WIDE), batch=None)
    assert {"SHAPE", "STRIDED_SLICE", "PACK"} <= set(names(content))
    made = tflite_to_int8(content, InputSpec(height=48, width=48), RNG.integers(0, 256, (8, 48, 48, 1), np.uint8))
    assert (
        {"RESHAPE", "FULLY_CONNECTED"} <= set(names(made)) <= {"CONV_2D", "MAX_POOL_2D", "RESHAPE", "FULLY_CONNECTED"}
    )
    assert read_layers(made, "made").answers == 7


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A third party's network of channels first that ends in a softmax: as imported."""
    content = network(lambda tf, x: tf.nn.softmax(5 * (tf.matmul(tf.reshape(first(tf, x), (1, 288)), WIDE) + BIAS)))
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "theirs.tflite").write_bytes(content)
    bundle = import_file(folder / "theirs.tflite", folder / "bundle", scale=parse_scale("0..1"), labels=LETTERS).bundle
    assert bundle.card.output.values == "probabilities" and bundle.read(Form.FLOAT32) == content
    return bundle


@pytest.fixture(scope="module")
def data(builtin):
    return replace(builtin, labels=LETTERS[: len(builtin.labels)])


@pytest.fixture(scope="module")
def converted(theirs, data, tmp_path_factory):
    return convert(theirs, data, Plan(), tmp_path_factory.mktemp("converted") / "out", SILENT)


def test_the_int8_form_gives_logits_and_everything_is_proven(theirs, converted, builtin, edgefer, tmp_path):
    bundle, images = converted.bundle, builtin.split("valid").images[:50]
    assert bundle.read(Form.FLOAT32) == theirs.read(Form.FLOAT32)
    assert bundle.card.output == OutputSpec(values="logits", float32="probabilities")
    assert quantization(read_model(bundle.read(Form.INT8), "int8")) == "int8"
    floats, quanta = (softmax(Network.open(bundle, form).logits(images)) for form in (Form.FLOAT32, Form.INT8))
    assert np.abs(floats - quanta).max() < 0.1 and (floats.argmax(axis=1) == quanta.argmax(axis=1)).mean() > 0.9
    assert all(check.status is Status.PASS for check in check_bundle(bundle))
    assert {check.status for check in check_in_c(bundle)} <= {Status.PASS, Status.NOT_CHECKED}
    edgefer("export", "c", bundle.path, tmp_path / "c")
    assert converted.cost.agreement > 0.9


def test_differences_between_logits_and_the_logarithms_of_probabilities_are_not_given_in_quanta(converted, data):
    small = replace(data, splits={"valid": data.split("valid").take(np.arange(40))})
    proof = prove(converted.bundle, small, "valid", runtimes=["litert"], reference_kernels=True)
    (cost,), spread = proof.cost, {one.candidate.form: one for one in proof.spread}
    assert cost.worst_quanta is None and cost.mean_dp < 0.05 and spread[Form.INT8].worst_quanta < 5


def test_a_card_that_claims_another_output_of_the_float_form_fails_the_proof(converted, tmp_path):
    bundle = converted.bundle
    card = bundle.card.model_copy(update={"output": OutputSpec(values="logits")})
    other = write_bundle(tmp_path / "other", card, {name: bundle.read(name) for name in bundle.card.variants})
    with pytest.raises(BundleError, match=r"output is logits but .* were made with logits, of float32 probabilities"):
        check_bundle(other)
