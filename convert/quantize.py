"""Keras to TFLite: float32, float16 weights, and full int8."""

from typing import TYPE_CHECKING

import numpy as np

from edgefer.convert.batch_norm import convolve_norms
from edgefer.convert.child import reason
from edgefer.errors import RuntimeFault
from edgefer.preprocess import to_float
from edgefer.quiet import quiet
from edgefer.train.backend import tensorflow
from edgefer.train.data.dataset import Split, stratified_rows
from edgefer.train.zscore import fold_zscore

if TYPE_CHECKING:
    import tf_keras

CALIBRATION_IMAGES = 512


def to_float32(model: "tf_keras.Model") -> bytes:
    """The network as a float32 .tflite with batch size 1."""
    return run_converter(_converter(model))


def to_float16(model: "tf_keras.Model") -> bytes:
    """The network as a .tflite with float16 weights, half the bytes; float32 in and out, batch size 1.

    Runtimes convert the weights to float32 on loading, unless the processor computes in float16.
    """
    tf = tensorflow()
    converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    return run_converter(converter)


def to_int8(model: "tf_keras.Model", calibration: np.ndarray) -> bytes:
    """The network as a .tflite with int8 input, output and arithmetic, batch size 1.

    calibration: uint8 [n, h, w, c], images as the network will see them. The input's scale is 1/255 and its zero
    point -128, so that its input is raw pixels minus 128. Per channel for convolutions, per tensor for dense layers:
    runtimes and compilers from before 2024 expect one scale there (TensorFlow Lite Micro and NNAPI reject more).
    """
    return run_converter(int8_converter(model, calibration))


def aware_to_int8(aware: "tf_keras.Model") -> bytes:
    """A quantization-aware network as an int8 .tflite: its ranges were learned, not calibrated."""
    return run_converter(_int8_converter(aware))


def int8_converter(model: "tf_keras.Model", calibration: np.ndarray):
    """The converter used by `to_int8`, for further use."""
    calibration = with_extremes(calibration)
    converter = _int8_converter(model)
    tf = tensorflow()
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.representative_dataset = lambda: ([to_float(one)[None]] for one in calibration)
    return converter


def with_extremes(calibration: np.ndarray) -> np.ndarray:
    """The images uint8 [n, h, w, c] with a 0 and a 255 in each channel of the first: the input's range is calibrated from
    the extremes seen, and must be that of all pixels."""
    calibration = calibration.copy()
    for channel in np.moveaxis(calibration[0], -1, 0):
        channel[np.unravel_index(channel.argmin(), channel.shape)] = 0
        channel[np.unravel_index(channel.argmax(), channel.shape)] = 255
    return calibration


def _int8_converter(model):
    tf = tensorflow()
    converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    return converter


def calibration_images(split: Split, seed: int, count: int = CALIBRATION_IMAGES) -> np.ndarray:
    """A stratified, seeded sample of a split: uint8 [count, h, w, c]."""
    return split.images[stratified_rows(split.labels, min(count, len(split)), seed)]


def _converter(model):
    tf = tensorflow()
    model = convolve_norms(fold_zscore(model))
    # Batch size 1 in the signature: None would leave dynamic dimensions, which the Edge TPU compiler rejects.
    signature = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)
    function = tf.function(lambda pixels: model(pixels, training=False), autograph=False)
    return converter_of(function.get_concrete_function(signature))


def converter_of(function):
    """TFLite's converter of a concrete function."""
    tf = tensorflow()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    # Constants, no variables: the converter would first write them to a checkpoint and read them back, twice the time.
    constant = convert_variables_to_constants_v2(function, lower_control_flow=False)
    return tf.lite.TFLiteConverter.from_concrete_functions([constant], tf.Module())


def run_converter(converter) -> bytes:
    """The .tflite of a TFLiteConverter. RuntimeFault, with the reason in one sentence, if it fails."""
    try:
        with quiet():
            return converter.convert()
    except Exception as error:  # its C++ code may raise any exception
        raise RuntimeFault(f"TensorFlow could not convert the network: {reason(error)}") from error
