"""Files made to crash lint, to take its time or its memory, or to be read otherwise than a runtime reads them."""

import time
import tracemalloc

import flatbuffers
import numpy as np
import pytest

from edgefer.errors import InputError
from edgefer.tflite.description import read_description
from edgefer.tflite.flatbuffer import read_model
from edgefer.tflite.lint import TITLES, lint
from edgefer.tflite.metadata import IDENTIFIER
from edgefer.tflite.trial import try_network
from tests.tflite.networks import Maker


@pytest.fixture
def make() -> Maker:
    return Maker(np.random.default_rng(0))


def errors(content: bytes) -> dict[str, set[str]]:
    """The rules of each target's errors."""
    model = read_model(content, "x")
    return {target: {one.rule for one in lint(model, target) if one.severity == "error"} for target in TITLES}


@pytest.mark.parametrize("name", ["SQUEEZE", "RESIZE_BILINEAR", "MEAN", "CONCATENATION", "TRANSPOSE_CONV", "RELU"])
@pytest.mark.parametrize("missing", ["inputs", "outputs"])
def test_an_operator_without_inputs_or_outputs_is_an_error_for_each_target(make, name, missing):
    y = make.unary(name, make.input((1, 8, 8, 3)))
    setattr(make.operators[0], missing, [])
    found = errors(make.finish(y))
    assert all(found.values()) and "inputs" in found["litert"] and "edgetpu-nothing" in found["edgetpu"]


def test_a_negative_dimension_of_scales_without_zero_points_is_no_crash(make):
    y = make.conv(make.input((1, 8, 8, 3)), 4)
    quanta = make.tensors[make.operators[0].inputs[1]].quantization
    quanta.zeroPoint, quanta.quantizedDimension = [], -10
    assert "quantization" in errors(make.finish(y))["litert"]


def test_a_shape_of_hundreds_of_dimensions_is_damage(make):
    y = make.conv(make.input((1, 8, 8, 3)), 4)
    make.tensors[make.operators[0].inputs[1]].shape = [2**31 - 1] * 600  # a product of 5600 digits
    with pytest.raises(InputError, match=r"x is a damaged \.tflite file \(a tensor has 600 dimensions\)"):
        read_model(make.finish(y), "x")


@pytest.mark.parametrize("end", [0, 1])
def test_a_constant_after_the_flatbuffer_must_be_in_the_file(make, end):
    y = make.dense(make.input((1, 16)), 8)
    buffer = make.buffers[make.tensors[make.operators[0].inputs[1]].buffer]
    values, buffer.data = buffer.data.tobytes(), None
    buffer.offset, buffer.size = 1 << 16, len(values)
    content = make.finish(y).ljust(buffer.offset, b"\0") + values[: len(values) - end]
    assert try_network(content, "litert").runs == (not end)
    if end:
        with pytest.raises(InputError, match="a constant ends at byte 65,664 of 65,663"):
            read_model(content, "x")
    else:
        assert bytes(read_model(content, "x").operators[0].inputs[1].data) == values


@pytest.mark.parametrize(("kind", "refused"), [("INT32", False), ("FLOAT32", True), ("INT16", True)])
def test_the_bias_of_a_transposed_convolution_is_checked_as_any_other(make, kind, refused):
    x = make.input((1, 4, 4, 4))
    weights = make.constant(np.ones((3, 2, 2, 4), np.int8), [0.1] * 3)
    bias = make.constant(np.ones(3, np.int32), [0.1 / 255] * 3)
    make.tensors[bias].type = getattr(make.schema.TensorType, kind)
    options = make.schema.TransposeConvOptionsT()
    options.strideH = options.strideW = 2
    size = make.constant(np.array([1, 8, 8, 3], np.int32))
    y = make._operator("TRANSPOSE_CONV", options, (size, weights, x, bias), make.tensor((1, 8, 8, 3), 1.0, 0))
    make.codes["TRANSPOSE_CONV"][0].version = 3
    content = make.finish(y)
    assert try_network(content, "litert").runs == (not refused)
    assert ("type" in errors(content)["litert"]) == refused


@pytest.mark.parametrize("name", ["STRIDED_SLICE", "MEAN", "CONCATENATION"])
def test_thousands_of_operators_that_share_a_large_constant_are_read_at_once(make, name):
    x, y = make.input((1, 16)), make.tensor((1, 16))
    large = make.constant(np.zeros(200_000, np.int8 if name == "CONCATENATION" else np.int32), [0.05])
    for _ in range(1000):
        make._operator(name, None, (x, x, x, large) if name == "STRIDED_SLICE" else (x, large), y)
    model = read_model(make.finish(y), "x")
    began = time.process_time()
    lint(model, "edgetpu")
    assert time.process_time() - began < 2  # some minutes, if each operator reads all of it


def test_metadata_whose_lists_are_all_one_list_takes_no_gigabyte():
    """A thousand outputs, all of them one table with a thousand files, all of them one file with a long name."""
    builder = flatbuffers.Builder()

    def vector(place: int, count: int) -> int:
        builder.StartVector(4, count, 4)
        for _ in range(count):
            builder.PrependUOffsetTRelative(place)
        return builder.EndVector()

    def table(slots: dict[int, int], kind: int = 0) -> int:
        builder.StartObject(8)
        for slot, place in slots.items():
            builder.PrependUOffsetTRelativeSlot(slot, place, 0)
        builder.PrependUint8Slot(2, kind, 0)
        return builder.EndObject()

    files = vector(table({0: builder.CreateString("n" * 1000)}, kind=2), 1000)
    outputs = vector(table({6: files}), 1000)
    builder.Finish(table({3: vector(table({3: outputs}), 1)}), IDENTIFIER)
    tracemalloc.start()
    with pytest.raises(ValueError, match="lists are longer"):
        read_description(bytes(builder.Output()))
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
