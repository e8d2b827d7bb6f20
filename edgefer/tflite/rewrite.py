"""What is changed in a float32 .tflite before it is quantized, so that its int8 form runs on every target, with the same answers.

A softmax at its end is left out: the int8 form gives logits, whose softmax is computed in float with the card's temperature,
as for edgefer's own networks. An image that is turned to channels first, as litert-torch writes x.mean((2, 3)) and
x.flatten(1), stays as it is: the mean is that of other dimensions, and the dense layer's weights are put in the other order.
The batch size becomes 1, as edgefer feeds it: where it is open, TensorFlow's converter lets the shape behind a Flatten be
computed. What PyTorch pads with -infinity in front of a maximum, which has no scale, is padded with 0 if nothing is below it.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgefer.card import OutputSpec
from edgefer.tflite.flatbuffer import Model, Operator, Tensor

MADE_OF = {
    "SOFTMAX": OutputSpec(values="logits", float32="probabilities"),
    "LOG_SOFTMAX": OutputSpec(values="logits", float32="log-probabilities"),
}  # the outputs of a network that ends in it, and of its int8 form
REPLACED = (*MADE_OF, "TRANSPOSE", "RESHAPE", "SQUEEZE", "SHAPE", "STRIDED_SLICE", "PACK")
MAX_TAKERS = 8  # of a padded image
MADE_HERE = -1  # the index of a constant that the file does not hold
Groups = list[tuple[int, ...]]  # the dimensions of an image in each dimension of what was made of it


def int8_output(model: Model, output: OutputSpec) -> OutputSpec:
    """The output of a float32 network with this output, and of the int8 form that is made of it."""
    softmax = _last_softmax(model)
    return MADE_OF[softmax.name] if softmax else output


def rewritten(model: Model) -> Model:
    """A parsed float32 network with these changes."""
    made_by = {tensor.index: operator for operator in model.main.operators for tensor in operator.outputs}
    takers: dict[int, list[Operator]] = defaultdict(list)
    for operator in model.main.operators:
        for tensor in operator.inputs:
            takers[tensor.index].append(operator)
    changed: dict[int, Operator] = {}
    room = model.size  # for copies of weights: those of a damaged file may overlap
    for operator in model.main.operators:
        if mean := _mean(operator, made_by):
            changed[operator.index] = replace(operator, inputs=mean)
        elif _is_taken_once(operator, takers) and (flat := _flat(operator, made_by, room)):
            room -= len(flat.weights.data)
            before, _, *bias = operator.inputs
            changed[operator.index] = replace(operator, inputs=(before, flat.weights, *bias))
            reshape = changed.get(flat.reshape.index, flat.reshape)
            changed[reshape.index] = replace(reshape, inputs=(flat.image, *reshape.inputs[1:]))
        elif shape := _computed_shape(operator):
            changed[operator.index] = replace(operator, inputs=(operator.inputs[0], shape))
        elif _pads_a_maximum(operator, made_by, takers):
            changed[operator.index] = replace(operator, name="PAD", version=1, inputs=operator.inputs[:2])
    outputs = model.main.outputs
    if len(outputs) == 1:
        softmax = _last_softmax(model)
        outputs = (_row(softmax.inputs[0] if softmax else outputs[0], made_by),)
    operators = [changed.get(one.index, one) for one in model.main.operators]
    main = replace(model.main, operators=_used(operators, outputs), outputs=outputs)
    return replace(model, subgraphs=(main, *model.subgraphs[1:]))


def _last_softmax(model: Model) -> Operator | None:
    """The softmax at a network's end that can be left out: nothing but the shape is changed after it."""
    made_by = {tensor.index: operator for operator in model.main.operators for tensor in operator.outputs}
    last = made_by.get(model.main.outputs[0].index) if len(model.main.outputs) == 1 else None
    while last is not None and last.name in ("RESHAPE", "SQUEEZE") and last.inputs:
        before = made_by.get(last.inputs[0].index)
        last = before if before is not None and before.index < last.index else None  # a damaged file may have a circle
    if last is None or last.name not in MADE_OF or len(last.inputs) != 1 or len(last.outputs) != 1:
        return None
    row = model.main.outputs[0].shape[-1:]
    rows = all(one.shape[-1:] == row == (math.prod(one.shape),) for one in (*last.inputs, *last.outputs))
    return last if rows and (last.beta == 1 or last.name != "SOFTMAX") else None


