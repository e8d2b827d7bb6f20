"""Are int8.tflite's weights those of float32.tflite? Answered from the two files alone, without running them.

It catches what stored answers cannot, a single changed weight, which moves them by less than two runtimes differ.
"""

import numpy as np

from edgefer.bundle import Bundle
from edgefer.checks import Check, status_if
from edgefer.errors import BundleError
from edgefer.tflite.flatbuffer import Operator, Tensor, read_model

HALF = 0.5 + 1e-3  # of a step: what rounding may move a weight by, and a little for the division's own rounding,
FLOAT = 1e-6  # which grows with a bias of millions of steps
DTYPES = {"FLOAT32": "<f4", "INT8": "i1", "INT32": "<i4"}


def check_weights(bundle: Bundle) -> Check | None:
    """Every weight and bias of int8 against float32's, within half a step of its scale.

    None where there is nothing to compare: a form is missing, the two are built differently, or the int8 network was
    trained on, so that many of its layers differ. A fault in many layers at once is for the stored answers to find.
    """
    if not (bundle.has("float32") and bundle.has("int8")):
        return None
    before, after = (_layers(bundle, variant) for variant in ("float32", "int8"))
    if [op.name for op in before] != [op.name for op in after]:
        return None
    wrong: list[str] = []
    same = total = 0
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        for what, floats, quanta in zip(("weights", "biases"), old.inputs[1:3], new.inputs[1:3], strict=False):
            if floats.shape != quanta.shape or not quanta.steps or not floats.constant:
                return None
            try:
                values = _values(quanta)
                off = np.abs(_values(floats) / _steps(quanta) - values)
            except (KeyError, ValueError) as error:
                raise BundleError(
                    f"{bundle.path}: {new.name} {number + 1} is damaged ({error}): copy the bundle again."
                ) from None
            many = int((~(off <= HALF + FLOAT * np.abs(values))).sum())  # a NaN counts
            total += off.size
            same += not many
            if many:
                wrong.append(f"{many} {what} of {old.name} {number + 1}")
    if len(wrong) > max(1, same // 10):
        return None
    detail = f"all {total:,} are float32's, rounded"
    if wrong:
        detail = f"{', '.join(wrong)} are not float32's, rounded: int8.tflite was changed or damaged after conversion"
    return Check(question=2, subject="int8's weights against float32's", status=status_if(not wrong), detail=detail)


def _layers(bundle: Bundle, variant: str) -> list[Operator]:
    """The operators with weights, in the order of execution."""
    model = read_model(bundle.read(variant), str(bundle.file(variant)))
    return [op for op in model.operators if len(op.inputs) > 1 and op.name.endswith(("CONV_2D", "FULLY_CONNECTED"))]


def _values(tensor: Tensor) -> np.ndarray:
    return np.frombuffer(tensor.data, DTYPES[tensor.dtype]).reshape(tensor.shape).astype(np.float64)


def _steps(tensor: Tensor) -> np.ndarray:
    """The tensor's scales, in a shape that divides it."""
    if len(tensor.steps) == 1:
        return np.array(tensor.steps)
    return np.array(tensor.steps).reshape([-1 if axis == tensor.axis else 1 for axis in range(len(tensor.shape))])
