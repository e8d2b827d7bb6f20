"""The layers that C and the page have: README lists them, each converts to operators that have C code, and others get a hint."""

import re
from pathlib import Path

import numpy as np
import pytest

from edgefer.convert.quantize import converter_of, to_int8
from edgefer.tflite.flatbuffer import Model, read_model
from edgefer.tflite.layers import HINTS, KERAS_LAYERS, OPERATORS, hint, supported_layers
from edgefer.tflite.portable import unsupported
from edgefer.train.backend import tensorflow

README = Path(__file__).parents[2] / "convert" / "README.md"
ARGUMENTS = {
    **dict.fromkeys(("Conv2D", "SeparableConv2D"), (4, 3)), "DepthwiseConv2D": (3,), "Dense": (4,), "Reshape": ((4, -1),),
    "ReLU(6)": (6,),
}  # fmt: skip


@pytest.fixture(scope="module")
def keras():
    tensorflow()
    import tf_keras

    return tf_keras


def int8_with(keras, *middle) -> Model:
    """An int8 network with these layers in the middle."""
    layers, pixels = keras.layers, keras.Input((16, 16, 1))
    x = layers.MaxPooling2D()(layers.Conv2D(4, 3)(pixels))
    for layer in middle:
        x = layer([x, x]) if isinstance(layer, layers.Add) else layer(x)
    model = keras.Model(pixels, layers.Dense(3)(layers.Flatten()(x)))
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 1), dtype=np.uint8)
    return read_model(to_int8(model, images), "it")


def test_readme_lists_the_layers_and_operators_of_the_table():
    assert list(KERAS_LAYERS) == list(OPERATORS)
    assert f"these layers (and operators): {supported_layers()}." in " ".join(README.read_text().split())


@pytest.mark.parametrize(("operator", "name"), [(o, n) for o, names in KERAS_LAYERS.items() for n in names.split(", ")])
def test_each_listed_layer_becomes_operators_that_have_c_code(keras, operator, name):
    layer = getattr(keras.layers, name.partition("(")[0])(*ARGUMENTS.get(name, ()))
    model = int8_with(keras, layer)
    assert not unsupported(model)
    fused = {one.fused_activation for one in model.operators}
    assert operator in fused | {one.name for one in model.operators}


@pytest.mark.parametrize(("name", "operator"), [("LeakyReLU", "LEAKY_RELU"), ("ELU", "ELU"), ("PReLU", "PRELU")])
def test_an_activation_without_c_code_gets_a_hint(keras, name, operator):
    assert operator in unsupported(int8_with(keras, getattr(keras.layers, name)()))
    assert re.match(rf"train it again with ReLU or ReLU\(6\) in place of {name}:", hint(operator))


def test_an_int8_file_with_a_flatten_and_a_dynamic_batch_gets_a_hint():
    """Of a float32 file, edgefer fixes the batch size itself."""
    tf = tensorflow()
    import keras

    layers = keras.layers
    model = keras.Sequential([keras.Input((16, 16, 1)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)])
    function = tf.function(lambda pixels: model(pixels)).get_concrete_function(tf.TensorSpec((None, 16, 16, 1)))
    converter = converter_of(function)
    assert not set(unsupported(read_model(converter.convert(), "it"))) & {"SHAPE", "STRIDED_SLICE", "PACK"}
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([np.full((1, 16, 16, 1), value, np.float32)] for value in (0, 1))
    converter.inference_input_type = converter.inference_output_type = tf.int8
    names = set(unsupported(read_model(converter.convert(), "it")))
    assert names == {"SHAPE", "STRIDED_SLICE", "PACK"}
    assert all("import the .keras" in HINTS[name] and "batch size of 1" in HINTS[name] for name in names)