def _row(answers: Tensor, made_by: Mapping[int, Operator]) -> Tensor:
    """The answers with a dimension for the image, where the network removes it, as x.squeeze() does; else as they are."""
    last = made_by.get(answers.index)
    if len(answers.shape) != 1 or last is None or last.name not in ("RESHAPE", "SQUEEZE") or not last.inputs:
        return answers
    before = last.inputs[0]
    same = len(before.shape) > 1 and before.shape[-1:] == answers.shape == (math.prod(before.shape),)
    return before if same and not before.constant else answers


def _mean(operator: Operator, made_by: Mapping[int, Operator]) -> tuple[Tensor, Tensor] | None:
    """The inputs of a MEAN as that of an image in front of a TRANSPOSE, and perhaps a RESHAPE, in front of the MEAN."""
    if operator.name != "MEAN" or operator.keeps_shape or len(operator.inputs) != 2 or len(operator.outputs) != 1:
        return None
    chain, axes = _chain(operator.inputs[0], made_by), _integers(operator.inputs[1])
    groups = _groups(chain)
    if groups is None or axes is None or not all(-len(groups) <= axis < len(groups) for axis in axes):
        return None
    image = chain[-1].inputs[0]
    averaged = [groups[axis] for axis in sorted({axis % len(groups) for axis in axes})]
    kept = [axis for group in groups if group not in averaged for axis in group]
    # What remains is in its old order, or the mean would have to be turned in its place.
    if kept != sorted(kept) or operator.outputs[0].shape != tuple(image.shape[axis] for axis in kept):
        return None
    return image, _constant(operator, np.array(sorted(axis for group in averaged for axis in group), "<i4"))


def _is_taken_once(operator: Operator, takers: Mapping[int, Sequence[Operator]]) -> bool:
    """Whether nothing else takes the operator's first input."""
    return bool(operator.inputs) and len(takers[operator.inputs[0].index]) == 1


@dataclass(frozen=True)
class _Flat:
    """A dense layer's weights for an image as it is, of which `reshape` makes a row."""

    image: Tensor
    reshape: Operator
    weights: Tensor


def _flat(operator: Operator, made_by: Mapping[int, Operator], room: int) -> _Flat | None:
    """A FULLY_CONNECTED of an image that a TRANSPOSE turned before a RESHAPE made a row of it. room: bytes for the weights."""
    if operator.name != "FULLY_CONNECTED" or len(operator.inputs) < 2 or operator.shuffled_weights:
        return None
    chain, weights = _chain(operator.inputs[0], made_by), operator.inputs[1]
    groups = _groups(chain)
    if len(chain) != 2 or groups is None or len(groups) != 2 or groups[0] != (0,) or len(weights.shape) != 2:
        return None
    image, order = chain[-1].inputs[0], groups[1]
    rows, sizes = weights.shape[0], [image.shape[axis] for axis in order]
    whole = weights.shape[1] == math.prod(sizes) and 0 < len(weights.data) == 4 * rows * weights.shape[1] <= room
    if weights.dtype != "FLOAT32" or not whole or min(sizes) < 1:
        return None
    back = [0, *(1 + place for place in np.argsort(order))]
    turned = np.frombuffer(weights.data, "<f4").reshape(rows, *sizes).transpose(back).reshape(weights.shape)
    return _Flat(image, chain[0], _constant(operator, turned))


def _computed_shape(operator: Operator) -> Tensor | None:
    """The shape that a RESHAPE makes of one image, if it is computed from the batch size."""
    if operator.name != "RESHAPE" or len(operator.inputs) != 2 or len(operator.outputs) != 1:
        return None
    before, after = operator.inputs[0].shape, operator.outputs[0].shape
    if operator.inputs[1].constant or not after or math.prod(before) != math.prod(after):
        return None
    return _constant(operator, np.array(after, "<i4"))


