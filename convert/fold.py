"""Folds a network's z-score into its first convolution, so that the converted network takes raw pixels and nothing more."""

import numpy as np

from edgefer.train.backend import tensorflow


def fold_zscore(model):
    """The same network without its "zscore" layer, exactly: the convolution behind it has other weights and a bias.

    With z = (x - mean) / deviation, sum(kernel * z) is sum(kernel / deviation * x) less a constant. The border was padded
    before the normalization (edgefer.train.networks), so it is black in both forms. A network without z-score is returned
    as it is.
    """
    tensorflow()
    import tf_keras

    names = [layer.name for layer in model.layers]
    if "zscore" not in names:
        return model
    zscore, convolution = model.get_layer("zscore"), model.layers[names.index("zscore") + 1]
    mean, deviation = (np.asarray(part).ravel() for part in (zscore.mean, np.sqrt(zscore.variance)))
    kernel, *bias = convolution.get_weights()  # [rows, columns, channels, filters]
    folded = kernel / deviation[None, None, :, None]
    shift = -(folded * mean[None, None, :, None]).sum(axis=(0, 1, 2))

    config = model.get_config()
    layers = [one for one in config["layers"] if one["name"] not in ("zscore", "zscore_border")]
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
