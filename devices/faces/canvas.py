"""Shared by TFLite detectors: scales frames onto a network's canvas, runs it, and suppresses overlapping boxes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from edgefer.bundle import Bundle, Form
from edgefer.errors import RuntimeFault
from edgefer.interpreter import ANY_RUNTIME, THE_NETWORK, RuntimeOptions, open_interpreter
from edgefer.quiet import quiet
from edgefer.records import Box

MULTIPLE = 32  # pixels: the coarsest map's stride
MAX_SIDE = 1920  # pixels of a canvas
MAX_BOXES = 300  # with the highest scores, for NMS: a broken network may find a face in every cell
WINDOW_MARGIN = 0.5  # of a face's side: search margin around a known face
MAX_WINDOWS_AREA = 0.8  # share of a canvas: windows that cover more of it cost as much as the whole
MAX_SHAPES = 12  # cached interpreters of one network
MAX_NESTED = 0.7  # covered share of the smaller of two boxes: above it, they are the same face


@dataclass(frozen=True)
class Layout:
    """A frame's place on a canvas: scaled by `scale` to `size` (width, height), in the corner of `canvas` (height, width)."""

    scale: float
    size: tuple[int, int]
    canvas: tuple[int, int]

    @classmethod
    def of(cls, frame_shape: tuple[int, ...], side: int) -> "Layout":
        """The canvas with the frame's aspect ratio and a longer side of about `side`, in multiples of 32; frames are never
        upscaled beyond it."""
        height, width = frame_shape[:2]
        side = MULTIPLE * max(1, min(MAX_SIDE, side) // MULTIPLE)
        scale = min(1.0, side / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        canvas = MULTIPLE * -(-size[1] // MULTIPLE), MULTIPLE * -(-size[0] // MULTIPLE)
        return cls(scale, size, canvas)

    def windows(self, boxes: Iterable[Box] | None) -> list[tuple[int, int, int, int]]:
        """Squares (left, top, right, bottom) of the canvas around faces whose boxes are in pixels of the frame.

        They are aligned to the network's grid, so that its input in a window is the same as in the whole canvas. The whole
        canvas for None, and if windows would cost as much.
        """
        height, width = self.canvas
        whole = [(0, 0, width, height)]
        if boxes is None:
            return whole
        found = {self._window(box) for box in boxes}
        area = sum((right - left) * (bottom - top) for left, top, right, bottom in found)
        return sorted(found) if area < MAX_WINDOWS_AREA * width * height else whole

    def _window(self, box: Box) -> tuple[int, int, int, int]:
        margin = WINDOW_MARGIN * ((box[2] - box[0]) + (box[3] - box[1])) / 2
        low = [math.floor((edge - margin) * self.scale / MULTIPLE) for edge in box[:2]]
        high = [math.ceil((edge + margin) * self.scale / MULTIPLE) for edge in box[2:]]
        side = max(1, *(end - start for start, end in zip(low, high, strict=True)))  # squares: fewer shapes to cache
        edges = []
        for start, length in zip(low, self.canvas[::-1], strict=True):
            cells = min(side, length // MULTIPLE)
            first = max(0, min(start, length // MULTIPLE - cells))
            edges.append((MULTIPLE * first, MULTIPLE * (first + cells)))
        return edges[0][0], edges[1][0], edges[0][1], edges[1][1]


def thinned(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Subsample rows and columns of an image much larger than (width, height), to at least twice that size: reading all of
    its pixels would cost more than detection."""
    step = _step(image, size)
    return sampled(image[step // 2 :: step, step // 2 :: step]) if step > 1 else image


def thinned_gray(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The same in gray, uint8 [h, w]; of uint8 [h, w] or BGR [h, w, 3]."""
    if image.ndim == 2:
        return thinned(image, size)
    step = _step(image, size)
    if step > 1 and image.flags.c_contiguous:
        return cv2.cvtColor(_sampled_words(image, step), cv2.COLOR_BGRA2GRAY)
    return cv2.cvtColor(thinned(image, size), cv2.COLOR_BGR2GRAY)


def _step(image: np.ndarray, size: tuple[int, int]) -> int:
    return max(1, min(image.shape[1] // (2 * size[0]), image.shape[0] // (2 * size[1])))


def _sampled_words(image_bgr: np.ndarray, step: int) -> np.ndarray:
    """Every `step`th row and column, from step // 2 on, as uint8 [h, w, 4]: BGR and one byte without meaning.

    numpy copies one 4-byte word per pixel: its three bytes and the byte before them, which exists since the first pixel is
    never sampled. Including the gray conversion this is 1.6 to 1.9 times as fast as channel by channel.
    """
    first = step // 2
    part = image_bgr[first::step, first::step]
    rows, columns = part.shape[:2]
    offset = first * (image_bgr.strides[0] + image_bgr.strides[1]) - 1
    copied = np.empty(4 * rows * columns + 1, np.uint8)
    words = copied[:-1].view(np.uint32).reshape(rows, columns)
    words[:] = np.ndarray((rows, columns), np.uint32, image_bgr, offset, part.strides[:2])
    return copied[1:].reshape(rows, columns, 4)


def sampled(part: np.ndarray) -> np.ndarray:
    """A contiguous copy of a subsampled view, uint8 [h, w] or [h, w, 3].

    Colour by channel: numpy copies scattered 3-byte pixels at a fifth of that speed.
    """
    if part.ndim == 2 or part.strides[1] == part.shape[2]:
        return np.ascontiguousarray(part)
    image = np.empty(part.shape, part.dtype)
    for channel in range(part.shape[2]):
        image[..., channel] = part[..., channel]
    return image


def shrunk(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [h, w] or [h, w, 3] resized to (width, height), bilinearly in integer arithmetic: bit-exact on every CPU."""
    if image.shape[1::-1] == size:
        return image
    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR_EXACT)


class Maps(Protocol):
    """The interface of a detector's network; MapNetwork implements it on a runtime."""

    name: str
    quantized: bool

    def sized(self, height: int, width: int) -> "Maps": ...

    def run(self, image: np.ndarray) -> list[np.ndarray]: ...

    def step(self, output: int) -> tuple[float, int]: ...


class MapNetwork:
    """A .tflite network from an image to feature maps, float32 or int8. name: see Network."""

    def __init__(self, content: bytes, options: RuntimeOptions = ANY_RUNTIME, *, name: str = THE_NETWORK):
        self.runtime, self._interpreter = open_interpreter(content, options, name=name)
        self._content, self._options, self.name = content, options, name
        self._others: dict[tuple[int, int], MapNetwork] = {}
        self._read_ends()

    @classmethod
    def open(cls, bundle: Bundle, options: RuntimeOptions = ANY_RUNTIME) -> "MapNetwork":
        """A bundle's int8 network, named by the path of its file."""
        return cls(bundle.read(Form.INT8), options, name=str(bundle.file(Form.INT8)))

    def _read_ends(self) -> None:
        (self._input,) = self._interpreter.get_input_details()
        outputs = sorted(self._interpreter.get_output_details(), key=lambda one: -int(np.prod(one["shape"])))
        self.shape = tuple(int(size) for size in self._input["shape"][1:])
        self.maps = tuple(tuple(int(size) for size in one["shape"][1:]) for one in outputs)
        self.quantized = self._input["dtype"] == np.int8
        self._outputs = [one["index"] for one in outputs]
        steps = [one["quantization"] for one in outputs]
        self._steps = [(float(scale), int(zero)) if self.quantized else (1.0, 0) for scale, zero in steps]

    def sized(self, height: int, width: int) -> "MapNetwork":
        """The network for images of this size, cached; for fully convolutional networks only."""
        if (height, width) == self.shape[:2]:
            return self
        if (height, width) not in self._others:
            if len(self._others) >= MAX_SHAPES:
                self._others.clear()  # such as for a folder of images of many shapes
            other = MapNetwork(self._content, self._options, name=self.name)
            other._resize(height, width)
            self._others[height, width] = other
        return self._others[height, width]

    def _resize(self, height: int, width: int) -> None:
        try:
            with quiet():
                self._interpreter.resize_tensor_input(self._input["index"], (1, height, width, self.shape[2]))
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise RuntimeFault(
                f"{self.name} cannot take frames of {width}x{height} pixels on {self.runtime}: {error}"
            ) from None
        self._read_ends()

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        """The network's input [h, w, c] -> its raw outputs without the batch, the largest first."""
        try:
            self._interpreter.set_tensor(self._input["index"], image[None])
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(index)[0] for index in self._outputs]
        except (ValueError, RuntimeError) as error:
            raise RuntimeFault(f"{self.name} failed on {self.runtime}: {error}") from None

    def step(self, output: int) -> tuple[float, int]:
        """Scale and zero point of an output; (1, 0) for a float one."""
        return self._steps[output]


def non_max_suppression(
    boxes: Sequence[Sequence[float]], scores: Sequence[float], max_iou: float, nested: float = MAX_NESTED
) -> list[int]:
    """The rows to keep of boxes (left, top, right, bottom), the highest score first.

    None overlaps one with a higher score by more than `max_iou` (intersection over union), nor by more than the share
    `nested` of the smaller of the two.

    Without numpy: for the usual few boxes, arrays would take three times as long.
    """
    kept: list[tuple[int, float, float, float, float, float]] = []
    for row in sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[:MAX_BOXES]:
        left, top, right, bottom = boxes[row]
        area = max((right - left) * (bottom - top), 1e-9)
        for _, x0, y0, x1, y1, other in kept:
            if left < x1 and x0 < right and top < y1 and y0 < bottom:
                both = (min(right, x1) - max(left, x0)) * (min(bottom, y1) - max(top, y0))
                if both > max_iou * (area + other - both) or both > nested * min(area, other):
                    break
        else:
            kept.append((row, left, top, right, bottom, area))
    return [one[0] for one in kept]


def logit(share: float) -> float:
    """The inverse of the logistic function, for 0 < share < 1."""
    return math.log(share / (1 - share))
