"""From a trained bundle to TFLite: calibration, pruning and int8 quantization (TensorFlow inside functions)."""

import sys

from edgefer.api import CallablePackage, convert

sys.modules[__name__].__class__ = CallablePackage
_function = convert
