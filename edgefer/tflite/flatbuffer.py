"""Parses the network in a .tflite file, without TensorFlow and without running it.

The file is untrusted: parsing always gives a Model or an InputError, in time linear in its size.
"""

import io
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

from edgefer.bundle import EDGETPU_OPERATOR
from edgefer.errors import InputError
from edgefer.npz import check_end

IDENTIFIER = b"TFL3"
MAX_RANK = 64  # of a tensor, as in numpy; operators support 8 at most
T = TypeVar("T")
# The schema's names of networks' data types.
INTEGER_TYPES = ("INT8", "UINT8", "INT16", "INT4")
FLOAT_TYPES = ("FLOAT32", "FLOAT16", "BFLOAT16", "FLOAT64")
CONVERTING = ("QUANTIZE", "DEQUANTIZE")  # operators between float and integers, which compute nothing else
# Operators whose options are read, with the schema's tables of them.
OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "DIV": "DivOptions",
    "MEAN": "ReducerOptions",
    "SOFTMAX": "SoftmaxOptions",
    "RESHAPE": "ReshapeOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
}
STRIDED = ("CONV_2D", "DEPTHWISE_CONV_2D", "AVERAGE_POOL_2D", "MAX_POOL_2D", "TRANSPOSE_CONV")


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor: `dtype` is the schema's name (INT8, FLOAT32), `signature` the shape with -1 where it is dynamic."""

    index: int
    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    dtype: str
    scales: int  # 0: not quantized, 1: per tensor, more: per channel
    steps: tuple[float, ...] = ()  # those scales
    zeros: tuple[int, ...] = ()  # the zero points
    axis: int = 0  # the dimension of the channels
    sparse: bool = False
    variable: bool = False  # a state that persists between runs
    data: memoryview = field(repr=False, compare=False)  # of a constant; empty if computed

    @property
    def constant(self) -> bool:
        return len(self.data) > 0

    @property
    def zero(self) -> int:
        """The zero point of a tensor with one scale, 0 if the file states none."""
        return self.zeros[0] if self.zeros else 0

    @property
    def dynamic(self) -> bool:
        return any(size < 0 for size in self.signature)


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operator in execution order: `name` is the schema's (CONV_2D), or a custom operator's."""

    index: int
    name: str
    version: int
    custom: bool
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    shifted: bool = False  # an omitted optional input precedes a given one, which is not in its usual place
    fused_activation: str = "NONE"
    dilation: tuple[int, int] = (1, 1)  # height, width
    strides: tuple[int, int] = (1, 1)  # height, width
    padding: str = ""  # "SAME" or "VALID"
    window: tuple[int, int] = (0, 0)  # of a pooling: height, width
    depth_multiplier: int = 0  # of a DEPTHWISE_CONV_2D
    shuffled_weights: bool = False
    keeps_shape: bool = False  # keep_num_dims of a FULLY_CONNECTED, keep_dims of a MEAN
    beta: float = 0.0  # of a SOFTMAX: what it multiplies its input by
    new_shape: tuple[int, ...] | None = None  # of a RESHAPE that has it in its options
    slice_masks: tuple[int, int] = (0, 0)  # of a STRIDED_SLICE: ellipsis, new axis

    @property
    def activations(self) -> tuple[Tensor, ...]:
        """Its input and output tensors, without constants."""
        return tuple(tensor for tensor in (*self.inputs, *self.outputs) if not tensor.constant)


@dataclass(frozen=True, kw_only=True)
class Subgraph:
    """One graph of a model; the first is the network, others are bodies of control flow."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A .tflite file: `version` of its schema, `min_runtime_version` "" if the converter wrote none, `metadata` the names
    of its entries, `description` the content of TFLITE_METADATA, `files` the names of those packed after the network."""

    size: int
    version: int
    subgraphs: tuple[Subgraph, ...]
    min_runtime_version: str
    metadata: tuple[str, ...]
    description: memoryview = field(repr=False, compare=False)
    files: tuple[str, ...] = ()

    @property
    def main(self) -> Subgraph:
        return self.subgraphs[0]

    @property
    def operators(self) -> tuple[Operator, ...]:
        return tuple(operator for subgraph in self.subgraphs for operator in subgraph.operators)


def quantization(model: Model) -> str:
    """The network's arithmetic: "int8", "int16x8", "mixed", "dynamic-range", "float16", "float32"."""
    computing = _computing(model)
    kinds = {arithmetic(operator) for operator in computing}
    if "integer" in kinds:
        wide = any(tensor.dtype == "INT16" for operator in computing for tensor in operator.activations)
        return "mixed" if "float" in kinds else "int16x8" if wide else "int8"
    constants = {tensor.dtype for operator in model.operators for tensor in operator.inputs if tensor.constant}
    if constants & {"INT8", "INT4"}:
        return "dynamic-range"
    return "float16" if "FLOAT16" in constants else "float32"


def float_operators(model: Model) -> list[Operator]:
    """The operators that compute in float."""
    return [operator for operator in _computing(model) if arithmetic(operator) == "float"]


