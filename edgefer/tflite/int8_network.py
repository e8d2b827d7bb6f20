"""A network with integer arithmetic: the records for edgefer.tflite.arithmetic and for C code."""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from edgefer.errors import InputError

Pair = tuple[int, int]  # height, width


class UnsupportedNetwork(InputError):
    """A network that the int8 arithmetic does not support; the message names the operator."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """An activation: `shape` without the batch, [h, w, c] or [n]; real = scale * (quantum - zero)."""

    index: int
    shape: tuple[int, ...]
    scale: np.float32
    zero: int

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, kw_only=True)
class Window:
    """How a convolution's or pooling's window moves over its input. `before`: rows and columns of padding before it."""

    kernel: Pair
    strides: Pair
    dilation: Pair
    before: Pair


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One operator. The fields after `high` depend on its kind.

    low, high: the clamp of its fused activation.
    weights: int8; CONV_2D [out, kh, kw, in], DEPTHWISE_CONV_2D [kh, kw, out], FULLY_CONNECTED [out, in].
    multipliers: from sums to quanta: float32 [out]; MEAN: the multiplier of its sums, and what is added then.
    fixed: ADD: two multipliers and their shift; RELU, RELU6: a multiplier of 31 bits and its shift to the left.
    pads: PAD: (before, after) of rows, columns, channels.
    """

    kind: str
    number: int
    inputs: tuple[Value, ...]
    output: Value
    low: int = -128
    high: int = 127
    window: Window | None = None
    weights: np.ndarray = field(default_factory=lambda: np.empty(0, np.int8), repr=False)
    bias: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32), repr=False)
    multipliers: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32), repr=False)
    fixed: tuple[int, ...] = ()
    pads: tuple[Pair, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-adds for one image."""
        if self.kind == "FULLY_CONNECTED":
            return self.weights.size
        if self.kind == "CONV_2D":
            return self.weights.size * self.output.size // self.output.shape[-1]
        if self.kind == "DEPTHWISE_CONV_2D":
            return self.weights.shape[0] * self.weights.shape[1] * self.output.size
        return 0

    @property
    def passed(self) -> int:
        """Values read and written besides the multiply-adds; for pooling, each position of the window counts."""
        taps = math.prod(self.window.kernel) if self.window else 1
        return self.output.size * taps + sum(value.size for value in self.inputs)


@dataclass(frozen=True, kw_only=True)
class Int8Network:
    """Layers in the order of execution, from `input` to `outputs`: the largest first, like a detector's stored maps."""

    layers: tuple[Layer, ...]
    input: Value
    outputs: tuple[Value, ...]

    @property
    def output(self) -> Value:
        """The only output, or the first one."""
        return self.outputs[0]

    @property
    def answers(self) -> int:
        """The total size of all outputs."""
        return sum(value.size for value in self.outputs)

    def resized(self, height: int, width: int) -> "Int8Network":
        """The same for images of another size; for fully convolutional networks only, whose layers' heights and widths are
        integers at both sizes."""
        high, wide = self.input.shape[:2]

        def sized(value: Value) -> Value:
            rows, columns, depth = value.shape
            return replace(value, shape=(rows * height // high, columns * width // wide, depth))

        layers = tuple(
            replace(layer, inputs=tuple(map(sized, layer.inputs)), output=sized(layer.output)) for layer in self.layers
        )
        return Int8Network(layers=layers, input=sized(self.input), outputs=tuple(map(sized, self.outputs)))

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def work(self) -> int:
        """Operations for one image: multiply-adds, pooled values, and what every layer reads and writes."""
        return sum(layer.macs + layer.passed for layer in self.layers)
