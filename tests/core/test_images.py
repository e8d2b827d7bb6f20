"""Reading image files: as viewers do, with bounds before decoding and a clear error for what cannot be read."""

import os
import struct
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgefer.drawn import face_set
from edgefer.errors import EdgeferError, ImageError
from edgefer.image_headers import read_header
from edgefer.images import (
    MAX_PIXELS,
    SUFFIXES,
    decode_image,
    encode_image,
    gray_where_equal,
    is_image_file,
    read_image,
    write_image,
)


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """uint8 BGR, higher than wide, with nothing symmetrical about it."""
    image = cv2.resize(next(iter(face_set(1, seed=1)[0])), (60, 90))
    image = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    image[:20, :30] = (200, 40, 90)
    return np.ascontiguousarray(image)


def exif(orientation: int) -> bytes:
    """A TIFF directory of one entry: the orientation."""
    return b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x112, 3, 1, orientation, 0, 0)


def stored(image: np.ndarray, orientation: int) -> np.ndarray:
    """The image as a camera stores it with that Exif orientation (the inverse of what a viewer does)."""
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image.transpose(1, 0, 2) if orientation >= 5 else image)


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_with(content: bytes, name: bytes, body: bytes) -> bytes:
    return content[:33] + png_chunk(name, body) + content[33:]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed_with_and_without_transparency(face, orientation):
    turned = stored(face, orientation)
    opaque = png_with(encode_image(turned, ".png"), b"eXIf", exif(orientation))
    assert np.array_equal(decode_image(opaque), face)
    seen_through = np.dstack([turned, np.full(turned.shape[:2], 254, np.uint8)])
    content = png_with(encode_image(seen_through, ".png"), b"eXIf", exif(orientation))
    assert np.abs(decode_image(content).astype(int) - face).max() <= 1

    jpeg = encode_image(turned, ".jpg")
    segment = b"Exif\0\0" + exif(orientation)
    jpeg = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
    assert np.abs(decode_image(jpeg).astype(int) - face).mean() < 8


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".bmp", ".jp2", ".ppm", ".gif"])
def test_every_file_type_decodes_to_the_same_image(face, suffix):
    if suffix == ".gif" and not cv2.haveImageWriter("a.gif"):
        pytest.skip("this OpenCV has no GIF")
    flags = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []
    content = cv2.imencode(suffix, face, flags)[1].tobytes()
    assert np.abs(decode_image(content).astype(int) - face).mean() < (
        25 if suffix == ".gif" else 2
    )  # OpenCV writes GIFs coarsely


def test_transparent_pixels_become_white(face):
    holes = np.dstack([face, np.full(face.shape[:2], 255, np.uint8)])
    holes[:40, :, :] = 0
    for suffix in (".png", ".tif"):
        image = decode_image(encode_image(holes, suffix))
        assert (image[:40] == 255).all() and np.array_equal(image[40:], face[40:]), suffix


def test_16_bit_gray_and_colour_images_are_read(face):
    gray = cv2.cvtColor(face, cv2.COLOR_BGR2GRAY)
    for suffix in (".png", ".tif"):
        assert np.array_equal(decode_image(encode_image(face.astype(np.uint16) * 257, suffix)), face)
        assert np.array_equal(gray_where_equal(decode_image(encode_image(gray.astype(np.uint16) * 257, suffix))), gray)
    assert np.array_equal(gray_where_equal(decode_image(encode_image(gray, ".png"))), gray)
    assert gray_where_equal(face).ndim == 3


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("png", b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
         + png_chunk(b"IDAT", zlib.compress(b"\0" * 100)) + png_chunk(b"IEND", b"")),
        ("jpg", b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", 60000, 60000) + b"\x03" + bytes(12) + b"\xff\xd9"),
        ("gif", b"GIF89a" + struct.pack("<HH", 60000, 60000) + bytes(40)),
        ("bmp", b"BM" + bytes(12) + struct.pack("<Iii", 40, 60000, -60000) + bytes(40)),
        ("webp", b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff\xff\0" * 2 + bytes(8)),
        ("tif", b"II*\0\x08\0\0\0" + struct.pack("<HHHIIHHII", 2, 256, 4, 1, 60000, 257, 4, 1, 60000) + bytes(40)),
        ("ppm", b"P6\n# a comment\n60000 60000\n255\n" + bytes(40)),
        ("jp2", b"\xff\x4f\xff\x51" + bytes(4) + struct.pack(">IIII", 60000, 60000, 0, 0) + bytes(40)),
    ],
)  # fmt: skip
def test_oversized_image_is_refused_from_its_header_alone(tmp_path, name, header, monkeypatch):
    def decoder(*arguments):
        raise AssertionError("a decoder was asked")

    monkeypatch.setattr(cv2, "imdecode", decoder)
    file = tmp_path / f"huge.{name}"
    file.write_bytes(header)
    with pytest.raises(ImageError, match=rf"huge\.{name} claims to have .* at most {MAX_PIXELS:,} are read"):
        read_image(file)


