"""Reads image files, identically for training, `data check` and devices.

Bytes are read in Python and decoded from memory, so that no path reaches C++ and names may be in any encoding. As in image
viewers, Exif orientation is applied, transparency is blended with white, and an animation gives its first frame. 16 bits
become 8, and CMYK becomes RGB as in OpenCV (without a colour profile). A truncated file is rejected.
"""

import math
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgefer.errors import EdgeferError, ImageError
from edgefer.files import read_regular, write_file
from edgefer.image_headers import MAX_SIGNATURE, ORIENTATION, Header, looks_like_image, read_header
from edgefer.text import printable

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif",
    ".jp2", ".pgm", ".ppm", ".pbm", ".pnm",
)  # fmt: skip
READ = tuple(
    suffix for suffix in SUFFIXES if suffix not in (".heic", ".heif")
)  # those two are images that nobody decodes
FLOATS = "holds floating-point samples, whose range is not defined: save it with 8 or 16 bits"
WRITTEN = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MAX_BYTES = 256 << 20
MAX_PIXELS = 64 << 20  # 192 MB as BGR; the largest phone cameras have 50 million


def is_image_file(path: Path) -> bool:
    """Whether a file is an image: by its suffix or, without one, by its first bytes."""
    if path.suffix:
        return path.suffix.lower() in SUFFIXES
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return looks_like_image(file.read(MAX_SIGNATURE))
    except OSError:
        return False


def read_image(path: Path) -> np.ndarray:
    """An image file, upright, as uint8 BGR [h, w, 3]. The message of an ImageError begins with the path."""
    content = read_regular(path, MAX_BYTES, error=ImageError)
    try:
        return decode_image(content)
    except ValueError as error:
        raise ImageError(f"{printable(str(path))} {error}.") from None


def problem_of(error: ImageError, path: Path) -> str:
    """The problem in an ImageError, without the path: "is an empty file"."""
    return str(error).removeprefix(f"{printable(str(path))} ").removesuffix(".")


def decode_image(content: bytes) -> np.ndarray:
    """The content of an image file, upright, as uint8 BGR [h, w, 3]; ValueError with the problem: "is an empty file"."""
    if not content:
        raise ValueError("is an empty file")
    header = read_header(content)
    if header is None:
        raise ValueError(
            "is not an image of a type that is read (JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, JPEG 2000, PNM)"
        )
    _check(header)
    coded = np.frombuffer(content, np.uint8)
    image = _opencv(coded, cv2.IMREAD_UNCHANGED) if header.alpha else None
    if image is not None and image.ndim == 3 and image.shape[2] == 4:
        return _turned(_on_white(image), header.orientation)
    image = _opencv(coded, cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(
            f"is a file ({header.kind}) that OpenCV cannot read: it is damaged, cut short or of a rare form"
        )
    # OpenCV applies the Exif orientation of all types but AVIF, which does not store it as Exif.
    return _turned(image, header.orientation) if header.kind == "AVIF" else image


def from_pil(image: Any) -> np.ndarray:
    """A PIL image by the same rules as its file, uint8 BGR [h, w, 3]: on white, 16 bits as 8, and with its Exif orientation
    applied if it was opened from a file, but not if it was made from another image. ValueError with the problem."""
    if 0 in image.size:
        raise ValueError("has no pixels")
    if image.mode in ("I", "F"):
        raise ValueError(f"is of the mode {image.mode}, whose range is not defined: convert it to L or RGB")
    clear = image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info
    try:
        image.load()
        orientation = image.getexif().get(ORIENTATION, 1) if image.format else 1
        if image.mode.startswith("I;16"):
            pixels = cv2.cvtColor((np.asarray(image) >> 8).astype(np.uint8), cv2.COLOR_GRAY2BGR)
        elif clear:
            pixels = _on_white(np.asarray(image.convert("RGBA"))[:, :, [2, 1, 0, 3]])
        else:
            pixels = np.asarray(image.convert("RGB"))[:, :, ::-1]
    except (OSError, SyntaxError, ValueError) as error:  # raised by Pillow for a damaged or closed file
        raise ValueError(f"cannot be read: {printable(str(error))}") from None
    return _turned(pixels, orientation)


def gray_where_equal(image: np.ndarray) -> np.ndarray:
    """uint8 BGR [h, w, 3] as gray [h, w] if the three channels are equal, else unchanged: a conversion could round."""
    return image[:, :, 0] if (image[:, :, :1] == image).all() else image


def encode_image(image: np.ndarray, suffix: str) -> bytes:
    """Encode uint8 BGR [h, w, 3] or gray [h, w] in the format of `suffix`. EdgeferError if OpenCV cannot."""
    try:
        done, coded = cv2.imencode(suffix.lower(), image)
    except cv2.error:
        done = False
    if not done:
        raise EdgeferError(
            f"An image of {image.shape[1]}x{image.shape[0]} cannot be written as {printable(suffix) or 'a file without a type'}: "
            f"name one of {', '.join(WRITTEN)}."
        )
    return coded.tobytes()


def write_image(path: Path, image: np.ndarray) -> None:
    """Write uint8 BGR [h, w, 3] or gray [h, w] atomically: encoded in memory, written to a temporary file and renamed."""
    write_file(path, encode_image(image, path.suffix))


def _check(header: Header) -> None:
    if header.kind == "HEIC":
        raise ValueError("is a HEIC image, which OpenCV cannot read: convert it to JPEG")
    if header.float_samples:
        raise ValueError(FLOATS)
    if header.width < 1 or header.height < 1:
        raise ValueError("is damaged: its header says that it has no pixels")
    if math.prod((header.width, header.height)) > MAX_PIXELS:
        raise ValueError(
            f"claims to have {header.width:,} x {header.height:,} pixels; at most {MAX_PIXELS:,} are read: make it smaller"
        )


class _SilentLog:
    """Silences OpenCV's log while any thread is inside: the level is per process, so the last one to leave restores it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._level = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._level = cv2.utils.logging.getLogLevel()
                cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                cv2.utils.logging.setLogLevel(self._level)


_SILENT_LOG = _SilentLog()


def _opencv(coded: np.ndarray, flags: int) -> np.ndarray | None:
    # A damaged file gives our message, not ten lines of OpenCV's log.
    with _SILENT_LOG:
        try:
            return cv2.imdecode(coded, flags)
        except cv2.error:
            return None


def _on_white(image: np.ndarray) -> np.ndarray:
    """uint8 or uint16 BGRA as uint8 BGR over white."""
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise ValueError(FLOATS)
    alpha = image[:, :, 3:].astype(np.uint16)
    if (alpha == 255).all():
        return np.ascontiguousarray(image[:, :, :3])
    return ((image[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """The upright image, from Exif's orientations 1 to 8."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
