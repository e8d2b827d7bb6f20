"""The allowlist of Keras layers that edgefer loads, and architectures checked against it."""

import inspect
import re
from dataclasses import dataclass
from typing import Any

from edgefer.errors import InputError
from edgefer.train.keras_operators import OWN, as_layer, join_channels, keras_history, operator_name

MAX_LAYERS = 4000
MAX_DEPTH = 8  # of nested networks
MAX_NUMBER = 1 << 20  # of a layer's settings: units, filters, sizes
MAX_DILATION = 256  # memory grows with it in TensorFlow

NETWORKS = {"Functional", "Model", "Sequential"}
LAYERS = {
    "InputLayer", "Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense",
    "BatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization",
    "ReLU", "LeakyReLU", "PReLU", "ELU", "ThresholdedReLU", "Softmax", "Activation",
    "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot",
    "GlobalAveragePooling2D", "GlobalMaxPooling2D", "AveragePooling2D", "MaxPooling2D",
    "Flatten", "Reshape", "Permute", "ZeroPadding2D", "Cropping2D", "UpSampling2D", "Resizing", "CenterCrop",
    "Normalization", "Rescaling",
    "Dropout", "SpatialDropout2D", "Attention", "LayerScale",
}  # fmt: skip
# Identity at inference; edgefer augments by itself.
AUGMENTING = {
    "RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomContrast", "RandomBrightness", "RandomHeight",
    "RandomWidth", "RandomColorDegeneration", "RandomColorJitter", "RandomErasing", "RandomGaussianBlur", "RandomGrayscale",
    "RandomHue", "RandomInvert", "RandomPerspective", "RandomPosterization", "RandomSaturation", "RandomSharpness", "RandomShear",
    "RandAugment", "AugMix", "MixUp", "CutMix",
}  # fmt: skip
TRAINING_ONLY = AUGMENTING | {
    "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization", "StochasticDepth", "Identity",
}  # fmt: skip
# Keras 3 calls them with training=True unless told otherwise, and stores that; its predict() calls them without.
IMAGE_LAYERS = {"Resizing", "CenterCrop"} | AUGMENTING
ACTIVATIONS = {
    "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "sigmoid", "hard_sigmoid", "tanh", "softmax",
    "softplus", "softsign", "swish", "silu", "exponential", "mish", "log_softmax",
}  # fmt: skip
# Of edgefer.train.keras_additions: in Keras 3 they have these names, or are other functions than in Keras 2.
ADDED = {name: f"edgefer>{name}" for name in ("hard_silu", "hard_sigmoid", "gelu_tanh")}
OF_KERAS_3 = {"hard_silu": "hard_silu", "hard_swish": "hard_silu", "hard_sigmoid": "hard_sigmoid"}
ACTIVATION_LAYERS = {"ReLU", "LeakyReLU", "ELU"}  # as in Conv2D(..., activation=LeakyReLU(0.1))
KERAS_PACKAGES = {"None", "keras", "tf_keras", "tensorflow"}  # of these layers; custom ones may have the same names
# Only used when training from scratch; objects in the file.
DROPPED = re.compile(r"(_initializer|_regularizer|_constraint|^initializer|^regularizer)$")
# dtype: set by edgefer.
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
KERAS_3_DEFAULTS = {"data_format": "channels_last", "fill_mode": "constant"}  # where Keras 2 has no choice
CHOICES = {
    "padding": {"valid", "same"},
    "data_format": {"channels_last"},
    "interpolation": {"nearest", "bilinear", "bicubic", "area", "lanczos3", "lanczos5"},
    "score_mode": {"dot", "concat"},
    "function": {"mean", "max", "sum"},
}
NAME = re.compile(r"[A-Za-z0-9_./:\- ]{1,256}")
RENAMED = {"BatchNormalizationV1": "BatchNormalization", "SyncBatchNormalization": "BatchNormalization"}


class UnknownLayer(InputError):
    """A layer that is not on the allowlist: it may run code."""


