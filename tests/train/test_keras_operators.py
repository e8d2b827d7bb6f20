"""Arithmetic operators in Keras networks become the layers that compute the same; all others are refused."""

import numpy as np
import pytest

from edgefer.errors import InputError
from edgefer.train.backend import tensorflow
from edgefer.train.keras_file import read_keras
from edgefer.train.keras_operators import as_layer
from edgefer.train.networks import keras_bytes
from tests.train.keras_files import changed, saved

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module", params=["Keras 2", "Keras 3"])
def package(request):
    tensorflow()
    import keras
    import tf_keras

    return keras if request.param == "Keras 3" else tf_keras


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_operators_give_the_same_answers_as_in_keras(package, tmp_path, name):
    """With the preprocessing of keras.applications, residual blocks with +, and numbers on either side."""
    layers, pixels = package.layers, package.Input((16, 16, 3))
    x = package.applications.mobilenet_v2.preprocess_input(pixels)
    y = layers.Conv2D(3, 3, padding="same", activation="relu")(x)
    squeezed = layers.Reshape((1, 1, 3))(layers.Dense(3, activation="sigmoid")(layers.GlobalAveragePooling2D()(y)))
    z = 1.5 - (x + y * squeezed) * 2
    z = layers.Add()([3 * z, 0.25 + (y - x)]) / 4
    model = package.Model(pixels, layers.Dense(4)(layers.GlobalAveragePooling2D()(z - 1)))
    content = saved(model, tmp_path, name)
    network = read_keras(content, "a file")
    images = np.random.default_rng(0).random((4, 16, 16, 3), np.float32) * 255
    answers = np.asarray(model(images))
    assert np.abs(network(images, training=False).numpy() - answers).max() < 1e-4 * np.abs(answers).max()
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds.count("Rescaling") == 8 and kinds.count("Multiply") == kinds.count("Subtract") == 1


def keras_functions(package) -> dict:
    """Operators of one Keras, by name: functions of an image [None, 8, 8, 3]."""
    import tensorflow as tf

    layers = package.layers
    pooled = layers.GlobalAveragePooling2D()
    common = {
        "channels reversed": lambda x: x[:, :, :, ::-1],
        "some channels": lambda x: x[:, :, :, 1:3],
        "Caffe": package.applications.resnet.preprocess_input,
        "torch": package.applications.densenet.preprocess_input,
        "negative": lambda x: -x,
    }
    if package.__version__.startswith("2."):
        return common | {
            "numbers per channel": lambda x: (x - [1.0, 2.0, 3.0]) / [2.0, 3.0, 4.0],
            "mean": lambda x: tf.reduce_mean(x, axis=-1, keepdims=True),
            "max of places": lambda x: tf.reduce_max(x, [1, 2]),
            "sum": lambda x: tf.reduce_sum(x, 2),
            "concat": lambda x: tf.concat([x, 2 * x], -1),
            "activations": lambda x: tf.nn.relu6(
                tf.nn.leaky_relu(tf.nn.gelu(tf.nn.silu(tf.nn.tanh(x)))) + tf.sigmoid(x)
            ),
            "softmax": lambda x: tf.nn.softmax(x, axis=1),
            "cast": lambda x: tf.cast(x, tf.float32),
            "reshape": lambda x: tf.reshape(x, (-1, 64, 3)),
            "expand": lambda x: x * tf.expand_dims(tf.expand_dims(pooled(x), 1), 1),
        }
    ops = package.ops
    per_channel = np.array([2, 3, 4], np.float32)
    return common | {
        "channels reversed, briefly": lambda x: x[..., ::-1],
        "numbers per channel": lambda x: (x - per_channel) / per_channel,
        "mean": lambda x: ops.mean(x, axis=-1, keepdims=True),
        "max of places": lambda x: ops.max(x, axis=[1, 2]),
        "sum": lambda x: ops.sum(x, axis=2),
        "concat": lambda x: ops.concatenate([x, 2 * x], axis=-1),
        "activations": lambda x: ops.relu6(ops.leaky_relu(ops.gelu(ops.silu(ops.tanh(x)))) + ops.sigmoid(x)),
        "hard activations": lambda x: ops.hard_silu(x) + ops.hard_sigmoid(x) + ops.gelu(x, approximate=False),
        "softmax": lambda x: ops.softmax(x, axis=1),
        "cast": lambda x: ops.cast(x, "float32"),
        "reshape": lambda x: ops.reshape(x, (-1, 64, 3)),
        "expand": lambda x: x * ops.expand_dims(ops.expand_dims(pooled(x), 1), 1),
    }


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_functions_give_the_same_answers_as_in_keras_also_once_stored_again(package, tmp_path, name):
    images = np.random.default_rng(0).normal(0, 2, (3, 8, 8, 3)).astype(np.float32)
    for title, function in keras_functions(package).items():
        if (title, name, package.__version__[0]) == ("Caffe", "model.keras", "2"):
            continue  # which that Keras cannot save
        pixels = package.Input((8, 8, 3))
        model = package.Model(pixels, function(pixels))
        network = read_keras(saved(model, tmp_path, name), "a file")
        answers = np.asarray(model(images))
        assert np.allclose(network(images, training=False), answers, atol=1e-5), title
        again = read_keras(keras_bytes(network), "a bundle")
        assert (again(images, training=False).numpy() == network(images, training=False).numpy()).all(), title