def _computing(model: Model) -> list[Operator]:
    return [operator for operator in model.operators if operator.name not in CONVERTING]


def compiled(model: Model) -> bool:
    """Whether edgetpu_compiler made this file."""
    return any(operator.custom and operator.name == EDGETPU_OPERATOR for operator in model.operators)


def ends(model: Model) -> list[list[tuple]]:
    """What it takes and gives: the shape, type and quantization of its inputs and of its outputs, in no order."""
    both = (model.main.inputs, model.main.outputs)
    return [sorted((one.shape, one.dtype, one.steps, one.zeros) for one in some) for some in both]


def parameter_bytes(model: Model) -> int:
    """The bytes of all constants, each buffer once."""
    constants = {id(t.data): len(t.data) for op in model.operators for t in op.inputs if t.constant}
    return sum(constants.values())


def arithmetic(operator: Operator) -> str:
    """ "float" or "integer" by the types of an operator's inputs and outputs; "" if neither, as for shapes."""
    dtypes = {tensor.dtype for tensor in operator.activations}
    if dtypes & set(FLOAT_TYPES):
        return "float"
    return "integer" if dtypes & set(INTEGER_TYPES) else ""


def read_model(content: bytes, where: str) -> Model:
    """The network in the bytes of a .tflite file; InputError, naming the file `where`, if it is not one or damaged."""
    if content[4:8] != IDENTIFIER:
        raise InputError(f"{where} is not a .tflite file: bytes 4 to 8 are {content[4:8]!r}, not {IDENTIFIER!r}.")
    try:
        return _Reader(content).model()
    except (IndexError, ValueError) as error:
        reason = str(error)
    except (struct.error, TypeError, OverflowError):  # raised by the schema's accessors for invalid offsets
        reason = "its parts point outside the file"
    raise InputError(f"{where} is a damaged .tflite file ({reason}): copy or convert it again.")


