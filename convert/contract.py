"""An imported network's input and output conventions: stated, read from its file, or measured."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgefer.card import InputSpec, OutputSpec
from edgefer.convert.label_order import possible_orders, suggested_order
from edgefer.errors import InputError
from edgefer.interpreter import MIN_LEVELS, levels
from edgefer.metrics import wilson_interval
from edgefer.options import Color
from edgefer.preprocess import quantized_table
from edgefer.text import printable
from edgefer.train.data.dataset import Split

Affine = tuple[float | tuple[float, ...], float | tuple[float, ...]]  # pixel * scale + offset
# The preprocessings of published networks, and who uses them.
SCALES: dict[str, Affine] = {
    "0..1": (1 / 255, 0.0),
    "0..255": (1.0, 0.0),
    "-1..1": (2 / 255, -1.0),
    "imagenet": (
        tuple(1 / 255 / deviation for deviation in (0.229, 0.224, 0.225)),
        tuple(-mean / deviation for mean, deviation in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))),
    ),
    "caffe": (1.0, (-103.939, -116.779, -123.68)),  # with color bgr
}

QUANTIZED = "quantized"  # a scaling under which pixels are the quanta of an integer input
MIN_GAIN = 0.05  # of accuracy: of another label order, and over guessing; merely confused labels gain less
NEAR = 0.01  # of a range: rounded zero points and calibration shift its ends by up to two quanta of 256


@dataclass(frozen=True, kw_only=True)
class Quanta:
    """An integer input: quanta q stand for (q - zero) * step. Calibration set the step, so it says what range of numbers the
    network saw, not how pixels became these numbers."""

    dtype: type
    step: float
    zero: int

    @property
    def filled(self) -> Affine:
        """The scaling under which pixels 0..255 are the 256 quanta of 8 bits."""
        return self.step, (int(np.iinfo(self.dtype).min) - self.zero) * self.step

    @property
    def usual(self) -> bool:
        """Whether its range is that of a usual scaling, so that the quanta are the pixels."""
        one_number = (values for values in SCALES.values() if not isinstance(values[1], tuple))
        return any(same_affine(self.filled, values, NEAR) for values in one_number)

    def holds(self, spec: InputSpec) -> bool:
        """Whether it distinguishes the pixels that `spec` scales."""
        return levels(quantized_table(spec, self.dtype, self.step, self.zero)) >= MIN_LEVELS

    def __str__(self) -> str:
        low, high = np.iinfo(self.dtype).min, np.iinfo(self.dtype).max
        return f"{(low - self.zero) * self.step:.4g}..{(high - self.zero) * self.step:.4g}"


@dataclass(frozen=True, kw_only=True)
class Contract:
    """A network's preprocessing, the kind of its output, and its labels.

    scale: a name of SCALES, "stated" for other numbers, or QUANTIZED. values: its input is pixel * values[0] + values[1].
    labels: in the order of its answers. order: where that order comes from.
    """

    scale: str
    values: Affine
    color: Color
    output: OutputSpec
    labels: tuple[str, ...]
    order: str = "stated"

    def spec(self, height: int, width: int) -> InputSpec:
        scale, offset = self.values
        return InputSpec(height=height, width=width, color=self.color.value, scale=scale, offset=offset)


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What is known of a contract, from the command line or from the file; None: not known.

    because: a sentence for each fact read from the file. quanta: its integer input, if that does not settle the scale.
    """

    scale: tuple[str, Affine] | None = None
    color: Color | None = None
    output: OutputSpec | None = None
    labels: tuple[str, ...] | None = None
    because: tuple[str, ...] = ()
    quanta: Quanta | None = None

    def over(self, file: "Stated", where: str) -> "Stated":
        """These values, completed with the file's; InputError if the two contradict each other."""
        if self.output and file.output and self.output != file.output:
            raise InputError(
                f"{where} answers with {file.output.values}, not {self.output.values}: leave --outputs out, or the softmax "
                "would be applied twice or never."
            )
        if self.scale and file.scale and not same_affine(self.scale[1], file.scale[1], NEAR):
            raise InputError(
                f"{where} itself says that it takes {describe(file.scale)}, not {describe(self.scale)}: leave --scale out, or "
                "pixels would be scaled twice."
            )
        return Stated(
            scale=self.scale or file.scale,
            color=self.color or file.color,
            output=self.output or file.output,
            labels=self.labels or file.labels,
            because=file.because,
            quanta=file.quanta,
        )


@dataclass(frozen=True)
class Hypothesis:
    """A possible contract, and how often the network is right under it on labelled images.

    chance: its accuracy if its answers had nothing to do with the images, as in Cohen's kappa. reordered: the same contract
    with the label order that the images suggest, if its accuracy is far higher with it.
    """

    contract: Contract
    right: np.ndarray = field(repr=False)  # bool [n]
    chance: float = 0.0
    reordered: "Hypothesis | None" = None

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())


