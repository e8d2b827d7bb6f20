"""The preprocessing: the only path from an image to a network's input, for training, conversion and devices.

A second copy of this arithmetic anywhere is a bug: with other pixels than in training, a network fails silently.
"""

import math
from functools import lru_cache

import cv2
import numpy as np

from edgefer.card import CropSpec, InputSpec

MAX_TURNED = 2**15 - 1  # pixels a side, exclusive: the limit of cv2.warpAffine


def prepare(image: np.ndarray, spec: InputSpec) -> np.ndarray:
    """An image as the network's uint8 input.

    image: uint8, [h, w] gray, [h, w, 1] gray or [h, w, 3] BGR (OpenCV's order), any size.
    Returns uint8 [spec.height, spec.width, spec.channels], three channels in the order of spec.color. Downscaling
    averages areas, upscaling is bilinear; an image of the right size and colour is unchanged. The result is bit-exact on
    every CPU, unlike OpenCV's INTER_AREA (one pixel in 10,000 to 100,000 is off by one on ARM) and INTER_LINEAR (a third
    of a gray image's pixels, by up to 3).
    """
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim == 3 and spec.color == "gray":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    elif image.ndim == 3 and spec.color == "rgb":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    elif image.ndim == 2 and spec.channels == 3:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    height, width = image.shape[:2]
    if height * width > spec.height * spec.width:
        image = _area_means(image, spec.height, spec.width)
    elif (height, width) != (spec.height, spec.width):
        image = cv2.resize(image, (spec.width, spec.height), interpolation=cv2.INTER_LINEAR_EXACT)
    return np.ascontiguousarray(image).reshape(spec.shape)


