"""lint's verdict for MediaPipe: each description below was tried on 1.2.3's ImageClassifier, and the result recorded."""

from importlib import import_module

import flatbuffers
import numpy as np
import pytest

from edgefer.tflite.flatbuffer import read_model
from edgefer.tflite.lint import lint
from edgefer.tflite.metadata import FEATURE, GRAYSCALE, IDENTIFIER, IMAGE, NORMALIZATION, RGB, _table, _write

schema = import_module("ai_edge_litert.schema_py_generated")
OUTPUT = _table("TensorMetadata", name="p")
LABELS = _table("TensorMetadata", name="p", associated_files=[_table("AssociatedFile", name="labels.txt", type=np.uint8(2))])  # fmt: skip
NAN = float("nan")


def unit(mean, std):
    options = _table("NormalizationOptions", mean=np.array(mean, np.float32), std=np.array(std, np.float32))
    return _table("ProcessUnit", options_type=NORMALIZATION, options=options)


def image(*units, color=RGB, kind=IMAGE):
    properties = _table("ImageProperties", color_space=color) if kind == IMAGE else _table("FeatureProperties")
    content = _table("Content", content_properties_type=kind, content_properties=properties)
    return _table("TensorMetadata", name="image", content=content, **({"process_units": list(units)} if units else {}))


def answer(name, kind):
    """An output with an associated file of that name and type, which the .tflite does not hold."""
    return _table(
        "TensorMetadata", name="p", associated_files=[_table("AssociatedFile", name=name, type=np.uint8(kind))]
    )


def described(inputs=None, outputs=(OUTPUT,), **more) -> bytes:
    inputs = [image(unit([0], [1]))] if inputs is None else inputs
    graph = _table("SubGraphMetadata", input_tensor_metadata=list(inputs), output_tensor_metadata=list(outputs))
    builder = flatbuffers.Builder()
    fields = {"min_parser_version": "1.0.0"} | more
    builder.Finish(_write(builder, _table("ModelMetadata", name="m", subgraph_metadata=[graph], **fields)), IDENTIFIER)
    return bytes(builder.Output())


