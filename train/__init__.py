"""The training host: data sets, networks, recipes, fitting and evaluation (TensorFlow inside functions)."""

import sys

from edgefer.api import CallablePackage, train

_package = sys.modules[__name__]
_package.__class__ = CallablePackage
_package.set_function(train)
