"""Arithmetic operators in Keras networks become the layers that compute the same; all others are refused."""

import numpy as np
import pytest

from edgefer.errors import InputError
from edgefer.train.backend import tensorflow
from edgefer.train.keras_file import read_keras
from edgefer.train.keras_operators import as_layer
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
