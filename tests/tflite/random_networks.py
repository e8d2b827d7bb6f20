"""Random networks: of one operator, or of every one, with random sizes, strides, paddings, activations and quanta."""

import numpy as np

from tests.tflite.networks import Maker

ACTIVATIONS = ("NONE", "RELU", "RELU6")


class RandomNetwork:
    """Makes a network and draws the properties of its operators."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.make = Maker(self.rng)

    def one_of(self, *items):
        return items[self.rng.integers(len(items))]

    def act(self):
        return self.one_of(*ACTIVATIONS)

    def pair(self, low: int, high: int):
        return int(self.rng.integers(low, high)), int(self.rng.integers(low, high))

    def window(self):
        """Window, strides and padding: no window smaller than its stride, which has a test of its own."""
        strides = self.pair(1, 3)
        kernel = tuple(int(self.rng.integers(side, 5)) for side in strides)
        return kernel, strides, self.one_of("SAME", "VALID")

    def input(self) -> int:
        size = self.pair(9, 25)
        return self.make.input((1, *size, self.one_of(1, 3, 8)), *self.one_of((1 / 255, -128), (0.02, 5)))


def flat(make: Maker, x: int) -> int:
    return make.reshape(x, (1, int(np.prod(make.shape(x)))))


ONE_OPERATOR = {
    "conv": lambda draw, x: draw.make.conv(
        x, draw.one_of(5, 8, 16), *draw.window(), draw.act(), per=draw.one_of(True, False)
    ),
    "dilated": lambda draw, x: draw.make.conv(x, 6, (3, 3), (1, 1), draw.one_of("SAME", "VALID"), draw.act(), (2, 2)),
    "depthwise": lambda draw, x: draw.make.depthwise(x, draw.one_of(1, 2), *draw.window(), draw.act()),
    "dilated depthwise": lambda draw, x: draw.make.depthwise(x, 1, (3, 3), (1, 1), "SAME", draw.act(), (2, 2)),
    "dense": lambda draw, x: draw.make.dense(flat(draw.make, x), 9, draw.act(), per=draw.one_of(True, False)),
    "dense of an image": lambda draw, x: draw.make.dense(x, 9, draw.act()),
    "add": lambda draw, x: draw.make.add(x, draw.make.conv(x, draw.make.shape(x)[3], (1, 1)), draw.act()),
    "mean": lambda draw, x: draw.make.mean(x, keep=draw.one_of(True, False)),
    "max": lambda draw, x: draw.make.pool("MAX", x, *draw.window(), draw.act()),
    "average": lambda draw, x: draw.make.pool("AVERAGE", x, *draw.window(), draw.act()),
    "pad": lambda draw, x: draw.make.pad(x, ((0, 0), draw.pair(0, 3), draw.pair(0, 3), draw.pair(0, 3))),
    "relu": lambda draw, x: draw.make.unary(
        draw.one_of("RELU", "RELU6"), x, draw.make.scale(x) * draw.one_of(0.61, 1.7), draw.one_of(-128, 3)
    ),
}


def every_operator(draw: RandomNetwork) -> bytes:
    """A network of every operator, with random sizes, strides, paddings, activations and quanta."""
    make, one_of = draw.make, draw.one_of
    x = make.conv(draw.input(), one_of(5, 8, 16), *draw.window(), draw.act())
    a = make.conv(x, 12, (3, 3), (1, 1), "SAME", draw.act(), dilation=one_of((1, 1), (2, 2)), per=one_of(True, False))
    x = make.add(a, make.conv(x, 12, (1, 1), (1, 1), "SAME", "NONE"), draw.act())
    x = make.pool(one_of("MAX", "AVERAGE"), x, (2, 3), (1, 2), "SAME", draw.act())
    x = make.pad(x, ((0, 0), draw.pair(0, 3), draw.pair(0, 3), (0, 0)))
    x = make.depthwise(x, one_of(1, 2), (3, 2), one_of((1, 1), (2, 2)), one_of("SAME", "VALID"), draw.act())
    x = make.unary(one_of("RELU", "RELU6"), x, *one_of((None, None), (make.scale(x) * 0.61, -128)))
    if one_of(True, False):
        x = make.mean(x, keep=one_of(True, False))
    return make.finish(make.dense(make.dense(flat(make, x), 9, draw.act(), per=one_of(True, False)), 5))
