"""The Layer fields of each kind of operator, with checks of the proven range; ValueError says what is wrong."""

from collections.abc import Callable, Sequence

import numpy as np

from edgefer.tflite.flatbuffer import Operator, Tensor
from edgefer.tflite.int8_network import Pair, Value, Window

MAX_SIDE = 2**13  # of an activation, a window or a stride, so that no sum of positions exceeds 32 bits
MAX_FRAMED = 2**26  # values of an activation with the padding of its window
MIN_SCALE, MAX_SCALE = 2.0**-32, 2.0**8  # of a sum's scale; XNNPACK supports no others, so nothing was proven there
MIN_RATIO, MAX_RATIO = 2.0**-10, 2.0**8  # the same for ADD


def _convolution(operator: Operator, inputs: tuple[Value, ...], output: Value) -> dict:
    depthwise = operator.name == "DEPTHWISE_CONV_2D"
    weights = _weights(operator, 4)
    height, width, depth = _image(inputs[0])
    if depthwise and (weights.shape[0] != 1 or weights.shape[3] % depth):
        raise ValueError(f"its weights {weights.shape} do not fit {depth} channels")
    if depthwise and operator.depth_multiplier != weights.shape[3] // depth:
        # XNNPACK leaves it to TFLite's own kernel, which rounds otherwise.
        raise ValueError(f"its depth multiplier is {operator.depth_multiplier}, its weights {weights.shape}")
    for bias in operator.inputs[2:]:
        if not bias.steps or any(bias.zeros):  # the same, or refused
            raise ValueError("its bias has no scale, or a zero point other than 0")
    if not depthwise and weights.shape[3] != depth:
        raise ValueError(f"it is a grouped convolution, {depth} channels by {weights.shape[3]}")
    channels = weights.shape[3 if depthwise else 0]
    window, size = _window(operator, weights.shape[1:3], (height, width, depth))
    _same_shape(output, (*size, channels))
    weights = weights[0] if depthwise else weights
    sums = np.abs(weights.astype(np.int64)).sum((0, 1) if depthwise else (1, 2, 3))
    return {"window": window, **_products(operator, inputs[0], output, weights, sums, 3 if depthwise else 0)}


def _dense(operator: Operator, inputs: tuple[Value, ...], output: Value) -> dict:
    weights = _weights(operator, 2)
    if operator.shuffled_weights:
        raise ValueError("its weights are shuffled")
    if weights.shape[1] != inputs[0].size:
        raise ValueError(f"its weights {weights.shape} do not fit {inputs[0].size} inputs")
    if operator.keeps_shape and weights.shape[1] != inputs[0].shape[-1]:
        raise ValueError(f"it is a product for each of {inputs[0].shape[:-1]} places, not for the whole input")
    if output.size != weights.shape[0]:
        raise ValueError(f"its output has {output.size} values, its weights give {weights.shape[0]}")
    return _products(operator, inputs[0], output, weights, np.abs(weights.astype(np.int64)).sum(1), 0)


def _products(
    operator: Operator, source: Value, output: Value, weights: np.ndarray, sums: np.ndarray, axis: int
) -> dict:
    """Weights, bias and multipliers. sums: of the weights' magnitudes by channel."""
    channels = len(sums)
    steps = _steps(operator.inputs[1], channels, axis)
    bias = np.zeros(channels, np.int32)
    if len(operator.inputs) > 2:
        bias = _constant(operator.inputs[2], "INT32", np.dtype("<i4"))
        if bias.shape != (channels,):
            raise ValueError(f"its bias {bias.shape} does not fit {channels} channels")
    most = int((sums * 255 + np.abs(bias.astype(np.int64))).max())
    if most >= 2**31:
        raise ValueError(f"its sums reach {most:,}, which 32 bits do not hold")
    multipliers = (source.scale * steps / output.scale).astype(np.float32)
    return {"weights": weights, "bias": bias.astype(np.int32), "multipliers": _in_range(multipliers)}


def _mean(operator: Operator, inputs: tuple[Value, ...], output: Value) -> dict:
    height, width, depth = _image(inputs[0])
    axes = sorted({axis + 4 if axis < 0 else axis for axis in _integers(operator, 1)})
    if axes != [1, 2]:
        raise ValueError(f"it averages over the dimensions {axes}, not over rows and columns [1, 2]")
    _same_shape(output, (1, 1, depth) if operator.keeps_shape else (depth,))
    if height * width * 255 >= 2**31:
        raise ValueError(f"its sums of {height}x{width} values do not fit 32 bits")
    places = np.float32(height * width)
    (scale,) = _in_range(np.array([inputs[0].scale / output.scale * (1 / places)], np.float32))
    zero = -places * inputs[0].zero * scale + np.float32(output.zero)
    return {"multipliers": np.array([scale, zero], np.float32)}


