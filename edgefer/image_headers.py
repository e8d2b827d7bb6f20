"""Reads an image file's header in Python: its type, size, transparency and orientation.

It is read before decoding, so that a header that claims 60,000 x 60,000 pixels costs nothing. So it must be the one that the
decoder reads: a file may hold another, for a smaller image, where decoders do not look.
"""

import itertools
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

ORIENTATION, WIDTH, HEIGHT, SAMPLE_FORMAT = 0x112, 256, 257, 339  # TIFF 6.0 tags; Exif 2.3 is a TIFF directory
FLOAT_SAMPLES = 3
MAX_ENTRIES = 4096  # of a TIFF directory
MAX_CHUNKS = 1 << 18  # of a PNG: they are checked one by one, and 64 million pixels take 24,000 of 8 KB
BARE_MARKERS = (0xFF01, *range(0xFFD0, 0xFFD8))  # of a JPEG, without a length: TEM, RST0 to RST7
CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000
PNM = re.compile(rb"P[1-6](?:\s+|#[^\r\n]*[\r\n])+(\d{1,9})(?:\s+|#[^\r\n]*[\r\n])+(\d{1,9})\s")
FILL = re.compile(rb"\xff{2,}")  # before a JPEG's marker
DAMAGED = "is damaged or cut short"


@dataclass(frozen=True, kw_only=True)
class Header:
    """kind: "JPEG", "PNG" ... alpha: whether it may have transparency. orientation: Exif's, 1 to 8, 1 for upright."""

    kind: str
    width: int
    height: int
    alpha: bool = False
    orientation: int = 1
    float_samples: bool = False


def read_header(content: bytes) -> Header | None:
    """The header of an image file; None for an unsupported type. ValueError for a truncated file."""
    for signature, parse in PARSERS:
        if signature.match(content):
            try:
                return parse(content)
            except (struct.error, IndexError):
                raise ValueError(DAMAGED) from None
    return None


def _png(content: bytes) -> Header:
    width, height = struct.unpack_from(">II", content, 16)
    alpha, orientation, at = content[25] in (4, 6), 1, 8
    for _ in range(MAX_CHUNKS):
        length, name = struct.unpack_from(">I4s", content, at)
        body = memoryview(content)[at + 8 : at + 8 + length]
        (expected,) = struct.unpack_from(">I", content, at + 8 + length)
        if zlib.crc32(body, zlib.crc32(name)) != expected:
            raise ValueError(DAMAGED)
        alpha |= name == b"tRNS"
        if name == b"eXIf":
            orientation = _orientation(bytes(body))
        if name == b"IEND":
            return Header(kind="PNG", width=width, height=height, alpha=alpha, orientation=orientation)
        at += 12 + length
    raise ValueError(f"is a PNG of more than {MAX_CHUNKS:,} chunks")


def _jpeg(content: bytes) -> Header:
    # The last scan must have an end: decoders differ in how they handle one without.
    if content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        raise ValueError(DAMAGED)
    at = 2
    while True:
        if fill := FILL.match(content, at):
            at = fill.end() - 1
        marker, length = struct.unpack_from(">HH", content, at)
        if marker in BARE_MARKERS:
            at += 2
            continue
        if marker >> 8 != 0xFF or length < 2:
            raise ValueError(DAMAGED)
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack_from(">HH", content, at + 5)
            return Header(kind="JPEG", width=width, height=height)  # OpenCV applies the orientation of JPEGs
        at += 2 + length


def _gif(content: bytes) -> Header:
    width, height = struct.unpack_from("<HH", content, 6)
    return Header(kind="GIF", width=width, height=height, alpha=True)


