"""Checks that int8.tflite's constants are those of float32.tflite, rounded, from the two files, without running them.

It detects a single changed weight, which moves stored answers by less than the difference between runtimes. What cannot
be compared is reported as a separate check.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgefer.bundle import Bundle, Form, is_shipped, remake
from edgefer.checks import Check, Status
from edgefer.errors import BundleError
from edgefer.lineage import origin_form
from edgefer.tflite.flatbuffer import CONVERTING, Model, Operator, Subgraph, Tensor, read_model
from edgefer.tflite.rewrite import rewritten

SUBJECT = "int8's weights against float32's"
HALF = 0.5 + 1e-3  # of a step: the rounding of a weight, with a margin for the rounding of the division,
FLOAT = 3e-7  # which grows with a bias of millions of steps
SAME_SCALE = 1e-4  # of the scale, relative
DTYPES = {"FLOAT32": "<f4", "FLOAT16": "<f2", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8"}
FLOATS = ("FLOAT32", "FLOAT16")
MAX_NAMED = 4


def check_weights(bundle: Bundle) -> list[Check]:
    """Question 2 for every constant of int8, weights, biases and others, against float32's within half a step of its scale."""
    if not bundle.has("int8"):
        return []
    if not bundle.has("float32"):
        detail = "the bundle has no float32.tflite to compare them with"
        fix = remake(bundle) if bundle.has(Form.KERAS) and not is_shipped(bundle) else ""
        return [Check(question=2, subject=SUBJECT, status=Status.NOT_CHECKED, detail=detail, fix=fix)]
    model, after = _read(bundle, "float32"), _computing(_read(bundle, "int8"))
    before = _computing(rewritten(model) if origin_form(bundle.card) is Form.FLOAT32 else model)
    rest: list[Check] = []
    if _names(before) != _names(after):
        before, after = _weighted(before), _weighted(after)
        if _names(before) != _names(after):
            detail = f"the two are built differently: {_difference(before, after)}"
            return [Check(question=2, subject=SUBJECT, status=Status.NOT_CHECKED, detail=detail, fix=remake(bundle))]
        detail = "their operators differ beside the convolutions and dense layers"
        rest = [Check(question=2, subject="int8's other constants", status=Status.NOT_CHECKED, detail=detail)]
    return [_compare(bundle, before, after), *rest]


def _compare(bundle: Bundle, before: list[Operator], after: list[Operator]) -> Check:
    wrong: list[str] = []
    total = number = own_scales = 0
    for old, new in zip(before, after, strict=True):
        number += any(tensor.constant and tensor.dtype in FLOATS for tensor in old.inputs)
        for place, floats in enumerate(old.inputs):
            quanta = new.inputs[place] if place < len(new.inputs) else None
            try:
                many = _differing(floats, quanta)
            except (KeyError, ValueError) as error:
                raise BundleError(
                    f"{bundle.path}: {new.name} {number} is damaged ({error}): copy the bundle again."
                ) from None
            if many is None:
                continue
            total += math.prod(floats.shape)
            if many:
                what = {1: "weights", 2: "biases"}.get(place, "constants")
                wrong.append(f"{many} {what} of {old.name} {number}")
        own_scales += _has_own_scales(old, new)
    if not total:
        detail = "the two networks hold no constants to compare"
        return Check(question=2, subject=SUBJECT, status=Status.NOT_CHECKED, detail=detail)
    if not wrong:
        return Check(question=2, subject=SUBJECT, status=Status.PASS, detail=f"all {total:,} are float32's, rounded")
    named = ", ".join(wrong[:MAX_NAMED]) + (f" and of {len(wrong) - MAX_NAMED} more" if len(wrong) > MAX_NAMED else "")
    if 2 * own_scales < len(_weighted(before)):
        detail = f"{named} are not float32's, rounded, and the scales are not those of its weights: int8 was trained with rounding, or is another network"
        return Check(question=2, subject=SUBJECT, status=Status.DOUBTFUL, detail=detail, examples=tuple(wrong))
    detail = f"{named} are not float32's, rounded: one of the two files was changed or damaged after conversion"
    return Check(
        question=2, subject=SUBJECT, status=Status.FAIL, detail=detail, fix=remake(bundle), examples=tuple(wrong)
    )