class _Reader:
    """Walks the flatbuffer with the schema's generated accessors, limiting what it reads by the file's size.

    The accessors check nothing: with a corrupt length they read on until Python's struct raises, and vectors may overlap,
    so that n of them with n elements each take n * n steps. A valid file holds fewer elements (4 bytes each) and
    characters than it has bytes.
    """

    def __init__(self, content: bytes):
        from ai_edge_litert import schema_py_generated

        self.schema = schema_py_generated
        self.content = content
        self.budget = len(content)

    def take(self, length: int) -> int:
        """Count `length` elements as read; ValueError once there are more than the file can hold."""
        self.budget -= length
        if length < 0 or self.budget < 0:
            raise ValueError(f"a length of {length} does not fit into {len(self.content)} bytes")
        return length

    def each(self, length: int, item: Callable[[int], T]) -> tuple[T, ...]:
        return tuple(item(number) for number in range(self.take(length)))

    def text(self, value: bytes | None) -> str:
        self.take(len(value or b""))
        return (value or b"").decode(errors="replace")

    def model(self) -> Model:
        root = self.schema.Model.GetRootAs(self.content, 0)
        self.buffers = self.each(root.BuffersLength(), lambda number: self.data(root.Buffers(number)))
        self.codes = self.each(root.OperatorCodesLength(), lambda number: self.code(root.OperatorCodes(number)))
        subgraphs = self.each(root.SubgraphsLength(), lambda number: self.subgraph(root.Subgraphs(number)))
        if not subgraphs:
            raise ValueError("it holds no network")
        metadata = self.each(root.MetadataLength(), lambda number: self.entry(root.Metadata(number)))
        version = dict(metadata).get("min_runtime_version", memoryview(b""))
        return Model(
            size=len(self.content),
            version=root.Version(),
            description=dict(metadata).get("TFLITE_METADATA", memoryview(b"")),
            subgraphs=subgraphs,
            min_runtime_version=bytes(version[:16]).rstrip(b"\0").decode(errors="replace"),
            metadata=tuple(name for name, _ in metadata),
            files=_packed_files(self.content),
        )

    def data(self, buffer) -> memoryview:
        # A file above 2 GB stores the bytes after the flatbuffer, by offset and size.
        if buffer.Offset() > 1 and buffer.Size():
            begin, end = buffer.Offset(), buffer.Offset() + buffer.Size()
            if end > len(self.content):
                raise ValueError(f"a constant ends at byte {end:,} of {len(self.content):,}")
            return memoryview(self.content)[begin:end]
        array = buffer.DataAsNumpy()
        return memoryview(b"") if isinstance(array, int) else array.data

    def code(self, code) -> tuple[str, int, bool]:
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # old files have only the deprecated field
        name = _name(self.schema.BuiltinOperator, number)
        if name == "CUSTOM":
            return self.text(code.CustomCode()), code.Version(), True
        return name, code.Version(), False

    def entry(self, entry) -> tuple[str, memoryview]:
        return self.text(entry.Name()), _at(self.buffers, entry.Buffer())

    def subgraph(self, graph) -> Subgraph:
        tensors = self.each(graph.TensorsLength(), lambda number: self.tensor(number, graph.Tensors(number)))
        return Subgraph(
            tensors=tensors,
            operators=self.each(
                graph.OperatorsLength(), lambda number: self.operator(number, graph.Operators(number), tensors)
            ),
            inputs=self.each(graph.InputsLength(), lambda number: _at(tensors, graph.Inputs(number))),
            outputs=self.each(graph.OutputsLength(), lambda number: _at(tensors, graph.Outputs(number))),
        )

    def tensor(self, index: int, tensor) -> Tensor:
        shape = self.each(tensor.ShapeLength(), tensor.Shape)
        if len(shape) > MAX_RANK:
            raise ValueError(f"a tensor has {len(shape):,} dimensions")
        signature = self.each(tensor.ShapeSignatureLength(), tensor.ShapeSignature) or shape
        quantization = tensor.Quantization()
        data = _at(self.buffers, tensor.Buffer())
        scales = self.take(quantization.ScaleLength()) if quantization else 0
        zeros = self.take(quantization.ZeroPointLength()) if quantization else 0
        return Tensor(
            index=index,
            name=self.text(tensor.Name()),
            shape=shape,
            signature=signature,
            dtype=_name(self.schema.TensorType, tensor.Type()),
            scales=scales,
            steps=tuple(quantization.Scale(number) for number in range(scales)),
            zeros=tuple(quantization.ZeroPoint(number) for number in range(zeros)),
            axis=quantization.QuantizedDimension() if quantization else 0,
            sparse=tensor.Sparsity() is not None,
            variable=tensor.IsVariable(),
            data=data,
        )

    def operator(self, index: int, operator, tensors: tuple[Tensor, ...]) -> Operator:
        name, version, custom = _at(self.codes, operator.OpcodeIndex())
        inputs = self.each(operator.InputsLength(), operator.Inputs)
        outputs = self.each(operator.OutputsLength(), operator.Outputs)
        return Operator(
            index=index,
            name=name,
            version=version,
            custom=custom,
            inputs=tuple(_at(tensors, number) for number in inputs if number != -1),  # -1: an omitted optional input
            outputs=tuple(_at(tensors, number) for number in outputs),
            shifted=-1 in inputs and any(number != -1 for number in inputs[inputs.index(-1) :]),
            **({} if custom else self.options(name, operator)),
        )

    def options(self, name: str, operator) -> dict:
        """The options of an operator that the checks need, by the names of Operator's fields."""
        if name not in OPTIONS:
            return {}
        table = operator.BuiltinOptions()
        if table is None or operator.BuiltinOptionsType() != getattr(self.schema.BuiltinOptions, OPTIONS[name]):
            # Runtimes ignore options of another operator, and take zeros where there are none.
            return {"strides": (0, 0), "dilation": (0, 0)} if name in STRIDED else {}
        options = getattr(self.schema, OPTIONS[name])()
        options.Init(table.Bytes, table.Pos)
        if name == "MEAN":
            return {"keeps_shape": options.KeepDims()}
        if name == "SOFTMAX":
            return {"beta": options.Beta()}
        if name == "RESHAPE":
            return {"new_shape": self.each(options.NewShapeLength(), options.NewShape)}
        if name == "STRIDED_SLICE":
            return {"slice_masks": (options.EllipsisMask(), options.NewAxisMask())}
        if name == "TRANSPOSE_CONV":
            return {"strides": (options.StrideH(), options.StrideW())}
        found: dict = {"fused_activation": _name(self.schema.ActivationFunctionType, options.FusedActivationFunction())}
        if name.endswith("2D"):
            found["strides"] = options.StrideH(), options.StrideW()
            found["padding"] = _name(self.schema.Padding, options.Padding())
        if name.endswith("CONV_2D"):
            found["dilation"] = options.DilationHFactor(), options.DilationWFactor()
        if name.endswith("POOL_2D"):
            found["window"] = options.FilterHeight(), options.FilterWidth()
        if name == "DEPTHWISE_CONV_2D":
            found["depth_multiplier"] = options.DepthMultiplier()
        if name == "FULLY_CONNECTED":
            found["shuffled_weights"] = options.WeightsFormat() != 0
            found["keeps_shape"] = options.KeepNumDims()
        return found


def _packed_files(content: bytes) -> tuple[str, ...]:
    """The names in the zip of metadata files at the end of the file; none if it is damaged."""
    try:
        check_end(content)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return tuple(archive.namelist())
    except (ValueError, zipfile.BadZipFile, NotImplementedError, OSError):
        return ()


def _name(enum: type, number: int) -> str:
    """The schema's name of a value; its number if it is newer than the schema."""
    return _names(enum).get(number, f"UNKNOWN_{number}")


@cache
def _names(enum: type) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


def _at(items: tuple[T, ...], number: int) -> T:
    if not 0 <= number < len(items):  # a negative index would count from the end
        raise IndexError(f"it refers to number {number} of {len(items)}")
    return items[number]
