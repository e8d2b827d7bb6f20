"""The closed list of Keras layers that edgefer loads, and networks built from it without Keras looking anything up."""

import inspect
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgefer.errors import InputError

MAX_LAYERS = 4000
MAX_DEPTH = 8  # of networks within networks
MAX_NUMBER = 1 << 20  # in a layer's settings: units, filters, sizes
MAX_DILATION = 256  # TensorFlow takes one batch for each of its steps
MAX_ACTIVATIONS = 1 << 28  # numbers that one layer may give for one image

NETWORKS = {"Functional", "Model", "Sequential"}
LAYERS = {
    "InputLayer", "Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense",
    "BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization",
    "ReLU", "LeakyReLU", "PReLU", "ELU", "ThresholdedReLU", "Softmax", "Activation",
    "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot",
    "GlobalAveragePooling2D", "GlobalMaxPooling2D", "AveragePooling2D", "MaxPooling2D",
    "Flatten", "Reshape", "Permute", "ZeroPadding2D", "Cropping2D", "UpSampling2D", "Resizing", "CenterCrop",
    "Normalization", "Rescaling",
    "Dropout", "SpatialDropout2D",
}  # fmt: skip
# They change nothing outside training, where edgefer augments by itself: left out.
TRAINING_ONLY = {
    "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization", "RandomFlip", "RandomRotation",
    "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness",
}  # fmt: skip
ACTIVATIONS = {
    "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "sigmoid", "hard_sigmoid", "tanh", "softmax",
    "softplus", "softsign", "swish", "silu", "exponential", "mish",
}  # fmt: skip
# What only matters while a network is trained from nothing, and is an object in the file.
DROPPED = re.compile(r"(_initializer|_regularizer|_constraint|^initializer|^regularizer)$")
# dtype: what a network computes in is edgefer's to say.
UNUSED = {
    "build_config",
    "activity_regularizer",
    "dtype",
    "quantization_config",
    "sparse",
    "ragged",
    "optional",
    "seed",
}
KERAS_3_NAMES = {
    ("InputLayer", "batch_shape"): "batch_input_shape",
    ("LeakyReLU", "negative_slope"): "alpha",
}
WORDS = {
    "padding": {"valid", "same"},
    "data_format": {"channels_last"},
    "interpolation": {"nearest", "bilinear", "bicubic", "area", "lanczos3", "lanczos5"},
}
NAME = re.compile(r"[A-Za-z0-9_./:\- ]{1,256}")
RENAMED = {"BatchNormalizationV1": "BatchNormalization", "SyncBatchNormalization": "BatchNormalization"}


class UnknownLayer(InputError):
    """A layer that is not on the closed list: it may run code."""


