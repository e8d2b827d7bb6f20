"""Builds networks from a checked architecture, without Keras's lookup of classes by name."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgefer.errors import InputError
from edgefer.train.keras_layers import layer_class
from edgefer.train.memory import activations, outline

MAX_ACTIVATIONS = 1 << 28  # of one layer for one image
MAX_ALL_ACTIVATIONS = 1 << 29  # of all layers together: 2 GB


@dataclass(frozen=True)
class Built:
    """A Keras layer or network. kind: its class in the file; parts: of a network its layers, in the file's order."""

    layer: Any
    kind: str = ""
    parts: "tuple[Built, ...]" = ()


def build(architecture: dict, stored: int, where: str) -> Built:
    """The network, float32; built in a graph first, where sizes are known before memory is allocated.

    stored: the weights that the file holds. InputError where layers do not fit together, or are too large.
    """
    try:
        with outline():
            sizes = _make(architecture)
            weights = sizes.layer.count_params()
            largest, total = activations(_layers(sizes))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except Exception as error:  # Keras raises many kinds for inconsistent settings
        raise InputError(f"{where}: its layers do not fit together ({first_line(error)}).") from None
    if weights > stored:
        raise InputError(f"{where} declares {weights:,} weights and holds {stored:,}: refused.")
    if largest > MAX_ACTIVATIONS:
        raise InputError(f"{where} has a layer of {largest:,} activations for one image: refused.")
    if total > MAX_ALL_ACTIVATIONS:
        raise InputError(f"{where} has layers of {total:,} activations in all for one image: refused.")
    return _make(architecture)


def _make(layer: dict) -> Built:
    if layer["class_name"] == "Sequential":
        return _make_sequential(layer)
    if layer["class_name"] == "Functional":
        return _make_functional(layer)
    return Built(layer_class(layer["class_name"]).from_config(dict(layer["config"])), layer["kind"])


def _make_sequential(layer: dict) -> Built:
    import tf_keras

    config = layer["config"]
    parts = tuple(_make(one) for one in config["layers"])
    network = tf_keras.Sequential([part.layer for part in parts], name=config["name"])
    if not network.built and config.get("input_shape"):
        network.build(config["input_shape"])
    if not network.built or not network.inputs:
        raise InputError("the size of its input is not stated: build it, and save it again.")
    return Built(network, layer.get("kind", ""), parts)


def _make_functional(layer: dict) -> Built:
    import tf_keras

    config = layer["config"]
    built = Built(None, layer.get("kind", ""), tuple(_make(one) for one in config["layers"]))
    pixels = [part.layer.output for part in built.parts if type(part.layer).__name__ == "InputLayer"]
    outputs = connect(built, layer, pixels, flat=False)
    network = tf_keras.Model(_one_or_all(pixels), _one_or_all(outputs), name=config["name"])
    return Built(network, built.kind, built.parts)


def connect(
    built: Built, architecture: dict, inputs: list, *, skip: frozenset[Any] = frozenset(), flat: bool = True
) -> list:
    """Call a network's layers on Keras tensors in topological order; returns its outputs.

    skip: layers whose outputs are their inputs. flat: call nested networks layer by layer, too. Unlike Keras's
    from_config it does not loop forever on a layer that is not connected.
    """
    config = architecture["config"]
    if architecture["class_name"] == "Sequential":
        for part, one in zip(built.parts, config["layers"], strict=True):
            if type(part.layer).__name__ != "InputLayer" and part.layer not in skip:
                inputs = _call(part, one, inputs, skip, flat)
        return inputs
    parts = {one["name"]: (part, one) for part, one in zip(built.parts, config["layers"], strict=True)}
    calls = [
        (one["name"], number, node)
        for one in config["layers"]
        for number, node in enumerate(one.get("inbound_nodes", []))
    ]
    first = {name: _first_call(name, part, calls, config) for name, (part, _) in parts.items()}
    given = [name for name, (part, _) in parts.items() if type(part.layer).__name__ == "InputLayer"]
    tensors = {(name, 0): [pixels] for name, pixels in zip(given, inputs, strict=True)}

    def is_ready(reference: list) -> bool:
        return (reference[0], reference[1] - first.get(reference[0], 0)) in tensors

    def tensor(reference: list) -> Any:
        return tensors[reference[0], reference[1] - first[reference[0]]][reference[2]]

    while calls:
        ready = [call for call in calls if all(is_ready(reference) for reference in call[2])]
        if not ready:
            raise InputError(f"the layer {calls[0][0]!r} is not connected to the network.")
        for name, number, node in ready:
            if node:
                arguments = [tensor(reference) for reference in node]
                tensors[name, number] = (
                    arguments if parts[name][0].layer in skip else _call(*parts[name], arguments, skip, flat)
                )
        calls = [call for call in calls if call not in ready]
    return [tensor(reference) for reference in config["output_layers"]]


def _call(part: Built, architecture: dict, inputs: list, skip: frozenset[Any], flat: bool) -> list:
    if part.parts and flat:
        return connect(part, architecture, inputs, skip=skip)
    outputs = part.layer(_one_or_all(inputs))
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def _one_or_all(tensors: list) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors


def _first_call(name: str, part: Built, calls: list, config: dict) -> int:
    """The index of a layer's first call: 1 for a nested network whose own creation is counted as call 0."""
    references = [ref for _, _, node in calls for ref in node] + config["output_layers"]
    used = [ref[1] for ref in references if ref[0] == name]
    count = sum(one[0] == name for one in calls)
    return int(bool(part.parts) and bool(used) and max(used) >= max(1, count))


def _layers(built: Built) -> Iterator[Any]:
    """The layers of a network and of its nested networks."""
    for part in built.parts:
        yield part.layer
        yield from _layers(part)


def first_line(error: BaseException) -> str:
    """The first line of an error, printable and of at most 200 characters."""
    text = str(error).strip().rpartition("Exception encountered: ")[2] or type(error).__name__  # behind a whole config
    return "".join(char if char.isprintable() else " " for char in text.splitlines()[0])[:200]
