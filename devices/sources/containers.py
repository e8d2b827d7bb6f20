"""Checks from the structure of a video's container whether the file is complete: decoders skip damage silently."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from edgefer.devices.sources.transport import PACKET, STAMPED, TransportCheck, packet_size

# RFC 8794, RFC 9559: an element is its ID, its size, and its content.
EBML, SEGMENT, CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
CLUSTER_TIME = 0xE7  # in milliseconds, unless the file has another scale, which video files do not have
ELEMENTS = {
    EBML, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1254C367, 0x1941A469, 0x1043A770, 0xEC, 0xBF,
    CLUSTER_TIME, 0xAB, 0xA7, 0xA3, 0xA0, 0xAF, 0x5854,
}  # fmt: skip
MAX_HEAD = 1 << 20  # bytes in which FFmpeg recognizes a list of files
ID3_HEAD = 10  # bytes (id3.org, ID3v2.4, 3.1)
LISTS = re.compile(rb"#EXTM3U|ffconcat version|^\r?c=IN |<MPD|<CompositionPlaylist", re.MULTILINE | re.IGNORECASE)
MAX_PARTS = 1_000_000  # about as many as a film of three hours with sound has
ASF, ASF_FILE = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


@dataclass(frozen=True, kw_only=True)
class Structure:
    """The state of a container. broken: truncated, overwritten, or with parts missing. counts: it states its number of
    frames, so damage that costs no frame does not matter. announces: its header states its length. ends: it marks its
    end; otherwise its end may be missing although nothing is broken. start_s: the time of its first frame, if its length
    counts from 0: that of a segment of a longer video. proven: it counts its parts, and each is there, whatever its length."""

    broken: bool = False
    counts: bool = False
    announces: bool = False
    ends: bool = True
    start_s: float = 0.0
    proven: bool = False


COUNTED, BROKEN, WHOLE, OPEN = Structure(counts=True), Structure(broken=True), Structure(), Structure(ends=False)


def examine(file: Path) -> Structure:
    """The structure of a video file: MP4, AVI, Matroska, WebM, MPEG-TS and -PS, Ogg, FLV, ASF; OPEN for any other."""
    try:
        with file.open("rb") as opened:
            size = file.stat().st_size
            head = opened.read(PACKET + STAMPED)
            opened.seek(0)
            if packet := packet_size(head):
                return BROKEN if TransportCheck().is_broken(opened, packet) else OPEN
            for (at, signature), check in CHECKS.items():
                if head[at : at + len(signature)] == signature:
                    return replace(check(opened, size), announces=check in ANNOUNCING)
    except (OSError, IndexError):  # it was truncated while being read
        return BROKEN
    return OPEN


def start_s(file: Path) -> float:
    """Structure.start_s alone, without examining containers that do not have it; 0 for a file that cannot be read."""
    try:
        with file.open("rb") as opened:
            head = opened.read(4)
            return _matroska(opened, file.stat().st_size).start_s if head == EBML.to_bytes(4) else 0.0
    except (OSError, IndexError):
        return 0.0


def names_others(file: Path) -> bool:
    """Whether it is a list of files or URLs that a decoder would open instead: HLS, FFmpeg's concat, SDP, DASH, IMF."""
    with file.open("rb") as opened:
        opened.seek(_id3_bytes(opened.read(ID3_HEAD)))  # FFmpeg skips such a tag before any format
        text, _, _ = opened.read(MAX_HEAD).partition(b"\0")  # which a list does not contain, and any video does
    return LISTS.search(text) is not None


def _id3_bytes(head: bytes) -> int:
    """The length of the ID3v2 tag that begins with `head`, 0 if it is none."""
    if not head.startswith(b"ID3") or len(head) < ID3_HEAD:
        return 0
    content = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    return ID3_HEAD + content + ID3_HEAD * bool(head[5] & 0x10)  # with a footer


def _matroska(opened: BinaryIO, end: int) -> Structure:
    at, known, start_ms = 0, False, -1
    for _ in range(MAX_PARTS):
        if at >= end:
            whole = WHOLE if known else OPEN
            return BROKEN if at > end else replace(whole, start_s=max(0, start_ms) / 1000)
        opened.seek(at)
        head = opened.read(12)
        id_bytes = 9 - head[0].bit_length()
        number, rest = int.from_bytes(head[:id_bytes]), head[id_bytes:]
        if id_bytes > 4 or not rest or number not in ELEMENTS | {SEGMENT, CLUSTER}:
            return BROKEN
        size_bytes = 9 - rest[0].bit_length()
        if size_bytes > min(8, len(rest)):
            return BROKEN
        mask = (1 << 7 * size_bytes) - 1
        size = int.from_bytes(rest[:size_bytes]) & mask
        at += id_bytes + size_bytes
        if number == SEGMENT and size != mask:
            if at + size > end:
                return BROKEN
            end, known = at + size, True  # anything after it is not part of it
        elif number not in (SEGMENT, CLUSTER):
            if number == CLUSTER_TIME and start_ms < 0:
                start_ms = int.from_bytes(rest[size_bytes : size_bytes + size])
            at += size
    return OPEN