def test_operators_across_the_images_of_a_batch_are_refused(package, tmp_path):
    import tensorflow as tf

    mean, size = (package.ops.mean, package.ops) if hasattr(package, "ops") else (tf.reduce_mean, tf)
    for function in (
        lambda x: mean(x, axis=0, keepdims=True),
        lambda x: mean(x, axis=-4, keepdims=True),
        lambda x: mean(x, axis=None, keepdims=True),
        lambda x: size.expand_dims(x, 0),
        lambda x: size.reshape(x, (-1, 8)),
    ):
        pixels = package.Input((8, 8, 3))
        content = saved(package.Model(pixels, function(pixels)), tmp_path, "model.keras")
        with pytest.raises(InputError, match=r"which edgefer does not load|of a batch|that of the batch|fit together"):
            read_keras(content, "a file")


def test_the_preprocessing_of_keras_applications_is_read_as_the_scaling_of_the_input(package, tmp_path):
    from edgefer.convert.foreign import read_foreign

    layers, pixels = package.layers, package.Input((16, 16, 3))
    x = layers.Conv2D(4, 3)(package.applications.mobilenet_v2.preprocess_input(pixels))
    package.Model(pixels, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))).save(tmp_path / "theirs.keras")
    stated = read_foreign(tmp_path / "theirs.keras").stated
    assert stated.scale[0] == "0..255" and stated.because[0].endswith("scale pixels of 0..255 to -1..1")