def network(description: bytes, inputs: int = 1, outputs: int = 1) -> bytes:
    """A float network of one dense layer per output, with that metadata."""
    model, graph, code = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT(), schema.BufferT(), schema.BufferT()]
    model.buffers[1].data = np.ones(5 * 192, np.float32).view(np.uint8)
    model.buffers[2].data = np.frombuffer(description, np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = b"TFLITE_METADATA", 2
    model.metadata = [entry]
    shapes = [(1, 8, 8, 3), (5, 192), *[(1, 5)] * outputs, *[(1, 8, 8, 3)] * (inputs - 1)]
    graph.tensors, graph.operators = [], []
    for number, shape in enumerate(shapes):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = f"t{number}".encode(), np.array(shape, np.int32), int(number == 1)
        graph.tensors.append(tensor)
    for number in range(outputs):
        operator = schema.OperatorT()
        operator.inputs, operator.outputs = np.array([0, 1, -1], np.int32), np.array([2 + number], np.int32)
        operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        operator.builtinOptions = schema.FullyConnectedOptionsT()
        graph.operators.append(operator)
    graph.inputs = np.array([0, *range(2 + outputs, 1 + outputs + inputs)], np.int32)
    graph.outputs = np.arange(2, 2 + outputs, dtype=np.int32)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


OPENS = {
    "valid": network(described()),
    "the same for each channel": network(described([image(unit([1] * 3, [2] * 3))])),
    "two inputs described, one there": network(described([image(unit([0], [1]))] * 2)),
    "two outputs": network(described(outputs=[OUTPUT] * 2), outputs=2),
    "an image without properties": network(
        described(
            [
                _table(
                    "TensorMetadata",
                    name="i",
                    content=_table("Content", content_properties_type=IMAGE),
                    process_units=[unit([0], [1])],
                )
            ]
        )
    ),
    "a missing associated file": network(described(outputs=[answer("x.txt", 1)])),
    "labels without a file": network(described(outputs=[answer("", 2)])),
    "the smallest deviation": network(described([image(unit([0], [1.2e-7]))])),
    "a dot behind the parser's version": network(described(min_parser_version="1.0.")),
    "a negative part of the parser's version": network(described(min_parser_version="1.-5.0")),
}
REFUSED = {
    "another mean by channel": (network(described([image(unit([123, 116, 103], [58] * 3))])), "by channel"),
    "another deviation by channel": (network(described([image(unit([1] * 3, [58, 57, 58]))])), "by channel"),
    "no normalization": (network(described([image()])), "needs NormalizationOptions"),
    "a deviation too small": (network(described([image(unit([0], [1.1e-7]))])), "divides by 1.1e-07"),
    "content of an unknown kind": (network(described([image(unit([0], [1]), kind=np.uint8(0))])), "is not an image"),
    "a mean far beyond the pixels": (network(described([image(unit([1e30], [1]))])), "leaves nothing"),
    "a parser version that is a word": (network(described(min_parser_version="abc")), "'abc' is not a version"),
    "an empty parser version": (network(described(min_parser_version="")), "'' is not a version"),
    "deviation 0": (network(described([image(unit([0], [0]))])), "divides by 0"),
    "a negative deviation": (network(described([image(unit([0], [-1]))])), "divides by -1"),
    "deviation NaN": (network(described([image(unit([0], [NAN]))])), "divides by nan"),
    "mean NaN": (network(described([image(unit([NAN], [1]))])), "takes off nan"),
    "an empty normalization": (network(described([image(unit([], []))])), "0 means and 0 deviations"),
    "three means, one deviation": (network(described([image(unit([0] * 3, [1]))])), "3 means and 1 deviations"),
    "two of each": (network(described([image(unit([0] * 2, [1] * 2))])), "2 means and 2 deviations"),
    "two normalizations": (network(described([image(unit([0], [1]), unit([0], [1]))])), "2 normalizations"),
    "gray": (network(described([image(unit([0], [1]), color=GRAYSCALE)])), "not RGB"),
    "an unknown colour space": (network(described([image(unit([0], [1]), color=np.uint8(0))])), "not RGB"),
    "no image": (network(described([image(unit([0], [1]), kind=FEATURE)])), "is not an image"),
    "no input described": (network(described([])), "describes no input"),
    "two outputs described, one there": (network(described(outputs=[OUTPUT] * 2)), "about 2 outputs"),
    "one output described, two there": (network(described(), outputs=2), "about 1 outputs"),
    "no output described": (network(described(outputs=[])), "about 0 outputs"),
    "two inputs": (network(described([image(unit([0], [1]))] * 2), inputs=2), "one input"),
    "a file that is not there": (network(described(outputs=[LABELS])), "names the file labels.txt"),
    "a newer parser": (network(described(min_parser_version="99.0.0")), "parser of version 99.0.0"),
    "another identifier": (network(b"\x10\0\0\0M999" + bytes(40)), "cannot be read"),
    "garbage": (network(b"\x10\0\0\0M001" + b"\xff" * 40), "cannot be read"),
    "one byte": (network(b"\0"), "cannot be read"),
}


def errors(content: bytes) -> list[str]:
    return [one.what for one in lint(read_model(content, "x"), "mediapipe") if one.severity == "error"]


@pytest.mark.parametrize("name", OPENS)
def test_networks_that_mediapipe_opens_have_no_error(name):
    assert errors(OPENS[name]) == []


@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_mediapipe_refuses_have_an_error(name):
    content, words = REFUSED[name]
    assert any(words in what for what in errors(content)), errors(content)


def test_mutated_descriptions_give_findings_and_no_exception():
    rng = np.random.default_rng(0)
    good = described()
    for _ in range(500):
        content = bytearray(good)
        for at in rng.integers(0, len(content), 3):
            content[at : at + 4] = rng.choice([b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", bytes(4), rng.bytes(4)])[: len(content) - at]  # fmt: skip
        errors(network(bytes(content[: len(good)])))
