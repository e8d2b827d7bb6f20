"""Converts YuNet's .onnx to layers for a .tflite: canvases of any shape, float32 or int8."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgefer.devices.faces.onnx import Graph, Node
from edgefer.errors import SourceError
from edgefer.tflite.write import Layer, Step, shapes_of

STRIDES = (8, 16, 32)
HEADS = (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
ANSWERS = 16  # per cell, of all heads
INPUT = "canvas"
MAX_CHANNELS = 1024
# Ranges measured on other images than a camera's are slightly too narrow for some; values beyond them saturate.
SPARE = 1.1


def read_layers(graph: Graph, name: str) -> list[Layer]:
    """The network's layers, from "canvas" to "faces_8", "faces_16" and "faces_32": [h / stride, w / stride, 16] each, logits.

    The canvas has one black row above and one black column to the left of the searched area, so that the first convolution,
    which pads on both sides, needs no padding. Each stride's four heads, of two convolutions each, are merged into one.
    SourceError if the file is not a YuNet.
    """
    try:
        return _Reader(graph).layers()
    except (_Unlike, KeyError, IndexError, TypeError, ValueError) as error:
        detail = f"{error.args[0]!r:.80}" if error.args else type(error).__name__
        raise SourceError(f"{name} is not a YuNet that edgefer supports ({detail}): use OpenCV Zoo's.") from None


class _Unlike(Exception):
    pass


class _Reader:
    def __init__(self, graph: Graph):
        self.constants = graph.constants
        self.makers = {node.outputs[0]: node for node in graph.nodes if node.outputs}
        self.readers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for one in node.inputs:
                self.readers.setdefault(one, []).append(node)
        self.made: dict[str, list[Layer]] = {}
        self.out: list[Layer] = []
        self.depth = 0

    def layers(self) -> list[Layer]:
        for stride in STRIDES:
            self._head(stride)
        shapes_of(self.out, INPUT, (65, 65, 3))
        return self.out

    def _head(self, stride: int) -> None:
        """One pointwise and one depthwise convolution for the four heads of a stride."""
        wide, deep, source = [], [], ""
        for head, count in HEADS:
            node = self._back(f"{head}_{stride}")
            depthwise, pointwise = self._conv(node), self._conv(self.makers[node.inputs[0]])
            if (
                depthwise.kind != "depthwise"
                or pointwise.kind != "conv"
                or depthwise.bias is None
                or len(depthwise.bias) != count
            ):
                raise _Unlike(f"{head}_{stride}")
            source = source or pointwise.inputs[0]
            if pointwise.inputs[0] != source:
                raise _Unlike(f"{head}_{stride}")
            wide.append(pointwise)
            deep.append(depthwise)
        self._need(source)
        middle, end = f"heads_{stride}", f"faces_{stride}"
        bias = np.concatenate([one.bias for one in wide])
        weights = np.concatenate([one.weights for one in wide], axis=0)
        self.out.append(Layer(kind="conv", inputs=(source,), output=middle, weights=weights, bias=bias))
        bias = np.concatenate([one.bias for one in deep])
        weights = np.concatenate([one.weights for one in deep], axis=3)
        self.out.append(Layer(kind="depthwise", inputs=(middle,), output=end, weights=weights, bias=bias))

    def _back(self, name: str) -> Node:
        """The convolution before an output."""
        for _ in range(8):
            node = self.makers[name]
            if node.kind == "Conv":
                return node
            if node.kind not in ("Sigmoid", "Reshape", "Transpose"):
                break
            name = node.inputs[0]
        raise _Unlike(name)

    def _need(self, name: str) -> None:
        """Add the layer that makes a tensor, after those of its inputs."""
        if name == INPUT or any(layer.output == name for layer in self.out):
            return
        self.depth += 1
        if self.depth > 200:
            raise _Unlike("its operators form a cycle")
        layer = self._layer(self.makers[name])
        for one in layer.inputs:
            self._need(one)
        self.out.append(replace(layer, output=name))
        self.depth -= 1

    def _layer(self, node: Node) -> Layer:
        inputs = tuple(self._name(one) for one in node.inputs)
        if node.kind == "Relu":
            before = self.makers[node.inputs[0]]
            if before.kind != "Conv":
                raise _Unlike("a ReLU that follows no convolution")
            return replace(self._conv(before), relu=True)
        if node.kind == "Conv":
            return self._conv(node)
        if node.kind == "MaxPool" and node.attributes["kernel_shape"] == node.attributes["strides"] == (2, 2):
            return Layer(kind="pool", inputs=inputs, output=node.outputs[0])
        if node.kind in ("Resize", "Upsample"):
            return Layer(kind="enlarge", inputs=inputs[:1], output=node.outputs[0])
        if node.kind == "Add" and len(inputs) == 2:
            return Layer(kind="add", inputs=inputs, output=node.outputs[0])
        raise _Unlike(node.kind)

    def _name(self, name: str) -> str:
        return name if name in self.makers or name in self.constants else INPUT

    def _conv(self, node: Node) -> Layer:
        if node.kind != "Conv":
            raise _Unlike(node.kind)
        weights, bias = self.constants[node.inputs[1]], self.constants[node.inputs[2]]
        outputs, inputs, height, width = weights.shape
        stride, pads = node.attributes["strides"], node.attributes["pads"]
        group = node.attributes.get("group", 1)
        deep = inputs == 1 and group == outputs
        first = self._name(node.inputs[0]) == INPUT
        fits = (
            height == width in (1, 3)
            and set(pads) == {height // 2}
            and set(stride) == {2 if first else 1}
            and set(node.attributes.get("dilations") or (1,)) == {1}
            and bias.shape == (outputs,)
            and max(outputs, inputs) <= MAX_CHANNELS
            and weights.dtype == bias.dtype == np.float32
            and (deep or group == 1)
        )
        if not fits:
            raise _Unlike(f"a convolution {weights.shape}, stride {stride}, padding {pads}")
        return Layer(
            kind="depthwise" if deep else "conv",
            inputs=(self._name(node.inputs[0]),),
            output=node.outputs[0],
            weights=weights.transpose((1, 2, 3, 0) if deep else (0, 2, 3, 1)),
            bias=bias,
            stride=2 if first else 1,
            padding="valid" if first else "same",
        )


Ranges = Mapping[str, tuple[np.ndarray, np.ndarray]]  # tensor -> the minimum and maximum of each channel


def equalize(layers: Sequence[Layer], ranges: Ranges) -> tuple[list[Layer], Ranges, dict[str, np.ndarray]]:
    """Cross-layer equalization: the same network with similar ranges in all channels, so that one int8 scale suits them all;
    its ranges; and each output's gains.

    A pointwise convolution without ReLU before a depthwise one can be scaled up per channel and the other down, which changes
    nothing. The outputs are scaled too, and must be divided by the gains.
    """
    readers: dict[str, list[int]] = {}
    for index, layer in enumerate(layers):
        for one in layer.inputs:
            readers.setdefault(one, []).append(index)
    out, gains, scaled_ranges = list(layers), {}, dict(ranges)
    for index, layer in enumerate(layers):
        after = readers.get(layer.output, [])
        final = not after
        scaled = len(after) == 1 and layers[after[0]].kind == "depthwise" and not layer.relu
        if layer.weights is None or not (final or scaled):
            continue
        low, high = ranges[layer.output]
        reach = np.maximum(np.maximum(-low, high), 1e-6)
        gain = np.clip(reach.max() / reach, 1, 1e4)
        axis = 3 if layer.kind == "depthwise" else 0
        shape = [-1 if dimension == axis else 1 for dimension in range(4)]
        now = out[index]
        out[index] = replace(now, weights=now.weights * gain.reshape(shape), bias=now.bias * gain)
        scaled_ranges[layer.output] = low * gain, high * gain
        if final:
            gains[layer.output] = gain.astype(np.float32)
        else:
            deep = out[after[0]]
            out[after[0]] = replace(deep, weights=deep.weights / gain)
    return out, scaled_ranges, gains


def measure(images: Iterable[Mapping[str, np.ndarray]]) -> Ranges:
    """Each tensor's range per channel over images, each given as all its tensors [h, w, channels]."""
    ranges: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for tensors in images:
        for name, values in tensors.items():
            low, high = values.min(axis=(0, 1)), values.max(axis=(0, 1))
            if name in ranges:
                low, high = np.minimum(low, ranges[name][0]), np.maximum(high, ranges[name][1])
            ranges[name] = low, high
    return ranges


def steps_of(layers: Sequence[Layer], ranges: Ranges) -> dict[str, Step]:
    """The int8 quantization of every tensor.

    The canvas is uint8 pixels minus 128; pooling and upsampling keep their input's quantization.
    """
    steps = {INPUT: Step(1.0, -128)}
    for layer in layers:
        if layer.kind in ("pool", "enlarge"):
            steps[layer.output] = steps[layer.inputs[0]]
            continue
        low, high = ranges[layer.output]
        least, most = min(0.0, float(low.min()) * SPARE), max(1e-6, float(high.max()) * SPARE)
        scale = (most - least) / 255
        steps[layer.output] = Step(scale, int(np.clip(round(-128 - least / scale), -128, 127)))
    return steps