def test_operators_that_are_not_arithmetic_of_two_operands_are_refused(package, tmp_path):
    pixels = package.Input((16, 16, 3))
    for x in (1 / (pixels + 1), pixels / (pixels + 1), pixels**2):
        model = package.Model(pixels, package.layers.Dense(3)(package.layers.GlobalAveragePooling2D()(x)))
        with pytest.raises(InputError, match=r"which edgefer does not load: .* export it as a SavedModel"):
            read_keras(saved(model, tmp_path, "model.keras"), "a file")


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one["config"].update(function="io.write_file"),
        lambda one: one["config"].update(function="math.reduce_mean"),
        lambda one: (
            one["config"].update(function="math.reduce_mean"),
            one.update(inbound_nodes=[["pixels", 0, 0, {"axis": "x"}]]),
        ),
        lambda one: (
            one["config"].update(function="cast"),
            one.update(inbound_nodes=[["pixels", 0, 0, {"dtype": "uint8"}]]),
        ),
        lambda one: (
            one["config"].update(function="concat"),
            one.update(inbound_nodes=[[5, ["pixels", 0, 0, {"axis": 1}]]]),
        ),
        lambda one: (
            one.update(class_name="SlicingOpLambda"),
            one["config"].update(function="__operators__.getitem"),
            one.update(
                inbound_nodes=[["pixels", 0, 0, {"slice_spec": [{}, {}, {}, {"start": 5, "stop": 9, "step": 1}]}]]
            ),
        ),
        lambda one: (
            one.update(class_name="SlicingOpLambda"),
            one["config"].update(function="__operators__.getitem"),
            one.update(
                inbound_nodes=[["pixels", 0, 0, {"slice_spec": [{}, {}, {}, {"start": 0, "stop": 1, "step": [1]}]}]]
            ),
        ),
        lambda one: one.update(inbound_nodes=[["pixels", 0, 0, {"y": [0.5, float("nan")]}]]),
        lambda one: one.update(inbound_nodes=[["pixels", 0, 0, {"y": 0.5}], ["pixels", 0, 0, {"y": 0.5}]]),
        lambda one: one.update(inbound_nodes=[["pixels", 0, 0, {"y": 0.5, "evil": 1}]]),
        lambda one: one.update(inbound_nodes=[["_CONSTANT_VALUE", -1, 1.0, {"y": 2.0}]]),
        lambda one: one.update(inbound_nodes=[["pixels", 0, 0, {"y": float("nan")}]]),
        lambda one: one.update(inbound_nodes=[["pixels", 0, 0, {"y": 1e-300}]]),
        lambda one: one.update(inbound_nodes=[["pixels", 0, 0, {"y": 0}]]),
        lambda one: one.update(inbound_nodes=[["pixels", 0, 0, {"y": "x"}]]),
        lambda one: one.update(inbound_nodes=[["nowhere", 0, 0, {"y": 2.0}]]),
        lambda one: one.update(inbound_nodes=[5]),
        lambda one: one.update(inbound_nodes=[]),
    ],
)
def test_operators_that_were_tampered_with_are_refused(tmp_path, change):
    tensorflow()
    import tf_keras

    pixels = tf_keras.Input((16, 16, 1), name="pixels")
    content = saved(tf_keras.Model(pixels, tf_keras.layers.Flatten()(pixels / 2)), tmp_path, "model.keras")

    def tamper(config):
        (operator,) = [one for one in config["config"]["layers"] if one["class_name"] == "TFOpLambda"]
        assert as_layer(operator)["config"]["scale"] == 0.5
        change(operator)

    with pytest.raises(InputError, match=r"^a file") as refused:
        read_keras(changed(content, tamper), "a file")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.update(name=["a"]),
        lambda one: one.update(inbound_nodes={"a": 1}),
        lambda one: one.update(inbound_nodes="xy"),
        lambda one: one.update(inbound_nodes=[{"args": 5, "kwargs": 5}]),
        lambda one: one.update(inbound_nodes=[{"args": [[5]], "kwargs": {}}]),
        lambda one: one.update(config=5),
        lambda one: one.update(module=["keras"]),
        lambda one: one.update(class_name="Stack", config={"axis": 1, "name": "x"}),
    ],
)
@pytest.mark.parametrize("which", [1, 3])
def test_channels_that_were_tampered_with_are_refused(tmp_path, change, which):
    """Of Keras 3, by which keras.applications reverses RGB: three times x[..., i], and a stack of them."""
    tensorflow()
    import keras

    pixels = keras.Input((8, 8, 3), name="pixels")
    stacked = keras.ops.stack([pixels[..., number] for number in (1, 0)], axis=-1)
    content = saved(keras.Model(pixels, stacked), tmp_path)
    assert read_keras(content, "a file").output_shape == (None, 8, 8, 2)
    with pytest.raises(InputError, match=r"^a file") as refused:
        read_keras(changed(content, lambda config: change(config["config"]["layers"][which])), "a file")
    assert "\n" not in str(refused.value)
