"""The networks that detect faces: 3x3 convolutions with multiples of 16 filters. Both take gray pixels / 255.

Finder: an image whose sides are divisible by 32 -> for each of STRIDES a map [h / stride, w / stride, 5]: the logit of
a face's score, and its box's centre and size relative to the cell. Refiner: a crop of REFINER_SIDE around a candidate
-> 17 numbers (edgefer.faces).

All outputs of a network share a quantization scale, so each is multiplied by a gain to fill the same range.
"""

from typing import TYPE_CHECKING

from edgefer.faces import FINDER_SIDE, REFINER_OUTPUTS, REFINER_SIDE, STRIDES

if TYPE_CHECKING:
    import tf_keras


def build_finder(side: int | None = FINDER_SIDE) -> "tf_keras.Model":
    """The untrained finder. side: of its input in pixels; None for any size, to train on."""
    import tf_keras

    x = pixels = tf_keras.Input((side, side, 1), name="pixels")
    for width, stride in ((16, 2), (32, 2), (64, 2)):
        x = _conv(x, width, stride)
    maps = []
    for level, stride in enumerate(STRIDES):
        if level:
            x = _conv(x, 64, 2)
        x = _conv(x, 64, 1)
        maps.append(_head(x, f"faces_{stride}"))
    return tf_keras.Model(pixels, maps, name="face_finder")


def build_refiner() -> "tf_keras.Model":
    """The untrained refiner."""
    import tf_keras

    x = pixels = tf_keras.Input((REFINER_SIDE, REFINER_SIDE, 1), name="pixels")
    for width, stride in ((16, 2), (32, 2), (32, 1), (48, 2), (48, 1), (64, 2)):
        x = _conv(x, width, stride)
    x = _conv(x, 96, 1, padding="valid")  # 3x3 -> 1x1: pooling would lose positions
    x = tf_keras.layers.GlobalAveragePooling2D(name="mean")(x)
    outputs = tf_keras.layers.Dense(REFINER_OUTPUTS, dtype="float32", name="answers")(x)
    return tf_keras.Model(pixels, outputs, name="face_refiner")


def _conv(x, width: int, stride: int, padding: str = "same"):
    from tf_keras import layers

    x = layers.Conv2D(width, 3, stride, padding=padding, use_bias=False, kernel_initializer="he_normal")(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.97)(x))


def _head(x, name: str):
    from tf_keras import initializers, layers

    bias = initializers.Constant([-4.0, 0.0, 0.0, 0.0, 0.0])  # the prior: faces are rare
    kernel = initializers.RandomNormal(stddev=0.01)
    return layers.Conv2D(
        5, 3, padding="same", dtype="float32", kernel_initializer=kernel, bias_initializer=bias, name=name
    )(x)
