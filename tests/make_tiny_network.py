"""Makes the tiny network inside devices/selftest.py: python tests/make_tiny_network.py prints what stands there.

Needs the train extra. Another TensorFlow may give other bytes; paste them, and the answers, together.
"""

import base64
import textwrap
import zlib

import numpy as np

from edgefer.card import InputSpec
from edgefer.convert.quantize import to_int8
from edgefer.devices.board.selftest import PIXELS
from edgefer.interpreter import Network, RuntimeOptions
from edgefer.train.backend import tensorflow


def make() -> bytes:
    """An int8 .tflite of one convolution and one dense layer, weights by a seeded generator: 16x16x1 in, 2 out."""
    rng = np.random.default_rng(1)
    tensorflow()
    import tf_keras

    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.Input((16, 16, 1)),
            layers.Conv2D(4, 3, strides=4, activation="relu"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    # Tenths and quarters, so that the file packs small.
    model.set_weights([np.round(rng.normal(0, 0.5, weights.shape), 1) for weights in model.get_weights()])
    return to_int8(model, rng.integers(0, 256, (20, 16, 16, 1), np.uint8))


if __name__ == "__main__":
    content = make()
    network = Network(content, InputSpec(height=16, width=16), 2, options=RuntimeOptions(runtime="litert"))
    print("\n".join(textwrap.wrap(base64.b64encode(zlib.compress(content, 9)).decode(), 110)))
    print("ANSWERS =", network.raw(PIXELS).tolist(), f"# {len(content)} bytes")
