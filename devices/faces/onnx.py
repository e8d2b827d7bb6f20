"""Reads the layers of a small ONNX file without the onnx package. The file is untrusted: reading always gives a Graph or a
SourceError, in time and memory bounded by its size."""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgefer.errors import SourceError

MAX_BYTES = 16 << 20
MAX_NODES = 2000
FLOAT, INT64 = 1, 7  # TensorProto.DataType
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers


@dataclass(frozen=True)
class Node:
    """One operator. attributes: ints, floats, bytes, or tuples of ints, by name."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict


@dataclass(frozen=True)
class Graph:
    """The operators in the order of the file, and the constants by name."""

    nodes: tuple[Node, ...]
    constants: dict[str, np.ndarray] = field(repr=False)


class _Damaged(Exception):
    pass


def read_onnx(content: bytes, name: str) -> Graph:
    """The graph in an ONNX file's bytes; `name` is for the message of the SourceError."""
    if len(content) > MAX_BYTES:
        raise SourceError(f"{name} has {len(content):,} bytes; a face detector's .onnx has at most {MAX_BYTES:,}.")
    try:
        graphs = [value for number, wire, value in _fields(memoryview(content)) if (number, wire) == (7, LENGTH)]
        if len(graphs) != 1:
            raise _Damaged("it has no graph")
        return _graph(graphs[0])
    except (_Damaged, struct.error, UnicodeDecodeError, ValueError, OverflowError) as error:
        raise SourceError(f"{name} cannot be read as an ONNX network: {error}.") from None


def _graph(content: memoryview) -> Graph:
    nodes, constants = [], {}
    for number, wire, value in _fields(content):
        if wire != LENGTH:
            continue
        if number == 1:
            nodes.append(_node(value))
            if len(nodes) > MAX_NODES:
                raise _Damaged(f"it has more than {MAX_NODES} operators")
        elif number == 5:
            key, tensor = _tensor(value)
            constants[key] = tensor
    return Graph(tuple(nodes), constants)


def _node(content: memoryview) -> Node:
    inputs, outputs, kind, attributes = [], [], "", {}
    for number, wire, value in _fields(content):
        if wire != LENGTH:
            continue
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            kind = _text(value)
        elif number == 5:
            key, attribute = _attribute(value)
            attributes[key] = attribute
    return Node(kind, tuple(inputs), tuple(outputs), attributes)


def _attribute(content: memoryview):
    key, one, many = "", None, []
    for number, wire, value in _fields(content):
        if number == 1 and wire == LENGTH:
            key = _text(value)
        elif number == 2 and wire == FIXED32:
            one = struct.unpack("<f", value)[0]
        elif number == 3 and wire == VARINT:
            one = _signed(value)
        elif number == 4 and wire == LENGTH:
            one = bytes(value)
        elif number == 8:
            many += [_signed(value)] if wire == VARINT else [_signed(item) for item in _packed(value)]
    return key, tuple(many) if many else one


def _tensor(content: memoryview) -> tuple[str, np.ndarray]:
    """A constant; empty if its type is not one of weights."""
    dims: list[int] = []
    key, kind, raw, floats = "", 0, b"", []
    for number, wire, value in _fields(content):
        if number == 1:
            dims += [value] if wire == VARINT else list(_packed(value))
        elif number == 2 and wire == VARINT:
            kind = value
        elif number == 4 and wire in (LENGTH, FIXED32):
            floats.append(bytes(value))
        elif number == 8 and wire == LENGTH:
            key = _text(value)
        elif number == 9 and wire == LENGTH:
            raw = bytes(value)
    if kind not in (FLOAT, INT64):
        return key, np.empty(0, np.float32)
    data = np.frombuffer(raw or b"".join(floats), "<f4" if kind == FLOAT else "<i8")
    if len(dims) > 8 or data.size != math.prod(dims):
        raise _Damaged(f"the constant {key!r:.60} has the shape {dims} but holds {data.size:,} numbers")
    if kind == FLOAT and not np.isfinite(data).all():
        raise _Damaged(f"the constant {key!r:.60} holds numbers that are not finite")
    return key, data.reshape(dims)


def _fields(content: memoryview) -> Iterator[tuple[int, int, Any]]:
    """(number, wire type, value) of each field of a message: integers for varints, else the bytes."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        wire = key & 7
        if wire == VARINT:
            value, at = _varint(content, at)
            yield key >> 3, wire, value
            continue
        if wire == LENGTH:
            size, at = _varint(content, at)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise _Damaged(f"it has a field of the unknown type {wire}")
        if size > len(content) - at:
            raise _Damaged("it ends too early")
        yield key >> 3, wire, content[at : at + size]
        at += size


def _packed(content: memoryview) -> Iterator[int]:
    at = 0
    while at < len(content):
        value, at = _varint(content, at)
        yield value


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            raise _Damaged("it ends too early")
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise _Damaged("it has a number of more than 64 bits")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _text(content) -> str:
    if len(content) > 1000:
        raise _Damaged("it has a name of more than 1000 bytes")
    return bytes(content).decode()