def _add(operator: Operator, inputs: tuple[Value, ...], output: Value) -> dict:
    for value in inputs:
        if value.shape != output.shape:
            raise ValueError(f"it adds {inputs[0].shape} and {inputs[1].shape}; the shapes must be equal")
    ratios = [value.scale / output.scale for value in inputs]
    if not all(MIN_RATIO <= ratio < MAX_RATIO for ratio in ratios):
        raise ValueError(
            f"its inputs' scales are {ratios[0]:.3g} and {ratios[1]:.3g} of its output's, not 2^-10 to 2^8"
        )
    shift = 20 - (int(np.frexp(max(ratios))[1]) - 1)
    return {"fixed": (*(int(np.rint(np.ldexp(float(ratio), shift))) for ratio in ratios), shift)}


def _pool(operator: Operator, inputs: tuple[Value, ...], output: Value) -> dict:
    height, width, depth = _image(inputs[0])
    window, size = _window(operator, operator.window, (height, width, depth))
    _same_shape(output, (*size, depth))
    _same_quanta(inputs[0], output)
    if operator.window[0] * operator.window[1] * 128 >= 2**30:
        raise ValueError(f"it has the window {operator.window}, whose sums do not fit 32 bits")
    return {"window": window}


def _reshape(operator: Operator, inputs: tuple[Value, ...], output: Value) -> dict:
    if inputs[0].size != output.size:
        raise ValueError(f"it makes {output.shape} of {inputs[0].shape}")
    asked = _integers(operator, 1) if len(operator.inputs) > 1 else operator.new_shape or ()
    if not _leads_to(asked, (1, *output.shape)):
        raise ValueError(f"its output has the shape {(1, *output.shape)}, its constant asks for {list(asked)[:8]}")
    _same_quanta(inputs[0], output)
    return {}


def _leads_to(asked: Sequence[int], shape: tuple[int, ...]) -> bool:
    """Whether a RESHAPE to `asked`, where one -1 is what remains, makes `shape`."""
    return (
        len(asked) == len(shape)
        and list(asked).count(-1) <= 1
        and all(a in (-1, b) for a, b in zip(asked, shape, strict=True))
    )


def _pad(operator: Operator, inputs: tuple[Value, ...], output: Value) -> dict:
    height, width, depth = _image(inputs[0])
    rows = _integers(operator, 2)
    if len(rows) != 8 or any(rows[:2]) or not all(0 <= row <= MAX_SIDE for row in rows):
        raise ValueError(f"it pads {len(rows) // 2} dimensions by {rows[:8]}; rows, columns and channels can be padded")
    pads = tuple((rows[at], rows[at + 1]) for at in (2, 4, 6))
    _same_shape(output, tuple(size + sum(pad) for size, pad in zip((height, width, depth), pads, strict=True)))
    _same_quanta(inputs[0], output)
    return {"pads": pads}


