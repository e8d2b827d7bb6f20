"""What the loaders of ai-edge-litert and tflite-runtime reject in a .tflite file, determined from the file alone.

They check a file when they load it and when they prepare its operators; each rule below names the check it represents. Some
are made by only one of the two. Any further checks are found by edgefer.tflite.trial if the runtime is installed.
"""

import math
from collections.abc import Iterator

from edgefer.bundle import ETHOSU_OPERATOR
from edgefer.tflite.findings import Finding, at
from edgefer.tflite.flatbuffer import FLOAT_TYPES, INTEGER_TYPES, STRIDED, Model, Operator, Tensor
from edgefer.tflite.operators import EDGETPU

SCHEMA_VERSION = 3
BITS = {
    "FLOAT64": 64, "INT64": 64, "UINT64": 64, "COMPLEX64": 64, "FLOAT32": 32, "INT32": 32, "UINT32": 32, "FLOAT16": 16,
    "BFLOAT16": 16, "INT16": 16, "UINT16": 16, "INT8": 8, "UINT8": 8, "BOOL": 8, "INT4": 4, "INT2": 2, "COMPLEX128": 128,
}  # fmt: skip
QUANTIZED = (
    "ADD", "AVERAGE_POOL_2D", "BATCH_MATMUL", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "DEQUANTIZE",
    "FULLY_CONNECTED", "HARD_SWISH", "L2_NORMALIZATION", "LEAKY_RELU", "LOGISTIC", "MEAN", "MUL", "PRELU", "QUANTIZE",
    "SOFTMAX", "SUB", "SUM", "TANH", "TRANSPOSE_CONV",
)  # fmt: skip  # operators whose kernels read scales
# The output-channel dimension of the weights of each operator.
CHANNEL_AXES = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}
CONVERT_OR_COPY = "convert or copy it again"
NOT_COMPUTED = "not-computed"


def unsound(model: Model, target: str) -> Iterator[Finding]:
    """An error for each thing that the target's loader would reject."""
    if model.version != SCHEMA_VERSION:
        yield _error("schema-version", f"its schema version is {model.version}, not {SCHEMA_VERSION}")
    for graph in model.subgraphs[:1]:
        if not graph.outputs:
            yield _error("no-output", "it has no output: nothing can be read from it")
        if not graph.operators:
            yield _error("no-operator", "it has no operators")
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            yield from _tensor(tensor, exact=target == "tflite-runtime")
        for operator in graph.operators:
            yield from _operator(operator)


def uncomputed(model: Model) -> Iterator[Finding]:
    """An error for the first operator that reads a tensor before it is written, and for each output that is never written:
    runtimes accept such a file, but its answers are meaningless."""
    for graph in model.subgraphs:
        written = {one.index for one in (*graph.inputs, *(t for t in graph.tensors if t.constant or t.variable))}
        written |= {one.index for one in graph.tensors if 0 in one.shape}  # nothing to write
        for operator in graph.operators:
            missing = [one for one in operator.inputs if one.index not in written]
            if missing and operator.name != ETHOSU_OPERATOR:  # the NPU's scratch memory
                yield _error(
                    NOT_COMPUTED,
                    f"{operator.name} reads {missing[0].name!r} before anything has written it",
                    **at(operator),
                )
                return
            written |= {one.index for one in operator.outputs}
        for output in graph.outputs:
            if output.index not in written:
                yield _error(NOT_COMPUTED, "it is an output that nothing writes", tensor=output.name)


def _error(rule: str, what: str, **where) -> Finding:
    return Finding(severity="error", rule=rule, what=what, next=CONVERT_OR_COPY, **where)


