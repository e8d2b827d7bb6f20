"""Bit-exact answers, independent of runtimes: by the C code if a compiler is installed, else in numpy."""

import numpy as np

from edgefer.c.host import HostNetwork, compiler
from edgefer.c.program import Program
from edgefer.interpreter import THE_NETWORK
from edgefer.preprocess import look_up, to_int8
from edgefer.tflite import arithmetic


def exact_answers(program: Program, pixels: np.ndarray) -> np.ndarray:
    """uint8 [n, h, w, c] -> int8 [n, answers], outputs concatenated."""
    if compiler():
        return HostNetwork(program).answers(pixels)
    images = to_int8(pixels) if program.table is None else look_up(pixels, program.table)
    return np.stack([arithmetic.outputs(program.network, image) for image in images])


class ExactMaps:
    """A network with the interface of the detectors' networks (edgefer.devices.faces.canvas.MapNetwork): int8 in, maps out."""

    name, quantized = THE_NETWORK, True

    def __init__(self, program: Program):
        self._network = program.network
        self.shape = program.network.input.shape
        self._host = HostNetwork(program) if compiler() else None

    def sized(self, height: int, width: int) -> "ExactMaps":
        """The network for images of this size, no larger than its own."""
        other = object.__new__(ExactMaps)
        other._network, other.shape = self._network.resized(height, width), (height, width, *self.shape[2:])
        other._host = self._host and self._host.sized(height, width)
        return other

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        """int8 [h, w, c] -> each output in its shape, the largest first."""
        if self._host is not None:
            flat = self._host.answers((image.view(np.uint8) ^ 0x80)[None])[0]  # the inverse of to_int8
        else:
            flat = arithmetic.outputs(self._network, image)
        sizes = np.cumsum([value.size for value in self._network.outputs])[:-1]
        return [
            part.reshape(value.shape) for part, value in zip(np.split(flat, sizes), self._network.outputs, strict=True)
        ]

    def step(self, output: int) -> tuple[float, int]:
        """Scale and zero point of an output."""
        value = self._network.outputs[output]
        return float(value.scale), value.zero