@pytest.mark.timeout(20)
def test_endless_header_is_refused_quickly():
    start = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    with pytest.raises(ValueError, match="more than 262,144 chunks"):
        decode_image(b"\x89PNG\r\n\x1a\n" + start + png_chunk(b"abcd", b"") * (1 << 22))
    with pytest.raises(ValueError, match="cut short"):
        decode_image(b"\xff\xd8" + b"\xff" * (200 << 20) + b"\xff\xda\xff\xd9")


def test_a_jpeg_may_have_fill_bytes_before_a_marker(face):
    content = encode_image(face, ".jpg")
    at = content.index(b"\xff\xdb")
    filled = content[:at] + b"\xff" * 5 + content[at:]
    assert np.array_equal(decode_image(filled), decode_image(content))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp", ".jp2", ".ppm"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.98])
def test_truncated_file_of_any_type_is_refused(face, suffix, share):
    content = encode_image(cv2.resize(face, (120, 180)), suffix)
    with pytest.raises(ValueError, match=r"cut short|of a type"):
        decode_image(content[: int(len(content) * share)])


def test_file_that_is_not_an_image_gives_a_one_sentence_error(tmp_path, face):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_bytes(b"hello")
    (tmp_path / "photo.heic").write_bytes(
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0\0\0\x14ispe" + struct.pack(">III", 0, 40, 30)
    )
    cv2.imwrite(str(tmp_path / "float.tif"), face.astype(np.float32) / 255)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/zero")
    for name, complaint in {
        "empty.png": "is an empty file",
        "text.jpg": "is not an image of a type that is read",
        "photo.heic": "is a HEIC image, which OpenCV cannot read: convert it",
        "float.tif": "holds floating-point samples",
        "pipe.png": "is a FIFO",
        "folder.png": "is a directory",
        "device.png": "is a device",
        "absent.png": "cannot be read: No such file",
    }.items():
        with pytest.raises(ImageError, match=rf"^{tmp_path}/{name} {complaint}.*\.$"):
            read_image(tmp_path / name)


def test_non_utf8_file_names_are_accepted(tmp_path, face):
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    write_image(file, face)
    assert np.array_equal(read_image(file), face)
    file.write_bytes(b"")
    with pytest.raises(ImageError, match=r"caf\\udce9\.png is an empty file"):
        read_image(file)


def test_image_files_are_recognized_by_suffix_or_without_one_by_content(tmp_path, face):
    assert {".jfif", ".jpe", ".gif", ".avif", ".heic", ".jp2", ".pgm"} <= set(SUFFIXES)
    for name, content, expected in (
        ("A.JFIF", b"", True),
        ("noext", encode_image(face, ".jpg"), True),
        ("README", b"read me", False),
        ("notes.txt", encode_image(face, ".jpg"), False),
    ):
        (tmp_path / name).write_bytes(content)
        assert is_image_file(tmp_path / name) is expected, name
    wrong_name = tmp_path / "really_a_jpeg.png"
    wrong_name.write_bytes(encode_image(face, ".jpg"))
    assert read_image(wrong_name).shape == face.shape


def test_image_is_written_completely_or_not_at_all(tmp_path, face):
    write_image(tmp_path / "out.png", face)
    before = (tmp_path / "out.png").read_bytes()
    with pytest.raises(EdgeferError, match=r"cannot be written as \.xyz: name one of"):
        write_image(tmp_path / "out.xyz", face)
    with pytest.raises(EdgeferError, match=r"out\.png/inner\.png could not be written"):
        write_image(tmp_path / "out.png" / "inner.png", face)
    assert (tmp_path / "out.png").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.png"]


def test_damaged_images_raise_nothing_but_value_error(face):
    rng = np.random.default_rng(0)
    read = refused = 0
    for suffix in (".png", ".jpg", ".webp", ".tif", ".bmp", ".jp2", ".ppm"):
        whole = encode_image(face, suffix)
        for _ in range(40):
            content = bytearray(whole)
            for at in rng.integers(0, min(len(content), 200), 3):
                content[at] = rng.integers(256)
            try:
                assert decode_image(bytes(content)).dtype == np.uint8
                read += 1
            except ValueError:
                refused += 1
    assert read and refused


