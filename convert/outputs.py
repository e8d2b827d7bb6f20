"""The output of an imported network, by its last layers: logits, probabilities, or numbers that are neither.

edgefer applies a softmax to logits. After a ReLU or a tanh the resulting scores would be meaningless, so such a network
is imported only if the user states what its outputs are.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from edgefer.card import OutputSpec
from edgefer.errors import InputError
from edgefer.interpreter import LOGITS
from edgefer.tflite.flatbuffer import Model, Operator, Tensor

if TYPE_CHECKING:
    from edgefer.train.keras_build import Built

Place = TypeVar("Place", bound=Hashable)
PROBABILITIES = OutputSpec(values="probabilities")
ROUNDING = 1 / 512  # of a probability: half a step of uint8
# Of the sum of an image's probabilities, beside the rounding: those of an int8 average of softmaxes add up to 0.975.
TOLERANCE = 0.03


class _Does(Enum):
    """How a layer or an operator affects the outputs after it."""

    PASSES = auto()  # passes its input on
    MIXES = auto()  # gives sums, multiples or a part of its input
    ANYTHING = auto()  # gives numbers of any size: logits, if nothing else follows
    LOG_SOFTMAX = auto()  # logits too: a softmax gives the same with it and without
    SOFTMAX = auto()
    OTHER = auto()


KERAS = {
    _Does.PASSES: ("InputLayer", "Flatten", "Reshape", "Permute", "Dropout", "SpatialDropout2D", "TakeChannels", "ExpandDims"),
    _Does.MIXES: (
        "Add", "Subtract", "Average", "Concatenate", "BatchNormalization", "Rescaling", "Normalization", "AveragePooling2D",
        "MaxPooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "Reduce", "LayerScale", "Attention",
    ),
    _Does.SOFTMAX: ("Softmax",),
    _Does.OTHER: (
        "ReLU", "LeakyReLU", "PReLU", "ELU", "ThresholdedReLU", "Multiply", "Maximum", "Minimum", "Dot", "UnitNormalization",
    ),
}  # fmt: skip
TFLITE = {
    _Does.PASSES: (
        "QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "STRIDED_SLICE", "SLICE", "CAST",
    ),
    _Does.MIXES: (
        "ADD", "ADD_N", "SUB", "CONCATENATION", "MEAN", "SUM", "AVERAGE_POOL_2D", "MAX_POOL_2D", "REDUCE_MAX",
    ),
    _Does.ANYTHING: (
        "FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "BATCH_MATMUL",
    ),
    _Does.LOG_SOFTMAX: ("LOG_SOFTMAX",),
    _Does.SOFTMAX: ("SOFTMAX",),
}  # fmt: skip
SIGMOIDS = ("sigmoid", "hard_sigmoid", "LOGISTIC")
# Between which numbers an operator's values lie, or those of one with this activation.
CLIPS = {
    "RELU": (0, np.inf), "RELU6": (0, 6), "RELU_0_TO_1": (0, 1), "RELU_N1_TO_1": (-1, 1), "LOGISTIC": (0, 1), "TANH": (-1, 1),
}  # fmt: skip
CLOSE = 0.02  # to 0 and 1, for the rounding of int8
STORED: dict[str, np.dtype] = {"FLOAT32": np.dtype(np.float32), "INT8": np.dtype(np.int8), "UINT8": np.dtype(np.uint8)}
NEITHER = (
    "{where} ends with {name}: its outputs are neither logits nor probabilities, so scores from them would be meaningless. Train it "
    "with a softmax at the end, or with nothing and from_logits=True; if it was trained so that a softmax of these outputs "
    "gives probabilities, state --outputs logits{other}."
)
MIXED = (
    "{where} ends with sums or multiples of what {name} gives, which edgefer cannot prove to be probabilities: where they are, as in "
    "an average of softmaxes, {state}"
)
EXPORTED = "export it as a SavedModel or .tflite, and import that with --outputs probabilities."


@dataclass(frozen=True)
class End:
    """How a network ends. output: the kind of its output; None if it is neither, because of the layer `name`. softmax: the
    layer of a Keras network that turns logits into probabilities or their logarithms. mixed: the output is a sum or multiple
    of softmax outputs."""

    output: OutputSpec | None
    name: str = ""
    softmax: Any = None
    mixed: bool = False


@dataclass(frozen=True)
class _Step:
    """A layer or an operator; before: the places of its inputs."""

    does: _Does
    name: str
    before: Iterable[Any] = ()
    layer: Any = None


def _end(last: Iterable[Place], step: Callable[[Place], _Step]) -> End:
    """Go back from the places of the outputs to the first layers that determine what they are."""
    left, seen, decide, mixed = list(last), set(), [], False
    while left:
        if (place := left.pop()) in seen:
            continue
        seen.add(place)
        one = step(place)
        if one.does in (_Does.PASSES, _Does.MIXES):
            mixed |= one.does is _Does.MIXES
            left += one.before
        else:
            decide.append(one)
    kinds = {one.does for one in decide}
    if len(decide) == 1 and not mixed and kinds <= {_Does.SOFTMAX, _Does.LOG_SOFTMAX}:
        return End(PROBABILITIES if _Does.SOFTMAX in kinds else LOGITS, softmax=decide[0].layer)
    if kinds and kinds <= {_Does.ANYTHING, _Does.LOG_SOFTMAX}:
        return End(LOGITS)
    if kinds == {_Does.SOFTMAX}:
        return End(None, decide[0].name, mixed=True)
    return End(None, next((one.name for one in decide if one.does is not _Does.ANYTHING), "its own input"))


def keras_end(built: "Built", architecture: dict) -> End:
    """How a Keras network ends. InputError, without its name, for a sigmoid."""
    layers = places(built, architecture)

    def step(place: tuple[str, ...]) -> _Step:
        layer, before = layers[place]
        if layer is None:  # a nested network
            return _Step(_Does.PASSES, "", before)
        function = getattr(layer, "activation", None)
        kind = type(layer).__name__
        # An activation may be a layer, such as LeakyReLU.
        activation = getattr(function, "__name__", type(function).__name__) if function else "linear"
        if activation == "softmax":
            does = _Does.SOFTMAX
        elif activation == "log_softmax":
            does = _Does.LOG_SOFTMAX
        elif activation != "linear":
            does = _Does.OTHER
        elif kind == "Activation":
            does = _Does.PASSES
        else:
            does = next((does for does, kinds in KERAS.items() if kind in kinds), _Does.ANYTHING)
        return _Step(does, kind if activation == "linear" else activation, before, layer)

    return _end([()], step)


def places(
    built: "Built", architecture: dict, path: tuple[str, ...] = (), before: tuple = ()
) -> dict[tuple[str, ...], tuple]:
    """Each layer by its path through nested networks, with the paths of its inputs; a network (None) with those of its
    outputs. before: the paths of the network's own inputs."""
    config = architecture["config"]
    names = [one["name"] for one in config["layers"]]
    if architecture["class_name"] == "Sequential":
        answers = [(*path, names[-1])]
        taken = dict(zip(names, [before, *(((*path, name),) for name in names)], strict=False))
    else:
        answers = [(*path, reference[0]) for reference in config["output_layers"]]
        taken = {
            one["name"]: tuple((*path, reference[0]) for node in one.get("inbound_nodes", []) for reference in node) or before
            for one in config["layers"]
        }  # fmt: skip
    found: dict[tuple[str, ...], tuple] = {path: (None, answers)}
    for part, one in zip(built.parts, config["layers"], strict=True):
        name = one["name"]
        if part.parts:
            found |= places(part, one, (*path, name), taken[name])
        else:
            found[*path, name] = (part.layer, taken[name])
    return found


