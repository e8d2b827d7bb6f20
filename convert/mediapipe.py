"""The network in the format of MediaPipe's ImageClassifier: RGB uint8 pixels in, uint8 probabilities out.

The graph includes what edgefer otherwise does around a network: conversion from RGB, and the softmax with its temperature.
"""

from typing import TYPE_CHECKING

import numpy as np

from edgefer.card import InputSpec
from edgefer.convert.batch_norm import convolve_norms
from edgefer.convert.quantize import int8_converter, run_converter
from edgefer.errors import BundleError
from edgefer.interpreter import Network
from edgefer.train.backend import tensorflow
from edgefer.train.zscore import fold_zscore

if TYPE_CHECKING:
    import tf_keras

# What the network's own channels are of R, G and B. Gray: ITU-R BT.601, as in OpenCV.
FROM_RGB = {"gray": np.array([[0.299], [0.587], [0.114]]), "bgr": np.eye(3)[::-1]}
MIN_PROBABILITY = 1 / 512  # replaces a probability of 0, which may be anything up to half a step of 1/256


def to_mediapipe(model: "tf_keras.Model", spec: InputSpec, temperature: float, calibration: np.ndarray) -> bytes:
    """The network as an int8 .tflite with uint8 input and output: RGB in, probabilities (256ths) out; batch size 1.

    spec: the network's own input. temperature: the card's. calibration: uint8 [n, h, w, c], images as the network
    itself would receive them.
    """
    tf = tensorflow()
    import tf_keras

    layers = tf_keras.layers
    pixels = tf_keras.Input((spec.height, spec.width, 3))
    own = pixels
    if spec.color in FROM_RGB:
        mixed = layers.Conv2D(spec.channels, 1, use_bias=False, name=spec.color)
        own = mixed(pixels)
        mixed.set_weights([FROM_RGB[spec.color].reshape(1, 1, 3, spec.channels)])
    logits = convolve_norms(fold_zscore(model))(own)
    whole = tf_keras.Model(pixels, layers.Softmax()(layers.Rescaling(1 / temperature)(logits)))
    converter = int8_converter(whole, _rgb(calibration, spec))
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    return run_converter(converter)


def _rgb(pixels: np.ndarray, spec: InputSpec) -> np.ndarray:
    """The network's own pixels [..., c] as the form's: R, G, B."""
    return pixels[..., ::-1] if spec.color == "bgr" else np.broadcast_to(pixels, (*pixels.shape[:-1], 3))


class MediaPipeNetwork(Network):
    """Runs such a file on a TFLite runtime with the input of every other network: uint8 pixels in the card's colour."""

    def check_contract(self, inputs: dict, outputs: dict, spec: InputSpec, classes: int) -> None:
        ends = tuple(inputs["shape"]), tuple(outputs["shape"]), inputs["dtype"], outputs["dtype"]
        if ends != ((1, spec.height, spec.width, 3), (1, classes), np.uint8, np.uint8):
            raise BundleError(f"{self.name} is not a mediapipe.tflite of edgefer: convert it again.")

    def feed(self, pixels: np.ndarray) -> np.ndarray:
        return _rgb(pixels, self.spec)

    def dequantize(self, raw: np.ndarray) -> np.ndarray:
        """The log probabilities: logits with a temperature of 1."""
        return np.log(np.maximum((raw.astype(np.float32) - self.zero) * self.scale, MIN_PROBABILITY)).astype(np.float32)
