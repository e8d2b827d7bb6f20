"""From a trained bundle to TFLite: calibration, pruning and int8 quantization (TensorFlow inside functions)."""

import sys

from edgefer.api import CallablePackage, convert

_package = sys.modules[__name__]
_package.__class__ = CallablePackage
_package.set_function(convert)