def tflite_end(model: Model) -> End:
    """How a .tflite ends."""
    made_by = {tensor.index: operator for operator in model.main.operators for tensor in operator.outputs}

    def constant(tensor: Tensor) -> bool:
        maker = made_by.get(tensor.index)  # float16 constants are dequantized first
        return tensor.constant or (maker is not None and all(one.constant for one in maker.inputs))

    def step(index: int) -> _Step:
        if index not in made_by:
            return _Step(_Does.OTHER, "its own input")
        operator = made_by[index]
        taken = [one.index for one in operator.inputs if not constant(one)]
        does = _does(operator, len(taken))
        # A shape may be computed: Keras' Reshape becomes SHAPE, STRIDED_SLICE, PACK beside the outputs.
        return _Step(does, _name(operator), taken[:1] if does is _Does.PASSES else taken)

    answers = model.main.outputs[0].index
    end = _end([answers], step)
    low, high = _bounds(answers, made_by, constant)
    # An int8 network stores a clip to 1 that lies beyond the range of its tensor as the end of that range.
    if end.output is None and not end.mixed and abs(low) <= CLOSE and 0 < high <= 1 + CLOSE:
        return End(None, end.name if end.name in SIGMOIDS else "hard_sigmoid")  # of several operators
    return end


def _bounds(
    index: int, made_by: Mapping[int, Operator], constant: Callable[[Tensor], bool], depth: int = 8
) -> tuple[float, float]:
    """Between which numbers a tensor's values lie, as far as the last operators, which only scale and clip, say it."""
    operator = made_by.get(index)
    if operator is None or depth == 0:  # a damaged file may have a tensor that is made of itself
        return -np.inf, np.inf
    taken = [one.index for one in operator.inputs if not constant(one)]
    number = _number([one for one in operator.inputs if constant(one)])
    change: dict[str, Callable[[float], float]] = dict.fromkeys((*CLIPS, *TFLITE[_Does.PASSES]), lambda value: value)
    if number is not None:
        change |= {"MUL": lambda value: value * number, "MINIMUM": lambda value: min(value, number)}
        change |= {"MAXIMUM": lambda value: max(value, number)}
    low, high = -np.inf, np.inf
    if operator.name in change and len(taken) == 1:
        low, high = sorted(map(change[operator.name], _bounds(taken[0], made_by, constant, depth - 1)))
    for name in (operator.name, operator.fused_activation):
        low, high = np.clip((low, high), *CLIPS.get(name, (-np.inf, np.inf))).tolist()
    return low, high