@dataclass(frozen=True)
class Architecture:
    """Translates a file's architecture to plain Keras 2 settings. InputError for anything that is not on the allowlist."""

    where: str
    keras_3: bool = False  # who wrote the file

    def network(self, config: Any, depth: int = 0) -> dict:
        """A Functional or Sequential network as {"class_name", "config"} of plain values."""
        kind, settings = self._parts(config, "the network")
        if kind not in NETWORKS or depth > MAX_DEPTH:
            raise InputError(
                f"{self.where} is a {kind!r}: edgefer reads Functional and Sequential Keras networks; "
                "export others with model.export(), and name the folder."
            )
        layers = settings.get("layers")
        if not isinstance(layers, list) or not 0 < len(layers) <= MAX_LAYERS:
            raise InputError(f"{self.where} has no list of 1 to {MAX_LAYERS:,} layers.")
        plain: dict[str, Any] = {
            "name": self._name(settings.get("name")),
            "layers": [self._layer(one, depth) for one in join_channels(layers)],
        }
        if kind == "Sequential":
            shape = self._value(kind, "size", settings.get("build_input_shape"))
            plain["input_shape"] = [None, *shape[1:]] if isinstance(shape, list) else shape
            return {"class_name": "Sequential", "config": plain}
        for key in ("input_layers", "output_layers"):
            plain[key] = self._ends(settings.get(key))
        return {"class_name": "Functional", "config": plain}

    def _parts(self, config: Any, what: str) -> tuple[str, dict]:
        if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
            raise InputError(f"{self.where}: the description of {what} is not of Keras's form.")
        settings = config.get("config")
        if not isinstance(settings, dict):
            raise InputError(f"{self.where}: the settings of {what} cannot be read.")
        kind: str = config["class_name"]
        return RENAMED.get(kind, kind), settings

    def _layer(self, config: Any, depth: int) -> dict:
        kind, settings = self._parts(config, "a layer")
        if operator := as_layer(config):
            config = operator
            kind, settings = operator["class_name"], operator["config"]
        if kind in NETWORKS:
            layer = self.network(config, depth + 1)
        elif _is_known(kind, config):
            layer = {"class_name": kind, "config": self._settings(kind, settings)}
        elif kind in TRAINING_ONLY:
            layer = {
                "class_name": "Activation",
                "config": {"name": self._name(settings.get("name")), "activation": "linear"},
            }
            if "batch_input_shape" in settings:
                layer["config"]["batch_input_shape"] = self._value(kind, "size", settings["batch_input_shape"])
        else:
            function = operator_name(config)
            what = f"an operator, {function!r:.60}," if function else f"a layer of the kind {kind!r:.60},"
            raise UnknownLayer(
                f"{self.where} holds {what} which edgefer does not load: it may run code or is not "
                "for images. Rebuild the network with plain Keras layers and save it again, or export it as a SavedModel (model.export) "
                "and name that folder."
            )
        name = config.get("name", settings.get("name"))
        layer["name"] = self._name(name)
        layer["kind"] = config["class_name"]
        shape = layer["config"].get("batch_input_shape")
        if isinstance(shape, list) and shape and shape[0] is not None:
            layer["batch"], layer["config"]["batch_input_shape"] = shape[0], [None, *shape[1:]]
        if "inbound_nodes" in config:
            layer["inbound_nodes"] = [self._node(node, layer) for node in self._list(config["inbound_nodes"])]
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
            elif value and KERAS_3_DEFAULTS.get(key) != value:  # Keras 3 writes many settings that are off
                raise InputError(f"{self.where}: Keras 2 has no {kind}.{key} (= {value!r:.60}): rebuild it without.")
        return plain

    def _value(self, kind: str, key: str, value: Any, depth: int = 0) -> Any:
        what = f"{self.where}: {kind}.{key} = {value!r:.60}"
        if key == "activation":
            return self._activation(value, what)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            limit = MAX_DILATION if key == "dilation_rate" else MAX_NUMBER
            if not abs(value) <= limit:
                raise InputError(f"{what} is out of range (at most {limit:,}).")
            return value
        if isinstance(value, str):
            if value in CHOICES.get(key, ()) or (key == "name" and NAME.fullmatch(value)):
                return value
            raise InputError(f"{what} is not a setting that edgefer loads.")
        if isinstance(value, list | tuple) and len(value) <= 4096 and depth < 6:
            return [self._value(kind, "size" if key == "activation" else key, one, depth + 1) for one in value]
        raise InputError(f"{what} is not a setting that edgefer loads.")

    def _activation(self, value: Any, what: str) -> str | dict | None:
        if isinstance(value, dict) and str(value.get("class_name")) in ACTIVATION_LAYERS:
            kind, settings = self._parts(value, "an activation")
            return {"class_name": kind, "config": self._settings(kind, settings)}
        if isinstance(value, dict):  # Keras 3
            value = value.get("config")
        name = value.removesuffix("_v2") if isinstance(value, str) else value  # tf.nn.log_softmax is log_softmax_v2
        if isinstance(name, str) and (self.keras_3 and name in OF_KERAS_3):
            return ADDED[OF_KERAS_3[name]]
        if name is None or (isinstance(name, str) and (name in ACTIVATIONS or name in ADDED.values())):
            return name
        raise InputError(
            f"{what} is not an activation that edgefer loads ({', '.join(sorted(ACTIVATIONS | {'hard_silu'}))}): rebuild the network with one of them, or "
            "export it as a SavedModel (model.export) and name that folder."
        )

    def _name(self, name: Any) -> str:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise InputError(
                f"{self.where}: {name!r:.60} is not a valid layer name: use letters, digits, _ . / : and -."
            )
        return name

    def _list(self, value: Any) -> list:
        if not isinstance(value, list) or len(value) > MAX_LAYERS:
            raise InputError(f"{self.where}: how its layers are connected cannot be read.")
        return value

    def _node(self, node: Any, layer: dict) -> list:
        """The inputs of one call of a layer: [[layer, call, output, {}], ...]."""
        if isinstance(node, dict):  # Keras 3
            arguments = node.get("args")
            self._check_options(node.get("kwargs") or {}, layer)
            if not isinstance(arguments, list) or len(arguments) != 1:
                raise InputError(f"{self.where}: {layer['name']!r} is called with more than its input: refused.")
            sources = arguments[0] if isinstance(arguments[0], list) else [arguments[0]]
            return [self._tensor(keras_history(one), layer) for one in self._list(sources)]
        node = self._list(node)
        if node and isinstance(node[0], str):
            node = [node]
        return [self._tensor(one, layer) for one in node]

    def _check_options(self, options: Any, layer: dict) -> None:
        """InputError if a layer is called with more than its input: only training=False and None change nothing."""
        called = f"{self.where}: {layer['name']!r} is called with"
        if not isinstance(options, dict) or not set(options) <= {"training", "mask"} or options.get("mask") is not None:
            raise InputError(f"{called} more than its input: refused.")
        usual = self.keras_3 and layer["kind"] in IMAGE_LAYERS
        if options.get("training") not in (None, False) and not usual:
            raise InputError(
                f"{called} training=True, as is Monte Carlo dropout or batch norm with the statistics of each batch: edgefer runs networks "
                "as at inference, so build it without training=True, and save it again."
            )

    def _tensor(self, value: Any, layer: dict) -> list:
        """layer: whose input it is."""
        value = self._list(value)
        self._check_options(value[3] if len(value) > 3 else {}, layer)
        if len(value) < 3 or not all(isinstance(number, int) and 0 <= number < MAX_LAYERS for number in value[1:3]):
            raise InputError(f"{self.where}: a layer's input {value!r:.80} cannot be read.")
        return [self._name(value[0]), value[1], value[2], {}]

    def _ends(self, value: Any) -> list:
        if isinstance(value, dict):  # Keras 3: of a network that takes or gives a dict
            value = list(value.values())
        value = self._list(value)
        if value and isinstance(value[0], str):
            value = [value]
        if not value:
            raise InputError(f"{self.where} names no inputs or no outputs.")
        return [self._tensor(one, {"name": "the output", "kind": ""})[:3] for one in value]


def _is_known(kind: str, config: dict) -> bool:
    """Whether it is Keras's layer of this name, or edgefer's, and no other of the same name."""
    registered = config.get("registered_name")
    if registered == f"edgefer>{kind}":
        return kind in OWN or kind == "LayerScale"
    package = str(config.get("module")).partition(".")[0]
    return kind in LAYERS and registered in (None, kind) and package in KERAS_PACKAGES


def _arguments(kind: str) -> set[str]:
    """The constructor arguments of a layer."""
    arguments = {"name", "trainable", "batch_input_shape"}
    for owner in layer_class(kind).__mro__:
        if "__init__" in vars(owner):
            arguments |= set(inspect.signature(owner.__init__).parameters)
    return arguments - {"self", "args", "kwargs", "options"}


def layer_class(kind: str) -> Any:
    """A layer of the allowlist, in Keras 2."""
    from tf_keras import layers

    from edgefer.train import keras_additions

    return getattr(layers, kind, None) or getattr(keras_additions, kind)
