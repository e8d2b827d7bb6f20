"""Operators in Keras networks, such as `x / 127.5 - 1` and `x + shortcut`, as the layers that compute the same.

Keras 2 stores each as a TFOpLambda that names any function of TensorFlow, Keras 3 as an object of keras.ops. Those that are
known here become layers, described as a file of Keras 2 describes them; the allowlist refuses the others.
"""

from typing import Any

KERAS_2 = {
    "math.add": "Add", "__operators__.add": "Add", "nn.bias_add": "Add", "math.subtract": "Subtract",
    "math.multiply": "Multiply", "math.truediv": "Divide", "math.divide": "Divide",
}  # fmt: skip
KERAS_3 = {"Add": "Add", "Subtract": "Subtract", "Multiply": "Multiply", "TrueDivide": "Divide", "Divide": "Divide"}
# Functions of one tensor without options, as the activation of this name.
ACTIVATIONS = {
    "nn.relu": "relu", "nn.relu6": "relu6", "nn.silu": "swish", "nn.elu": "elu", "nn.selu": "selu", "nn.tanh": "tanh",
    "math.tanh": "tanh", "math.sigmoid": "sigmoid", "nn.sigmoid": "sigmoid", "math.softplus": "softplus",
    "Relu": "relu", "Relu6": "relu6", "Silu": "swish", "Elu": "elu", "Selu": "selu", "Tanh": "tanh", "Sigmoid": "sigmoid",
    "Softplus": "softplus", "Softsign": "softsign", "HardSigmoid": "edgefer>hard_sigmoid", "HardSilu": "edgefer>hard_silu",
}  # fmt: skip
REDUCTIONS = {
    "Mean": "mean", "Max": "max", "Sum": "sum", "Amax": "max",
    "math.reduce_mean": "mean", "math.reduce_max": "max", "math.reduce_sum": "sum",
}  # fmt: skip
POOLINGS = {"mean": "GlobalAveragePooling2D", "max": "GlobalMaxPooling2D"}
FLOATS = ("float16", "bfloat16", "float32", "float64")
CONSTANT = "_CONSTANT_VALUE"  # stands for the name of a layer
OWN = ("Reduce", "TakeChannels", "ExpandDims")  # of edgefer.train.keras_additions, as LayerScale, which files have too
Layer = tuple[str, dict[str, Any]]  # class and settings
Operand = Any  # a number, a list of a number per channel, or a tensor, [layer, call, output]


def as_layer(config: dict) -> dict | None:
    """The layer in place of an operator: Rescaling where one operand is a number. None for everything else."""
    settings, name = config.get("config"), operator_name(config)
    if not isinstance(settings, dict) or not name or _node(config) is None:
        return None
    found = _arithmetic(name, _operands(config)) or _function(name, _options(config), _tensors(config))
    if found is None:
        return None
    (kind, options), tensors = found
    title = config.get("name", settings.get("name"))
    return described(kind, options | {"name": title}, tensors)


def described(kind: str, settings: dict[str, Any], tensors: list) -> dict:
    """A layer as in a file of Keras 2."""
    own = {"registered_name": f"edgefer>{kind}"} if kind in OWN else {}
    return own | {"class_name": kind, "config": settings, "name": settings["name"], "inbound_nodes": [tensors]}


def operator_name(config: dict) -> str:
    """TensorFlow's function, or the class of an object of keras.ops; "" for a layer."""
    settings, kind = config.get("config"), str(config.get("class_name"))
    if not isinstance(settings, dict):
        return ""
    if kind in ("TFOpLambda", "SlicingOpLambda"):
        return str(settings.get("function"))
    if "module" in config:
        return kind if str(config["module"]).startswith("keras.src.ops.") else ""
    # An .h5 of Keras 3 names no modules of operators, which have no settings of layers.
    calls = config.get("inbound_nodes")
    is_of_keras_3 = isinstance(calls, list) and bool(calls) and isinstance(calls[0], dict)
    is_plain = kind == "Cast" or not {"trainable", "dtype"} & set(settings)
    return kind if is_of_keras_3 and is_plain else ""


def _arithmetic(name: str, operands: list) -> tuple[Layer, list] | None:
    kind = KERAS_2.get(name) or KERAS_3.get(name)
    if kind is None or len(operands) != 2:
        return None
    tensors = [one for one in operands if not _is_constant(one)]
    if len(tensors) == 1:
        affine = _affine(kind, *operands)
        return affine and (("Rescaling", dict(zip(("scale", "offset"), affine, strict=True))), tensors)
    return None if len(tensors) != 2 or kind == "Divide" else ((kind, {}), tensors)


def _affine(kind: str, left: Operand, right: Operand) -> tuple[Any, Any] | None:
    """Scale and offset of an operator with numbers on one side; None where it is not affine."""
    number = left if _is_constant(left) else right
    if kind == "Add":
        return 1.0, number
    if kind == "Multiply":
        return number, 0.0
    if kind == "Subtract":
        return (-1.0, number) if number is left else (1.0, _each(number, lambda value: -value))
    values = number if isinstance(number, list) else [number]
    return None if number is left or 0 in values else (_each(number, lambda value: 1 / value), 0.0)


