"""Separable convolutions are split for pruning and quantization-aware training, which know them only as two layers."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import GRAY48

from edgefer.bundle import write_bundle
from edgefer.card import ModelCard, Provenance
from edgefer.convert import steps
from edgefer.convert.aware import quantization_aware
from edgefer.convert.pipeline import Plan, convert
from edgefer.convert.prune import measured_sparsity, prune
from edgefer.convert.separable import split_separable
from edgefer.convert.tune import FineTuning
from edgefer.errors import RuntimeFault
from edgefer.interpreter import Network
from edgefer.progress import SILENT
from edgefer.train.backend import tensorflow
from edgefer.train.evaluate import keras_logits
from edgefer.train.networks import keras_bytes
from edgefer.train.recipes import load_recipe

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def keras():
    tensorflow()
    import tf_keras

    return tf_keras


@pytest.fixture(scope="module")
def network(keras):
    """As mini-Xception: separable convolutions with batch norms, before and beside additions, and one that has neither."""
    layers = keras.layers
    pixels = keras.Input((48, 48, 1))
    x = layers.Conv2D(8, 3, strides=2, activation="relu", kernel_initializer=keras.initializers.HeNormal(0))(pixels)
    beside = layers.BatchNormalization()(layers.Conv2D(16, 1, strides=2, padding="same")(x))
    x = layers.ReLU()(layers.BatchNormalization()(layers.SeparableConv2D(16, 3, padding="same", use_bias=False)(x)))
    x = layers.BatchNormalization()(layers.SeparableConv2D(16, 3, padding="same")(x))
    x = layers.Add()([layers.MaxPooling2D(3, strides=2, padding="same")(x), beside])
    x = layers.SeparableConv2D(16, 3, activation="relu", name="last")(x)
    return keras.Model(pixels, layers.Dense(7)(layers.GlobalAveragePooling2D()(x)))


@pytest.fixture
def task(tiny, network, tmp_path):
    recipe = load_recipe("demo")
    return FineTuning(
        recipe=recipe, dataset=tiny, teacher=network, epochs=1, rate=1e-4, folder=tmp_path, progress=SILENT
    )


@pytest.mark.parametrize("kind", ["functional", "sequential", "shared"])
def test_a_split_network_gives_the_same_answers_to_the_last_bit(keras, kind):
    layers, options = keras.layers, {"depth_multiplier": 3, "dilation_rate": 2, "activation": "tanh"}
    first = layers.SeparableConv2D(5, 3, strides=2, padding="same", bias_initializer="normal", name="first")
    second = layers.SeparableConv2D(5, 3, use_bias=False, padding="same", **options)
    if kind == "sequential":
        network = keras.Sequential([keras.Input((20, 20, 3)), first, second, layers.Flatten()])
    else:
        pixels = keras.Input((20, 20, 3))
        x = second(first(pixels))
        network = keras.Model(pixels, layers.Flatten()(second(x) if kind == "shared" else x))
    split = split_separable(network)
    kinds = [type(layer).__name__ for layer in split.layers]
    assert "SeparableConv2D" not in kinds and kinds.count("DepthwiseConv2D") == kinds.count("Conv2D") == 2
    images = np.random.default_rng(0).random((4, 20, 20, 3), np.float32)
    assert (split(images).numpy() == network(images).numpy()).all()
    assert split.count_params() == network.count_params() and split_separable(split) is split


def test_separable_convolutions_are_trained_quantization_aware(network, tiny, task):
    images = tiny.split("valid").images
    made = quantization_aware(network, tiny.split("train").images, task, keep_zeros=False)
    origin = Provenance(data="builtin", split_sizes={}, recipe={}, seed=0, epoch=1, versions={})
    card = ModelCard(name="mini", labels=tiny.labels, input=GRAY48, provenance=origin)
    int8, learned = Network.of(made.int8, card).logits(images), keras_logits(made.network, images)
    assert np.corrcoef(int8.ravel(), learned.ravel())[0, 1] > 0.99
    before = network.get_layer("last").get_weights()[1]
    after = made.network.get_layer("last").get_weights()[0]
    assert 0 < np.abs(after - before).max() < 0.1


def test_the_pointwise_weights_of_separable_convolutions_are_pruned_and_stay_zero(network, tiny, task, tmp_path):
    pruned = prune(network, 0.5, task)
    zeros = pruned.get_layer("last").get_weights()[0] == 0
    assert zeros.mean() == pytest.approx(0.5, abs=0.01) and measured_sparsity(pruned) == pytest.approx(0.5, abs=0.01)
    task = replace(task, folder=tmp_path / "aware")
    made = quantization_aware(pruned, tiny.split("train").images, task, keep_zeros=True)
    assert (made.network.get_layer("last").get_weights()[0][zeros] == 0).all()


def test_qat_that_cannot_work_is_refused_before_pruning(keras, tiny, tmp_path, monkeypatch):
    layers, pixels = keras.layers, keras.Input((48, 48, 1))
    x = layers.SeparableConv2D(4, 3, strides=4)(layers.Resizing(40, 40)(pixels))
    model = keras.Model(pixels, layers.Dense(7)(layers.GlobalAveragePooling2D()(x)))
    recipe = load_recipe("demo").model_dump(mode="json")
    origin = Provenance(data="builtin", split_sizes={}, recipe=recipe, seed=0, epoch=1, versions={})
    card = ModelCard(name="mini", labels=tiny.labels, input=GRAY48, provenance=origin)
    source = write_bundle(tmp_path / "source", card, {"keras": keras_bytes(model)})
    monkeypatch.setattr(steps, "prune_weights", None)  # fails if it is called
    with pytest.raises(RuntimeFault, match=r"unsupported layer \(Resizing\)\): convert it by calibration"):
        convert(source, tiny, Plan(qat=True, prune=0.5, epochs=1), tmp_path / "out", SILENT)
    assert not (tmp_path / "out").exists()
