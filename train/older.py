"""The older systems that edgefer began with, kept as they were: two families of networks, and z-scored pixels.

A z-score is folded into the first convolution before anything is converted, so that no runtime knows of it.
"""

import numpy as np

from edgefer.train.backend import batch_norm, tensorflow
from edgefer.train.recipe_fields import Model

ZSCORE, BORDER = "zscore", "zscore_border"  # the layers' names

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def pixel_statistics(images: np.ndarray) -> Statistics:
    """Mean and variance per channel of pixels / 255, of uint8 [n, h, w, c]."""
    shares = np.stack([np.bincount(part.ravel(), minlength=256) / part.size for part in np.moveaxis(images, 3, 0)])
    values = np.arange(256) / 255
    mean = shares @ values
    return tuple(mean.tolist()), tuple(np.maximum(shares @ values**2 - mean**2, 1e-6).tolist())


def zscore(model: Model, pixels, statistics: Statistics | None):
    """Normalized pixels, with the border that the first convolution needs: it is padded before, with black, for then
    the normalization folds exactly into that convolution (`fold_zscore`)."""
    from tf_keras import layers

    assert statistics, "a recipe with zscore needs the statistics of its training images"
    strided = model.family == "plain" and model.layers.split()[0].endswith("/2")
    edges = [(max(0, 3 - (side % 2 or 2)) // 2, 1) if strided else (1, 1) for side in pixels.shape[1:3]]
    x = layers.ZeroPadding2D(tuple(edges), name=BORDER)(pixels)
    mean, variance = statistics
    return layers.Normalization(axis=-1, mean=list(mean), variance=list(variance), name=ZSCORE)(x)


def first_padding(model: Model, is_first: bool) -> str:
    """The padding of a convolution: the first one's was done where pixels are normalized."""
    return "valid" if model.zscore and is_first else "same"


def four_block(model: Model, pixels):
    """The older system's order of layers, ReLU before batch norm, kept as it was."""
    from tf_keras import layers

    x = pixels
    for number, filters in enumerate(model.widths):
        x = layers.Conv2D(filters, 3, padding=first_padding(model, number == 0), activation="relu")(x)
        x = batch_norm()(x)
        x = layers.MaxPooling2D()(x)
        x = layers.Dropout(model.dropout)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(model.dense, activation="relu")(x)
    x = batch_norm()(x)
    return layers.Dropout(min(0.9, 2 * model.dropout))(x)


def cnn_mlp(model: Model, x):
    """The other older system: whether its pooling leaves anything of where things are in the image is `pooling`."""
    from tf_keras import layers

    for number, filters in enumerate(model.widths):
        x = layers.Conv2D(filters, 3, padding=first_padding(model, number == 0), activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    if model.pooling == "grid":
        x = layers.AveragePooling2D(tuple(max(1, side // 4) for side in x.shape[1:3]))(x)
        x = layers.Flatten()(x)
    else:
        x = layers.GlobalAveragePooling2D()(x)
    for units in (model.dense, model.dense // 2):
        x = layers.Dense(units, activation="relu")(x)
        x = layers.Dropout(model.dropout)(x) if model.dropout else x
    return x


def fold_zscore(model):
    """The same network without its "zscore" layer, exactly: the convolution behind it has other weights and a bias.

    With z = (x - mean) / deviation, sum(kernel * z) is sum(kernel / deviation * x) less a constant. The border was padded
    before the normalization (`zscore`), so it is black in both forms. A network without z-score is returned
    as it is.
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