def _each(number: Any, change: Any) -> Any:
    return [change(value) for value in number] if isinstance(number, list) else change(number)


def _function(name: str, options: dict[str, Any], tensors: list) -> tuple[Layer, list] | None:
    """The layer of an operator that is no arithmetic. options: those that are set."""
    if not tensors or not all(map(_is_tensor, tensors)):
        return None
    if name in ("Concatenate", "concat"):
        axis = options.pop("axis", None)
        found: Layer | None = ("Concatenate", {"axis": axis}) if _is_axis(axis) else None
    elif len(tensors) > 1:
        return None
    else:
        found = _of_one(name, options)
    return None if found is None or options else (found, tensors)


def _of_one(name: str, options: dict[str, Any]) -> Layer | None:
    """The layer of a function of one tensor; removes the options that it has."""
    if name in ACTIVATIONS:
        return "Activation", {"activation": ACTIVATIONS[name]}
    if name in REDUCTIONS:
        return _reduction(REDUCTIONS[name], options.pop("axis", None), bool(options.pop("keepdims", False)))
    match name:
        case "Gelu" | "nn.gelu":
            return "Activation", {"activation": "edgefer>gelu_tanh" if options.pop("approximate", False) else "gelu"}
        case "LeakyRelu" | "nn.leaky_relu":
            return "LeakyReLU", {"alpha": options.pop("negative_slope", options.pop("alpha", 0.2))}
        case "Softmax" | "nn.softmax":
            return "Softmax", {"axis": options.pop("axis", -1)}
        case "Negative" | "math.negative":
            return "Rescaling", {"scale": -1.0}
        case "Cast" | "cast":
            return ("Activation", {"activation": "linear"}) if options.pop("dtype", None) in FLOATS else None
        case "Reshape" | "reshape":
            return _reshape(options.pop("newshape", options.pop("shape", None)))
        case "ExpandDims" | "expand_dims":
            axis = options.pop("axis", None)
            return ("ExpandDims", {"axis": axis}) if _is_axis(axis) else None
        case "GetItem" | "__operators__.getitem":
            order = _channels(options.pop("slice_spec", None))
            return None if isinstance(order, int) or order == [] else ("TakeChannels", {"order": order})
    return None


def _reduction(function: str, axis: Any, keepdims: bool) -> Layer | None:
    axes = axis if isinstance(axis, list) else [axis]
    if not axes or not all(map(_is_axis, axes)):
        return None
    if sorted(axes) in ([1, 2], [-3, -2]) and function in POOLINGS:
        return POOLINGS[function], {"keepdims": keepdims}
    return "Reduce", {"function": function, "axis": axes, "keepdims": keepdims}


def _is_axis(axis: Any) -> bool:
    """Whether it is not that of the batch, as far as the number says it."""
    return isinstance(axis, int) and not isinstance(axis, bool) and axis != 0


def _reshape(shape: Any) -> Layer | None:
    if not isinstance(shape, list) or len(shape) < 2 or shape[0] not in (-1, None):
        return None
    return (
        ("Reshape", {"target_shape": shape[1:]}) if all(isinstance(one, int) and one > 0 for one in shape[1:]) else None
    )


def _channels(index: Any) -> Any:
    """The channels that an index takes of all others: a number, a list, None for all of them reversed, [] where it is
    something else."""
    if not isinstance(index, list) or len(index) < 2 or not all(map(_is_whole, index[:-1])):
        return []
    if len(index) != 4 and not any(map(_is_ellipsis, index)):
        return []
    last = index[-1]
    if isinstance(last, int) and not isinstance(last, bool):
        return last
    parts = _slice(last)
    if parts == (None, None, -1):
        return None
    start, stop, step = parts or (0, 0, 0)
    numbers = (start or 0, stop or 0, step or 1)
    fits = all(isinstance(one, int) and 0 <= one <= 64 for one in numbers)
    return list(range(*numbers)) if fits else []


def _is_ellipsis(part: Any) -> bool:
    return isinstance(part, dict) and part.get("class_name") == "__ellipsis__"


def _is_whole(part: Any) -> bool:
    return _is_ellipsis(part) or _slice(part) in ((None, None, None), (None, None, 1))


def _slice(part: Any) -> tuple | None:
    if not isinstance(part, dict):
        return None
    values = part.get("config") if part.get("class_name") == "__slice__" else part
    return tuple(values.get(key) for key in ("start", "stop", "step")) if isinstance(values, dict) else None


