"""Keras files with code in them, where somebody says --trust: Keras loads the file in a process of its own, which runs that
code with this user's rights, and what comes back is a plain .tflite with no code in it.

As a program (python -m edgefer.convert.trusted FILE OUT) it is that process.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgefer.errors import InputError
from edgefer.files import MAX_NETWORK, read_regular
from edgefer.text import printable

TIMEOUT_S = 600
MEANING = (
    "--trust: Keras loads {file}, which runs whatever Python code it holds, as you: with your files and your network. The bundle "
    "will hold a plain .tflite and none of that code."
)


def run_and_convert(file: Path) -> bytes:
    """A Keras file's float32 .tflite, made by running the code that the file holds. InputError where Keras cannot load it,
    or TFLite has no operators for it."""
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "network.tflite"
        command = [sys.executable, "-m", "edgefer.convert.trusted", str(file.absolute()), str(out)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT_S, errors="replace", cwd=work
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"{file} was not converted within {TIMEOUT_S} s.") from None
        if done.returncode or not out.is_file():
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise InputError(f"Keras cannot make a .tflite of {file}: {printable(reason):.300}")
        return read_regular(out, MAX_NETWORK, error=InputError)


def _load(file: str) -> Any:
    """The model, by Keras 2 or by Keras 3: whichever takes the file."""
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


def _convert(file: str, out: str) -> None:
    import tensorflow as tf

    model = _load(file)
    shape = model.input_shape
    if isinstance(shape, list) or any(side is None for side in shape[1:]):
        raise ValueError(f"it takes {shape}, not one image of a size that is known")
    fixed = tf.TensorSpec((1, *shape[1:]), tf.float32)
    function = tf.function(lambda pixels: model(pixels, training=False)).get_concrete_function(fixed)
    Path(out).write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([function], model).convert())


if __name__ == "__main__":
    try:
        _convert(*sys.argv[1:3])
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
