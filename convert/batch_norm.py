"""Batch norms as 1x1 depthwise convolutions, where no layer before them takes them in.

TFLite's converter folds a batch norm into the linear layer before it. After an activation or pooling, where many tutorials
place it, it would stay a MUL and an ADD, for which there is no C code.
"""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tf_keras

ABSORBING = {"Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense", "BatchNormalization"}
TRANSPARENT = {"Dropout", "SpatialDropout2D", "Activation"}  # at inference, if their activation is linear
MAX_CHANNELS = 4096  # of one; TFLite's calibration does not end with 8464
NAME = "{}_edgefer_{}"  # of the layers around a flat one


def convolve_norms(model: "tf_keras.Model") -> "tf_keras.Model":
    """The network with a DepthwiseConv2D in place of each free-standing batch norm, between two Reshape layers if its input
    is flat: the same answers up to float rounding. One that has none is returned as it is."""
    import tf_keras

    config = tf_keras.Model(model.inputs, model.outputs, name=model.name).get_config()  # of a Sequential, too
    free = {name for name in _free(config["layers"], config["output_layers"]) if _is_by_channel(model.get_layer(name))}
    if not free:
        return model
    layers = [part for one in config["layers"] for part in (_parts(one, model) if one["name"] in free else [one])]
    made = tf_keras.Model.from_config(config | {"layers": layers})
    for layer in model.layers:
        if layer.name in free:
            made.get_layer(_convolution(layer)).set_weights(_weights(layer))
        else:
            made.get_layer(layer.name).set_weights(layer.get_weights())
    return made


def _free(layers: list[dict], outputs: list) -> set[str]:
    """The batch norms that the converter leaves: those after anything but a linear layer whose output nothing else takes."""
    calls = {one["name"]: [_sources(node) for node in one["inbound_nodes"]] for one in layers}
    uses = Counter([source for some in calls.values() for call in some for source in call] + _sources(outputs))
    kinds = {one["name"]: one["class_name"] for one in layers}
    linear = {one["name"] for one in layers if one["config"].get("activation", "linear") in ("linear", None)}

    def is_absorbed(source: tuple[str, int]) -> bool:
        while uses[source] == 1 and source[0] in linear and kinds[source[0]] in TRANSPARENT:
            (source,) = calls[source[0]][source[1]]
        return uses[source] == 1 and source[0] in linear and kinds[source[0]] in ABSORBING

    norms = [name for name, kind in kinds.items() if kind == "BatchNormalization"]
    return {name for name in norms if not all(is_absorbed(source) for call in calls[name] for source in call)}


def _sources(node: list) -> list[tuple[str, int]]:
    """The layers and calls whose outputs a call takes."""
    node = [node] if node and isinstance(node[0], str) else node
    return [(str(source[0]), int(source[1])) for source in node]


def _is_by_channel(norm) -> bool:
    rank = norm.input_spec.ndim
    return rank in (2, 4) and list(norm.axis) == [rank - 1] and norm.moving_mean.shape[0] <= MAX_CHANNELS


def _convolution(norm) -> str:
    """The name of the convolution in its place; a flat one's own name is that of its output."""
    return norm.name if norm.input_spec.ndim == 4 else NAME.format(norm.name, "scale")


def _weights(norm) -> list[np.ndarray]:
    """The kernel and bias that compute it at inference."""
    mean, variance = (np.asarray(part, np.float64) for part in (norm.moving_mean, norm.moving_variance))
    gamma, beta = (0 if part is None else np.asarray(part, np.float64) for part in (norm.gamma, norm.beta))
    scale = (1 if norm.gamma is None else gamma) / np.sqrt(variance + norm.epsilon)
    return [scale.reshape(1, 1, -1, 1), beta - mean * scale]


def _parts(one: dict, model: "tf_keras.Model") -> list[dict]:
    """The configuration of a batch norm, as that of its convolution, with the Reshape layers around it."""
    norm, name = model.get_layer(one["name"]), one["name"]
    inner = _convolution(norm)

    def part(kind: str, named: str, calls: list, **config) -> dict:
        return one | {
            "class_name": kind,
            "registered_name": None,
            "config": config | {"name": named},
            "name": named,
            "inbound_nodes": calls,
        }

    if inner == name:
        return [part("DepthwiseConv2D", name, one["inbound_nodes"], kernel_size=1)]
    width, first = int(norm.moving_mean.shape[0]), NAME.format(name, "as_image")

    def after(named: str) -> list:
        return [[[named, call, 0, {}]] for call in range(len(one["inbound_nodes"]))]

    return [
        part("Reshape", first, one["inbound_nodes"], target_shape=[1, 1, width]),
        part("DepthwiseConv2D", inner, after(first), kernel_size=1),
        part("Reshape", name, after(inner), target_shape=[width]),
    ]
