"""Imports the classifiers of keras.applications, as transfer-learning tutorials build them, and usual networks for facial
expressions: `python tests/benchmarks/import_keras.py [NAME ...]`. Not a test: it takes many minutes and prints a table.

Each network is saved by Keras 3 and by Keras 2, as .keras and as .h5. Its weights are random, also the statistics of its
batch norms, and its answers vary with the image. "difference": the largest of a probability, between the answers of the
network in its own Keras and those of the bundle's float32.tflite.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np

from edgefer import drawn
from edgefer.bundle import Bundle
from edgefer.card import InputSpec
from edgefer.convert.contract import Stated, parse_scale
from edgefer.convert.import_options import Request
from edgefer.convert.importing import import_network
from edgefer.errors import EdgeferError
from edgefer.interpreter import Network, softmax
from edgefer.options import Color
from edgefer.preprocess import prepare
from edgefer.train.backend import tensorflow

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
CLASSES, IMAGES = len(LABELS), 12
Make = Callable[[ModuleType], object]


def transferred(name: str, module: str, side: int, **options) -> Make:
    """A network of keras.applications with its own preprocessing, augmentation in front and a new head."""

    def make(keras: ModuleType):
        layers, package = keras.layers, getattr(keras.applications, module)
        options_ = {"weights": None, "include_top": False, "input_shape": (side, side, 3)} | options
        base = getattr(keras.applications, name)(**options_)
        base.trainable = False
        pixels = keras.Input((side, side, 3))
        x = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)])(pixels)
        x = base(package.preprocess_input(x), training=False)
        x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
        return keras.Model(pixels, layers.Dense(CLASSES, activation="softmax")(x))

    return make


def extended(name: str, side: int, **options) -> Make:
    """A network of keras.applications without a scaling of pixels, whose own layers are followed by a new head."""

    def make(keras: ModuleType):
        layers = keras.layers
        base = getattr(keras.applications, name)(
            weights=None, include_top=False, pooling="avg", input_shape=(side, side, 3), **options
        )
        x = layers.BatchNormalization()(layers.Dense(32, activation="relu")(base.output))
        return keras.Model(base.input, layers.Dense(CLASSES)(x))

    return make


def with_imagenet(make: Make) -> Make:
    """For weights="imagenet" without a download: some networks then scale pixels by one layer more."""

    def made(keras: ModuleType):
        files = keras.src.utils.file_utils if keras.__version__.startswith("3.") else keras.src.utils.data_utils
        with patch.object(keras.Model, "load_weights"), patch.object(files, "get_file"):
            return make(keras)

    return made


def mini_xception(keras: ModuleType):
    """Arriaga et al. 2017, arXiv:1710.07557."""
    layers, pixels, decay = keras.layers, keras.Input((48, 48, 1)), keras.regularizers.L2(0.01)

    def convolved(x, filters, **options):
        x = layers.Conv2D(filters, 3, use_bias=False, kernel_regularizer=decay, **options)(x)
        return layers.Activation("relu")(layers.BatchNormalization()(x))

    x = convolved(convolved(pixels, 8), 8)
    for filters in (16, 32, 64, 128):
        shortcut = layers.Conv2D(filters, 1, strides=2, padding="same", use_bias=False)(x)
        shortcut = layers.BatchNormalization()(shortcut)
        for activated in (True, False):
            x = layers.SeparableConv2D(
                filters, 3, padding="same", use_bias=False, depthwise_regularizer=decay, pointwise_regularizer=decay
            )(x)
            x = layers.BatchNormalization()(x)
            x = layers.Activation("relu")(x) if activated else x
        x = layers.add([layers.MaxPooling2D(3, strides=2, padding="same")(x), shortcut])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(CLASSES, 3, padding="same")(x))
    return keras.Model(pixels, layers.Activation("softmax", name="predictions")(x))


def vgg_like(keras: ModuleType):
    layers = keras.layers
    parts = [keras.Input((48, 48, 1)), layers.Rescaling(1 / 255)]
    for filters in (16, 32, 64):
        for _ in range(2):
            parts += [layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal")]
            parts += [layers.ELU(), layers.BatchNormalization()]
        parts += [layers.MaxPooling2D(2), layers.SpatialDropout2D(0.2)]
    parts += [layers.Flatten(), layers.Dense(64, activation="elu"), layers.BatchNormalization(), layers.Dropout(0.5)]
    return keras.Sequential([*parts, layers.Dense(CLASSES, activation="softmax")])


def squeezed(activation: str, norm: str) -> Make:
    """Residual blocks with squeeze-and-excitation, an activation in the layers, and PReLU, ZeroPadding and Concatenate."""

    def make(keras: ModuleType):
        layers, pixels = keras.layers, keras.Input((48, 48, 3))

        def normal(x):
            return layers.GroupNormalization(4)(x) if norm == "group" else getattr(layers, norm)()(x)

        x = layers.Conv2D(16, 3, activation=activation)(
            layers.ZeroPadding2D(1)(layers.Rescaling(1 / 127.5, -1)(pixels))
        )
        for filters in (16, 32):
            y = layers.PReLU(shared_axes=[1, 2])(normal(layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)))
            y = layers.Activation(activation)(normal(layers.DepthwiseConv2D(3, padding="same")(y)))
            s = layers.Dense(4, activation=activation)(layers.GlobalAveragePooling2D()(y))
            s = layers.Reshape((1, 1, filters))(layers.Dense(filters, activation="sigmoid")(s))
            y = layers.Multiply()([y, s])
            x = layers.AveragePooling2D(2)(layers.Add()([y, layers.Conv2D(filters, 1)(x)]))
            x = layers.Concatenate()([x, layers.MaxPooling2D(3, 1, padding="same")(x)])
        return keras.Model(pixels, layers.Dense(CLASSES, activation="softmax")(layers.GlobalAveragePooling2D()(x)))

    return make


def attentive(keras: ModuleType):
    """CBAM (Woo et al. 2018, arXiv:1807.06521) by operators, without Lambda layers."""
    import tensorflow as tf

    layers, pixels = keras.layers, keras.Input((48, 48, 1))
    if keras.__version__.startswith("3."):
        mean, largest, join, ramp = keras.ops.mean, keras.ops.max, keras.ops.concatenate, keras.ops.sigmoid
    else:
        mean, largest, join, ramp = tf.reduce_mean, tf.reduce_max, tf.concat, tf.nn.sigmoid
    x = layers.Conv2D(16, 3, strides=2, activation="relu")(pixels / 255.0)
    first, second = layers.Dense(4, activation="relu"), layers.Dense(16)
    channels = [
        second(first(pool(keepdims=True)(x))) for pool in (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
    ]
    x = x * ramp(channels[0] + channels[1])
    maps = join([mean(x, axis=-1, keepdims=True), largest(x, axis=-1, keepdims=True)], axis=-1)
    x = layers.multiply([x, layers.Conv2D(1, 7, padding="same", activation="sigmoid")(maps)])
    return keras.Model(pixels, layers.Dense(CLASSES)(mean(x, axis=[1, 2])))


def attending(keras: ModuleType):
    """Self-attention between places, by the layer."""
    layers, pixels = keras.layers, keras.Input((48, 48, 1))
    x = layers.Conv2D(16, 5, strides=4, activation="relu")(layers.Rescaling(1 / 255)(pixels))
    x = layers.LayerNormalization()(layers.Reshape((-1, 16))(x))
    x = layers.Add()([x, layers.MultiHeadAttention(2, 8)(x, x)])
    return keras.Model(pixels, layers.Dense(CLASSES, activation="softmax")(layers.Flatten()(x)))


def in_policy(make: Make, policy: str) -> Make:
    def made(keras: ModuleType):
        keras.mixed_precision.set_global_policy(policy)
        try:
            return make(keras)
        finally:
            keras.mixed_precision.set_global_policy("float32")

    return made


def in_float16(make: Make) -> Make:
    def made(keras: ModuleType):
        keras.backend.set_floatx("float16")
        try:
            return make(keras)
        finally:
            keras.backend.set_floatx("float32")

    return made


FAMILIES: dict[str, Make] = {
    "MobileNet": transferred("MobileNet", "mobilenet", 96, alpha=0.25),
    "MobileNetV2": transferred("MobileNetV2", "mobilenet_v2", 96, alpha=0.35),
    "MobileNetV2, its own layers": extended("MobileNetV2", 96, alpha=0.35),
    "MobileNetV3Small": transferred("MobileNetV3Small", "mobilenet_v3", 96, include_preprocessing=True),
    "MobileNetV3Small, minimalistic": transferred("MobileNetV3Small", "mobilenet_v3", 96, minimalistic=True),
    "MobileNetV3Large": extended("MobileNetV3Large", 96, include_preprocessing=False),
    "EfficientNetB0": with_imagenet(transferred("EfficientNetB0", "efficientnet", 96, weights="imagenet")),
    "EfficientNetV2B0": with_imagenet(transferred("EfficientNetV2B0", "efficientnet_v2", 96, weights="imagenet")),
    "ResNet50": transferred("ResNet50", "resnet", 64),
    "ResNet50V2": transferred("ResNet50V2", "resnet_v2", 64),
    "VGG16": transferred("VGG16", "vgg16", 48),
    "Xception": transferred("Xception", "xception", 96),
    "DenseNet121": transferred("DenseNet121", "densenet", 64),
    "NASNetMobile": transferred("NASNetMobile", "nasnet", 64),
    "InceptionV3": transferred("InceptionV3", "inception_v3", 96),
    "ConvNeXtTiny": transferred("ConvNeXtTiny", "convnext", 64),
}
SCALES = {"MobileNetV2, its own layers": "-1..1", "MobileNetV3Large": "-1..1"}  # of the others: 0..255
EXPRESSIONS: dict[str, Make] = {
    "mini_XCEPTION": mini_xception,
    "VGG-like, Sequential": vgg_like,
    "residual, SE, swish": squeezed("swish", "BatchNormalization"),
    "residual, SE, gelu, layer norm": squeezed("gelu", "LayerNormalization"),
    "residual, SE, group norm": squeezed("relu", "group"),
    "residual, SE, hard_sigmoid": squeezed("hard_sigmoid", "BatchNormalization"),
    "residual, SE, hard_swish (Keras 3)": squeezed("hard_swish", "BatchNormalization"),
    "CBAM by operators": attentive,
    "MultiHeadAttention": attending,
    "mixed_float16": in_policy(squeezed("swish", "BatchNormalization"), "mixed_float16"),
    "float16": in_float16(vgg_like),
}


def randomize(network, values: np.ndarray) -> None:
    """Random weights, also of batch norms, that keep the size of activations, so that answers vary."""
    random = np.random.default_rng(0)
    for weight in network.weights:
        name, shape = getattr(weight, "path", weight.name).split("/")[-1], tuple(weight.shape)
        if name in ("mean:0", "variance:0", "mean", "variance", "count", "count:0"):
            continue  # of Normalization, which Keras 3 reads when it loads a file
        if "variance" in name or "gamma" in name:
            weight.assign(random.uniform(0.6, 1.4, shape))
        elif "mean" in name or "beta" in name or "bias" in name:
            weight.assign(random.normal(0, 0.1, shape))
        elif "kernel" in name:
            inputs = np.prod(shape[:2]) if len(shape) == 4 and shape[-1] == 1 else np.prod(shape[:-1])  # depthwise
            weight.assign(random.normal(0, np.sqrt(1.8 / inputs), shape))
    last = next(layer for layer in reversed(network.layers) if layer.weights)
    kernel, bias = last.get_weights()
    end, last.activation = last.activation, lambda x: x  # a softmax hides how large its inputs are
    for _ in range(12):
        answers = np.asarray(network(values, training=False), float)
        answers = np.log(np.maximum(answers, 1e-7)) if are_probabilities(answers) else answers
        answers -= answers.mean(axis=1, keepdims=True)
        spread = answers.std(axis=0).max()
        bias -= answers.mean(axis=0).astype(bias.dtype)
        if 0.3 < spread < 3:
            break
        factor = np.clip(1 / max(spread, 1e-3), 1 / 8, 8).astype(kernel.dtype)
        kernel, bias = kernel * factor, bias * factor
        last.set_weights([kernel, bias])
    last.set_weights([kernel, bias])
    last.activation = end


def images(spec: InputSpec) -> np.ndarray:
    """Drawn faces and noise."""
    faces = np.stack([prepare(face, spec) for face in drawn.face_set(IMAGES, seed=4)[0]])
    noise = np.random.default_rng(1).integers(0, 256, (IMAGES, *spec.shape), dtype=np.uint8)
    return np.concatenate([faces, noise])


def are_probabilities(answers: np.ndarray) -> bool:
    return bool((answers >= 0).all() and np.abs(answers.sum(axis=1) - 1).max() < 0.01)


def measure(name: str, keras: ModuleType, suffix: str, folder: Path) -> str:
    """One cell of the table."""
    started = time.perf_counter()
    keras.backend.clear_session()
    network = (FAMILIES | EXPRESSIONS)[name](keras)
    scale = SCALES.get(name, "0..255")
    shape = network.inputs[0].shape[1:]
    pixels = images(InputSpec(height=shape[0], width=shape[1], color="gray" if shape[2] == 1 else "rgb"))
    values = pixels.astype(np.float32) * (2 / 255) - 1 if scale == "-1..1" else pixels.astype(np.float32)
    randomize(network, values)
    answers = np.asarray(network(values, training=False), np.float32)
    file, out = folder / f"theirs{suffix}", Path(tempfile.mkdtemp(dir=folder)) / "bundle"
    network.save(file)
    gray = shape[-1] == 1
    stated = Stated(labels=LABELS, color=Color.GRAY if gray else Color.RGB, scale=parse_scale(scale))
    bundle: Bundle = import_network(Request(path=file, stated=stated), out).bundle
    ours = Network.of(bundle.read("float32"), bundle.card).logits(pixels)
    theirs = answers if are_probabilities(answers) else softmax(answers)
    off, spread = np.abs(softmax(ours) - theirs).max(), theirs.std(axis=0).max()
    return f"{off:.1e} of {spread:.2f} ({time.perf_counter() - started:.0f} s)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names")
    parser.add_argument("--only", choices=("3", "2"), help="of this Keras")
    given = parser.parse_args()
    tensorflow()
    import keras
    import tf_keras

    packages = {"3": keras, "2": tf_keras}
    forms = [(number, suffix) for number in packages for suffix in (".keras", ".h5") if given.only in (None, number)]
    print("| network | " + " | ".join(f"Keras {number}, {suffix}" for number, suffix in forms) + " |", flush=True)
    print("|---" * (len(forms) + 1) + "|")
    for name in FAMILIES | EXPRESSIONS:
        if given.names and not any(part in name for part in given.names):
            continue
        cells = []
        for number, suffix in forms:
            try:
                with tempfile.TemporaryDirectory() as folder:
                    cells.append(measure(name, packages[number], suffix, Path(folder)))
            except EdgeferError as error:
                cells.append(f"refused: {error}")
            except Exception as error:  # of Keras itself
                cells.append(f"{type(error).__name__}: {str(error)[:200]!r}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
