"""An int8 .tflite as a list of layers with integer arithmetic (edgefer.tflite.int8_network).

Operators not in OPERATORS, or outside the range for which the arithmetic was proven, are rejected by name.
"""

import numpy as np

from edgefer.bundle import COMPILED_FOR
from edgefer.tflite.flatbuffer import Model, Operator, Tensor, read_model
from edgefer.tflite.int8_network import Int8Network, Layer, Pair, UnsupportedNetwork, Value
from edgefer.tflite.operator_fields import FIELDS

OPERATORS = tuple(FIELDS)
# The operators that Keras layers become in an int8 network, with those layers. Dropout and a batch norm become none.
KERAS_LAYERS = {
    "CONV_2D": "Conv2D, SeparableConv2D",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "FULLY_CONNECTED": "Dense",
    "ADD": "Add",
    "MEAN": "GlobalAveragePooling2D",
    "MAX_POOL_2D": "MaxPooling2D",
    "AVERAGE_POOL_2D": "AveragePooling2D",
    "RESHAPE": "Flatten, Reshape",
    "PAD": "ZeroPadding2D",
    "RELU": "ReLU",
    "RELU6": "ReLU(6)",
}
RECTIFY = "train it again with ReLU or ReLU(6) in place of {}: those are the activations that C and the page have"
BATCH = "import the .keras or .h5 file instead, or convert it to .tflite with a fixed batch size of 1"
HINTS = {  # for operators that common Keras layers become
    "MUL": "use ReLU in place of swish, and no squeeze-and-excitation; BatchNormalization after an activation becomes a convolution where "
    "the .keras or .h5 file is imported",
    "LOGISTIC": "use ReLU in place of swish, or end with logits",
    "HARD_SWISH": "use ReLU in place of it",
    "LEAKY_RELU": RECTIFY.format("LeakyReLU"),
    "ELU": RECTIFY.format("ELU"),
    "PRELU": RECTIFY.format("PReLU"),
    **dict.fromkeys(
        ("SOFTMAX", "LOG_SOFTMAX"),
        "import the float32 network and convert that, which leaves a softmax at its end out",
    ),
    "TRANSPOSE": "build it with channels last",
    "PADV2": "put a ReLU in front of a max pooling that pads",
    "QUANTIZE": "convert with int8 input and output",
    "DEQUANTIZE": "convert with int8 input and output",
    **dict.fromkeys(("SHAPE", "STRIDED_SLICE", "PACK"), BATCH),
    **dict.fromkeys(COMPILED_FOR, "use the file it was compiled from"),
}
MAX_LAYERS = 2000  # the arena's plan takes time that grows with their square
MAX_ELEMENTS = 2**24  # of one activation: 512x512 pixels with 64 channels


def read_layers(content: bytes, where: str) -> Int8Network:
    """The layers of a .tflite, named `where` in errors; UnsupportedNetwork if the arithmetic does not support it."""
    return model_layers(read_model(content, where), where)


def model_layers(model: Model, where: str) -> Int8Network:
    """The layers of a parsed network."""
    graph = model.main
    if len(model.subgraphs) > 1:
        raise UnsupportedNetwork(f"{where} has {len(model.subgraphs)} subgraphs; only networks of one can be exported.")
    if len(graph.inputs) != 1 or not graph.outputs or not graph.operators:
        ends = f"{len(graph.operators)} operators, {len(graph.inputs)} inputs and {len(graph.outputs)} outputs"
        raise UnsupportedNetwork(f"{where} has {ends}; one input, an output and an operator between them are needed.")
    if len(graph.operators) > MAX_LAYERS:
        raise UnsupportedNetwork(f"{where} has {len(graph.operators):,} operators, more than {MAX_LAYERS:,}.")
    if (kind := graph.inputs[0].dtype) != "INT8":
        raise UnsupportedNetwork(f"{where}: its input is {kind}, not INT8: {HINTS['QUANTIZE']}.")
    known: dict[int, Value] = {}
    try:
        known[graph.inputs[0].index] = _value(graph.inputs[0])
    except ValueError as error:
        raise UnsupportedNetwork(f"{where}: its input {error}.") from None
    layers = []
    for operator in graph.operators:
        try:
            layer = _layer(operator, known)
        except ValueError as error:
            raise UnsupportedNetwork(f"{where}: operator {operator.index + 1}, {operator.name}: {error}.") from None
        layers.append(layer)
        known[layer.output.index] = layer.output
    computed = {layer.output.index for layer in layers}
    wanted = {tensor.index for tensor in graph.outputs}
    if not computed >= wanted or len(wanted) < len(graph.outputs):
        raise UnsupportedNetwork(f"{where}: nothing computes its outputs, each its own.")
    outputs = sorted((known[tensor.index] for tensor in graph.outputs), key=lambda value: -value.size)
    return Int8Network(layers=tuple(layers), input=known[graph.inputs[0].index], outputs=tuple(outputs))