def _tensor(tensor: Tensor, exact: bool) -> Iterator[Finding]:
    """exact: constants must not be longer than their shape either."""
    rank, scales, zeros = len(tensor.shape), len(tensor.steps), len(tensor.zeros)
    if scales and scales != zeros:
        yield _error("quantization", f"it has {scales} scales and {zeros} zero points", tensor=tensor.name)
    elif scales and not (tensor.axis >= 0 and (not rank or tensor.axis < rank)):
        what = f"its scales are of dimension {tensor.axis}, and it has the shape {tensor.shape}"
        yield _error("quantization", what, tensor=tensor.name)
    elif scales > 1 and rank and scales != tensor.shape[tensor.axis if 0 <= tensor.axis < rank else 0]:
        what = f"it has {scales} scales for the shape {tensor.shape}, channels in dimension {tensor.axis}"
        yield _error("quantization", what, tensor=tensor.name)
    if any(not 0 < scale < math.inf for scale in tensor.steps) and tensor.dtype in INTEGER_TYPES:
        yield _error("quantization", "it has a scale that is not above 0, or without end", tensor=tensor.name)
    bits = BITS.get(tensor.dtype)
    if bits and tensor.constant and not tensor.sparse:
        if any(size < 0 for size in tensor.shape):
            yield _error("constant-size", f"it is a constant of the shape {tensor.shape}", tensor=tensor.name)
            return
        needed, there = -(-math.prod(tensor.shape) * bits // 8), len(tensor.data)
        if there < needed or (exact and there != needed):
            what = f"it is a constant of {there:,} bytes, and {tensor.shape} of {tensor.dtype} takes {needed:,}"
            yield _error("constant-size", what, tensor=tensor.name)


def _operator(operator: Operator) -> Iterator[Finding]:
    name = operator.name
    if operator.custom:
        return
    if name in EDGETPU and not (operator.inputs and operator.outputs):
        what = f"{name} has {len(operator.inputs)} inputs and {len(operator.outputs)} outputs"
        yield _error("inputs", what, **at(operator))
        return
    if name in STRIDED and not all(step > 0 for step in (*operator.strides, *operator.dilation)):
        what = f"the strides of {name} are {operator.strides}, its dilation is {operator.dilation}"
        yield _error("stride", what, **at(operator))
    if name in QUANTIZED:
        for tensor in operator.activations:
            if tensor.dtype in INTEGER_TYPES and not tensor.steps:
                what = f"{name} computes with {tensor.dtype} without a scale"
                yield _error("no-scale", what, operator=operator.index, tensor=tensor.name)
                break
    if name in CHANNEL_AXES:
        yield from _weighted(operator, CHANNEL_AXES[name])


def _weighted(operator: Operator, axis: int) -> Iterator[Finding]:
    """A convolution or dense layer: the types and channels of input, weights and bias must match."""
    first = 2 if operator.name == "TRANSPOSE_CONV" else 0
    if operator.shifted:
        yield _error("inputs", f"{operator.name} leaves out an input before others", **at(operator))
        return
    if len(operator.inputs) <= max(1, first):
        yield _error("inputs", f"{operator.name} has {len(operator.inputs)} inputs", **at(operator))
        return
    if operator.name in ("CONV_2D", "DEPTHWISE_CONV_2D") and len(operator.inputs) < 3:
        # Measured: ai-edge-litert 2.1.6 rejects such a CONV_2D and crashes on such a DEPTHWISE_CONV_2D.
        yield _error("inputs", f"{operator.name} has no bias", **at(operator))
    source, weights = operator.inputs[first], operator.inputs[1]
    allowed = {
        "FLOAT32": ("FLOAT32", "FLOAT16", "INT8", "UINT8", "INT4", "INT2"),
        "INT8": ("INT8", "INT4", "INT2"),
        "UINT8": ("UINT8",),
        "INT16": ("INT8", "INT4"),
    }.get(source.dtype)
    if allowed and weights.dtype not in allowed:
        yield _error("type", f"{operator.name} has {weights.dtype} weights for {source.dtype} input", **at(operator))
    if source.dtype in ("INT8", "INT16") and weights.constant and not weights.steps:
        yield _error("no-scale", f"the weights of {operator.name} have no scale", **at(operator))
    elif len(weights.steps) > 1 and source.dtype != "FLOAT32" and weights.axis != axis:
        what = f"the scales of {operator.name}'s weights are of dimension {weights.axis}, not {axis}"
        yield _error("quantization", what, **at(operator))
    place = max(2, first + 1)
    if len(operator.inputs) > place and source.dtype in ("INT8", "UINT8"):
        bias = operator.inputs[place]
        if bias.dtype != "INT32":
            yield _error("type", f"the bias of {operator.name} is {bias.dtype}, not INT32", **at(operator))
        elif operator.name.endswith("CONV_2D") and any(bias.zeros):
            yield _error("quantization", f"the bias of {operator.name} has zero points other than 0", **at(operator))
    if operator.name.endswith("CONV_2D") and weights.dtype == "INT8" and source.dtype == "INT8" and any(weights.zeros):
        yield _error("quantization", f"the weights of {operator.name} have zero points other than 0", **at(operator))
    if source.dtype == "INT8" and operator.outputs[0].dtype in FLOAT_TYPES:
        yield _error("type", f"{operator.name} makes {operator.outputs[0].dtype} of INT8", **at(operator))
    if operator.name == "CONV_2D" and len(weights.shape) == 4 and len(source.shape) == 4:
        depth, group = source.shape[3], weights.shape[3]
        if group < 1 or depth % group:
            what = f"CONV_2D has weights for {group} channels, its input has {depth}"
            yield _error("channels", what, **at(operator))
