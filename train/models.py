"""The networks, built from a recipe's [model] section, and their .keras files. All take pixels / 255 and return logits."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgefer.bundle import Bundle
from edgefer.card import InputSpec
from edgefer.errors import BundleError, InputError
from edgefer.train.backend import tensorflow
from edgefer.train.recipes import LAYER, Model

if TYPE_CHECKING:
    import tf_keras


def build(model: Model, spec: InputSpec, classes: int) -> "tf_keras.Model":
    """The untrained network: float32 [n, height, width, channels] in 0..1 -> float32 logits [n, classes]."""
    import tf_keras

    pixels = tf_keras.Input(spec.shape, name="pixels")
    features = _plain(model, pixels) if model.family == "plain" else _four_block(model, pixels)
    # float32 even under mixed precision: a bfloat16 logit has three significant digits.
    logits = tf_keras.layers.Dense(classes, dtype="float32", name="logits")(features)
    return tf_keras.Model(pixels, logits, name=model.family.replace("-", "_"))


def _plain(model: Model, pixels):
    """A straight line of 3x3 Conv-BN-ReLU with a few residual blocks: every operator is int8-native in XNNPACK and on
    the Edge TPU, and batch norm folds into the convolution."""
    from tf_keras import layers

    # momentum 0.9, as in most published recipes: Keras's 0.99 leaves the statistics far behind on small data sets,
    # where an epoch has few steps, and validation then sees another network than training does.
    def conv(x, filters, stride=1, relu=True):
        x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
        x = _batch_norm(momentum=0.9)(x)
        return layers.ReLU()(x) if relu else x

    x = pixels
    for word in model.layers.split():
        match = LAYER.fullmatch(word)
        assert match  # the recipe has been validated
        filters, stride, residual = match.groups()
        if residual:
            # layers.Add, not "+": tfmot quantizes only named layers.
            branch = conv(conv(x, int(residual)), int(residual), relu=False)
            x = layers.ReLU()(layers.Add()([x, branch]))
        else:
            x = conv(x, int(filters), stride=2 if stride else 1)
    x = layers.GlobalAveragePooling2D()(x)
    return layers.Dropout(model.dropout)(x) if model.dropout else x


def _four_block(model: Model, pixels):
    """The older system's order of layers, ReLU before batch norm, kept as it was."""
    from tf_keras import layers

    x = pixels
    for filters in model.widths:
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = _batch_norm()(x)
        x = layers.MaxPooling2D()(x)
        x = layers.Dropout(model.dropout)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(model.dense, activation="relu")(x)
    x = _batch_norm()(x)
    return layers.Dropout(min(0.9, 2 * model.dropout))(x)


def _batch_norm(**options):
    """Batch norm over the whole batch, also where a tf.distribute strategy divides it among several replicas."""
    import tensorflow as tf
    from tf_keras import layers

    return layers.BatchNormalization(synchronized=tf.distribute.get_strategy().num_replicas_in_sync > 1, **options)


def load_keras(bundle: Bundle, variant: str) -> "tf_keras.Model":
    """The bundle's "keras" or "tuned" network as a tf_keras model."""
    tensorflow()
    import tf_keras

    content = bundle.read(variant)
    with tempfile.NamedTemporaryFile(suffix=".keras") as file:
        file.write(content)
        file.flush()
        try:
            return tf_keras.models.load_model(file.name, compile=False)
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise BundleError(f"{bundle.file(variant)} is not a network this tf_keras can load: {error}") from None


def initialize(model: "tf_keras.Model", labels: tuple[str, ...], source: Bundle) -> int:
    """Give a network of `labels` the weights of the bundle's, from the first layer on while their shapes agree.

    A kernel for gray pictures serves RGB ones spread over the channels by the weights that make gray of them (ITU-R
    BT.601). The logits' columns are matched by label; those of labels that the bundle does not know stay as they are.
    Returns how many layers got weights; InputError when not even the first agrees.
    """
    donor = load_keras(source, "keras")
    count = 0
    for layer, given in zip(_weighted(model), _weighted(donor), strict=False):
        own, weights = layer.get_weights(), given.get_weights()
        if not count and weights[0].shape[2:3] == (1,) and own[0].shape[2:3] == (3,):
            weights[0] = weights[0] * np.array([0.299, 0.587, 0.114], np.float32)[None, None, :, None]
        if layer.name == given.name == "logits" and weights[0].shape[0] == own[0].shape[0]:
            for index, label in enumerate(labels):
                if label in source.card.labels:
                    column = source.card.labels.index(label)
                    own[0][:, index], own[1][index] = weights[0][:, column], weights[1][column]
            weights = own
        if type(layer) is not type(given) or [w.shape for w in own] != [w.shape for w in weights]:
            break
        layer.set_weights(weights)
        count += 1
    if not count:
        raise InputError(f"{source.path} does not begin like this recipe's network: nothing of it can be taken over.")
    return count


def _weighted(model: "tf_keras.Model") -> list:
    """The layers that were trained, in order; a normalization of the data is the data's own."""
    import tf_keras

    return [layer for layer in model.layers if layer.weights and not isinstance(layer, tf_keras.layers.Normalization)]


def keras_bytes(model: "tf_keras.Model") -> bytes:
    """A tf_keras model as the bytes of a .keras file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        model.save(file)
        return file.read_bytes()
