"""Checks the scales and zero points of an int8 network's inner tensors, which stored answers cannot: a changed zero point
cancels between the layers that write and read the tensor, except for values at the limits of int8.
"""

import math

import numpy as np

from edgefer.bundle import Bundle, Form, remake
from edgefer.checks import Check, Status
from edgefer.tflite.flatbuffer import Model, Operator, Tensor, read_model
from edgefer.tflite.weights import MAX_NAMED

SUBJECT = "int8's scales and zero points"
LOWEST = {"INT8": -128, "UINT8": 0}
UNCHANGED = ("RESHAPE", "MAX_POOL_2D", "PAD", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "STRIDED_SLICE", "SLICE")  # quanta
AVERAGES = ("MEAN", "AVERAGE_POOL_2D")
NEVER_NEGATIVE = ("RELU", "RELU6", "RELU_0_TO_1")  # fused or on their own
FIXED = {
    "SOFTMAX": (1 / 256, -128),
    "LOGISTIC": (1 / 256, -128),
    "TANH": (1 / 128, 0),
    "L2_NORMALIZATION": (1 / 128, 0),
}
PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
SCALE_TOLERANCE = 1e-5  # relative: a scale is written in float32


def inner_quanta(model: Model) -> np.ndarray:
    """(scale, zero point) of every computed quantized tensor, in the order of its tensors: float64 [k, 2]."""
    return np.array([_quanta(tensor) for tensor in _computed(model)], np.float64).reshape(-1, 2)


def check_quanta(bundle: Bundle, stored: np.ndarray | None) -> list[Check]:
    """Question 2 for every scale and zero point of int8. stored: `inner_quanta` at conversion, if the bundle has them."""
    if not bundle.has(Form.INT8):
        return []
    model = read_model(bundle.read(Form.INT8), str(bundle.file(Form.INT8)))
    tensors = _computed(model)
    wrong = _contradictions(model)
    if stored is not None:
        wrong += _changed(tensors, inner_quanta(model), stored)
    if wrong:
        named = "; ".join(wrong[:MAX_NAMED]) + (
            f"; and {len(wrong) - MAX_NAMED} more" if len(wrong) > MAX_NAMED else ""
        )
        return [
            Check(
                question=2, subject=SUBJECT, status=Status.FAIL, detail=named, fix=remake(bundle), examples=tuple(wrong)
            )
        ]
    if stored is None:
        fixed = _non_negative(model)
        free = sum(tensor.index not in fixed for tensor in tensors)
        detail = f"nothing contradicts another; {free} of {len(tensors)} zero points are free, and the bundle stores none to compare them with"
        return [Check(question=2, subject=SUBJECT, status=Status.NOT_CHECKED, detail=detail, fix=remake(bundle))]
    return [
        Check(question=2, subject=SUBJECT, status=Status.PASS, detail=f"all {len(tensors)} are as they were converted")
    ]


def _computed(model: Model) -> list[Tensor]:
    graph = model.main
    computed = {t.index: t for t in (*graph.inputs, *(t for op in graph.operators for t in op.outputs))}
    return [computed[index] for index in sorted(computed) if computed[index].steps and not computed[index].constant]


def _changed(tensors: list[Tensor], now: np.ndarray, stored: np.ndarray) -> list[str]:
    if now.shape != stored.shape:
        return [f"it has {len(now)} quantized tensors, and had {len(stored)} when it was converted"]
    off = ~(np.abs(now - stored) <= SCALE_TOLERANCE * np.abs(stored)).all(axis=1)
    return [
        f"{tensors[at].name:.60} has scale {now[at, 0]:.6g} and zero point {now[at, 1]:g}, and had {stored[at, 0]:.6g} and {stored[at, 1]:g}"
        for at in np.flatnonzero(off)
    ]


def _contradictions(model: Model) -> list[str]:
    """Scales and zero points that no converter writes, for any data."""
    wrong = []
    fixed = _non_negative(model)
    for tensor in _computed(model):
        lowest = LOWEST.get(tensor.dtype)
        if not (math.isfinite(tensor.steps[0]) and tensor.steps[0] > 0):
            wrong.append(f"{tensor.name:.60} has the scale {tensor.steps[0]:g}")
        elif tensor.index in fixed and lowest is not None and tensor.zero != lowest:
            wrong.append(f"{tensor.name:.60} is never negative, but its zero point is {tensor.zero}, not {lowest}")
    for operator in model.main.operators:
        wrong += _contradiction(operator)
    return wrong


def _contradiction(operator: Operator) -> list[str]:
    where = f"{operator.name} {operator.index + 1}"
    if not operator.inputs or not operator.outputs:
        return []
    source, result = operator.inputs[0], operator.outputs[0]
    if operator.name in UNCHANGED and source.steps and _quanta(source) != _quanta(result):
        return [f"{where} passes values on, but its input has {_shown(source)} and its output {_shown(result)}"]
    if operator.name in FIXED and result.dtype == "INT8" and result.steps:
        scale, zero = FIXED[operator.name]
        if abs(result.steps[0] / scale - 1) > SCALE_TOLERANCE or result.zero != zero:
            return [f"{where} must have scale {scale:.6g} and zero point {zero}, not {_shown(result)}"]
    if operator.name in PRODUCTS and len(operator.inputs) > 2 and source.steps:
        weights, bias = operator.inputs[1:3]
        expected = source.steps[0] * np.array(weights.steps or (0,))
        if bias.steps and (
            len(bias.steps) != len(expected)
            or not (np.abs(np.array(bias.steps) - expected) <= SCALE_TOLERANCE * np.abs(expected)).all()
        ):
            return [f"{where}: the scale of its bias is not its input's times its weights'"]
        if any(bias.zeros) or (weights.dtype == "INT8" and any(weights.zeros)):
            return [f"{where}: its weights or bias have a zero point other than 0"]
    return []


def _non_negative(model: Model) -> set[int]:
    """The tensors that cannot hold a negative value: after a ReLU, or an average, maximum or reshape of such."""
    found: set[int] = set()
    for operator in model.main.operators:
        passed_on = operator.name in (*UNCHANGED, *AVERAGES, "CONCATENATION") and all(
            tensor.index in found for tensor in operator.activations if tensor not in operator.outputs
        )
        if passed_on or operator.fused_activation in NEVER_NEGATIVE or operator.name in NEVER_NEGATIVE:
            found |= {tensor.index for tensor in operator.outputs}
    return found


def _quanta(tensor: Tensor) -> tuple[float, int]:
    """Scale and zero point."""
    return (tensor.steps[0] if tensor.steps else 0.0), tensor.zero


def _shown(tensor: Tensor) -> str:
    scale, zero = _quanta(tensor)
    return f"scale {scale:.6g} and zero point {zero}"