def _pads_a_maximum(
    operator: Operator, made_by: Mapping[int, Operator], takers: Mapping[int, Sequence[Operator]]
) -> bool:
    """Whether it is a PADV2 with a number of at most 0 of what is at least 0, in front of maxima that each see some of that:
    padded with 0, they are the same."""
    if operator.name != "PADV2" or len(operator.inputs) != 3 or len(operator.outputs) != 1:
        return False
    before, pads, value = made_by.get(operator.inputs[0].index), _integers(operator.inputs[1]), operator.inputs[2]
    if value.dtype != "FLOAT32" or len(value.data) != 4 or not np.frombuffer(value.data, "<f4")[0] <= 0:
        return False
    if before is None or not {before.name, before.fused_activation} & {"RELU", "RELU6"} or pads is None:
        return False
    if len(pads) != 8 or min(pads) < 0 or any(pads[:2] + pads[6:]):
        return False
    after = takers.get(operator.outputs[0].index, ())
    most = max(pads[2:4]), max(pads[4:6])
    return 0 < len(after) <= MAX_TAKERS and all(
        one.name == "MAX_POOL_2D" and one.padding == "VALID" and one.window[0] > most[0] and one.window[1] > most[1]
        for one in after
    )


def _chain(tensor: Tensor, made_by: Mapping[int, Operator]) -> list[Operator]:
    """The operators in front of a tensor: a TRANSPOSE, or a RESHAPE and the TRANSPOSE in front of that; else none."""
    last = made_by.get(tensor.index)
    if last is None or last.name not in ("TRANSPOSE", "RESHAPE") or not last.inputs:
        return []
    if last.name == "TRANSPOSE":
        return [last]
    first = made_by.get(last.inputs[0].index)
    return [last, first] if first is not None and first.name == "TRANSPOSE" and first.inputs else []


def _groups(chain: Sequence[Operator]) -> Groups | None:
    """What the chain makes of its image; None if there is no chain, or it mixes dimensions otherwise."""
    if not chain:
        return None
    shape = chain[-1].inputs[0].shape
    groups: Groups | None = [(axis,) for axis in range(len(shape))]
    for step in reversed(chain):
        if groups:
            groups = _turned(groups, step) if step.name == "TRANSPOSE" else _merged(groups, step, shape)
    return groups or None


def _turned(groups: Groups, transpose: Operator) -> Groups | None:
    order = _integers(transpose.inputs[-1])
    return [groups[axis] for axis in order] if order and sorted(order) == list(range(len(groups))) else None


def _merged(groups: Groups, reshape: Operator, shape: tuple[int, ...]) -> Groups | None:
    """The groups after a RESHAPE that only merges neighbouring dimensions; None for any other. shape: the image's."""
    merged: Groups = []
    left = list(groups)
    for size in reshape.outputs[0].shape:
        taken: tuple[int, ...] = ()
        while left and (not taken or math.prod(shape[axis] for axis in taken) < size):
            taken += left.pop(0)
        if not taken or math.prod(shape[axis] for axis in taken) != size:
            return None
        merged.append(taken)
    return None if left else merged


def _integers(tensor: Tensor) -> list[int] | None:
    """The values of an int32 constant."""
    if tensor.dtype != "INT32" or not tensor.constant or len(tensor.data) % 4:
        return None
    return [int(number) for number in np.frombuffer(tensor.data, "<i4")]


def _constant(operator: Operator, values: np.ndarray) -> Tensor:
    """A new constant of an operator, int32 or float32."""
    return Tensor(
        index=MADE_HERE, name=f"{operator.name}_{operator.index}", shape=values.shape, signature=values.shape,
        dtype="INT32" if values.dtype == np.int32 else "FLOAT32", scales=0, data=memoryview(values.tobytes()),
    )  # fmt: skip


def _used(operators: Sequence[Operator], outputs: Sequence[Tensor]) -> tuple[Operator, ...]:
    """Without those of REPLACED whose outputs nothing takes; the last first, since they take each other's."""
    uses = Counter(one.index for operator in operators for one in operator.inputs)
    uses.update(one.index for one in outputs)
    kept = []
    for operator in reversed(operators):
        if operator.name in REPLACED and not any(uses[one.index] for one in operator.outputs):
            uses.subtract(one.index for one in operator.inputs)
        else:
            kept.append(operator)
    return tuple(reversed(kept))
