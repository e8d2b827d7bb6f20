"""Writes a .tflite of convolutions, pooling, additions and upsampling without TensorFlow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

import numpy as np

from edgefer.errors import MissingDependency

Kind = Literal["conv", "depthwise", "pool", "enlarge", "add"]
VERSIONS = {"conv": 3, "depthwise": 3, "pool": 2, "enlarge": 2, "add": 2}  # the lowest that support int8


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One operator on NHWC tensors, with the names of its inputs and output.

    weights: float32 [out, h, w, in] for a conv, [1, h, w, channels] for a depthwise one; bias: float32 [out]. "pool" is 2x2
    max pooling, "enlarge" repeats each pixel 2x2.
    """

    kind: Kind
    inputs: tuple[str, ...]
    output: str
    weights: np.ndarray | None = field(default=None, repr=False)
    bias: np.ndarray | None = field(default=None, repr=False)
    stride: int = 1
    padding: Literal["same", "valid"] = "same"
    relu: bool = False


@dataclass(frozen=True)
class Step:
    """An int8 tensor's quantization: real = (quantum - zero) * scale."""

    scale: float
    zero: int


def shapes_of(layers: Sequence[Layer], name: str, shape: tuple[int, int, int]) -> dict[str, tuple[int, int, int]]:
    """The shape [h, w, channels] of each tensor, given the input's."""
    shapes = {name: shape}
    for layer in layers:
        height, width, channels = shapes[layer.inputs[0]]
        if layer.kind == "enlarge":
            height, width = 2 * height, 2 * width
        elif layer.kind != "add":
            kernel, stride = ((2, 2), 2) if layer.weights is None else (layer.weights.shape[1:3], layer.stride)
            reach = (kernel[0] - 1, kernel[1] - 1) if layer.padding == "valid" else (0, 0)
            height, width = -(-(height - reach[0]) // stride), -(-(width - reach[1]) // stride)
        if layer.weights is not None:
            channels = layer.weights.shape[3 if layer.kind == "depthwise" else 0]
        shapes[layer.output] = height, width, channels
    return shapes


def write_tflite(
    layers: Sequence[Layer],
    input_name: str,
    input_shape: tuple[int, int, int],
    outputs: Sequence[str],
    steps: Mapping[str, Step] | None = None,
) -> bytes:
    """The network as a .tflite of batch size 1: float32, or int8 with each tensor's `steps`.

    Int8 weights are symmetric, per output channel, and biases int32, as TensorFlow's converter makes them.
    """
    return _Writer(steps).write(layers, input_name, input_shape, outputs)


class _Writer:
    def __init__(self, steps: Mapping[str, Step] | None):
        try:
            self.schema: Any = import_module("ai_edge_litert.schema_py_generated")
            self.flatbuffers: Any = import_module("flatbuffers")
        except ImportError as error:
            raise MissingDependency(
                f"Writing a .tflite needs ai-edge-litert ({error}): pip install ai-edge-litert."
            ) from None
        self.steps = steps
        self.buffers = [self.schema.BufferT()]
        self.tensors: list = []
        self.codes: list = []
        self.index: dict[str, int] = {}

    def write(self, layers, input_name, input_shape, outputs) -> bytes:
        schema = self.schema
        shapes = shapes_of(layers, input_name, input_shape)
        for name, shape in shapes.items():
            self._activation(name, shape)
        graph = schema.SubGraphT()
        graph.operators = [self._operator(layer, shapes) for layer in layers]
        graph.tensors, graph.inputs, graph.outputs = (
            self.tensors,
            [self.index[input_name]],
            [self.index[name] for name in outputs],
        )
        model = schema.ModelT()
        model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, self.codes, [graph], self.buffers
        builder = self.flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _activation(self, name: str, shape: tuple[int, ...]) -> None:
        dtype = np.float32 if self.steps is None else np.int8
        step = None if self.steps is None else self.steps[name]
        self.index[name] = self._tensor(
            name, (1, *shape), dtype, None if step is None else ([step.scale], [step.zero], 0)
        )

    def _constant(self, name: str, values: np.ndarray, quantization=None) -> int:
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.buffers.append(buffer)
        return self._tensor(name, values.shape, values.dtype, quantization, len(self.buffers) - 1)

    def _tensor(self, name: str, shape, dtype, quantization=None, buffer: int = 0) -> int:
        schema = self.schema
        types = {
            np.dtype(np.float32): schema.TensorType.FLOAT32,
            np.dtype(np.int8): schema.TensorType.INT8,
            np.dtype(np.int32): schema.TensorType.INT32,
        }
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), types[np.dtype(dtype)], buffer
        if quantization is not None:
            detail = schema.QuantizationParametersT()
            detail.scale, detail.zeroPoint, detail.quantizedDimension = quantization
            tensor.quantization = detail
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _operator(self, layer: Layer, shapes):
        schema = self.schema
        operator = schema.OperatorT()
        operator.inputs = [self.index[name] for name in layer.inputs]
        operator.outputs = [self.index[layer.output]]
        kinds = {
            "conv": ("CONV_2D", "Conv2DOptions"),
            "depthwise": ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"),
            "pool": ("MAX_POOL_2D", "Pool2DOptions"),
            "enlarge": ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
            "add": ("ADD", "AddOptions"),
        }
        builtin, options = kinds[layer.kind]
        operator.opcodeIndex = self._code(getattr(schema.BuiltinOperator, builtin), VERSIONS[layer.kind])
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        operator.builtinOptions = detail = getattr(schema, options + "T")()
        if layer.kind in ("conv", "depthwise"):
            operator.inputs += self._weights(layer)
            detail.dilationHFactor = detail.dilationWFactor = 1
            if layer.kind == "depthwise":
                detail.depthMultiplier = 1
        if layer.kind in ("conv", "depthwise", "pool"):
            detail.padding = schema.Padding.VALID if layer.padding == "valid" else schema.Padding.SAME
            detail.strideH = detail.strideW = 2 if layer.kind == "pool" else layer.stride
        if layer.kind == "pool":
            detail.filterHeight = detail.filterWidth = 2
        if layer.kind != "enlarge":
            function = schema.ActivationFunctionType
            detail.fusedActivationFunction = function.RELU if layer.relu else function.NONE
        else:
            operator.inputs.append(self._constant(f"{layer.output}/size", np.array(shapes[layer.output][:2], np.int32)))
        return operator

    def _code(self, builtin: int, version: int) -> int:
        for index, code in enumerate(self.codes):
            if code.builtinCode == builtin:
                return index
        code = self.schema.OperatorCodeT()
        code.builtinCode, code.version = builtin, version
        code.deprecatedBuiltinCode = min(builtin, 127)
        self.codes.append(code)
        return len(self.codes) - 1

    def _weights(self, layer: Layer) -> list[int]:
        name, weights, bias = layer.output, layer.weights, layer.bias
        assert weights is not None and bias is not None  # for these kinds
        if self.steps is None:
            return [
                self._constant(f"{name}/weights", weights.astype(np.float32)),
                self._constant(f"{name}/bias", bias.astype(np.float32)),
            ]
        axis = 3 if layer.kind == "depthwise" else 0
        others = tuple(dimension for dimension in range(4) if dimension != axis)
        scale = np.maximum(np.abs(weights).max(axis=others) / 127, 1e-9)
        quanta = np.clip(np.round(weights / np.expand_dims(scale, others)), -127, 127).astype(np.int8)
        bias_scale = scale * self.steps[layer.inputs[0]].scale
        limit = 2**31 - 1
        bias_quanta = np.clip(np.round(bias / bias_scale), -limit, limit).astype(np.int32)
        zeros = [0] * len(scale)
        return [
            self._constant(f"{name}/weights", quanta, (scale.tolist(), zeros, axis)),
            self._constant(f"{name}/bias", bias_quanta, (bias_scale.tolist(), zeros, 0)),
        ]
