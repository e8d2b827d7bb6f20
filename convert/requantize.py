"""int8 from a float .tflite, for imported networks that have no Keras file: TensorFlow Lite's own quantizer, which is also
the second half of its converter.

As a program (python -m edgefer.convert.requantize FOLDER OUT) it works in a separate process, which isolates what TensorFlow
does with an untrusted file.
"""

import tempfile
from pathlib import Path

import numpy as np

from edgefer.card import InputSpec
from edgefer.convert.child import Failed, made_apart, serve
from edgefer.convert.quantize import with_extremes
from edgefer.errors import RuntimeFault
from edgefer.preprocess import float_table, look_up
from edgefer.tflite.flatbuffer import float_operators, read_model
from edgefer.tflite.metadata import without_metadata
from edgefer.tflite.widen import widened

SOURCE, IMAGES, TABLE, DEBUG = "float.tflite", "images.npy", "table.npy", "debug"
TIMEOUT_S = 3600


def tflite_to_int8(content: bytes, spec: InputSpec, calibration: np.ndarray, *, debug: bool = False) -> bytes:
    """The float .tflite, float16 weights included, with int8 input, output and arithmetic: per channel for convolutions, per tensor for dense layers,
    as edgefer.convert.quantize.to_int8 makes it.

    calibration: uint8 [n, h, w, c], images as the network will see them. debug: instead the network for TFLite's
    QuantizationDebugger. RuntimeFault if TensorFlow cannot quantize it, or leaves part of it in float.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / SOURCE).write_bytes(content)
        np.save(folder / IMAGES, with_extremes(calibration))
        np.save(folder / TABLE, float_table(spec))
        if debug:
            (folder / DEBUG).touch()
        try:
            made = made_apart("edgefer.convert.requantize", folder, folder, TIMEOUT_S)
        except TimeoutError:
            raise RuntimeFault(f"TensorFlow did not quantize the network within {TIMEOUT_S} s.") from None
        except Failed as failed:
            raise RuntimeFault(f"TensorFlow could not quantize the network: {failed}") from None
    left = dict.fromkeys(operator.name for operator in float_operators(read_model(made, "int8.tflite")))
    if left and not debug:
        raise RuntimeFault(
            f"TensorFlow leaves {', '.join(left)} in float32, so the network would not be int8: replace {'it' if len(left) == 1 else 'them'} "
            "in the network, or run it in float32."
        )
    return made


def _quantize(source: str) -> bytes:
    from edgefer.train.backend import tensorflow

    tf = tensorflow()
    # What tf.lite.TFLiteConverter does after it has made a float .tflite; there is no public name for it.
    from tensorflow.lite.python.convert import mlir_quantize
    from tensorflow.lite.python.optimize.calibrator import Calibrator, add_intermediate_tensors

    folder = Path(source)
    images, table = np.load(folder / IMAGES), np.load(folder / TABLE)
    # TensorFlow would quantize no constant of a file whose metadata is litert-torch's "keep_stablehlo_constant".
    content = widened(without_metadata((folder / SOURCE).read_bytes()))
    shape = read_model(content, SOURCE).main.inputs[0].shape  # a gray one's may be without channels
    calibrator = Calibrator(add_intermediate_tensors(content))
    calibrated = calibrator.calibrate(lambda: ([look_up(one, table).reshape(shape)] for one in images))
    debug = (folder / DEBUG).exists()
    return mlir_quantize(
        calibrated,
        input_data_type=tf.float32 if debug else tf.int8,
        output_data_type=tf.float32 if debug else tf.int8,
        disable_per_channel_for_dense_layers=True,
        enable_numeric_verify=debug,
    )


if __name__ == "__main__":
    serve(_quantize)
