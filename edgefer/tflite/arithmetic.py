"""The int8 arithmetic of the stored answers, in numpy: every tensor of a network, bit-exact with ai-edge-litert.

Determined by experiment with ai-edge-litert 2.1 (XNNPACK) on x86-64 and tested by tests/tflite/test_arithmetic.py. The same
rules are in C (edgefer.c), so a network's answers in a browser or on a microcontroller must match exactly.

Products (CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED): the sum of (x - zero_in) * w and the bias in int32, times a float32
multiplier, rounded to nearest, ties to even, plus zero_out, clamped. Padding adds nothing.
MEAN: the sum of x in int32, times a multiplier, plus what both zero points make, each rounded to float32; then to nearest.
On arm64 ai-edge-litert fuses the two, which changes about one mean in 400,000 by one step.
ADD: 20-bit fixed point with one rounding bias. AVERAGE_POOL_2D: integer division, halves away from zero, over the pixels
inside the image. MAX_POOL_2D, PAD, RESHAPE: no arithmetic. RELU, RELU6: TFLite's 31-bit multiplier, rounded twice.
"""

from collections.abc import Callable

import numpy as np

from edgefer.preprocess import to_int8
from edgefer.tflite.int8_network import Int8Network, Layer, Window


def answers(network: Int8Network, pixels: np.ndarray) -> np.ndarray:
    """uint8 [n, h, w, c] -> the network's int8 answers [n, classes], outputs concatenated."""
    return np.stack([outputs(network, to_int8(image)) for image in pixels])


def outputs(network: Int8Network, image: np.ndarray) -> np.ndarray:
    """One input image, int8 [h, w, c] -> int8 [classes], outputs concatenated."""
    tensors = run(network, image)
    return np.concatenate([tensors[value.index].ravel() for value in network.outputs])


def run(network: Int8Network, image: np.ndarray) -> dict[int, np.ndarray]:
    """Every activation for one input image, int8 [h, w, c]: tensor's index -> int8 of its shape."""
    tensors = {network.input.index: image.reshape(network.input.shape)}
    for layer in network.layers:
        inputs = [tensors[value.index] for value in layer.inputs]
        tensors[layer.output.index] = compute(layer, inputs).reshape(layer.output.shape)
    return tensors


def compute(layer: Layer, inputs: list[np.ndarray]) -> np.ndarray:
    """One layer's int8 output from its int8 inputs, which may be inner tensors of a runtime."""
    return np.clip(_COMPUTE[layer.kind](layer, inputs), layer.low, layer.high).astype(np.int8)


def _rounded(layer: Layer, sums: np.ndarray) -> np.ndarray:
    scaled = sums.astype(np.float32) * layer.multipliers
    return np.clip(np.rint(scaled), -(2**22), 2**22).astype(np.int64) + layer.output.zero


def _convolution(layer: Layer, inputs: list[np.ndarray]) -> np.ndarray:
    window = layer.window
    assert window is not None
    size = layer.output.shape[:2]
    image = _framed(inputs[0].astype(np.float64) - layer.inputs[0].zero, window, size, 0)
    sums = np.zeros(layer.output.shape)
    for row, column, part in _taps(image, window, size):
        if layer.kind == "CONV_2D":
            sums += part @ layer.weights[:, row, column].T.astype(np.float64)  # integers below 2**53: exact
        else:
            sums += np.repeat(part, layer.output.shape[2] // part.shape[2], axis=2) * layer.weights[row, column]
    return _rounded(layer, sums.astype(np.int64) + layer.bias)


def _dense(layer: Layer, inputs: list[np.ndarray]) -> np.ndarray:
    flat = inputs[0].ravel().astype(np.float64) - layer.inputs[0].zero
    return _rounded(layer, (layer.weights.astype(np.float64) @ flat).astype(np.int64) + layer.bias)


def _mean(layer: Layer, inputs: list[np.ndarray]) -> np.ndarray:
    scale, zero = layer.multipliers
    return np.rint(inputs[0].sum((0, 1), np.int32).astype(np.float32) * scale + zero)


def _add(layer: Layer, inputs: list[np.ndarray]) -> np.ndarray:
    *multipliers, shift = layer.fixed
    total = np.full(layer.output.shape, 1 << (shift - 1), np.int64)
    for image, value, multiplier in zip(inputs, layer.inputs, multipliers, strict=True):
        total += (image.astype(np.int64) - value.zero) * multiplier
    return (total >> shift) + layer.output.zero


def _max_pool(layer: Layer, inputs: list[np.ndarray]) -> np.ndarray:
    window, size = layer.window, layer.output.shape[:2]
    assert window is not None
    largest = np.full(layer.output.shape, -128, np.int8)
    for _, _, part in _taps(_framed(inputs[0], window, size, -128), window, size):
        np.maximum(largest, part, out=largest)
    return largest.astype(np.int64)


def _average_pool(layer: Layer, inputs: list[np.ndarray]) -> np.ndarray:
    window, size = layer.window, layer.output.shape[:2]
    assert window is not None
    sums, counts = np.zeros(layer.output.shape, np.int64), np.zeros((*size, 1), np.int64)
    image = inputs[0].astype(np.int64)
    for _, _, part in _taps(_framed(image, window, size, 0), window, size):
        sums += part
    for _, _, part in _taps(_framed(np.ones((*image.shape[:2], 1), np.int64), window, size, 0), window, size):
        counts += part
    return np.sign(sums) * ((np.abs(sums) + counts // 2) // counts)


def _pad(layer: Layer, inputs: list[np.ndarray]) -> np.ndarray:
    return np.pad(inputs[0].astype(np.int64), layer.pads, constant_values=layer.output.zero)


def _relu(layer: Layer, inputs: list[np.ndarray]) -> np.ndarray:
    multiplier, shift = layer.fixed
    product = ((inputs[0].astype(np.int64) - layer.inputs[0].zero) << max(shift, 0)) * multiplier
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    high = np.sign(nudged) * (np.abs(nudged) >> 31)  # division by 2**31, towards zero
    right = max(-shift, 0)
    rest = high & ((1 << right) - 1)
    return (high >> right) + (rest > ((1 << right) - 1 >> 1) + (high < 0)) + layer.output.zero


_COMPUTE: dict[str, Callable[[Layer, list[np.ndarray]], np.ndarray]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "FULLY_CONNECTED": _dense,
    "ADD": _add,
    "MEAN": _mean,
    "MAX_POOL_2D": _max_pool,
    "AVERAGE_POOL_2D": _average_pool,
    "RESHAPE": lambda layer, inputs: inputs[0].astype(np.int64),
    "PAD": _pad,
    "RELU": _relu,
    "RELU6": _relu,
}


def _framed(image: np.ndarray, window: Window, size: tuple[int, ...], value: int) -> np.ndarray:
    """The image padded with rows and columns of `value` as far as its windows reach beyond it."""
    rows = []
    for axis in (0, 1):
        reach = (size[axis] - 1) * window.strides[axis] + (window.kernel[axis] - 1) * window.dilation[axis] + 1
        rows.append((window.before[axis], max(0, reach - window.before[axis] - image.shape[axis])))
    return np.pad(image, (*rows, (0, 0)), constant_values=value)


def _taps(image: np.ndarray, window: Window, size: tuple[int, ...]):
    """For each row and column of the window, the image's values at every position: [out height, out width, channels]."""
    (down, across), (step_y, step_x) = window.strides, window.dilation
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            top, left = row * step_y, column * step_x
            rows = slice(top, top + (size[0] - 1) * down + 1, down)
            yield row, column, image[rows, left : left + (size[1] - 1) * across + 1 : across]