def parse_scale(text: str) -> tuple[str, Affine]:
    """A name of SCALES, or the numbers of pixel * SCALE + OFFSET: two, or three scales and three offsets, one per
    channel in the network's order. InputError otherwise."""
    if text in SCALES:
        return text, SCALES[text]
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 6):
        raise InputError(
            f"--scale {printable(text)!r} is none of {', '.join(SCALES)}, nor two numbers such as 0.0078,-1 for pixel * 0.0078 - 1, "
            "nor six: three scales and three offsets."
        )
    half = len(numbers) // 2
    return stated_scale((numbers[0], numbers[1]) if half == 1 else (numbers[:half], numbers[half:]), "--scale")


def any_scale(value: Any) -> tuple[str, Affine] | None:
    """A scale as text for `parse_scale`, or as a pair for `stated_scale`; None stays None."""
    if value is None:
        return None
    return parse_scale(value) if isinstance(value, str) else stated_scale(value)


def stated_scale(pair: Any, name: str = "scale") -> tuple[str, Affine]:
    """(scale, offset) of pixel * scale + offset, each a number or one per channel; InputError for other values."""
    try:
        scale, offset = (np.asarray(part, np.float64) for part in pair)
        shapes = {part.shape for part in (scale, offset)}
    except (TypeError, ValueError):
        shapes = set()
    if not shapes or shapes - {(), (3,)}:
        raise InputError(
            f"{name} {pair!r} is neither a name nor a pair: give (scale, offset), numbers or one for each of 3 channels."
        )
    if not (np.isfinite(scale).all() and np.isfinite(offset).all() and scale.all()):
        raise InputError(f"{name} {pair!r}: pixel * {scale} + {offset} says nothing of a pixel.")
    plain = [float(part) if part.ndim == 0 else tuple(part.tolist()) for part in (scale, offset)]
    return "stated", (plain[0], plain[1])


def describe(scale: tuple[str, Affine]) -> str:
    """A scaling in words: "pixels as -1..1", or "pixels * 0.017 + (-2.1, -2, -1.8)"."""
    name, (factor, offset) = scale
    if name == "stated":  # or read from a file, with its rounding
        name = next((known for known, values in SCALES.items() if same_affine(values, scale[1], 1e-6)), name)
    if name in SCALES:
        return f"pixels as {name}"
    added = f"- {-offset:.6g}" if isinstance(offset, float | int) and offset < 0 else f"+ {_numbers(offset)}"
    return f"pixels * {_numbers(factor)} {added}"


def _numbers(value: float | tuple[float, ...]) -> str:
    return f"{value:.6g}" if isinstance(value, float | int) else f"({', '.join(f'{one:.6g}' for one in value)})"


def same_affine(one: Affine, other: Affine, tolerance: float = 1e-3) -> bool:
    """Whether two scalings of pixels are equal, within `tolerance` of the range."""
    pixels = np.array([[0.0], [255.0]])
    ends = [pixels * np.asarray(scale, float) + np.asarray(offset, float) for scale, offset in (one, other)]
    return bool((np.abs(ends[0] - ends[1]) <= tolerance * np.ptp(ends[1], axis=0).max()).all())


def candidates(known: Stated, channels: int, classes: int, data_labels: Sequence[str] = ()) -> list[Contract]:
    """Every contract consistent with what is known. Without data labels, only those that need no measurement."""
    colors = [known.color] if known.color else [Color.GRAY] if channels == 1 else [Color.RGB, Color.BGR]
    plain = [(name, values) for name, values in SCALES.items() if channels == 3 or name in ("0..1", "0..255", "-1..1")]
    scales = [known.scale] if known.scale else plain
    if known.quanta and not known.scale and known.quanta.dtype in (np.int8, np.uint8):
        scales.append((QUANTIZED, known.quanta.filled))
    orders = {"stated": known.labels} if known.labels else possible_orders(classes, data_labels)
    return [
        Contract(
            scale=name, values=values, color=color, output=known.output or OutputSpec(), labels=labels, order=order
        )
        for (name, values), color, (order, labels) in itertools.product(scales, colors, orders.items())
    ]