def _differing(floats: Tensor, quanta: Tensor | None) -> int | None:
    """How many entries of a constant differ from float32's by more than rounding; None if float32 has no constant.

    Raises KeyError for an unknown type, ValueError for data that do not match their shape.
    """
    if not floats.constant:
        return None if quanta is None or not quanta.constant else math.prod(quanta.shape)
    values = _values(floats)
    if quanta is None or not quanta.constant:  # a bias of zeros is omitted
        return int((values != 0).sum())
    if floats.dtype not in FLOATS:  # a shape or axes
        return int(not np.array_equal(values, _values(quanta)))
    if floats.shape != quanta.shape or not quanta.steps:
        return values.size
    whole = _values(quanta)
    zero = np.array(quanta.zeros or (0,), np.float64)
    with np.errstate(all="ignore"):
        off = np.abs(values / _along(quanta, np.array(quanta.steps)) + _along(quanta, zero) - whole)
    return int((~(off <= HALF + FLOAT * np.abs(whole))).sum())  # counts NaN


def _has_own_scales(old: Operator, new: Operator) -> bool:
    try:
        return _quantized_from(old, new)
    except (KeyError, ValueError):  # weights that are computed, or do not match their shape
        return False


def _quantized_from(old: Operator, new: Operator) -> bool:
    """Whether an operator's weights have the scales of post-training quantization of float32's: 1/127 of the largest
    magnitude. In most channels, since a changed weight changes one."""
    if old not in _weighted([old]) or new.inputs[1].dtype != "INT8" or not new.inputs[1].steps:
        return False
    quanta, magnitudes = new.inputs[1], np.abs(_values(old.inputs[1]))
    if len(quanta.steps) == 1:
        largest = magnitudes.max(keepdims=True).reshape(1)
    else:
        others = tuple(axis for axis in range(magnitudes.ndim) if axis != quanta.axis)
        largest = magnitudes.max(axis=others)
    with np.errstate(all="ignore"):
        ratios = np.array(quanta.steps) * 127 / largest
    same = np.abs(ratios[largest > 0] - 1) <= SAME_SCALE
    return 2 * int(same.sum()) >= len(same)


def _read(bundle: Bundle, variant: str) -> Model:
    return read_model(bundle.read(variant), str(bundle.file(variant)))


def _computing(model: Model) -> list[Operator]:
    return [operator for graph in model.subgraphs for operator in _without_conversions(graph)]


def _without_conversions(graph: Subgraph) -> list[Operator]:
    """A graph's operators but QUANTIZE and DEQUANTIZE, with float16 constants in place of what is dequantized from them."""
    stored = {
        operator.outputs[0].index: operator.inputs[0]
        for operator in graph.operators
        if operator.name == "DEQUANTIZE" and operator.outputs and operator.inputs and operator.inputs[0].constant
    }
    return [
        replace(operator, inputs=tuple(stored.get(one.index, one) for one in operator.inputs))
        for operator in graph.operators
        if operator.name not in CONVERTING
    ]


def _weighted(operators: Sequence[Operator]) -> list[Operator]:
    """Convolutions and dense layers, in the order of execution."""
    return [op for op in operators if len(op.inputs) > 1 and op.name.endswith(("CONV_2D", "FULLY_CONNECTED"))]


def _names(operators: Sequence[Operator]) -> list[str]:
    return [operator.name for operator in operators]


def _difference(before: list[Operator], after: list[Operator]) -> str:
    """The first place where two lists of operators differ."""
    pairs = zip(_names(before), _names(after), strict=False)
    place = next((place for place, (old, new) in enumerate(pairs) if old != new), min(len(before), len(after)))
    first, second = (_names(some)[place] if place < len(some) else "nothing" for some in (before, after))
    return f"layer {place + 1} is {first} in float32, {second} in int8"


def _values(tensor: Tensor) -> np.ndarray:
    return np.frombuffer(tensor.data, DTYPES[tensor.dtype]).reshape(tensor.shape).astype(np.float64)


def _along(tensor: Tensor, numbers: np.ndarray) -> np.ndarray:
    """Scales or zero points in a shape that broadcasts to the tensor; ValueError if they do not match it."""
    if len(numbers) == 1:
        return numbers
    return numbers.reshape([-1 if axis == tensor.axis else 1 for axis in range(len(tensor.shape))])