def join_channels(layers: list) -> list:
    """Layers with TakeChannels in place of several x[..., i] that are stacked, by which keras.applications reverses RGB."""
    operators = {name: one for one in layers if (name := _name(one)) and operator_name(one)}
    taken = {name: found for name, one in operators.items() if (found := _taken(one)) is not None}
    joined, used = {}, set()
    for name, one in operators.items():
        if operator_name(one) not in ("Stack", "stack") or _options(one) not in ({"axis": -1}, {"axis": 3}):
            continue
        parts = [source[0] for source in _tensors(one) if _is_tensor(source)]
        if parts and all(part in taken and taken[part][0] == taken[parts[0]][0] for part in parts):
            settings = {"order": [taken[part][1] for part in parts], "name": name}
            joined[name] = described("TakeChannels", settings, [taken[parts[0]][0]])
            used |= set(parts)
    return [joined.get(_name(one), one) for one in layers if _name(one) not in used]


def _name(config: Any) -> str:
    name = config.get("name") if isinstance(config, dict) else None
    return name if isinstance(name, str) else ""


def _node(config: dict) -> Any:
    """How an operator is called, if it is called once."""
    nodes = config.get("inbound_nodes")
    return nodes[0] if isinstance(nodes, list) and len(nodes) == 1 else None


def _taken(config: dict) -> tuple[Any, int] | None:
    """The tensor and the channel of x[..., i]; None for everything else."""
    if operator_name(config) not in ("GetItem", "__operators__.getitem"):
        return None
    tensors, number = _tensors(config), _channels(_options(config).get("slice_spec"))
    return (tensors[0], number) if isinstance(number, int) and len(tensors) == 1 and _is_tensor(tensors[0]) else None


def _is_constant(operand: Operand) -> bool:
    return _is_number(operand) or (isinstance(operand, list) and bool(operand) and all(map(_is_number, operand)))


def _is_number(operand: Operand) -> bool:
    return isinstance(operand, int | float) and not isinstance(operand, bool)


def _is_tensor(operand: Operand) -> bool:
    return isinstance(operand, list) and len(operand) == 3 and isinstance(operand[0], str)


def _operands(config: dict) -> list[Operand]:
    """The two operands of an operator; [] where there are not two."""
    node = _node(config)
    if config.get("class_name") != "TFOpLambda":  # the layers Add, Subtract and Multiply are called with one list
        arguments = node.get("args") if isinstance(node, dict) and not node.get("kwargs") else None
        return [_operand(one) for one in arguments] if isinstance(arguments, list) else []
    node = node[0] if isinstance(node, list) and len(node) == 1 else node
    if not isinstance(node, list) or len(node) != 4 or not isinstance(node[3], dict):
        return []
    options = {
        key: value for key, value in node[3].items() if key != "name" and (key, value) != ("data_format", "NHWC")
    }
    if len(options) != 1 or not set(options) <= {"y", "bias"}:
        return []
    first = node[2] if node[0] == CONSTANT else node[:3]
    return [_operand(first), _operand(*options.values())]


def _operand(value: Any) -> Operand:
    """A number, a list of one per channel, or a tensor."""
    config = value.get("config") if isinstance(value, dict) else None
    if isinstance(config, dict) and value.get("class_name") in ("__tensor__", "__numpy__"):
        value = config.get("value")
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return keras_history(value)


def _tensors(config: dict) -> list:
    """The tensors that an operator takes."""
    node = _node(config)
    if isinstance(node, dict):
        arguments = node.get("args")
        first = arguments[0] if isinstance(arguments, list) and arguments else []
        return [keras_history(one) for one in first] if isinstance(first, list) else [keras_history(first)]
    if not isinstance(node, list) or not node:
        return []
    return [one[:3] if isinstance(one, list) else one for one in (node if isinstance(node[0], list) else [node])]


def _options(config: dict) -> dict[str, Any]:
    """How an operator is called beside its tensors, but for what is off."""
    node = _node(config)
    options = _options_of_keras_3(config, node) if isinstance(node, dict) else _options_of_keras_2(node)
    return {key: value for key, value in options.items() if key != "name" and value is not None and value is not False}


def _options_of_keras_3(config: dict, node: dict) -> dict[str, Any]:
    arguments, named = node.get("args"), node.get("kwargs")
    options = {
        key: value for key, value in config["config"].items() if key != "dtype" or config["class_name"] == "Cast"
    }
    more = arguments[1:] if isinstance(arguments, list) else []
    if config["class_name"] == "GetItem" and len(more) == 1:
        options["slice_spec"] = more[0]
    elif more:
        options["more"] = more
    return options | (named if isinstance(named, dict) else {"more": named})


def _options_of_keras_2(node: Any) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for call in node if isinstance(node, list) and node and isinstance(node[0], list) else [node]:
        if isinstance(call, list) and len(call) == 4 and isinstance(call[3], dict):
            options |= call[3]
    return options


def keras_history(tensor: Any) -> Any:
    """The [layer, call, output] of a Keras 3 tensor, {"config": {"keras_history": [...]}}."""
    config = tensor.get("config") if isinstance(tensor, dict) else None
    return config.get("keras_history") if isinstance(config, dict) else tensor
