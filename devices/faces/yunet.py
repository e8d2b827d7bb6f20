"""YuNet through OpenCV: a small, fast face detector that also locates the eyes. Downloaded on first use."""

import hashlib
import stat
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path

import cv2
import numpy as np

from edgefer.devices.faces.detectors import Detector
from edgefer.errors import EdgeferError, MissingDependency, SourceError
from edgefer.files import mode_of, user_cache, write_file
from edgefer.native import native_path
from edgefer.records import Box, Detection
from edgefer.text import printable

FILE = "face_detection_yunet_2023mar.onnx"
URL = f"https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/{FILE}"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
BYTES = 232_589
CHUNK = 16_384
TIMEOUT_S = 20.0
MIN_SCORE = 0.7  # minimum score of a face; OpenCV's sample has 0.9, its zoo 0.6

Track = Callable[[Iterable[bytes], int, str], Iterable[bytes]]


class YuNetDetector(Detector):
    """OpenCV's YuNet (Wu, Peng & Yu 2023), from an ONNX file.

    A frame is downscaled into the corner of a black square of `width` pixels, never upscaled. Files with a fixed input of
    320 x 320 are as common as those without.
    """

    name = "yunet"
    width = 320

    def __init__(self, file: Path):
        if not hasattr(cv2, "FaceDetectorYN"):
            raise MissingDependency(f"OpenCV {cv2.__version__} has no YuNet: pip install 'opencv-python>=4.8,<5'.")
        if not stat.S_ISREG(mode_of(file, error=SourceError)):
            raise SourceError(
                f"There is no file {printable(str(file))}: name YuNet's .onnx, or leave --yunet out to fetch it."
            )
        square = (self.width, self.width)
        self._canvas = np.zeros((*square, 3), np.uint8)
        try:
            with native_path(file) as path:
                self._net = cv2.FaceDetectorYN.create(path, "", square, MIN_SCORE)
            self._net.detect(self._canvas)  # a file of another network fails only here
        except cv2.error as error:
            raise SourceError(
                f"{printable(str(file))} is not a YuNet that OpenCV {cv2.__version__} can run ({' '.join(str(error).split())[:120]}): "
                f"use {FILE} from OpenCV Zoo."
            ) from None

    def find(self, image_bgr: np.ndarray, near: Sequence[Box] | None = None) -> list[Detection]:
        height, width = image_bgr.shape[:2]
        shrink = min(1.0, self.width / max(height, width))
        size = max(1, round(width * shrink)), max(1, round(height * shrink))
        self._canvas[:] = 0
        self._canvas[: size[1], : size[0]] = cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA)
        _, rows = self._net.detect(self._canvas)
        faces = [] if rows is None else [_detection(row[:14] / shrink, float(row[14])) for row in rows]
        return sorted(faces, key=lambda face: -face.side)


def _detection(row: np.ndarray, score: float) -> Detection:
    """x, y, width, height, then x and y of: two eyes, the nose's tip, two corners of the mouth; in pixels."""
    x, y, width, height = row[:4]
    points = [(float(px), float(py)) for px, py in row[4:14].reshape(5, 2)]
    first, second = sorted(points[:2])
    box = round(float(x)), round(float(y)), round(float(x + width)), round(float(y + height))
    return Detection(box_xyxy=box, score=min(1.0, score), eyes_xy=(first, second), nose_xy=points[2])


def cached_yunet() -> Path:
    """The path of the downloaded file: edgefer/ in the user's cache (XDG Base Directory Specification)."""
    return user_cache() / "detectors" / FILE


def fetch_yunet(to: Path, *, url: str = URL, track: Track = lambda chunks, total, what: chunks) -> Path:
    """Download YuNet from OpenCV Zoo to `to`, unless it is already there and intact; returns `to`. Renamed when complete.

    track: wraps the chunks to show progress: (chunks, their number, description).
    """
    if to.is_file() and _sha256(to.read_bytes()) == SHA256:
        return to
    by_hand = f"download {URL} on another computer and name the file with --yunet, or leave --detector out"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            content = b"".join(track(_chunks(answer), -(-BYTES // CHUNK), "Downloading the YuNet face detector"))
    except (OSError, HTTPException) as error:  # URLError is an OSError, and so is a timeout
        raise EdgeferError(f"YuNet could not be downloaded ({getattr(error, 'reason', error)}): {by_hand}.") from None
    if _sha256(content) != SHA256:
        raise EdgeferError(
            f"The file from {url} is not YuNet ({len(content):,} bytes, sha256 {_sha256(content)[:12]}...): {by_hand}."
        )
    try:
        write_file(to, content)
    except EdgeferError as error:
        raise EdgeferError(f"{error} Or {by_hand}.") from None
    return to


def _chunks(answer) -> Iterator[bytes]:
    """The response, up to a little more than YuNet's size: anything longer is not YuNet."""
    for _ in range(-(-BYTES // CHUNK) + 1):
        if not (chunk := answer.read(CHUNK)):
            return
        yield chunk


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
