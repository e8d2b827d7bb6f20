"""Reads TFLite Metadata of an untrusted .tflite: the network's input and outputs, author and licence."""

import struct
from dataclasses import dataclass

from edgefer.tflite.metadata import FIELDS, IDENTIFIER, IMAGE, NORMALIZATION

LABELS = 2  # the type of an associated file with labels
MAX_READ = 10_000  # items of all lists
MAX_ITEMS, MAX_TEXT = 1000, 1000  # of a list, and bytes: anything longer is not a classifier's metadata


@dataclass(frozen=True, kw_only=True)
class Described:
    """The metadata of the network's first input, its number of outputs, author and licence.

    author, license: untrusted text, "" if absent. inputs, outputs: their numbers, None if the network is not described.
    content, color: of the input, None if absent. files: of labels. parser: its version, None if absent. normalizations:
    means and standard deviations.
    """

    author: str
    license: str
    inputs: int | None
    outputs: int | None
    content: int | None
    color: int | None
    files: tuple[str, ...]
    parser: str | None
    normalizations: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]


def read_description(content: bytes) -> Described:
    """Parse TFLite Metadata; ValueError if it is invalid or damaged."""
    try:
        return _read(content)
    except (IndexError, struct.error, OverflowError, TypeError) as error:
        raise ValueError(f"its parts point outside of it ({error})") from None


def _read(content: bytes) -> Described:
    if content[4:8] != IDENTIFIER:
        raise ValueError("it does not begin as TFLite metadata")
    model = _Table(_Content(content), "ModelMetadata", struct.unpack_from("<I", content)[0])
    graphs = model.tables("subgraph_metadata", "SubGraphMetadata")
    inputs = graphs[0].tables("input_tensor_metadata", "TensorMetadata") if graphs else []
    outputs = graphs[0].tables("output_tensor_metadata", "TensorMetadata") if graphs else []
    kind = color = None
    normalizations = []
    for tensor in inputs[:1]:
        if box := tensor.table("content", "Content"):
            kind = box.byte("content_properties_type")
            properties = box.table("content_properties", "ImageProperties") if kind == int(IMAGE) else None
            color = properties.byte("color_space") if properties else None
        for unit in tensor.tables("process_units", "ProcessUnit"):
            options = unit.table("options", "NormalizationOptions")
            if options and unit.byte("options_type") == int(NORMALIZATION):
                normalizations.append((options.floats("mean"), options.floats("std")))
    files = (file for tensor in outputs for file in tensor.tables("associated_files", "AssociatedFile"))
    names = (file.text("name") for file in files if file.byte("type") == LABELS)
    return Described(
        author=model.text("author"),
        license=model.text("license"),
        inputs=len(inputs) if graphs else None,
        outputs=len(outputs) if graphs else None,
        content=kind,
        color=color,
        files=tuple(filter(None, names)),
        parser=model.text("min_parser_version") if model.has("min_parser_version") else None,
        normalizations=tuple(normalizations),
    )


class _Content:
    """The bytes of a flatbuffer, and how many more items may be read from it: lists may overlap, so that a list of 1000
    that are all one list of 1000 is a million items in few bytes."""

    def __init__(self, content: bytes):
        self.bytes, self.left = content, MAX_READ

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise ValueError("its lists are longer than they may be")


class _Table:
    """One table of a flatbuffer, read with Python's struct, which raises at reads beyond the end."""

    def __init__(self, whole: _Content, kind: str, place: int):
        self.whole, self.content, self.kind, self.place = whole, whole.bytes, kind, place
        content = whole.bytes
        self.fields = place - struct.unpack_from("<i", content, place)[0]
        if self.fields < 0:
            raise ValueError("a table points before the file")
        self.size = struct.unpack_from("<H", content, self.fields)[0]

    def _field(self, name: str) -> int:
        """The offset of a field, 0 if the table does not have it."""
        at = 4 + 2 * FIELDS[self.kind].index(name)
        offset = struct.unpack_from("<H", self.content, self.fields + at)[0] if at + 2 <= self.size else 0
        return self.place + offset if offset else 0

    def _target(self, name: str) -> int:
        field = self._field(name)
        return field + struct.unpack_from("<I", self.content, field)[0] if field else 0

    def has(self, name: str) -> bool:
        return bool(self._field(name))

    def byte(self, name: str) -> int:
        """A field of one byte, 0 if absent."""
        field = self._field(name)
        return self.content[field] if field else 0

    def table(self, name: str, kind: str) -> "_Table | None":
        target = self._target(name)
        return _Table(self.whole, kind, target) if target else None

    def _vector(self, name: str) -> tuple[int, int]:
        """The offset of a vector's items and their number, of 4 bytes each."""
        target = self._target(name)
        if not target:
            return 0, 0
        count = struct.unpack_from("<I", self.content, target)[0]
        if count > MAX_ITEMS or target + 4 + 4 * count > len(self.content):
            raise ValueError("a list is longer than it may be")
        self.whole.take(count)
        return target + 4, count

    def tables(self, name: str, kind: str) -> list["_Table"]:
        begin, count = self._vector(name)
        places = (begin + 4 * number for number in range(count))
        return [_Table(self.whole, kind, at + struct.unpack_from("<I", self.content, at)[0]) for at in places]

    def text(self, name: str) -> str:
        """A text, "" if absent."""
        target = self._target(name)
        if not target:
            return ""
        size = struct.unpack_from("<I", self.content, target)[0]
        return self.content[target + 4 : target + 4 + min(size, MAX_TEXT)].decode(errors="replace")

    def floats(self, name: str) -> tuple[float, ...]:
        begin, count = self._vector(name)
        return struct.unpack_from(f"<{count}f", self.content, begin) if count else ()
