"""A batch norm that no layer takes in becomes a convolution, so that networks as tutorials build them have C and a page."""

import numpy as np
import pytest

from edgefer.card import InputSpec
from edgefer.convert.aware import can_train_aware
from edgefer.convert.batch_norm import MAX_CHANNELS, convolve_norms
from edgefer.convert.contract import parse_scale
from edgefer.convert.quantize import to_float32, to_int8
from edgefer.interpreter import Network, softmax
from edgefer.tflite.flatbuffer import read_model
from edgefer.tflite.layers import read_layers
from edgefer.train.backend import tensorflow
from edgefer.train.networks import load_keras
from tests.convert.foreign_files import import_file

pytestmark = pytest.mark.timeout(300)
RELU = {"activation": "relu"}


@pytest.fixture(scope="module")
def keras():
    tensorflow()
    import tf_keras

    return tf_keras


def with_statistics(model):
    """The network with random statistics in its batch norms, as after a training."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.set_weights([rng.uniform(0.5, 2, part.shape) for part in layer.get_weights()])
    return model


def parts(keras, kind: str) -> list:
    layers, norm = keras.layers, keras.layers.BatchNormalization
    flat = [layers.Flatten(), layers.Dense(3)]
    return {
        "before pooling": [layers.Conv2D(8, 3, **RELU), norm(), layers.MaxPooling2D(), *flat],
        "before padding": [layers.Conv2D(8, 3, **RELU), norm(), layers.Conv2D(8, 3, padding="same"), *flat],
        "after pooling": [layers.Conv2D(8, 3), layers.MaxPooling2D(), norm(), layers.ReLU(), *flat],
        "first": [norm(scale=False), layers.Conv2D(4, 3, padding="same"), *flat],
        "after a dense layer": [layers.Flatten(), layers.Dense(16, **RELU), norm(center=False), layers.Dropout(0.5), layers.Dense(3)],
        "last": [layers.Flatten(), layers.Dense(3, **RELU), norm()],
        "twice": [layers.Conv2D(8, 3, **RELU), norm(), norm(), *flat],
    }[kind]  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["before pooling", "before padding", "after pooling", "first", "after a dense layer", "last", "twice"]
)
def test_free_standing_batch_norm_becomes_one_convolution(keras, kind):
    model = with_statistics(keras.Sequential([keras.Input((16, 16, 1)), *parts(keras, kind)]))
    images = np.random.default_rng(1).random((8, 16, 16, 1), np.float32)
    made = convolve_norms(model)
    assert np.abs(np.asarray(made(images)) - np.asarray(model(images, training=False))).max() < 1e-5
    content = to_int8(model, (255 * images).astype(np.uint8))
    names = [operator.name for operator in read_model(content, "it").operators]
    assert names.count("DEPTHWISE_CONV_2D") == 1 and read_layers(content, "it")
    names = [operator.name for operator in read_model(to_float32(model), "it").operators]
    assert names.count("DEPTHWISE_CONV_2D") == 1 and "MUL" not in names


def test_batch_norms_that_a_layer_takes_in_stay_as_they_are(keras):
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((16, 16, 1)), layers.Conv2D(4, 3), layers.Dropout(0.1), layers.BatchNormalization()]
    )
    assert convolve_norms(model) is model  # fmt: skip
    wide = [layers.Flatten(), layers.BatchNormalization(), layers.Dense(3)]  # TFLite would not end its calibration
    model = keras.Sequential([keras.Input((128, 64, 1)), *wide])
    assert MAX_CHANNELS < 128 * 64 and convolve_norms(model) is model


def test_batch_norm_of_a_linear_layer_that_is_used_twice_is_free_standing(keras):
    layers, pixels = keras.layers, keras.Input((16, 16, 1))
    norm, x = layers.BatchNormalization(), layers.Conv2D(4, 3)(pixels)
    both = layers.Add()([norm(x), norm(layers.ReLU()(x))])
    model = with_statistics(keras.Model(pixels, layers.Dense(3)(layers.Flatten()(both))))
    images = np.random.default_rng(1).random((8, 16, 16, 1), np.float32)
    made = convolve_norms(model)
    assert "BatchNormalization" not in {type(layer).__name__ for layer in made.layers}
    assert np.abs(np.asarray(made(images)) - np.asarray(model(images, training=False))).max() < 1e-5


@pytest.mark.parametrize("gamma", [0.0, 1e-9])
def test_a_batch_norm_that_scales_by_almost_nothing_survives_int8(keras, gamma):
    model = with_statistics(keras.Sequential([keras.Input((16, 16, 1)), *parts(keras, "before pooling")]))
    norm = model.layers[1]
    first, *others = norm.get_weights()
    first[0] = gamma
    norm.set_weights([first, *others])
    images = np.random.default_rng(1).integers(0, 256, (16, 16, 16, 1), dtype=np.uint8)
    spec = InputSpec(height=16, width=16)
    float32, int8 = (
        Network(content, spec, 3).logits(images) for content in (to_float32(model), to_int8(model, images))
    )
    assert np.abs(float32 - int8).max() < 0.05 * np.ptp(float32)


def test_tutorial_network_is_imported_quantized_proven_and_exported_to_c(keras, edgefer, tmp_path):
    import keras as keras_3

    layers = keras_3.layers
    keras_3.utils.set_random_seed(0)
    blocks = [part for width in (8, 16) for part in (layers.Conv2D(width, 3, padding="same", **RELU), layers.BatchNormalization(), layers.MaxPooling2D())]  # fmt: skip
    dense = [layers.Flatten(), layers.Dense(32, **RELU), layers.BatchNormalization(), layers.Dropout(0.5)]
    model = keras_3.Sequential([keras_3.Input((48, 48, 1)), *blocks, *dense, layers.Dense(7, activation="softmax")])
    with_statistics(model)
    model.save(tmp_path / "theirs.keras")
    labels = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    bundle = import_file(
        tmp_path / "theirs.keras", tmp_path / "bundle", labels=labels, scale=parse_scale("0..1")
    ).bundle
    assert "BatchNormalization" in {type(layer).__name__ for layer in load_keras(bundle, "keras").layers}
    images = np.random.default_rng(0).integers(0, 256, (8, 48, 48, 1), dtype=np.uint8)
    ours = softmax(Network.of(bundle.read("float32"), bundle.card).logits(images))
    assert np.abs(ours - np.asarray(model(images / np.float32(255), training=False))).max() < 1e-5
    assert can_train_aware(load_keras(bundle, "keras"))
    edgefer("convert", bundle.path, "--int8", "--data", "builtin", "--out", tmp_path / "int8")
    edgefer("verify", tmp_path / "int8")
    edgefer("lint", tmp_path / "int8", "--target", "c")
    done = edgefer("export", "c", tmp_path / "int8", tmp_path / "c")
    assert "0 of 336" in done.stdout, done.stdout