def _bmp(content: bytes) -> Header:
    (size,) = struct.unpack_from("<I", content, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", content, 18)
    return Header(kind="BMP", width=abs(width), height=abs(height))


def _webp(content: bytes) -> Header:
    (length,) = struct.unpack_from("<I", content, 4)
    if length + 8 > len(content) + 1:  # an odd length may lack its padding
        raise ValueError(DAMAGED)
    form = content[12:16]
    if form == b"VP8X":
        width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
        exif = content.rfind(b"EXIF") if content[20] & 8 else -1
        orientation = _orientation(content[exif + 8 :]) if exif >= 0 else 1
        return Header(kind="WebP", width=width, height=height, alpha=bool(content[20] & 16), orientation=orientation)
    if form == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        return Header(kind="WebP", width=width, height=height, alpha=bool(bits >> 28 & 1))
    width, height = struct.unpack_from("<HH", content, 26)
    return Header(kind="WebP", width=width & 0x3FFF, height=height & 0x3FFF)


def _tiff(content: bytes) -> Header:
    tags = _directory(content)
    if WIDTH not in tags or HEIGHT not in tags:
        raise ValueError(DAMAGED)
    floats = tags.get(SAMPLE_FORMAT) == FLOAT_SAMPLES
    # OpenCV applies the orientation of TIFFs, also of transparent ones.
    return Header(kind="TIFF", width=tags[WIDTH], height=tags[HEIGHT], alpha=True, float_samples=floats)


def _directory(content: bytes) -> dict[int, int]:
    """The first directory's tags with the first value of each; 0 for another type than an unsigned integer. As in libtiff the
    first entry of a tag counts."""
    end = "<" if content[:2] == b"II" else ">"
    big = struct.unpack_from(f"{end}H", content, 2)[0] == 43  # BigTIFF
    offset, count, entry, inline = ("Q", "Q", 20, 12) if big else ("I", "H", 12, 8)
    (at,) = struct.unpack_from(end + offset, content, 8 if big else 4)
    (entries,) = struct.unpack_from(end + count, content, at)
    at += struct.calcsize(end + count)
    tags: dict[int, int] = {}
    for number in range(min(entries, MAX_ENTRIES)):
        start = at + entry * number
        tag, kind, values = struct.unpack_from(f"{end}HH{offset}", content, start)
        form = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
        if not form or tag in tags:
            tags.setdefault(tag, 0)
            continue
        where = start + inline
        if values * struct.calcsize(end + form) > struct.calcsize(end + offset):
            (where,) = struct.unpack_from(end + offset, content, where)
        (tags[tag],) = struct.unpack_from(end + form, content, where)
    return tags


def _orientation(exif: bytes) -> int:
    """The orientation in Exif data; 1 if it is invalid."""
    exif = exif.removeprefix(b"Exif\0\0")
    try:
        value = _directory(exif).get(ORIENTATION, 1)
    except (struct.error, IndexError):
        return 1
    return value if 1 <= value <= 8 else 1


def _pnm(content: bytes) -> Header:
    match = PNM.match(content[:4096])
    if not match:
        raise ValueError(DAMAGED)
    return Header(kind="PNM", width=int(match[1]), height=int(match[2]))


def _jpeg2000(content: bytes) -> Header:
    stream = 0 if content.startswith(CODESTREAM) else _codestream(content)
    if content[stream : stream + 4] != CODESTREAM:
        raise ValueError(DAMAGED)
    right, bottom, left, top = struct.unpack_from(">IIII", content, stream + 8)
    return Header(kind="JPEG 2000", width=right - left, height=bottom - top, alpha=True)


def _codestream(content: bytes) -> int:
    """The start of the first codestream among a JPEG 2000 file's boxes; another box may hold bytes that look like one."""
    at = 0
    for _ in range(MAX_ENTRIES):
        length, name = struct.unpack_from(">I4s", content, at)
        head = 8
        if length == 1:
            (length,), head = struct.unpack_from(">Q", content, at + 8), 16
        if name == b"jp2c":
            return at + head
        if length < head:
            break
        at += length
    raise ValueError(DAMAGED)


# ISO 23008-12: a rotation, anticlockwise in quarters, optionally followed by mirroring (1: left and right).
AVIF_ORIENTATIONS = {(0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6, (0, 1): 2, (0, 0): 4, (1, 0): 5, (3, 0): 7,
                     (2, 0): 2, (2, 1): 4, (1, 1): 7, (3, 1): 5}  # fmt: skip


def _heif(content: bytes) -> Header:
    (length,) = struct.unpack_from(">I", content, 0)
    avif = any(brand in content[8 : min(length, 256)] for brand in (b"avif", b"avis"))
    found = itertools.islice(re.finditer(b"ispe", content), MAX_ENTRIES + 1)
    sizes = [struct.unpack_from(">II", content, match.end() + 4) for match in found]
    if not 1 <= len(sizes) <= MAX_ENTRIES:
        raise ValueError(DAMAGED)
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    turn = re.search(rb"\0\0\0\x09irot(.)", content[: 1 << 16], re.DOTALL)
    mirror = re.search(rb"\0\0\0\x09imir(.)", content[: 1 << 16], re.DOTALL)
    key = (turn[1][0] & 3 if turn else 0, mirror[1][0] & 1 if mirror else None)
    orientation = AVIF_ORIENTATIONS[key]
    return Header(kind="AVIF" if avif else "HEIC", width=width, height=height, alpha=True, orientation=orientation)


PARSERS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], Header]], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    (re.compile(rb"\xff\xd8\xff"), _jpeg),
    (re.compile(rb"GIF8[79]a"), _gif),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    (re.compile(rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]"), _tiff),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), _jpeg2000),
    (re.compile(rb"\0\0..ftyp(?:avi[fs]|hei[cfmsx]|hev[cmsx]|mi[af]f|mif1|msf1)", re.DOTALL), _heif),
    (re.compile(rb"P[1-6](?:\s|#)"), _pnm),
    (re.compile(rb"BM....\0\0\0\0", re.DOTALL), _bmp),
)
MAX_SIGNATURE = 24  # bytes of a file that identify its type


def looks_like_image(start: bytes) -> bool:
    """Whether a file with these first MAX_SIGNATURE bytes is of a supported type."""
    return any(signature.match(start) for signature, _ in PARSERS)