def test_two_threads_can_read_at_once(face):
    content = encode_image(face, ".png")
    results: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: results.append(decode_image(content))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(np.array_equal(image, face) for image in results)


def test_two_threads_reading_at_once_restore_opencv_s_log_level(face, monkeypatch):
    """The first to begin ends first, while the second is still decoding."""
    content, decode = encode_image(face, ".png"), cv2.imdecode
    second_in, first_out = threading.Event(), threading.Event()

    def imdecode(*arguments):
        if threading.current_thread().name == "first":
            second.start()
            second_in.wait(10)
        else:
            second_in.set()
            first_out.wait(10)
        return decode(*arguments)

    def read_first():
        decode_image(content)
        first_out.set()

    monkeypatch.setattr(cv2, "imdecode", imdecode)
    level = cv2.utils.logging.getLogLevel()
    first = threading.Thread(target=read_first, name="first")
    second = threading.Thread(target=decode_image, args=(content,), name="second")
    first.start()
    first.join(20)
    second.join(20)
    assert cv2.utils.logging.getLogLevel() == level


def _tiff_twice(kind: int) -> bytes:
    """40 x 40 pixels, with a second width and height of 10 that libtiff ignores. kind: the type of the first ones."""
    pixels = bytes(40 * 40)
    entries = [(256, kind, 40), (256, 4, 10), (257, kind, 40), (257, 4, 10), (258, 3, 8), (259, 3, 1), (262, 3, 1)]
    entries += [(273, 4, 8), (277, 3, 1), (278, 4, 40), (279, 4, len(pixels))]
    table = b"".join(struct.pack("<HHII", tag, form, 1, value) for tag, form, value in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(entries)) + table + bytes(4)


def _jpeg2000_with_decoy() -> bytes:
    content = cv2.imencode(".jp2", np.zeros((40, 40, 3), np.uint8))[1].tobytes()
    decoy = b"\xff\x4f\xff\x51" + struct.pack(">HHIIII", 41, 0, 10, 10, 0, 0)
    at = content.index(b"jp2c") - 4
    return content[:at] + struct.pack(">I", 8 + len(decoy)) + b"free" + decoy + content[at:]


def _jpeg_with_decoy() -> bytes:
    """A marker without a length, then the real header, whose own marker would be taken for that length."""
    content = cv2.imencode(".jpg", np.zeros((40, 40, 3), np.uint8))[1].tobytes()
    frame = content.index(b"\xff\xc0")
    end = frame + 2 + int.from_bytes(content[frame + 2 : frame + 4], "big")
    rest = content[2:frame] + content[end:]
    scan = rest.index(b"\xff\xda")
    start = b"\xff\xd8\xff\x01" + content[frame:end] + rest[:scan]
    start += b"\xff\xfe" + struct.pack(">H", 60_000) + bytes(59_998)
    decoy = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, 10, 10, 3)
    fill = 4 + 0xFFC0 - len(start) - 4
    return start + b"\xff\xfe" + struct.pack(">H", 2 + fill + len(decoy)) + bytes(fill) + decoy + rest[scan:]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(_tiff_twice(4), id="a tag twice"),
        pytest.param(_tiff_twice(9), id="a signed tag first"),
        pytest.param(_jpeg2000_with_decoy(), id="a codestream in another box"),
        pytest.param(_jpeg_with_decoy(), id="behind a bare marker"),
        pytest.param(b"P5\n#x\r40 40\n10 10 255\n" + bytes(1700), id="behind a comment"),
    ],
)
def test_second_smaller_size_does_not_hide_a_large_image(content):
    """It must not pass the limit of pixels by claiming to be smaller than the decoder will find it."""
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape == (40, 40, 3)
    header = read_header(content)
    assert (header.width, header.height) in ((40, 40), (0, 0)), "an image without a size is refused"


def test_late_size_in_an_avif_file_counts():
    content = b"\0\0\0\x10ftypavif" + bytes(4) + b"ispe" + struct.pack(">4xII", 10, 10) + bytes(70_000)
    content += b"ispe" + struct.pack(">4xII", 60_000, 60_000)
    assert read_header(content).width == 60_000
    with pytest.raises(ValueError, match="claims to have 60,000 x 60,000 pixels"):
        decode_image(content)
    with pytest.raises(ValueError, match="damaged"):
        read_header(content + 5000 * b"ispe" + bytes(12))