def _relu(operator: Operator, inputs: tuple[Value, ...], output: Value) -> dict:
    _same_shape(output, inputs[0].shape)
    ratio = float(inputs[0].scale / output.scale)
    if not 2.0**-16 <= ratio < 2.0**16:
        raise ValueError(f"its input's scale is {ratio:.3g} of its output's")
    fraction, shift = np.frexp(ratio)
    multiplier = round(float(fraction) * 2**31)
    return {"fixed": (multiplier // 2, int(shift) + 1) if multiplier == 2**31 else (multiplier, int(shift))}


FIELDS: dict[str, Callable[[Operator, tuple[Value, ...], Value], dict]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "FULLY_CONNECTED": _dense,
    "ADD": _add,
    "MEAN": _mean,
    "MAX_POOL_2D": _pool,
    "AVERAGE_POOL_2D": _pool,
    "RESHAPE": _reshape,
    "PAD": _pad,
    "RELU": _relu,
    "RELU6": _relu,
}


# ---- parts of an untrusted file ----


def _image(value: Value) -> tuple[int, int, int]:
    if len(value.shape) != 3:
        raise ValueError(f"its input has the shape {value.shape}, not height, width and channels")
    height, width, depth = value.shape
    return height, width, depth


def _window(operator: Operator, kernel: Pair, image: tuple[int, int, int]) -> tuple[Window, Pair]:
    """The window, and the height and width of its output for an image of height, width and channels."""
    height, width, depth = image
    size = height, width
    strides, dilation = operator.strides, operator.dilation
    for name, pair in (("window", kernel), ("strides", strides), ("dilation", dilation)):
        if not all(1 <= side <= MAX_SIDE for side in pair):
            raise ValueError(f"it has the {name} {pair}, not 1 to {MAX_SIDE}")
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    if operator.padding == "SAME":
        result = tuple(-(-n // s) for n, s in zip(size, strides, strict=True))
        before = tuple(
            max((o - 1) * s + r - n, 0) // 2 for o, s, r, n in zip(result, strides, reach, size, strict=True)
        )
    elif operator.padding == "VALID":
        result = tuple((n - r) // s + 1 for n, r, s in zip(size, reach, strides, strict=True))
        before = (0, 0)
    else:
        raise ValueError(f"its padding is {operator.padding or 'not stated'}")
    if min(result) < 1:
        raise ValueError(f"its window of {reach} does not fit {(height, width)}")
    framed = (height + reach[0]) * (width + reach[1]) * depth
    if framed > MAX_FRAMED:
        raise ValueError(
            f"its window of {reach} pads {(height, width, depth)} to {framed:,} values, more than {MAX_FRAMED:,}"
        )
    return Window(kernel=(kernel[0], kernel[1]), strides=strides, dilation=dilation, before=(before[0], before[1])), (
        result[0],
        result[1],
    )


def _weights(operator: Operator, rank: int) -> np.ndarray:
    if len(operator.inputs) not in (2, 3):
        raise ValueError(f"it has {len(operator.inputs)} inputs, not its own, weights and a bias")
    weights = _constant(operator.inputs[1], "INT8", np.dtype("i1"))
    if weights.ndim != rank:
        raise ValueError(f"its weights have the shape {weights.shape}")
    return weights


def _constant(tensor: Tensor, name: str, dtype: np.dtype) -> np.ndarray:
    if tensor.dtype != name or not tensor.constant:
        raise ValueError(f"{tensor.name!r} is {tensor.dtype}, not a constant of {name}")
    if min(tensor.shape, default=1) < 1 or np.prod(tensor.shape, dtype=np.float64) * dtype.itemsize != len(tensor.data):
        raise ValueError(f"{tensor.name!r} is {len(tensor.data)} bytes, which are not {tensor.shape} of {name}")
    return np.frombuffer(tensor.data, dtype).reshape(tensor.shape)


def _steps(tensor: Tensor, channels: int, axis: int) -> np.ndarray:
    """The weights' scales: float32 [channels]."""
    steps = np.array(tensor.steps, np.float32)
    if any(tensor.zeros):
        raise ValueError("its weights have zero points other than 0")
    if len(steps) == 1:
        steps = np.repeat(steps, channels)
    elif tensor.axis != axis:
        raise ValueError(f"its weights' scales are of dimension {tensor.axis}, not {axis}")
    if len(steps) != channels or not (np.isfinite(steps).all() and (steps > 0).all()):
        raise ValueError(f"it has {len(tensor.steps)} scales for {channels} channels, or one that is not positive")
    return steps


def _in_range(multipliers: np.ndarray) -> np.ndarray:
    if not ((multipliers >= MIN_SCALE) & (multipliers < MAX_SCALE)).all():
        raise ValueError("the scales of its inputs and output are too far apart")
    return multipliers


def _integers(operator: Operator, rank: int) -> list[int]:
    """The integer constant of `rank` dimensions that is its second input."""
    if len(operator.inputs) != 2 or operator.inputs[1].dtype not in ("INT32", "INT64"):
        raise ValueError("its second input is not a constant of whole numbers")
    name, shape = operator.inputs[1].dtype, operator.inputs[1].shape
    if len(shape) != rank or (rank == 2 and shape[1] != 2):
        raise ValueError(f"its second input has the shape {shape}")
    return [int(n) for n in _constant(operator.inputs[1], name, np.dtype("<i4" if name == "INT32" else "<i8")).ravel()]


def _same_shape(output: Value, shape: tuple[int, ...]) -> None:
    if output.shape != shape:
        raise ValueError(f"its output has the shape {output.shape}, not {shape}")


def _same_quanta(source: Value, output: Value) -> None:
    if (source.scale, source.zero) != (output.scale, output.zero):
        raise ValueError("its input and output have different scales or zero points")
