"""Networks unlike those of the recipes in what pruning, quantization-aware training and int8 make of them."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import GRAY48

from edgefer.bundle import Bundle, Form, shipped_bundles, write_bundle
from edgefer.card import ModelCard, Provenance
from edgefer.errors import InputError, RuntimeFault
from edgefer.progress import SILENT
from edgefer.train.backend import tensorflow
from edgefer.train.networks import build
from edgefer.train.recipes import load_recipe


def test_zeros_in_frozen_layers_count_as_sparsity():
    from edgefer.convert.prune import measured_sparsity

    tensorflow()
    recipe = load_recipe("demo", ('model.layers="C16/2 R16"', "model.freeze=true"))
    network = build(recipe.model, recipe.input, 7)
    first, *others = (layer for layer in network.layers if "conv" in layer.name)
    first.set_weights([np.zeros(first.kernel.shape)])
    assert measured_sparsity(network) == 9 * 16 / (9 * 16 + len(others) * 9 * 16 * 16)


def test_a_layer_whose_outputs_are_all_zero_is_named(tiny):
    """Its scale is too small for XNNPACK, in int8 and in TFLite's debugger."""
    from edgefer.convert.quantize import to_int8
    from edgefer.convert.search import _loaded, worst_layers
    from edgefer.convert.work import Work

    tensorflow()
    from tf_keras import Input, Model, initializers, layers

    pixels, images = Input((48, 48, 1)), tiny.split("valid").images
    bias = initializers.Constant(-500)
    dead = layers.Conv2D(8, 3, strides=2, activation="relu", bias_initializer=bias, name="dead")(pixels)
    features = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(dead))
    network = Model(pixels, layers.Dense(7)(features))
    origin = Provenance(data="builtin", split_sizes={}, recipe={}, seed=0, epoch=1, versions={})
    card = ModelCard(name="dead", labels=tiny.labels, input=GRAY48, provenance=origin)
    with pytest.raises(RuntimeFault, match=r"all outputs of .*dead/Relu.* are 0 .*: train the network again"):
        _loaded(to_int8(network, images), card)
    work = Work(card=card, origin=network, trained=network, tuned=network, dataset=tiny, held={})
    assert worst_layers(work, images) == ()


def test_the_logits_of_an_imported_network_are_not_pruned(tiny, tmp_path):
    """Its last layer has any name."""
    from edgefer.convert.prune import measured_sparsity, prune
    from edgefer.convert.tune import FineTuning

    tensorflow()
    from tf_keras import Input, Model, layers

    pixels = Input((48, 48, 1))
    task = FineTuning(
        recipe=load_recipe("demo"), dataset=tiny, teacher=None, epochs=1, rate=1e-4, folder=tmp_path, progress=SILENT
    )
    linear = Model(pixels, layers.Dense(7, name="dense")(layers.Flatten()(pixels)))
    with pytest.raises(InputError, match=r"no convolution or hidden dense layer.*: leave --prune out"):
        prune(linear, 0.5, task)
    hidden = layers.Dense(8, activation="relu", name="dense")(layers.Flatten()(pixels))
    network = Model(pixels, layers.Dense(7, name="dense_1")(hidden))
    pruned = prune(network, 0.5, replace(task, teacher=network))
    assert measured_sparsity(pruned) == pytest.approx(0.5, abs=0.01)
    assert (pruned.get_layer("dense_1").kernel.numpy() != 0).all()


def test_ranges_of_a_network_with_one_layer_are_those_of_all_calibration_images(tiny):
    """Keras gives the outputs of such a probe without the list around them."""
    from edgefer.convert.aware import _range_of, _set_ranges, _with_rounding, _wrapped

    tensorflow()
    from tf_keras import Input, Model, layers

    pixels = Input((48, 48, 1))
    linear = Model(pixels, layers.Dense(7)(layers.Flatten()(pixels)))
    aware, images = _with_rounding(linear, keep_zeros=False), tiny.split("valid").images
    _set_ranges(aware, linear, images)
    (pair,) = filter(None, (_range_of(layer, "output", "post_activation") for layer in _wrapped(aware)))
    logits = np.asarray(linear(images / np.float32(255)))
    assert [part.numpy() for part in pair] == pytest.approx([logits.min(), logits.max()], rel=1e-4)


def test_quantization_aware_training_is_recommended_only_where_it_can_work(tiny, tmp_path):
    """tfmot supports no LayerNormalization, and BatchNormalization after an activation only as a convolution; without a Keras
    network nothing can be trained."""
    from edgefer.convert.aware import int8_fix
    from edgefer.train.networks import keras_bytes

    tensorflow()
    from tf_keras import Input, Model, layers

    pixels = Input((48, 48, 1))
    convolved = layers.Conv2D(8, 3, strides=4)(pixels)
    activated = layers.Conv2D(8, 3, strides=4, activation="relu")(pixels)
    plain, odd = layers.ReLU()(layers.BatchNormalization()(convolved)), layers.BatchNormalization()(activated)
    cases = [
        ("again with --qat", plain, ()),
        ("--no-int8", plain, ("int8 by quantization-aware training, 3 epochs: drop +9.00 points",)),
        ("again with --qat", odd, ()),
        ("--no-int8", layers.LayerNormalization()(activated), ()),
        ("import the network's .keras", None, ()),
    ]
    for number, (fix, end, notes) in enumerate(cases):
        origin = Provenance(data="builtin", split_sizes={}, recipe={}, seed=0, epoch=1, versions={}, conversion=notes)
        card = ModelCard(name="odd", labels=tiny.labels, input=GRAY48, provenance=origin)
        files = {} if end is None else {Form.KERAS: keras_bytes(Model(pixels, layers.Dense(7)(layers.Flatten()(end))))}
        assert fix in int8_fix(write_bundle(tmp_path / str(number), card, files))
    assert int8_fix(Bundle.open(shipped_bundles()["pets-small"])) == ""
