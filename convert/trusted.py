"""Keras files with code, imported with --trust: Keras loads the file in a separate process, which runs that code with this
user's permissions and returns a plain .tflite without code.

As a program (python -m edgefer.convert.trusted FILE OUT) it is that process.
"""

from pathlib import Path
from typing import Any

from edgefer.convert.child import float_tflite, serve, tflite_of

MEANING = (
    "With --trust, Keras loads {file} and runs any Python code in it with your permissions, files and network access. The bundle "
    "will hold a plain .tflite and none of that code."
)


def run_and_convert(file: Path) -> bytes:
    """A Keras file's float32 .tflite, made by running the code in the file. InputError if Keras cannot load it, or TFLite
    lacks operators for it."""
    return tflite_of(file, "edgefer.convert.trusted", "Keras")


def _load(file: str) -> Any:
    """The network, loaded by Keras 2 or, if that fails, by Keras 3."""
    from edgefer.train.backend import tensorflow

    tensorflow()
    import keras
    import tf_keras

    try:
        return tf_keras.models.load_model(file, compile=False, safe_mode=False)
    except Exception as error:
        first = error
    try:
        return keras.models.load_model(file, compile=False, safe_mode=False)
    except Exception as error:
        raise ValueError(
            f"Keras 2: {' '.join(str(first).split()):.120}; Keras 3: {' '.join(str(error).split()):.120}"
        ) from None


def _convert(file: str) -> bytes:
    import tensorflow as tf

    network = _load(file)
    shape = network.input_shape
    if isinstance(shape, list) or any(side is None for side in shape[1:]):
        raise ValueError(f"it takes {shape}, not one image of a known size")
    image = tf.TensorSpec((1, *shape[1:]), tf.float32)
    return float_tflite(image, lambda pixels: network(pixels, training=False))


if __name__ == "__main__":
    serve(_convert)
