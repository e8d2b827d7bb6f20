"""Whether the structure of a video file is broken, for containers that do not count their frames: Matroska, WebM, MPEG-TS.

They may have fewer frames than their duration says because their rate varies, which is no damage.
"""

from pathlib import Path
from typing import BinaryIO

# RFC 8794, RFC 9559: an element is its ID, its size, and its content.
EBML, SEGMENT, CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
ELEMENTS = {
    EBML, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1254C367, 0x1941A469, 0x1043A770, 0xEC, 0xBF,
    0xE7, 0xAB, 0xA7, 0xA3, 0xA0, 0xAF, 0x5854,
}  # fmt: skip
MAX_ELEMENTS = 1_000_000  # a film of three hours has about that many with its sound
PACKET, SYNC = 188, 0x47  # of MPEG-TS, ISO 13818-1


def is_broken(file: Path) -> bool:
    """Whether a Matroska, WebM or MPEG-TS file is cut short or overwritten somewhere; False for any other file."""
    try:
        with file.open("rb") as opened:
            head = opened.read(PACKET + 1)
            opened.seek(0)
            if head.startswith(EBML.to_bytes(4)):
                return _broken_matroska(opened, file.stat().st_size)
            if len(head) > PACKET and head[0] == head[PACKET] == SYNC:
                return _broken_packets(opened)
    except OSError:
        return True
    return False


def _broken_matroska(opened: BinaryIO, end: int) -> bool:
    at = 0
    for _ in range(MAX_ELEMENTS):
        if at >= end:
            return at > end
        opened.seek(at)
        head = opened.read(12)
        id_bytes = 9 - head[0].bit_length()
        number, rest = int.from_bytes(head[:id_bytes]), head[id_bytes:]
        if id_bytes > 4 or not rest or number not in ELEMENTS | {SEGMENT, CLUSTER}:
            return True
        size_bytes = 9 - rest[0].bit_length()
        if size_bytes > min(8, len(rest)):
            return True
        mask = (1 << 7 * size_bytes) - 1
        size = int.from_bytes(rest[:size_bytes]) & mask
        at += id_bytes + size_bytes
        if number == SEGMENT and size != mask:
            if at + size > end:
                return True
            end = at + size  # what stands behind it is none of it
        elif number not in (SEGMENT, CLUSTER):
            at += size
    return False


def _broken_packets(opened: BinaryIO) -> bool:
    while chunk := opened.read(PACKET * 4096):
        if set(chunk[::PACKET]) != {SYNC}:
            return True
    return False
