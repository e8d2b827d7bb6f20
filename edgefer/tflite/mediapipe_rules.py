"""What of a network MediaPipe's ImageClassifier would refuse: its ends, and the TFLite Metadata that says what they mean.

The rules were measured on MediaPipe 1.2's ImageClassifier.create_from_options.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from edgefer.tflite.findings import Finding
from edgefer.tflite.flatbuffer import Model, Tensor
from edgefer.tflite.metadata import FIELDS, IDENTIFIER, IMAGE, NORMALIZATION, RGB

DTYPES = ("UINT8", "FLOAT32")
WRITE = "write metadata again, as edgefer convert --mediapipe does"


@dataclass(frozen=True, kw_only=True)
class Described:
    """What the metadata says of the network's first input and of how many outputs. means, stds: of every normalization."""

    inputs: int
    outputs: int
    content: int | None
    color: int | None
    normalizations: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]


def mediapipe(model: Model, target: str) -> Iterator[Finding]:
    """Every finding for MediaPipe's ImageClassifier."""
    yield from _ends(model)
    if not len(model.description):
        yield from _no_metadata(model)
        return
    try:
        described = read_description(bytes(model.description))
    except (ValueError, IndexError, struct.error, OverflowError, TypeError):
        yield _error("mediapipe-metadata", "its TFLite metadata cannot be read")
        return
    yield from _description(model, described)


def _error(rule: str, what: str, hint: str = WRITE, tensor: Tensor | None = None) -> Finding:
    return Finding(severity="error", rule=rule, what=what, next=hint, tensor=tensor.name if tensor else "")


def _ends(model: Model) -> Iterator[Finding]:
    inputs, outputs = model.main.inputs, model.main.outputs
    if len(inputs) != 1:
        yield _error(
            "mediapipe-input", f"it wants one input, an image; the network has {len(inputs)}", "give it one input"
        )
    for tensor in inputs[:1]:
        if len(tensor.shape) != 4 or tensor.shape[3] != 3:
            what = f"it wants an RGB input [1, height, width, 3]; this one is {tensor.shape}"
            yield _error("mediapipe-input", what, "train with an RGB input", tensor)
    for tensor in (*inputs, *outputs):
        if tensor.dtype not in DTYPES:
            what = f"it takes and gives uint8 or float32; this tensor is {tensor.dtype}"
            yield _error("mediapipe-dtype", what, "convert with uint8 input and output", tensor)
    for tensor in outputs:
        if len(tensor.shape) not in (2, 4) or any(size != 1 for size in tensor.shape[:-1]):
            what = f"it wants answers [1, classes]; this tensor is {tensor.shape}"
            yield _error("mediapipe-output", what, "end it with one score per class", tensor)


def _no_metadata(model: Model) -> Iterator[Finding]:
    for tensor in model.main.inputs[:1]:
        if tensor.dtype == "FLOAT32":
            what = "a float input needs NormalizationOptions in TFLite metadata, and the file has none"
            yield _error("mediapipe-metadata", what, "write metadata, or convert with uint8 input", tensor)
    if len(model.main.outputs) != 1:
        what = f"without metadata it takes one output; the network has {len(model.main.outputs)}"
        yield _error("mediapipe-output", what, "give it one output")
    yield Finding(
        severity="warning",
        rule="mediapipe-labels",
        what="the file has no TFLite metadata, so that its answers are numbers without names",
        next="write metadata with the labels",
    )


