"""Pixel normalization (z-score) as a layer in training, folded into the first convolution before conversion.

No runtime knows of it. The border is padded before the normalization, with black as every runtime pads, so that folding
is exact.
"""

import numpy as np

from edgefer.train.backend import tensorflow
from edgefer.train.recipe_fields import Model

ZSCORE, BORDER = "zscore", "zscore_border"  # names of the layers

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and variance per channel


def pixel_statistics(images: np.ndarray) -> Statistics:
    """Mean and variance per channel of pixels / 255, of uint8 [n, h, w, c].

    >>> pixel_statistics(np.array([[[[0], [255]]]], np.uint8))
    ((0.5,), (0.25,))
    """
    shares = np.stack([np.bincount(part.ravel(), minlength=256) / part.size for part in np.moveaxis(images, 3, 0)])
    values = np.arange(256) / 255
    mean = shares @ values
    return tuple(mean.tolist()), tuple(np.maximum(shares @ values**2 - mean**2, 1e-6).tolist())


def normalize(model: Model, pixels, statistics: Statistics | None):
    """The layers that pad pixels for the first convolution, and normalize them."""
    from tf_keras import layers

    assert statistics, "a recipe with zscore needs the statistics of its training images"
    strided = model.family == "plain" and model.layers.split()[0].endswith("/2")
    edges = [(max(0, 3 - (side % 2 or 2)) // 2, 1) if strided else (1, 1) for side in pixels.shape[1:3]]
    x = layers.ZeroPadding2D(tuple(edges), name=BORDER)(pixels)
    mean, variance = statistics
    return layers.Normalization(axis=-1, mean=list(mean), variance=list(variance), name=ZSCORE)(x)


def conv_padding(model: Model, is_first: bool) -> str:
    """The padding of a convolution: "valid" for the first where `normalize` has padded, else "same"."""
    return "valid" if model.zscore and is_first else "same"


def fold_zscore(model):
    """The equivalent network without normalization layer; one that has none is returned as it is.

    With z = (x - mean) / deviation, sum(kernel * z) = sum(kernel / deviation * x) - sum(kernel / deviation * mean): the
    convolution gets another kernel and a bias.
    """
    tensorflow()
    import tf_keras

    names = [layer.name for layer in model.layers]
    if ZSCORE not in names:
        return model
    zscore, convolution = model.get_layer(ZSCORE), model.layers[names.index(ZSCORE) + 1]
    mean, deviation = (np.asarray(part).ravel() for part in (zscore.mean, np.sqrt(zscore.variance)))
    kernel, *bias = convolution.get_weights()  # [rows, columns, channels, filters]
    folded = kernel / deviation[None, None, :, None]
    shift = -(folded * mean[None, None, :, None]).sum(axis=(0, 1, 2))

    config = model.get_config()
    layers = [one for one in config["layers"] if one["name"] not in (ZSCORE, BORDER)]
    first = next(one for one in layers if one["name"] == convolution.name)
    first["config"] |= {"padding": "same", "use_bias": True}
    first["inbound_nodes"] = [[[names[0], 0, 0, {}]]]
    bare = tf_keras.Model.from_config(config | {"layers": layers})
    for layer in bare.layers:
        if layer.name == convolution.name:
            layer.set_weights([folded, shift + (bias[0] if bias else 0)])
        else:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return bare
