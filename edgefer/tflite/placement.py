"""Predicts which operators edgetpu_compiler 16.0 would map to the Edge TPU, which would stay on the CPU, and why.

The rules are Coral's: a supported operator and version, on int8 tensors of a fixed size, within that operator's limits.
The compiler makes one partition: after the first operator that it cannot map, all others run on the CPU.
"""

from dataclasses import dataclass

from edgefer.tflite.flatbuffer import FLOAT_TYPES, MAX_RANK, Operator, Subgraph
from edgefer.tflite.operators import EDGETPU

# The compiler's own messages in its log (edgefer.convert.edgetpu reads it).
MAPPED = "Mapped to Edge TPU"
UNSUPPORTED = "Operation not supported"
VERSION = "Operation version not supported"
DTYPE = "Operation is working on an unsupported data type"
RANK = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
AFTER = "More than one subgraph is not supported"
LIMIT = "Operation is otherwise supported, but not mapped due to some unspecified limitation"

HEAVY = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM")
RECURRENT = ("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM")  # the cell's state is INT16 beside INT8 activations
MAX_SOFTMAX = 16_000
MAX_READ = 2**12  # bytes of a constant: thousands of operators may share a large one
MAX_FACTOR = 4  # of a resize. A guess: Coral's documents say only "depending on input/output size"


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where one operator would run: `status` in the compiler's words, `detail` what lint knows in addition, or "": for a
    mapped one, why it may not be."""

    operator: Operator
    status: str
    detail: str = ""

    @property
    def mapped(self) -> bool:
        return self.status == MAPPED


def place(graph: Subgraph) -> tuple[Placement, ...]:
    """A placement for each operator of the graph, in execution order."""
    placements: list[Placement] = []
    ended = begun = False
    for operator in graph.operators:
        status, detail = _judge(operator)
        if status == MAPPED and ended:
            status = AFTER
        # An operator before the first mapped one, a CAST or QUANTIZE of the input, stays on the CPU without ending the
        # partition, which has not begun yet, as in the pairs of files in google-coral/test_data.
        ended = ended or (status != MAPPED and begun)
        begun = begun or status == MAPPED
        placements.append(Placement(operator=operator, status=status, detail=detail))
    return tuple(placements)


def _judge(operator: Operator) -> tuple[str, str]:
    """The compiler's status for a single operator, and details."""
    if not operator.inputs or not operator.outputs:
        return UNSUPPORTED, f"it has {len(operator.inputs)} inputs and {len(operator.outputs)} outputs"
    floats = [tensor for tensor in operator.activations if tensor.dtype in FLOAT_TYPES]
    if floats:
        return DTYPE, f"{floats[0].name} is {floats[0].dtype}"
    if operator.custom or operator.name not in EDGETPU:
        return UNSUPPORTED, ""
    newest = EDGETPU[operator.name]
    if operator.version > newest:
        return VERSION, f"version {operator.version}, it knows up to {newest}"
    for tensor in operator.activations:
        if tensor.dynamic:
            return LIMIT, f"{tensor.name} has a dynamic shape {tensor.signature}"
        if tensor.dtype not in ("INT8", "UINT8") and not (operator.name in RECURRENT and tensor.dtype == "INT16"):
            return DTYPE, f"{tensor.name} is {tensor.dtype}"
        if any(size > 1 for size in tensor.shape[:-3]):
            return RANK, f"{tensor.name} is {tensor.shape}"
    detail = _limit(operator)
    return (LIMIT, detail) if detail else (MAPPED, _doubt(operator))


def _doubt(operator: Operator) -> str:
    """Why a supported operator may nevertheless stay on the CPU, or ""."""
    if operator.name not in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
        return ""
    before, after = operator.inputs[0].shape[1:3], operator.outputs[0].shape[1:3]
    if len(before) == len(after) == 2 and any(new > MAX_FACTOR * old for old, new in zip(before, after, strict=True)):
        return f"it upsamples {before[0]}x{before[1]} to {after[0]}x{after[1]}, where the compiler may reject it for precision"
    return ""


def _limit(operator: Operator) -> str:
    """The operator-specific limit that it exceeds, or ""."""
    name = operator.name
    if name in ("AVERAGE_POOL_2D", "MAX_POOL_2D", "CONCATENATION") and operator.fused_activation != "NONE":
        return f"it has a fused {operator.fused_activation}"
    if operator.dilation[0] != operator.dilation[1]:
        return f"its dilation differs by direction {operator.dilation}"
    if operator.shuffled_weights:
        return "its weights are shuffled"
    if name in ("FULLY_CONNECTED", "SOFTMAX"):
        for tensor in operator.outputs:
            if any(size > 1 for size in tensor.shape[:-1]):
                return f"its output {tensor.shape} is not one-dimensional"
            if name == "SOFTMAX" and tensor.shape and tensor.shape[-1] > MAX_SOFTMAX:
                return f"its output has {tensor.shape[-1]} values, at most {MAX_SOFTMAX} are mapped"
    if name == "PRELU" and any(size > 1 for tensor in operator.inputs[1:] for size in tensor.shape[:-1]):
        return "its slopes are not one per channel: shared_axes=[1, 2] in Keras"
    return _layout_limit(operator) or _batch_limit(operator)


def _layout_limit(operator: Operator) -> str:
    """The change of its inputs' layout that the Edge TPU does not support, or ""."""
    name, inputs = operator.name, operator.inputs
    constants = [tensor for tensor in inputs if tensor.constant]
    if name == "CONCATENATION" and constants:
        if len(inputs) > 2:
            return f"one of its {len(inputs)} inputs is a constant"
        if not all(_of_one_value(tensor.data[:MAX_READ]) for tensor in constants):
            return "it adds a constant that is not all zeros"
    if name == "STRIDED_SLICE" and len(inputs) > 3:
        strides = _integers(inputs[3].data)
        if any(stride != 1 for stride in strides):
            return f"its strides are {strides}, where all must be 1"
        if any(operator.slice_masks):
            return "it has an ellipsis or a new axis"
    if name == "SQUEEZE" and _without_leading_ones(inputs[0].shape) != _without_leading_ones(operator.outputs[0].shape):
        return f"it takes more than leading ones from {inputs[0].shape}"
    return ""


def _of_one_value(data: memoryview) -> bool:
    return not bytes(data).strip(bytes(data[:1]))


def _without_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[next((place for place, size in enumerate(shape) if size != 1), len(shape)) :]


def _batch_limit(operator: Operator) -> str:
    """Whether a reduction or padding touches the batch dimension, or a mean an odd number of channels; or ""."""
    if len(operator.inputs) < 2 or operator.inputs[1].dtype != "INT32" or not operator.inputs[0].shape:
        return ""
    shape, values = operator.inputs[0].shape, _integers(operator.inputs[1].data)
    if operator.name in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"):
        axes = {axis % len(shape) for axis in values}
        if 0 in axes and len(shape) > 1:
            return "it reduces the batch dimension"
        if operator.name == "MEAN" and len(shape) == 4 and 3 in axes and shape[3] % 4:
            return f"it averages {shape[3]} channels, which must be a multiple of 4"
    if operator.name == "PAD" and len(shape) == 4 and any(values[:2]):
        return "it pads the batch dimension"
    return ""


def _integers(data: memoryview) -> list[int]:
    """A constant of int32, little-endian, as TFLite stores it: axes, strides or paddings, which are few."""
    few = data[: 4 * MAX_RANK]
    return [int.from_bytes(few[at : at + 4], "little", signed=True) for at in range(0, len(few), 4)]