@dataclass(frozen=True)
class Architecture:
    """Turns a file's architecture into one that Keras 2 builds without looking anything up: InputError otherwise."""

    where: str

    def network(self, config: Any, depth: int = 0) -> dict:
        """A Functional or Sequential network as {"class_name", "config"} of plain values."""
        kind, settings = self._parts(config, "the network")
        if kind not in NETWORKS or depth > MAX_DEPTH:
            raise InputError(f"{self.where} is a {kind!r}: edgefer reads Functional and Sequential Keras networks.")
        layers = settings.get("layers")
        if not isinstance(layers, list) or not 0 < len(layers) <= MAX_LAYERS:
            raise InputError(f"{self.where} has no list of 1 to {MAX_LAYERS:,} layers.")
        plain: dict[str, Any] = {
            "name": self._name(settings.get("name")),
            "layers": [self._layer(one, depth) for one in layers],
        }
        if kind == "Sequential":
            plain["input_shape"] = self._value(kind, "size", settings.get("build_input_shape"))
            return {"class_name": "Sequential", "config": plain}
        for key in ("input_layers", "output_layers"):
            plain[key] = self._ends(settings.get(key))
        return {"class_name": "Functional", "config": plain}

    def _parts(self, config: Any, what: str) -> tuple[str, dict]:
        if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
            raise InputError(f"{self.where}: {what} is not described as Keras does.")
        settings = config.get("config")
        if not isinstance(settings, dict):
            raise InputError(f"{self.where}: the settings of {what} cannot be read.")
        kind: str = config["class_name"]
        return RENAMED.get(kind, kind), settings

    def _layer(self, config: Any, depth: int) -> dict:
        kind, settings = self._parts(config, "a layer")
        registered = config.get("registered_name")
        if kind in NETWORKS:
            layer = self.network(config, depth + 1)
        elif kind in LAYERS and registered in (None, kind):
            layer = {"class_name": kind, "config": self._settings(kind, settings)}
        elif kind in TRAINING_ONLY:
            layer = {
                "class_name": "Activation",
                "config": {"name": self._name(settings.get("name")), "activation": "linear"},
            }
            if "batch_input_shape" in settings:
                layer["config"]["batch_input_shape"] = self._value(kind, "size", settings["batch_input_shape"])
        else:
            raise UnknownLayer(
                f"{self.where} holds a layer of the kind {kind!r:.60}, which edgefer does not load: it may run code or is not "
                "for images. Rebuild the network with plain Keras layers and save it again."
            )
        name = config.get("name", settings.get("name"))
        layer["name"] = self._name(name)
        layer["kind"] = config["class_name"]
        if "inbound_nodes" in config:
            layer["inbound_nodes"] = [self._node(node, layer["name"]) for node in self._list(config["inbound_nodes"])]
        return layer

    def _settings(self, kind: str, settings: dict) -> dict:
        known = _arguments(kind)
        plain = {}
        for key, value in settings.items():
            if not isinstance(key, str) or DROPPED.search(key) or key in UNUSED:
                continue
            key = KERAS_3_NAMES.get((kind, key), key)
            if key in known:
                plain[key] = self._value(kind, key, value)
            elif value:  # a setting that is off, as Keras 3 writes many, is no loss
                raise InputError(f"{self.where}: Keras 2 has no {kind}.{key} (= {value!r:.60}): rebuild it without.")
        return plain

    def _value(self, kind: str, key: str, value: Any, depth: int = 0) -> Any:
        what = f"{self.where}: {kind}.{key} = {value!r:.60}"
        if key == "activation" and isinstance(value, dict):  # of the Keras 3 form
            value = value.get("config")
        if key == "activation":
            if value is None or (isinstance(value, str) and value in ACTIVATIONS):
                return value
            raise InputError(f"{what} is not an activation that edgefer loads: {', '.join(sorted(ACTIVATIONS))}.")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            most = MAX_DILATION if key == "dilation_rate" else MAX_NUMBER
            if not abs(value) <= most:
                raise InputError(f"{what} is out of range (at most {most:,}).")
            return value
        if isinstance(value, str):
            if value in WORDS.get(key, ()) or (key == "name" and NAME.fullmatch(value)):
                return value
            raise InputError(f"{what} is not a setting that edgefer loads.")
        if isinstance(value, list | tuple) and len(value) <= 4096 and depth < 6:
            return [self._value(kind, "size" if key == "activation" else key, one, depth + 1) for one in value]
        raise InputError(f"{what} is not a setting that edgefer loads.")

    def _name(self, name: Any) -> str:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise InputError(f"{self.where}: {name!r:.60} is no name of a layer: letters, digits, _ . / : and - are.")
        return name

    def _list(self, value: Any) -> list:
        if not isinstance(value, list) or len(value) > MAX_LAYERS:
            raise InputError(f"{self.where}: how its layers are connected cannot be read.")
        return value

    def _node(self, node: Any, layer: str) -> list:
        """One use of a layer: [[name, node, tensor, {}], ...]."""
        if isinstance(node, dict):  # Keras 3
            arguments, options = node.get("args"), node.get("kwargs") or {}
            if not isinstance(options, dict) or not set(options) <= {"training", "mask"}:
                raise InputError(f"{self.where}: {layer!r} is called with more than its input: refused.")
            if not isinstance(arguments, list) or len(arguments) != 1:
                raise InputError(f"{self.where}: {layer!r} is called with more than its input: refused.")
            sources = arguments[0] if isinstance(arguments[0], list) else [arguments[0]]
            return [self._tensor(_history(one)) for one in self._list(sources)]
        node = self._list(node)
        if node and isinstance(node[0], str):
            node = [node]
        return [self._tensor(one) for one in node]

    def _tensor(self, value: Any) -> list:
        value = self._list(value)
        options = value[3] if len(value) > 3 else {}
        if (
            len(value) < 3
            or options
            or not all(isinstance(number, int) and 0 <= number < MAX_LAYERS for number in value[1:3])
        ):
            raise InputError(f"{self.where}: a layer's input {value!r:.80} cannot be read.")
        return [self._name(value[0]), value[1], value[2], {}]

    def _ends(self, value: Any) -> list:
        value = self._list(value)
        if value and isinstance(value[0], str):
            value = [value]
        if not value:
            raise InputError(f"{self.where} names no inputs or no outputs.")
        return [self._tensor(one)[:3] for one in value]


def _history(tensor: Any) -> Any:
    """Where a tensor comes from, in the form of Keras 3: {"config": {"keras_history": [layer, node, tensor]}}."""
    config = tensor.get("config") if isinstance(tensor, dict) else None
    return config.get("keras_history") if isinstance(config, dict) else tensor


@dataclass(frozen=True)
class Built:
    """A network or layer that was made, its kind in the file, and for a network what it is made of, in the file's order."""

    layer: Any
    kind: str = ""
    parts: "tuple[Built, ...]" = ()