def _area_means(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [h, w] or [h, w, c] downscaled to [height, width] or [height, width, c]: each pixel is the mean of its area,
    rounded half up.

    Uses an integral image, interpolated bilinearly between the corners of pixels. The arithmetic is exact: int32 if the
    largest sum fits, else float64, which holds integers below 2**53. So the order of additions does not matter.
    """
    rows, columns = image.shape[:2]
    more = (1,) * (image.ndim - 2)
    small = 255 * rows * columns * max(height, width) < 2**31
    sums = cv2.integral(image, sdepth=cv2.CV_32S if small else cv2.CV_64F)
    above, below, up, down = _edges(rows, height, sums.dtype)
    sums = sums.take(above, axis=0) * up.reshape(-1, 1, *more) + sums.take(below, axis=0) * down.reshape(-1, 1, *more)
    sums = sums[1:] - sums[:-1]
    before, after, left, right = _edges(columns, width, sums.dtype)
    sums = sums.take(before, axis=1) * left.reshape(-1, *more) + sums.take(after, axis=1) * right.reshape(-1, *more)
    areas = sums[:, 1:] - sums[:, :-1]
    return ((areas + rows * columns // 2) // (rows * columns)).astype(np.uint8)


@lru_cache(maxsize=64)  # each at most 10 KB, unless a network's input is larger; boxes of one face have few sizes
def _edges(pixels: int, cells: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The positions of the edges of `cells` equal cells among `pixels`: the two pixel edges around each, int64 [cells + 1],
    and their integer weights, [cells + 1] of `dtype`, which add up to `cells`."""
    before, past = np.divmod(np.arange(cells + 1) * pixels, cells)
    return before, np.minimum(before + 1, pixels), (cells - past).astype(dtype), past.astype(dtype)


def crop_square(
    frame_bgr: np.ndarray, box_xyxy: tuple[int, int, int, int], crop: CropSpec, roll_deg: float | None = None
) -> np.ndarray:
    """The square of `frame_bgr` (uint8 [h, w, 3] or [h, w]) that `crop` derives from a detector's box, in pixels.

    roll_deg: the head's roll, clockwise in the image; the square is rotated by it about its centre, so that the eyes are
    level. None or 0 crops without rotation. Outside the frame, its border is replicated.
    """
    x0, y0, x1, y1 = box_xyxy
    side = ((x1 - x0) + (y1 - y0)) / 2
    half = crop.scale * side / 2
    centre_x = (x0 + x1) / 2 + crop.dx * side
    centre_y = (y0 + y1) / 2 + crop.dy * side
    size = max(1, round(2 * half))
    left, top = round(centre_x - half), round(centre_y - half)
    if roll_deg:
        frame_bgr, left, top = _part_to_turn(frame_bgr, left, top, size)
        # Pixel centres have integer coordinates, so the centre of `size` pixels from `left` is at left + (size - 1) / 2.
        cos, sin, middle = math.cos(math.radians(roll_deg)), math.sin(math.radians(roll_deg)), (size - 1) / 2
        turn = np.array(
            [
                [cos, -sin, left + middle * (1 - cos + sin)],
                [sin, cos, top + middle * (1 - cos - sin)],
            ]
        )
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(frame_bgr, turn, (size, size), flags=how, borderMode=cv2.BORDER_REPLICATE)
    height, width = frame_bgr.shape[:2]
    if left >= 0 and top >= 0 and left + size <= width and top + size <= height:
        return frame_bgr[top : top + size, left : left + size]
    rows, columns = clipped_range(top, top + size, 1, height), clipped_range(left, left + size, 1, width)
    return frame_bgr[rows].take(columns, axis=1)


def _part_to_turn(image: np.ndarray, left: int, top: int, size: int) -> tuple[np.ndarray, int, int]:
    """The image and a square's place in it; of a very wide or high one, such as a panorama, the part around the square."""
    height, width = image.shape[:2]
    if max(height, width) < MAX_TURNED:
        return image, left, top
    x, y = max(0, min(left - size, width - 1)), max(0, min(top - size, height - 1))
    return image[y : max(y + 1, top + 2 * size), x : max(x + 1, left + 2 * size)], left - x, top - y


def clipped_range(start: int, stop: int, step: int, size: int) -> np.ndarray:
    """Indices into an axis of `size` pixels; beyond its ends the last pixel's. np.clip would take three times as long."""
    return np.minimum(np.maximum(np.arange(start, stop, step), 0), size - 1)


def face_pixels(
    frame_bgr: np.ndarray,
    box_xyxy: tuple[int, int, int, int],
    crop: CropSpec,
    spec: InputSpec,
    roll_deg: float | None = None,
) -> np.ndarray:
    """One face of a frame as the network's input: `crop_square`, then `prepare`."""
    return prepare(crop_square(frame_bgr, box_xyxy, crop, roll_deg), spec)


def to_float(pixels: np.ndarray, spec: InputSpec | None = None) -> np.ndarray:
    """uint8 pixels [..., c] as a float network's input: float32, in 0..1 unless `spec` has another scale or offset."""
    if spec is None or not spec.stated:
        return pixels.astype(np.float32) * np.float32(1 / 255)
    return look_up(pixels, float_table(spec))


def to_int8(pixels: np.ndarray) -> np.ndarray:
    """uint8 pixels as an int8 network's input (scale 1/255, zero point -128): pixel - 128, computed by XOR."""
    return (pixels ^ 0x80).view(np.int8)


def float_table(spec: InputSpec) -> np.ndarray:
    """The float input for each pixel value in each channel: float32 [256, c], pixel * scale + offset in float32."""
    scales, offsets = np.array(spec.per_channel(), np.float32).T
    return np.arange(256, dtype=np.float32)[:, None] * scales + offsets


def quantized_table(spec: InputSpec, dtype: type, scale: float, zero: int) -> np.ndarray:
    """The quantized input for each pixel value: integers [256, c], value / scale + zero, rounded half away from 0."""
    steps = float_table(spec).astype(np.float64) / scale
    limits = np.iinfo(dtype)
    return np.clip(np.copysign(np.floor(np.abs(steps) + 0.5), steps) + zero, limits.min, limits.max).astype(dtype)


def look_up(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Map uint8 pixels [..., c] through a table [256, c]."""
    return table[pixels, np.arange(table.shape[1])]