def _description(model: Model, described: Described) -> Iterator[Finding]:
    for name, stated, there in (
        ("input", described.inputs, len(model.main.inputs)),
        ("output", described.outputs, len(model.main.outputs)),
    ):
        if stated not in (0, there):
            yield _error("mediapipe-metadata", f"its metadata is about {stated} {name}s, the network has {there}")
    if described.content not in (None, int(IMAGE)):
        yield _error("mediapipe-metadata", "its metadata says that the input is no image")
    elif described.color is not None and described.color != int(RGB):
        yield _error("mediapipe-metadata", "its metadata says that the input is not RGB")
    if len(described.normalizations) > 1:
        yield _error(
            "mediapipe-normalization", f"its metadata has {len(described.normalizations)} normalizations, not one"
        )
    floats = any(tensor.dtype == "FLOAT32" for tensor in model.main.inputs[:1])
    if floats and not described.normalizations:
        yield _error("mediapipe-normalization", "a float input needs NormalizationOptions, and its metadata has none")
    for means, stds in described.normalizations[:1]:
        if len(means) != len(stds) or not means:
            yield _error(
                "mediapipe-normalization", f"its normalization has {len(means)} means and {len(stds)} deviations"
            )
        elif floats and (len(set(means)) > 1 or len(set(stds)) > 1):
            yield _error("mediapipe-normalization", "its normalization differs by channel, which it does not take")
        elif floats and not all(abs(std) > 0 for std in stds):  # a NaN too
            yield _error("mediapipe-normalization", f"its normalization divides by {stds[0]:g}")


def read_description(content: bytes) -> Described:
    """The parts of TFLite Metadata that MediaPipe minds. Raises ValueError, IndexError or struct.error for what is damaged."""
    if content[4:8] != IDENTIFIER:
        raise ValueError("it does not begin as TFLite metadata")
    model = _Table(content, "ModelMetadata", struct.unpack_from("<I", content)[0])
    graphs = model.tables("subgraph_metadata", "SubGraphMetadata")
    inputs = graphs[0].tables("input_tensor_metadata", "TensorMetadata") if graphs else []
    outputs = graphs[0].tables("output_tensor_metadata", "TensorMetadata") if graphs else []
    content_type = color = None
    normalizations = []
    if inputs:
        if box := inputs[0].table("content", "Content"):
            content_type = box.byte("content_properties_type")
            properties = box.table("content_properties", "ImageProperties") if content_type == int(IMAGE) else None
            color = properties.byte("color_space") if properties else None
        for unit in inputs[0].tables("process_units", "ProcessUnit"):
            if unit.byte("options_type") == int(NORMALIZATION) and (
                options := unit.table("options", "NormalizationOptions")
            ):
                normalizations.append((options.floats("mean"), options.floats("std")))
    return Described(
        inputs=len(inputs),
        outputs=len(outputs),
        content=content_type or None,
        color=color or None,
        normalizations=tuple(normalizations),
    )


class _Table:
    """One table of a flatbuffer, read with Python's struct, which refuses to read beyond the end."""

    def __init__(self, content: bytes, kind: str, place: int):
        self.content, self.kind, self.place = content, kind, place
        self.fields = place - struct.unpack_from("<i", content, place)[0]
        if self.fields < 0:
            raise ValueError("a table points before the file")
        self.size = struct.unpack_from("<H", content, self.fields)[0]

    def _field(self, name: str) -> int:
        """Where a field lies, 0 where the table has none."""
        at = 4 + 2 * FIELDS[self.kind].index(name)
        offset = struct.unpack_from("<H", self.content, self.fields + at)[0] if at + 2 <= self.size else 0
        return self.place + offset if offset else 0

    def _target(self, name: str) -> int:
        field = self._field(name)
        return field + struct.unpack_from("<I", self.content, field)[0] if field else 0

    def byte(self, name: str) -> int:
        """A field of one byte, 0 where there is none."""
        field = self._field(name)
        return self.content[field] if field else 0

    def table(self, name: str, kind: str) -> "_Table | None":
        target = self._target(name)
        return _Table(self.content, kind, target) if target else None

    def _vector(self, name: str) -> tuple[int, int]:
        """Where a vector's items lie and how many of 4 bytes there are."""
        target = self._target(name)
        if not target:
            return 0, 0
        count = struct.unpack_from("<I", self.content, target)[0]
        if target + 4 + 4 * count > len(self.content):
            raise ValueError("a list is longer than the file")
        return target + 4, count

    def tables(self, name: str, kind: str) -> list["_Table"]:
        begin, count = self._vector(name)
        places = (begin + 4 * number for number in range(count))
        return [_Table(self.content, kind, at + struct.unpack_from("<I", self.content, at)[0]) for at in places]

    def floats(self, name: str) -> tuple[float, ...]:
        begin, count = self._vector(name)
        return struct.unpack_from(f"<{count}f", self.content, begin) if count else ()
