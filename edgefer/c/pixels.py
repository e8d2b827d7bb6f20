"""The preprocessing in C on this host, with the interface of edgefer.preprocess, to be compared with it."""

import ctypes
import math

import numpy as np

from edgefer.c.host import FLAGS, address, compiled
from edgefer.card import CropSpec, InputSpec
from edgefer.records import Box

COLORS = {"gray": 0, "rgb": 1, "bgr": 2}


class _Frame(ctypes.Structure):
    _fields_ = (
        ("pixels", ctypes.c_void_p),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("format", ctypes.c_int32),
    )


class _Crop(ctypes.Structure):
    _fields_ = (("scale", ctypes.c_double), ("dx", ctypes.c_double), ("dy", ctypes.c_double))


class HostPixels:
    """edgefer_pixels.c, compiled on this host."""

    def __init__(self, flags: tuple[str, ...] = FLAGS):
        self._library = compiled(("edgefer_pixels.c",), flags)

    def face(
        self, frame: np.ndarray, box_xyxy: Box, crop: CropSpec, spec: InputSpec, roll_deg: float | None = None
    ) -> np.ndarray:
        """edgefer.preprocess.face_pixels: for uint8 gray [h, w], BGR [h, w, 3] or RGBA [h, w, 4]."""
        square = (ctypes.c_int32 * 3)()
        measured = _Crop(crop.scale, crop.dx, crop.dy)
        self._library.edgefer_square((ctypes.c_int32 * 4)(*map(int, box_xyxy)), ctypes.byref(measured), square)
        level = None
        if roll_deg:
            angle = math.radians(roll_deg)
            level = (ctypes.c_double * 2)(math.cos(angle), math.sin(angle))
        return self._face(frame, square, level, spec)

    def prepare(self, image: np.ndarray, spec: InputSpec) -> np.ndarray:
        """edgefer.preprocess.prepare, to gray."""
        frame, keep = _frame(image)
        pixels = np.empty((spec.height, spec.width, 1), np.uint8)
        self._library.edgefer_gray(ctypes.byref(frame), spec.height, spec.width, address(pixels))
        del keep
        return pixels

    def shrunk(self, image: np.ndarray, height: int, width: int) -> np.ndarray:
        """The gray input of edgefer.devices' face finder for an image: uint8 [height, width]."""
        frame, keep = _frame(image)
        pixels = np.empty((height, width), np.uint8)
        self._library.edgefer_shrunk(ctypes.byref(frame), height, width, width, address(pixels))
        del keep
        return pixels

    def close_up(self, image: np.ndarray, square: tuple[int, int, int], step: int, side: int) -> np.ndarray:
        """The input of edgefer.devices' face refiner for a square (left, top, side): uint8 [side, side, 1]."""
        frame, keep = _frame(image)
        pixels = np.empty((side, side, 1), np.uint8)
        self._library.edgefer_close_up(ctypes.byref(frame), (ctypes.c_int32 * 3)(*square), step, side, address(pixels))
        del keep
        return pixels

    def _face(self, image: np.ndarray, square, level, spec: InputSpec) -> np.ndarray:
        frame, keep = _frame(image)
        pixels = np.empty(spec.shape, np.uint8)
        self._library.edgefer_face(
            ctypes.byref(frame), square, level, spec.height, spec.width, COLORS[spec.color], address(pixels)
        )
        del keep
        return pixels

    def resize(self, gray: np.ndarray, height: int, width: int) -> np.ndarray:
        """OpenCV's INTER_LINEAR_EXACT for uint8 [h, w]."""
        source, pixels = np.ascontiguousarray(gray), np.empty((height, width), np.uint8)
        self._library.edgefer_resize(address(source), *source.shape, height, width, address(pixels))
        return pixels


def _frame(image: np.ndarray) -> tuple[_Frame, np.ndarray]:
    """The image as a C struct, and the array that must live as long."""
    whole = np.ascontiguousarray(image)
    channels = whole.shape[2] if whole.ndim == 3 else 1
    return _Frame(whole.ctypes.data, whole.shape[0], whole.shape[1], channels), whole
