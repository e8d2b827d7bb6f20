"""A .tflite that edgefer writes states the shapes that a runtime computes."""

import numpy as np
import pytest

from edgefer.tflite.write import Layer, shapes_of, write_tflite


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["pool", "conv", "depthwise"])
def test_odd_sizes_and_windows_that_are_no_squares(kind, stride, padding):
    from ai_edge_litert.interpreter import Interpreter

    weights = {"conv": np.ones((4, 3, 5, 2)), "depthwise": np.ones((1, 3, 5, 2))}.get(kind)
    bias = None if weights is None else np.zeros(4 if kind == "conv" else 2)
    layers = [Layer(kind=kind, inputs=("x",), output="y", weights=weights, bias=bias, stride=stride, padding=padding)]
    interpreter = Interpreter(model_content=write_tflite(layers, "x", (9, 7, 2), ["y"]))
    interpreter.allocate_tensors()
    assert shapes_of(layers, "x", (9, 7, 2))["y"] == tuple(interpreter.get_output_details()[0]["shape"][1:])