def measure(
    contracts: Sequence[Contract], split: Split, labels: Sequence[str], logits: Callable[[Contract], np.ndarray]
) -> list[Hypothesis]:
    """Measure each contract on labelled images, the best first. logits: [n, classes] of the split's images under a
    contract, computed once for all label orders."""
    truth = np.array(labels)[split.labels]
    answers: dict[tuple, np.ndarray] = {}
    found = []
    for contract in contracts:
        key = (contract.scale, contract.values, contract.color)
        if key not in answers:
            answers[key] = logits(contract).argmax(axis=1)
        one = _hypothesis(contract, answers[key], truth)
        found.append(replace(one, reordered=_reordered(one, answers[key], truth)))
    return sorted(found, key=lambda one: -one.accuracy)


def _hypothesis(contract: Contract, answers: np.ndarray, truth: np.ndarray) -> Hypothesis:
    named = np.array(contract.labels)[answers]
    return Hypothesis(contract, named == truth, _chance(named, truth))


def _reordered(one: Hypothesis, answers: np.ndarray, truth: np.ndarray) -> Hypothesis | None:
    labels, right = suggested_order(answers, truth, one.contract.labels)
    other = replace(
        _hypothesis(replace(one.contract, labels=labels, order="as they suggest"), answers, truth), right=right
    )
    informed = wilson_interval(other.accuracy, len(right))[0] > _guessing(other) + MIN_GAIN
    return other if informed and other.accuracy - one.accuracy >= MIN_GAIN and _is_better(other, one) else None


def best_order(found: Sequence[Hypothesis]) -> Hypothesis | None:
    """The best of the hypotheses with another label order, None if no other order is far better."""
    return max(filter(None, (one.reordered for one in found)), key=lambda one: one.accuracy, default=None)


def _chance(answers: np.ndarray, truth: np.ndarray) -> float:
    """How often independent answers with these frequencies would be right: for a constant one, its label's share."""
    return float(sum((answers == label).mean() * (truth == label).mean() for label in np.unique(truth)))


def _guessing(one: Hypothesis) -> float:
    return max(one.chance, 1 / len(one.contract.labels))


def choose(found: list[Hypothesis], where: str, likely: Hypothesis | None = None) -> Contract:
    """The contract that fits; InputError if the data does not settle it, or none fits, with the label order of `likely`,
    the best of all that were measured, if that fits better."""
    best = found[0]
    other = _other_order(best, best_order(found), likely)
    low, _ = wilson_interval(best.accuracy, len(best.right))
    if low <= _guessing(best):
        hint = f" (by these images that is {printable(','.join(other.contract.labels))})" if other else ""
        raise InputError(
            f"No way to feed {where} is right more often than guessing: the best, {_words(best)}. Are --labels in the order of its "
            f"answers{hint}, and are these images like those it was trained on?"
            f"{' To import it as it is stated, leave --data out.' if len(found) == 1 else ''}"
        )
    if as_good := [other for other in found[1:] if not _is_better(best, other)]:
        options = ("scale", "values"), ("color",), ("labels",)
        open_ones = [names[0] for names in options if any(_differs(best, other, names) for other in as_good)]
        more = "images in color" if open_ones == ["color"] else "more images"
        order = ""
        if other:
            order = f"By these images --labels are more likely {printable(','.join(other.contract.labels))} ({_words(other)}): check them. If they are right, state"
        raise InputError(
            f"The images do not decide how {where} is to be fed: {_words(best)}, {_words(as_good[0])}. {order or 'State'} "
            f"{' and '.join(f'--{name}' for name in open_ones)}, or give {more}."
        )
    return best.contract


def _other_order(best: Hypothesis, *others: Hypothesis | None) -> Hypothesis | None:
    """The best of those that have another label order and fit better."""
    better = [one for one in others if one and one.contract.labels != best.contract.labels and _is_better(one, best)]
    return max(better, key=lambda one: one.accuracy, default=None)


def doubt(stated: Hypothesis, best: Hypothesis) -> str:
    """A warning if what was stated fits the images worse than another contract; "" if it does not."""
    if not _is_better(best, stated):
        return ""
    options = [name for name in ("scale", "color", "labels") if _differs(stated, best, (name,))]
    return (
        f"Check {' and '.join(f'--{name}' for name in options)}: on these images it is right in {_words(stated)}, but in "
        f"{_words(best)} ({printable(','.join(best.contract.labels))})."
    )


def _is_better(best: Hypothesis, other: Hypothesis) -> bool:
    """McNemar's view: only images on which the two differ say anything."""
    better, worse = int((best.right & ~other.right).sum()), int((other.right & ~best.right).sum())
    return better - worse > 2 * np.sqrt(better + worse)


def _differs(one: Hypothesis, other: Hypothesis, names: tuple[str, ...]) -> bool:
    return any(getattr(one.contract, name) != getattr(other.contract, name) for name in names)


def _words(one: Hypothesis) -> str:
    return f"{one.accuracy:.1%} with {one.contract.scale}, {one.contract.color}, labels {one.contract.order}"
