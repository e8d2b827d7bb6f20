"""Makes small int8 .tflite files operator by operator, with any scales and zero points, using only the schema."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Maker:
    """Adds operators to a network; each call returns the number of the tensor it computes.

    Scales and zero points are drawn from `rng` where they are not given.
    """

    rng: np.random.Generator
    tensors: list = field(default_factory=list)
    operators: list = field(default_factory=list)
    buffers: list = field(default_factory=list)
    codes: dict = field(default_factory=dict)

    def __post_init__(self):
        from ai_edge_litert import schema_py_generated

        self.schema = schema_py_generated
        self._buffer(None)

    def input(self, shape, scale=1 / 255, zero=-128) -> int:
        self.first = self.tensor(shape, scale, zero)
        return self.first

    def tensor(self, shape, scale=None, zero=None) -> int:
        """An activation."""
        scale = float(np.exp(self.rng.uniform(-5, -2))) if scale is None else scale
        zero = int(self.rng.integers(-128, 128)) if zero is None else zero
        return self._tensor(shape, "INT8", 0, [scale], [zero])

    def constant(self, values, scales=(), axis=0) -> int:
        kind = {"int8": "INT8", "int32": "INT32"}[values.dtype.name]
        zeros = [0] * len(scales)
        return self._tensor(values.shape, kind, self._buffer(values.tobytes()), list(scales), zeros, axis)

    def shape(self, tensor) -> tuple[int, ...]:
        return tuple(self.tensors[tensor].shape)

    def scale(self, tensor) -> float:
        return self.tensors[tensor].quantization.scale[0]

    def conv(self, x, channels, kernel=(3, 3), strides=(1, 1), padding="SAME", act="NONE", dilation=(1, 1), per=True):
        _, height, width, depth = self.shape(x)
        weights = self.rng.integers(-127, 128, (channels, *kernel, depth)).astype(np.int8)
        options = self._window("Conv2DOptions", strides, padding, act)
        options.dilationHFactor, options.dilationWFactor = dilation
        shape = (1, *_sizes((height, width), kernel, strides, padding, dilation), channels)
        return self._weighted("CONV_2D", options, x, weights, 0, channels, shape, per, act)

    def depthwise(self, x, multiplier=1, kernel=(3, 3), strides=(1, 1), padding="SAME", act="NONE", dilation=(1, 1)):
        _, height, width, depth = self.shape(x)
        channels = depth * multiplier
        weights = self.rng.integers(-127, 128, (1, *kernel, channels)).astype(np.int8)
        options = self._window("DepthwiseConv2DOptions", strides, padding, act)
        options.dilationHFactor, options.dilationWFactor = dilation
        options.depthMultiplier = multiplier
        shape = (1, *_sizes((height, width), kernel, strides, padding, dilation), channels)
        return self._weighted("DEPTHWISE_CONV_2D", options, x, weights, 3, channels, shape, True, act)

    def dense(self, x, channels, act="NONE", per=False) -> int:
        size = int(np.prod(self.shape(x)))
        weights = self.rng.integers(-127, 128, (channels, size)).astype(np.int8)
        options = self.schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = getattr(self.schema.ActivationFunctionType, act)
        return self._weighted("FULLY_CONNECTED", options, x, weights, 0, channels, (1, channels), per, act)

    def add(self, a, b, act="NONE", scale=None) -> int:
        options = self.schema.AddOptionsT()
        options.fusedActivationFunction = getattr(self.schema.ActivationFunctionType, act)
        scale = scale or max(self.scale(a), self.scale(b)) * float(np.exp(self.rng.uniform(-1, 1.5)))
        return self._operator("ADD", options, (a, b), self.tensor(self.shape(a), scale))

    def mean(self, x, keep=False, axes=(1, 2)) -> int:
        options = self.schema.ReducerOptionsT()
        options.keepDims = keep
        kept = [size for axis, size in enumerate(self.shape(x)) if axis not in axes]
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(self.shape(x))) if keep else tuple(kept)
        scale = self.scale(x) * float(np.exp(self.rng.uniform(-1.5, 0.5)))
        return self._operator("MEAN", options, (x, self.constant(np.array(axes, np.int32))), self.tensor(shape, scale))

    def pool(self, kind, x, kernel=(2, 2), strides=(2, 2), padding="VALID", act="NONE") -> int:
        _, height, width, depth = self.shape(x)
        options = self._window("Pool2DOptions", strides, padding, act)
        options.filterHeight, options.filterWidth = kernel
        shape = (1, *_sizes((height, width), kernel, strides, padding, (1, 1)), depth)
        return self._operator(f"{kind}_POOL_2D", options, (x,), self._like(x, shape))

    def reshape(self, x, shape) -> int:
        options = self.schema.ReshapeOptionsT()
        options.newShape = list(shape)
        return self._operator("RESHAPE", options, (x, self.constant(np.array(shape, np.int32))), self._like(x, shape))

    def pad(self, x, rows) -> int:
        """rows: (before, after) of each of the four dimensions."""
        shape = tuple(size + sum(row) for size, row in zip(self.shape(x), rows, strict=True))
        return self._operator(
            "PAD", self.schema.PadOptionsT(), (x, self.constant(np.array(rows, np.int32))), self._like(x, shape)
        )

    def unary(self, name, x, scale=None, zero=None) -> int:
        out = self._like(x, self.shape(x)) if scale is None else self.tensor(self.shape(x), scale, zero)
        return self._operator(name, None, (x,), out)

    def finish(self, outputs: int | list[int]) -> bytes:
        """The file, with one output or several."""
        import flatbuffers

        schema = self.schema
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs, graph.name = [self.first], np.atleast_1d(outputs).tolist(), b"main"
        model = schema.ModelT()
        model.version, model.description = 3, b"made by a test"
        model.subgraphs, model.buffers, model.operatorCodes = [graph], self.buffers, [c for c, _ in self.codes.values()]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    # ---- the flatbuffer's parts ----

    def _like(self, x, shape) -> int:
        return self.tensor(shape, self.scale(x), self.tensors[x].quantization.zeroPoint[0])

    def _window(self, kind, strides, padding, act):
        options = getattr(self.schema, f"{kind}T")()
        options.strideH, options.strideW = strides
        options.padding = getattr(self.schema.Padding, padding)
        options.fusedActivationFunction = getattr(self.schema.ActivationFunctionType, act)
        return options

    def _weighted(self, name, options, x, weights, axis, channels, shape, per, act) -> int:
        count = channels if per else 1
        scales = np.exp(self.rng.uniform(-7, -5, count)).astype(np.float32)
        taps = weights.size // channels
        # An output range in which few values are clamped: the sum of `taps` products has this standard deviation.
        spread = float(self.scale(x) * np.sqrt(taps) * 73 * 90 * scales.mean())
        out = self.tensor(shape, spread / 60, -128 if act != "NONE" else None)
        bias = self.rng.integers(-3000, 3000, channels).astype(np.int32)
        inputs = (
            x,
            self.constant(weights, scales, axis if per else 0),
            self.constant(bias, (scales * np.float32(self.scale(x))).astype(np.float32)),
        )
        return self._operator(name, options, inputs, out)

    def _operator(self, name, options, inputs, output) -> int:
        schema = self.schema
        if name not in self.codes:
            code = schema.OperatorCodeT()
            number = getattr(schema.BuiltinOperator, name)
            code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
            code.version = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4}.get(name, 2)
            code.version = 1 if name == "RESHAPE" else code.version
            self.codes[name] = code, len(self.codes)
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = self.codes[name][1], list(inputs), [output]
        if options is not None:
            made.builtinOptions = options
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.operators.append(made)
        return output

    def _buffer(self, content) -> int:
        buffer = self.schema.BufferT()
        buffer.data = None if content is None else np.frombuffer(content, np.uint8)
        self.buffers.append(buffer)
        return len(self.buffers) - 1

    def _tensor(self, shape, kind, buffer, scales, zeros, axis=0) -> int:
        tensor = self.schema.TensorT()
        tensor.shape, tensor.type = [int(size) for size in shape], getattr(self.schema.TensorType, kind)
        tensor.buffer, tensor.name = buffer, f"t{len(self.tensors)}".encode()
        if len(scales):
            tensor.quantization = self.schema.QuantizationParametersT()
            tensor.quantization.scale = [float(np.float32(scale)) for scale in scales]
            tensor.quantization.zeroPoint, tensor.quantization.quantizedDimension = zeros, axis
        self.tensors.append(tensor)
        return len(self.tensors) - 1


def every_mean() -> tuple[bytes, np.ndarray]:
    """A network of one MEAN, and an image int8 [6, 6, 9181] whose channels have every sum that 6x6 pixels can have. With
    these scales one mean, of 899 / 36, lies so near a tie that the order of the roundings decides it."""
    make = Maker(np.random.default_rng(0))
    y = make.mean(make.input((1, 6, 6, 9181), 0.036551844))
    make.tensors[y].quantization.scale, make.tensors[y].quantization.zeroPoint = [0.009557915], [-128]
    sums, places = np.arange(9181), np.arange(36)[:, None]
    return make.finish(y), (sums // 36 + (places < sums % 36) - 128).astype(np.int8).reshape(6, 6, 9181)


def _sizes(size, kernel, strides, padding, dilation) -> tuple[int, ...]:
    """Height and width of a window's output."""
    if padding == "SAME":
        return tuple(-(-n // s) for n, s in zip(size, strides, strict=True))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    return tuple((n - r) // s + 1 for n, r, s in zip(size, reach, strides, strict=True))


def endless(height: int, width: int, classes: int) -> bytes:
    """A valid float32 .tflite, one gray image in and one row of answers out, whose WHILE counts to 2^31 before it answers."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    kinds = schema.TensorType
    constants = [b"", *(np.int32(one).tobytes() for one in (0, 2**31 - 1, 1)), bytes(4 * classes * height * width)]
    zero, end, one, weights = range(1, 5)

    def graph(tensors: list, operators: list, inputs: list[int], outputs: list[int]):
        made = schema.SubGraphT()
        made.tensors, made.operators, made.inputs, made.outputs = [], [], inputs, outputs
        for shape, kind, buffer in tensors:
            tensor = schema.TensorT()
            tensor.shape, tensor.type, tensor.buffer = list(shape), kind, buffer
            made.tensors.append(tensor)
        for name, sources, results in operators:
            operator = schema.OperatorT()
            operator.opcodeIndex, operator.inputs, operator.outputs = list(OPERATORS).index(name), sources, results
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, OPERATORS[name])
            operator.builtinOptions = getattr(schema, f"{OPERATORS[name]}T")()
            if name == "WHILE":
                operator.builtinOptions.condSubgraphIndex, operator.builtinOptions.bodySubgraphIndex = 1, 2
            made.operators.append(operator)
        return made

    number, image = ((), kinds.INT32, 0), ((1, height, width, 1), kinds.FLOAT32, 0)
    model = schema.ModelT()
    model.version, model.operatorCodes, model.buffers = 3, [], []
    for name in OPERATORS:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = 1
        model.operatorCodes.append(code)
    for content in constants:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(content, np.uint8) if content else None
        model.buffers.append(buffer)
    dense = [((classes, height * width), kinds.FLOAT32, weights), ((1, classes), kinds.FLOAT32, 0)]
    model.subgraphs = [
        graph(
            [image, ((), kinds.INT32, zero), number, image, *dense],
            [("WHILE", [1, 0], [2, 3]), ("FULLY_CONNECTED", [3, 4, -1], [5])],
            [0],
            [5],
        ),
        graph([number, image, ((), kinds.INT32, end), ((), kinds.BOOL, 0)], [("LESS", [0, 2], [3])], [0, 1], [3]),
        graph([number, image, ((), kinds.INT32, one), number], [("ADD", [0, 2], [3])], [0, 1], [3, 1]),
    ]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


OPERATORS = {
    "WHILE": "WhileOptions",
    "LESS": "LessOptions",
    "ADD": "AddOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
}
