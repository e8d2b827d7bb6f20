"""Reads named arrays from an untrusted .npz file, with all sizes bounded before anything is unpacked.

numpy.load would trust the sizes in the file, unpack 3 GB from 3 MB, and unpickle if allowed.
"""

import io
import math
import re
import sys
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

MAX_ENTRIES = 256
MAX_DIRECTORY = 64 << 10  # bytes of the zip's directory
END, END_SIZE = b"PK\x05\x06", 22  # the zip's last record, without a comment
ZIP64, ZIP64_SIZE = b"PK\x06\x07", 20
MAGIC = b"\x93NUMPY"
# Exactly the header that numpy writes before an array: no objects, no records, no expression to evaluate.
HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z]\d{1,4})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,10}, ?){0,7}(?:\d{1,10})?)\), \} *\n"
)
MAX_HEADER = 1024


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """The requirements for an array: its dtypes as numpy writes them ("|u1"), and its shape.

    shape: the size of each dimension, or (most,): between 1 and that. "<U": texts of up to `max_chars` characters.
    """

    dtypes: tuple[str, ...]
    shape: tuple[int | tuple[int], ...]
    max_chars: int = 0

    def problem(self, descr: str, shape: tuple[int, ...]) -> str:
        """What is wrong with an array of this dtype and shape, or ""."""
        kind = descr.rstrip("0123456789") if self.max_chars else descr
        if kind not in self.dtypes or (self.max_chars and not 0 < int(descr[len(kind) :]) <= self.max_chars):
            return f"has the type {descr}, not {' or '.join(self.dtypes)}" + (
                f" of up to {self.max_chars}" if self.max_chars else ""
            )
        fits = len(shape) == len(self.shape) and all(
            size == wanted if isinstance(wanted, int) else 1 <= size <= wanted[0]
            for size, wanted in zip(shape, self.shape, strict=True)
        )
        wanted = tuple(size if isinstance(size, int) else f"1..{size[0]}" for size in self.shape)
        return "" if fits else f"has the shape {shape}, not ({', '.join(map(str, wanted))})"


def read_arrays(
    content: bytes, wanted: Mapping[str, ArraySpec | tuple[ArraySpec, ...]], max_bytes: int
) -> dict[str, np.ndarray]:
    """The `wanted` arrays in the .npz, by name, each matching one of its specs; others are not read.

    max_bytes: limit of their total size in memory. Raises ValueError, with the array's name, for anything invalid.
    """
    check_end(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {}
            for member in archive.infolist():
                if member.filename in members:
                    raise ValueError(f"it holds {member.filename!r:.60} twice")
                members[member.filename] = member
            arrays: dict[str, np.ndarray] = {}
            for name, spec in wanted.items():
                if f"{name}.npy" in members:
                    arrays[name] = _read_array(archive, members[f"{name}.npy"], name, spec, max_bytes)
                    max_bytes -= arrays[name].nbytes
            return arrays
    except (
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        UnicodeError,
    ) as error:
        raise ValueError(f"it is a damaged .npz: {error}") from None


def check_end(content: bytes) -> None:
    """ValueError unless the zip's directory is bounded: zipfile allocates a record for each entry."""
    end = content[-END_SIZE:]
    if end[:4] != END or content[-END_SIZE - ZIP64_SIZE :][:4] == ZIP64:
        raise ValueError("it does not end as a zip does")
    entries, directory = int.from_bytes(end[10:12], "little"), int.from_bytes(end[12:16], "little")
    if entries > MAX_ENTRIES or directory > MAX_DIRECTORY:
        raise ValueError(f"it has {entries:,} entries in a directory of {directory:,} bytes: too many")


def _read_array(
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    name: str,
    specs: ArraySpec | tuple[ArraySpec, ...],
    max_bytes: int,
) -> np.ndarray:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is packed in a way that numpy does not use")
    with archive.open(member) as file:
        begin = file.read(10)
        length = int.from_bytes(begin[8:10], "little")
        header = (
            HEADER.fullmatch(file.read(length)) if begin[:8] == MAGIC + b"\x01\x00" and length <= MAX_HEADER else None
        )
        if header is None:
            raise ValueError(f"{name} does not begin as an array of numbers does")
        descr, shape = header[1].decode(), tuple(int(size) for size in header[3].split(b",") if size.strip())
        problems = [one.problem(descr, shape) for one in (specs if isinstance(specs, tuple) else (specs,))]
        if all(problems):
            raise ValueError(f"{name} {problems[0]}")
        dtype = np.dtype(descr)
        count = math.prod(shape)
        if count * dtype.itemsize > max_bytes:
            raise ValueError(f"{name} is too large: {count * dtype.itemsize:,} bytes")
        if member.file_size != len(begin) + length + count * dtype.itemsize:
            raise ValueError(f"{name} has {member.file_size:,} bytes, which is not what its shape {shape} takes")
        data = file.read(count * dtype.itemsize)
        if len(data) != count * dtype.itemsize or file.read(1):  # reading past the end verifies the checksum
            raise ValueError(f"{name} ends early")
    if dtype.kind == "U" and (np.frombuffer(data, f"{dtype.byteorder}u4") > sys.maxunicode).any():
        raise ValueError(f"{name} holds a number that is not a character")  # numpy would raise a SystemError
    array = np.frombuffer(data, dtype)
    return array.reshape(shape[::-1]).T if header[2] == b"True" else array.reshape(shape)