def _arguments(kind: str) -> set[str]:
    """The settings that a Keras 2 layer takes."""
    from tf_keras import layers

    taken = {"name", "trainable", "batch_input_shape"}
    for owner in getattr(layers, kind).__mro__:
        if "__init__" in vars(owner):
            taken |= set(inspect.signature(owner.__init__).parameters)
    return taken - {"self", "args", "kwargs"}


def build(architecture: dict, stored: int, where: str) -> Built:
    """The network, float32; first in a graph, where sizes are known before any memory is taken."""
    import tensorflow as tf

    try:
        with tf.Graph().as_default():
            outline = _make(architecture)
            claimed = outline.layer.count_params()
            widest = max(_widest(layer) for layer in _layers(outline))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except Exception as error:  # whatever Keras makes of settings that contradict each other
        raise InputError(f"{where}: its layers do not fit together ({first_line(error)}).") from None
    if claimed > stored:
        raise InputError(f"{where} claims {claimed:,} weights and holds {stored:,}: refused.")
    if widest > MAX_ACTIVATIONS:
        raise InputError(f"{where} holds a layer that gives {widest:,} numbers for one image: refused.")
    return _make(architecture)


def _make(layer: dict) -> Built:
    from tf_keras import layers

    if layer["class_name"] == "Sequential":
        return _make_sequential(layer)
    if layer["class_name"] == "Functional":
        return _make_functional(layer)
    return Built(getattr(layers, layer["class_name"]).from_config(dict(layer["config"])), layer["kind"])


def _make_sequential(layer: dict) -> Built:
    import tf_keras

    config = layer["config"]
    parts = tuple(_make(one) for one in config["layers"])
    network = tf_keras.Sequential([part.layer for part in parts], name=config["name"])
    if not network.built and config.get("input_shape"):
        network.build(config["input_shape"])
    if not network.built or not network.inputs:
        raise InputError("it does not say the size of its input: build it, and save it again.")
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
    built: Built, architecture: dict, inputs: list, *, skip: frozenset[str] = frozenset(), flat: bool = True
) -> list:
    """Call a network's layers one after the other on Keras tensors, as their inputs are there; returns its outputs.

    skip: layers that pass on what they get. flat: networks within are called layer by layer too. Keras's own from_config waits forever for a layer that is connected to nothing.
    """
    config = architecture["config"]
    if architecture["class_name"] == "Sequential":
        for part, one in zip(built.parts, config["layers"], strict=True):
            if type(part.layer).__name__ != "InputLayer" and one["name"] not in skip:
                inputs = _call(part, one, inputs, flat)
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

    def there(reference: list) -> bool:
        return (reference[0], reference[1] - first.get(reference[0], 0)) in tensors

    def tensor(reference: list) -> Any:
        return tensors[reference[0], reference[1] - first[reference[0]]][reference[2]]

    while calls:
        ready = [call for call in calls if all(there(reference) for reference in call[2])]
        if not ready:
            raise InputError(f"the layer {calls[0][0]!r} is connected to nothing that there is.")
        for name, number, node in ready:
            if node:
                taken = [tensor(reference) for reference in node]
                tensors[name, number] = taken if name in skip else _call(*parts[name], taken, flat)
        calls = [call for call in calls if call not in ready]
    return [tensor(reference) for reference in config["output_layers"]]


def _call(part: Built, architecture: dict, inputs: list, flat: bool) -> list:
    if part.parts and flat:
        return connect(part, architecture, inputs)
    outputs = part.layer(_one_or_all(inputs))
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def _one_or_all(tensors: list) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors


def _first_call(name: str, part: Built, calls: list, config: dict) -> int:
    """The number of a layer's first call: 1 for a network within a network where its own making counts as one."""
    references = [ref for _, _, node in calls for ref in node] + config["output_layers"]
    asked = [ref[1] for ref in references if ref[0] == name]
    count = sum(one[0] == name for one in calls)
    return int(bool(part.parts) and bool(asked) and max(asked) >= max(1, count))


def _layers(built: Built) -> Iterator[Any]:
    """The layers of a network, and those of the networks within it."""
    for part in built.parts:
        yield part.layer
        yield from _layers(part)


def _widest(layer: Any) -> int:
    """The most numbers that a layer gives for one image, at any of its calls."""
    nodes = layer._inbound_nodes  # a shared layer has one for each call; Keras has no public list of them
    return max((_size(shape) for node in nodes for shape in _shapes(node.output_shapes)), default=1)


def _shapes(shapes: Any) -> list[tuple]:
    """What Keras gives as one shape or, for several tensors, as a list of them."""
    return shapes if isinstance(shapes, list) else [shapes]


def _size(shape: tuple) -> int:
    return math.prod(side or 1 for side in shape)


def first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return "".join(sign if sign.isprintable() else " " for sign in text.splitlines()[0])[:200]