def supported_layers() -> str:
    """The Keras layers that C and the page have, each with its operator, as README lists them."""
    return ", ".join(f"{layers} ({name})" for name, layers in KERAS_LAYERS.items())


def hint(name: str) -> str:
    """What to do about an operator that is not in OPERATORS."""
    return HINTS.get(name, "replace the operator")


def _layer(operator: Operator, known: dict[int, Value]) -> Layer:
    """One operator as a Layer; ValueError with what is not supported."""
    if operator.custom or operator.name not in OPERATORS:
        raise ValueError(f"it is none of {', '.join(OPERATORS)}; {hint(operator.name)}")
    if len(operator.outputs) != 1 or not operator.inputs:
        raise ValueError(f"it has {len(operator.inputs)} inputs and {len(operator.outputs)} outputs")
    if operator.shifted:
        raise ValueError("it leaves out an input before others")
    result = operator.outputs[0]
    if result.constant or result.index in known:
        raise ValueError(f"it writes {result.name!r}, which is there already")
    count = 2 if operator.name == "ADD" else 1
    if len(operator.inputs) < count:
        raise ValueError(f"it has {len(operator.inputs)} inputs, not {count}")
    for tensor in operator.inputs[:count]:
        if tensor.index not in known:
            raise ValueError(f"its input {tensor.name!r} is a constant or was not computed yet")
    inputs = tuple(known[tensor.index] for tensor in operator.inputs[:count])
    output = _value(result)
    with np.errstate(over="ignore", under="ignore"):  # infinite or 0 is out of range, and no clamp
        fields = FIELDS[operator.name](operator, inputs, output)
        low, high = _clamp(operator, output)
    return Layer(kind=operator.name, number=operator.index, inputs=inputs, output=output, low=low, high=high, **fields)


def _value(tensor: Tensor) -> Value:
    if tensor.dtype != "INT8":
        raise ValueError(f"computes {tensor.dtype}, not INT8")
    if not 1 < len(tensor.shape) <= 4 or tensor.shape[0] != 1 or min(tensor.shape) < 1:
        raise ValueError(f"has the shape {tensor.shape}, not one image's: batch size 1 and up to three dimensions more")
    size = int(np.prod(tensor.shape, dtype=np.float64))
    if size > MAX_ELEMENTS:
        raise ValueError(f"has {size:,} elements, more than {MAX_ELEMENTS:,}")
    if tensor.axis:  # XNNPACK leaves it to TFLite's own kernels, which round otherwise
        raise ValueError(f"has the scale of dimension {tensor.axis}; an activation's is of dimension 0")
    if len(tensor.steps) != 1 or len(tensor.zeros) > 1:
        raise ValueError(f"has {len(tensor.steps)} scales; an activation has one")
    scale, zero = np.float32(tensor.steps[0]), tensor.zero
    if not (np.isfinite(scale) and scale > 0) or not -128 <= zero <= 127:
        raise ValueError(f"has the scale {scale} and zero point {zero}")
    return Value(index=tensor.index, shape=tensor.shape[1:], scale=scale, zero=zero)


def _clamp(operator: Operator, output: Value) -> Pair:
    """The int8 range after the activation: a RELU operator's, or one fused into another operator."""
    name = operator.name if operator.name in ("RELU", "RELU6") else operator.fused_activation
    if name not in ("NONE", "RELU", "RELU6"):
        raise ValueError(f"its fused activation {name} is none of NONE, RELU, RELU6")
    low = max(-128, output.zero) if name != "NONE" else -128
    high = 127
    if name == "RELU6":
        steps = np.float32(6) / output.scale
        # XNNPACK rounds the sum to even; TFLite's own kernels, which compute these two, round the steps, halves away from 0.
        own = operator.name in ("AVERAGE_POOL_2D", "RELU6")
        limit = np.floor(np.float64(steps) + 0.5) + output.zero if own else np.rint(steps + np.float32(output.zero))
        high = int(min(127, limit))
    return low, high
