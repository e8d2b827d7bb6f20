"""How networks that find faces are fitted: on the pixels that every other part of edgefer makes, resumable."""

import itertools

import numpy as np
import pytest

from edgefer.preprocess import to_float
from edgefer.train.backend import tensorflow
from edgefer.train.faces.fit import Schedule, fit

pytestmark = pytest.mark.timeout(120)
GRAYS = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)


@pytest.fixture
def fitted(tmp_path):
    """Fit a network of one weight, which gives its pixels back times it, for so many steps; returns it and the losses."""
    tensorflow()
    import tf_keras

    def build():
        pixels = tf_keras.Input((16, 16, 1))
        scaled = tf_keras.layers.DepthwiseConv2D(1, use_bias=False, depthwise_initializer="ones", dtype="float32")(
            pixels
        )
        return tf_keras.Model(pixels, scaled)

    def loss(outputs, targets):
        import tensorflow as tf

        return tf.reduce_max(tf.abs(outputs - targets))

    def run(steps, rate=0.0):
        seen = []
        schedule = Schedule(rate=rate, steps=steps, warmup=0, weight_decay=0.0, every=1)
        model = fit(
            build, loss, lambda step: (GRAYS, to_float(GRAYS)), schedule, tmp_path, lambda *row: seen.append(row)
        )
        return model, seen

    return run


def test_pixels_are_what_every_runtime_makes_of_them_to_the_last_bit(fitted):
    """A division by 255 gives another number than the multiplication for 126 of the 256 values."""
    _, seen = fitted(2)
    assert seen == [(1, 0.0), (2, 0.0)]


def test_a_fit_that_was_stopped_goes_on_after_its_last_checkpoint(fitted):
    fitted(2)
    _, seen = fitted(4)
    assert [step for step, _ in seen] == [3, 4]
    assert list(itertools.chain(*(row[1:] for row in seen))) == [0.0, 0.0]
