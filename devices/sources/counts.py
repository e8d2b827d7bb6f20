"""Counts the frames that a container holds but a whole video does not show: outside of an MP4's edit list, dropped in an
AVI."""

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

MAX_INDEX = 64 << 20  # bytes of an MP4's index: about 4 million frames
MAX_CHUNKS = 1_000_000  # of an AVI, and boxes of an MP4 around its index
NOT_TRIMMED = -1  # media time of an empty edit, a pause before the first frame
TO_ITS_END = 0  # duration of an edit
VIDEO_CHUNK = re.compile(rb"[0-9]{2}d[bc]")


def frames_not_shown(file: Path) -> int:
    """0 for any other container, and for one that cannot be parsed."""
    try:
        with file.open("rb") as opened:
            size, head = file.stat().st_size, opened.read(8)
            if head[4:8] == b"ftyp":
                return _outside_of_edits(_index(opened, size))
            return _dropped_chunks(opened, size) if head[:4] == b"RIFF" else 0
    except (OSError, struct.error, KeyError, IndexError):
        return 0


def _index(opened: BinaryIO, end: int) -> memoryview:
    """The content of `moov` (ISO 14496-12); KeyError if there is none."""
    at = 0
    for _ in range(MAX_CHUNKS):
        if at >= end:
            break
        opened.seek(at)
        size, kind, long_size = struct.unpack(">I4sQ", opened.read(16))
        head, size = (16, long_size) if size == 1 else (8, size)
        if kind == b"moov" and head <= size <= MAX_INDEX:
            opened.seek(at + head)
            return memoryview(opened.read(size - head))
        if size < head:
            break
        at += size
    raise KeyError("moov")


def _boxes(content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    at = 0
    while at + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        if size < 8:
            return
        yield kind, content[at + 8 : at + size]
        at += size


def _box(content: memoryview, *path: bytes) -> memoryview:
    """The first box at a path; KeyError if it is missing."""
    for name in path:
        content = next((inner for kind, inner in _boxes(content) if kind == name), memoryview(b""))
        if not content:
            raise KeyError(name)
    return content


def _outside_of_edits(moov: memoryview) -> int:
    """By decoding times, which precede the times of display by the first frame's delay, or a few frames."""
    tracks = (inner for kind, inner in _boxes(moov) if kind == b"trak")
    video = next((one for one in tracks if _box(one, b"mdia", b"hdlr")[8:12] == b"vide"), None)
    if video is None:
        return 0
    movie_scale, scale = _timescale(_box(moov, b"mvhd")), _timescale(_box(video, b"mdia", b"mdhd"))
    counts, steps = _rows(_box(video, b"mdia", b"minf", b"stbl", b"stts"), ">u4", ">u4")
    table = _box(video, b"edts", b"elst")
    layout = (">u8", ">i8", ">i4") if table[0] == 1 else (">u4", ">i4", ">i4")
    durations, starts, _ = _rows(table, *layout)  # in the movie's units, and in the media's
    if not len(starts):
        return 0
    ends = np.where(durations == TO_ITS_END, np.inf, starts + durations * (scale / movie_scale))
    times = np.stack([starts, ends])[:, starts != NOT_TRIMMED] - _delay(video)
    before = _frames_before(np.maximum(times, 0), counts, steps)
    return max(0, int(counts.sum() - (before[1] - before[0]).sum()))


def _rows(table: memoryview, *layout: str) -> list[np.ndarray]:
    """The columns of a table of numbers of these types, float64 [n] each."""
    row = np.dtype(",".join(layout))
    content = table[8 : 8 + row.itemsize * _entries(table)]
    rows = np.frombuffer(content[: len(content) // row.itemsize * row.itemsize], row)
    return [rows[name].astype(float) for name in row.names or ()]


def _frames_before(times: np.ndarray, counts: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """How many frames begin before each time, at least 0. counts: numbers of frames that last `steps` each."""
    until, total = np.cumsum(counts * steps), np.cumsum(counts)
    runs = np.searchsorted(until, times)  # the first run that ends no earlier
    inside = np.minimum(runs, len(counts) - 1)
    begun = np.ceil((times - (until - counts * steps)[inside]) / np.maximum(steps[inside], 1))
    return np.where(runs < len(counts), (total - counts)[inside] + begun, total[-1])


def _delay(video: memoryview) -> int:
    """From decoding to display of the first frame; more than 0 where frames are stored in another order."""
    try:
        table = _box(video, b"mdia", b"minf", b"stbl", b"ctts")
        return struct.unpack_from(">i", table, 12)[0] if _entries(table) else 0
    except KeyError:
        return 0


def _timescale(header: memoryview) -> int:
    """Units per second, from `mvhd` or `mdhd`; KeyError for none."""
    (scale,) = struct.unpack_from(">I", header, 20 if header[0] == 1 else 12)
    if not scale:
        raise KeyError("timescale")
    return scale


def _entries(table: memoryview) -> int:
    return struct.unpack_from(">I", table, 4)[0]


def _dropped_chunks(opened: BinaryIO, end: int) -> int:
    """The video chunks of length 0 in an AVI, up to damage: players repeat the frame before it."""
    at = dropped = 0
    for _ in range(MAX_CHUNKS):
        opened.seek(at)
        head = opened.read(8)
        if at >= end or len(head) < 8:
            break
        kind, size = struct.unpack("<4sI", head)
        if not kind.isascii() or not kind.decode().isprintable():
            break
        dropped += size == 0 and VIDEO_CHUNK.fullmatch(kind) is not None
        at += 12 if kind in (b"RIFF", b"LIST") else 8 + size + size % 2
    return dropped
