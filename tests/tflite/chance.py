"""Random networks: of one operator, or of every one, with random sizes, strides, paddings, activations and quanta."""

import numpy as np

from tests.tflite.networks import Maker

ACTIVATIONS = ("NONE", "RELU", "RELU6")


class Chance:
    """Draws the properties of a generated network."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.make = Maker(self.rng)

    def one_of(self, *items):
        return items[self.rng.integers(len(items))]

    def act(self):
        return self.one_of(*ACTIVATIONS)

    def pair(self, low: int, high: int):
        return int(self.rng.integers(low, high)), int(self.rng.integers(low, high))

    def moves(self):
        """Window, strides and padding: no window smaller than its stride, which has a test of its own."""
        strides = self.pair(1, 3)
        kernel = tuple(int(self.rng.integers(side, 5)) for side in strides)
        return kernel, strides, self.one_of("SAME", "VALID")

    def input(self) -> int:
        size = self.pair(9, 25)
        return self.make.input((1, *size, self.one_of(1, 3, 8)), *self.one_of((1 / 255, -128), (0.02, 5)))


def flat(make: Maker, x: int) -> int:
    return make.reshape(x, (1, int(np.prod(make.shape(x)))))


ONE = {
    "conv": lambda c, x: c.make.conv(x, c.one_of(5, 8, 16), *c.moves(), c.act(), per=c.one_of(True, False)),
    "dilated": lambda c, x: c.make.conv(x, 6, (3, 3), (1, 1), c.one_of("SAME", "VALID"), c.act(), (2, 2)),
    "depthwise": lambda c, x: c.make.depthwise(x, c.one_of(1, 2), *c.moves(), c.act()),
    "dilated depthwise": lambda c, x: c.make.depthwise(x, 1, (3, 3), (1, 1), "SAME", c.act(), (2, 2)),
    "dense": lambda c, x: c.make.dense(flat(c.make, x), 9, c.act(), per=c.one_of(True, False)),
    "dense of an image": lambda c, x: c.make.dense(x, 9, c.act()),
    "add": lambda c, x: c.make.add(x, c.make.conv(x, c.make.shape(x)[3], (1, 1)), c.act()),
    "mean": lambda c, x: c.make.mean(x, keep=c.one_of(True, False)),
    "max": lambda c, x: c.make.pool("MAX", x, *c.moves(), c.act()),
    "average": lambda c, x: c.make.pool("AVERAGE", x, *c.moves(), c.act()),
    "pad": lambda c, x: c.make.pad(x, ((0, 0), c.pair(0, 3), c.pair(0, 3), c.pair(0, 3))),
    "relu": lambda c, x: c.make.unary(
        c.one_of("RELU", "RELU6"), x, c.make.scale(x) * c.one_of(0.61, 1.7), c.one_of(-128, 3)
    ),
}


def everything(chance: Chance) -> bytes:
    """A network of every operator, with random sizes, strides, paddings, activations and quanta."""
    make, one_of = chance.make, chance.one_of
    x = make.conv(chance.input(), one_of(5, 8, 16), *chance.moves(), chance.act())
    a = make.conv(x, 12, (3, 3), (1, 1), "SAME", chance.act(), dilation=one_of((1, 1), (2, 2)), per=one_of(True, False))
    x = make.add(a, make.conv(x, 12, (1, 1), (1, 1), "SAME", "NONE"), chance.act())
    x = make.pool(one_of("MAX", "AVERAGE"), x, (2, 3), (1, 2), "SAME", chance.act())
    x = make.pad(x, ((0, 0), chance.pair(0, 3), chance.pair(0, 3), (0, 0)))
    x = make.depthwise(x, one_of(1, 2), (3, 2), one_of((1, 1), (2, 2)), one_of("SAME", "VALID"), chance.act())
    x = make.unary(one_of("RELU", "RELU6"), x, *one_of((None, None), (make.scale(x) * 0.61, -128)))
    if one_of(True, False):
        x = make.mean(x, keep=one_of(True, False))
    return make.finish(make.dense(make.dense(flat(make, x), 9, chance.act(), per=one_of(True, False)), 5))