def _mp4(opened: BinaryIO, end: int) -> Structure:
    """The index counts the frames, unless the file is fragmented (ISO 14496-12), with or without an index at the end."""
    at, kinds = 0, set()
    for _ in range(MAX_PARTS):
        if at >= end:
            break
        opened.seek(at)
        head = opened.read(16)
        size, kind = int.from_bytes(head[:4]), head[4:8]
        size = int.from_bytes(head[8:16]) if size == 1 else size or end - at
        if len(head) < 8 or size < 8 or not kind.isascii() or not kind.decode().isprintable() or at + size > end:
            return BROKEN if b"moof" in kinds else COUNTED
        kinds.add(kind)
        at += size
    return COUNTED if b"moof" not in kinds else WHOLE if b"mfra" in kinds else OPEN


def _program_stream(opened: BinaryIO, end: int) -> Structure:
    """ISO 13818-1, 2.5: a sequence of packs and packets, each with a start code, and an optional end code."""
    at = 0
    for _ in range(MAX_PARTS):
        opened.seek(at)
        head = opened.read(14)
        if at == end or head[:4] == b"\0\0\1\xb9":
            return OPEN if at == end else WHOLE
        if len(head) < 6 or head[:3] != b"\0\0\1" or head[3] < 0xB9:
            return BROKEN
        if head[3] == 0xBA and len(head) == 14:
            at += 14 + (head[13] & 7) if head[4] >> 6 == 1 else 12
        else:
            at += 6 + int.from_bytes(head[4:6])
        if at > end:
            return BROKEN
    return OPEN


def _ogg(opened: BinaryIO, end: int) -> Structure:
    """RFC 3533: numbered pages, the last of each stream marked."""
    at, pages, ended = 0, dict[bytes, int](), set[bytes]()
    for _ in range(MAX_PARTS):
        if at == end:
            return WHOLE if ended == set(pages) else BROKEN
        opened.seek(at)
        head = opened.read(27)
        stream, number = head[14:18], int.from_bytes(head[18:22], "little")
        if len(head) < 27 or head[:4] != b"OggS" or number != pages.get(stream, number - 1) + 1:
            return BROKEN
        pages[stream] = number
        if head[5] & 4:
            ended.add(stream)
        lengths = opened.read(head[26])
        at += 27 + head[26] + sum(lengths)
        if at > end:
            return BROKEN
    return OPEN


def _flv(opened: BinaryIO, end: int) -> Structure:
    """Tags, each followed by its length."""
    at = 13
    for _ in range(MAX_PARTS):
        if at == end:
            return OPEN
        opened.seek(at)
        size = 11 + int.from_bytes(opened.read(4)[1:])
        opened.seek(at + size)
        if int.from_bytes(opened.read(4)) != size:
            return BROKEN
        at += size + 4
    return OPEN


def _asf(opened: BinaryIO, end: int) -> Structure:
    """The header states the file's length, the number of packets and their size; each begins with a marker."""
    head = opened.read(min(end, 1 << 20))
    at = head.find(ASF_FILE)
    header = int.from_bytes(head[16:24], "little")
    if at < 0 or len(head) < at + 104 or header + 50 > end:
        return BROKEN
    size, packets = (int.from_bytes(head[at + n : at + n + 8], "little") for n in (40, 56))
    packet = int.from_bytes(head[at + 92 : at + 96], "little")
    if head[at + 88] & 1 or not packet:  # a broadcast: unknown when the header was written
        return OPEN
    if size > end or header + 50 + packets * packet > end:
        return BROKEN
    for number in range(min(packets, MAX_PARTS)):
        opened.seek(header + 50 + number * packet)
        if not opened.read(1)[0] & 0x80:
            return BROKEN
    return Structure(proven=packets <= MAX_PARTS)


CHECKS: dict[tuple[int, bytes], Callable[[BinaryIO, int], Structure]] = {
    (4, b"ftyp"): _mp4,
    (0, b"RIFF"): lambda opened, end: COUNTED,
    (0, EBML.to_bytes(4)): _matroska,
    (0, b"\0\0\1\xba"): _program_stream,
    (0, b"OggS"): _ogg,
    (0, b"FLV\1"): _flv,
    (0, ASF): _asf,
}
ANNOUNCING = (_matroska, _flv, _asf)
