"""Separable convolutions as the two layers that they are, which pruning and quantization-aware training know."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tf_keras

SHARED = ("strides", "padding", "data_format", "dilation_rate", "depth_multiplier", "kernel_size")


def split_separable(model: "tf_keras.Model") -> "tf_keras.Model":
    """The network with a DepthwiseConv2D and a 1x1 Conv2D, which keeps the name, in place of each SeparableConv2D: the
    same operators, so the same answers to the last bit. One that has none is returned as it is."""
    import tf_keras

    separable = [one.name for one in model.layers if isinstance(one, tf_keras.layers.SeparableConv2D)]
    if not separable:
        return model
    config = tf_keras.Model(model.inputs, model.outputs, name=model.name).get_config()  # of a Sequential, too
    layers = [part for one in config["layers"] for part in (_split(one) if one["name"] in separable else [one])]
    split = tf_keras.Model.from_config(config | {"layers": layers})
    for layer in model.layers:
        if layer.name in separable:
            depthwise, *pointwise = layer.get_weights()
            split.get_layer(_depthwise(layer.name)).set_weights([depthwise])
            split.get_layer(layer.name).set_weights(pointwise)
        else:
            split.get_layer(layer.name).set_weights(layer.get_weights())
    return split


def _depthwise(name: str) -> str:
    return f"{name}_depthwise"


def _split(one: dict) -> list[dict]:
    """The configuration of a SeparableConv2D, as those of its two layers."""
    config, name = one["config"], one["name"]
    first = {key: config[key] for key in SHARED} | {"name": _depthwise(name), "use_bias": False}
    second = {key: config[key] for key in ("filters", "activation", "use_bias")} | {"name": name, "kernel_size": 1}
    calls = [[[_depthwise(name), number, 0, {}]] for number in range(len(one["inbound_nodes"]))]
    return [
        one | {"class_name": "DepthwiseConv2D", "registered_name": None, "config": first, "name": _depthwise(name)},
        one | {"class_name": "Conv2D", "registered_name": None, "config": second, "inbound_nodes": calls},
    ]