def _number(constants: list[Tensor]) -> float | None:
    """The one number that scales or clips; None where there is none."""
    if len(constants) != 1:
        return None
    (tensor,) = constants
    if tensor.dtype not in STORED or len(tensor.data) != STORED[tensor.dtype].itemsize:
        return None
    value = float(np.frombuffer(tensor.data, STORED[tensor.dtype])[0])
    return (value - tensor.zero) * tensor.steps[0] if tensor.steps else value


def _does(operator: Operator, taken: int) -> _Does:
    """taken: how many of its inputs are not constants."""
    if operator.fused_activation != "NONE":
        return _Does.OTHER
    if operator.name in ("MUL", "DIV") and taken == 1:
        return _Does.MIXES
    return next((does for does, names in TFLITE.items() if operator.name in names), _Does.OTHER)


def _name(operator: Operator) -> str:
    return operator.name if operator.fused_activation == "NONE" else operator.fused_activation


def check_end(end: End, stated: OutputSpec | None, where: str, *, rebuilt: bool) -> OutputSpec:
    """The kind of output, from the file or as stated; InputError if neither says it, and for a sigmoid. rebuilt: the network
    must give logits, so probabilities must come from a softmax that can be removed."""
    if end.output is not None:
        return end.output
    if end.name in SIGMOIDS:
        raise InputError(
            f"{where} ends with a sigmoid: each label has an independent probability, but edgefer needs one label out of several. "
            "Train it with a softmax, or with none and from_logits=True."
        )
    if stated is None or (rebuilt and stated != LOGITS):
        if end.mixed:
            state = EXPORTED if rebuilt else "state --outputs probabilities."
            raise InputError(MIXED.format(where=where, name=end.name, state=state))
        other = "" if rebuilt else ", and where they are probabilities by themselves --outputs probabilities"
        raise InputError(NEITHER.format(where=where, name=end.name, other=other))
    return stated


def check_answers(logits: np.ndarray, output: OutputSpec, where: str) -> None:
    """InputError if a network's outputs for several images, float [n, classes], contradict the kind of output."""
    values = np.exp(logits) if output == PROBABILITIES else logits
    sums = values.sum(axis=1)
    shares = bool(values.min() >= 0 and (np.abs(sums - 1) <= TOLERANCE + ROUNDING * values.shape[1]).all())
    if shares and output == LOGITS:
        raise InputError(
            f"{where} gives probabilities, which add up to 1 for every image that was tried, and no logits: state --outputs probabilities."
        )
    if not shares and output == PROBABILITIES:
        raise InputError(
            f"{where} gives no probabilities: on images that were tried its answers add up to {sums.min():.3g} to {sums.max():.3g}, not 1. "
            "Leave --outputs out, or state --outputs logits."
        )
