"""Titles of networks: the type that they compute in, and their input and output types where those differ."""

import pytest

from edgefer.bundle import Bundle, shipped_bundles
from edgefer.convert.contract import Stated, parse_scale
from edgefer.convert.import_options import Request
from edgefer.convert.importing import import_network
from edgefer.parity import verify
from edgefer.tflite.flatbuffer import read_model
from edgefer.tflite.lint import lint
from edgefer.tflite.titles import described, title
from edgefer.train.evaluate import networks
from tests.tflite.random_networks import RandomNetwork, flat

LABELS = ("angry", "happy", "sad")


def with_ends(first: str, last: str, inside: str = "INT8") -> bytes:
    """An int8 network of one dense layer with an image of `first` in and answers of `last` out."""
    make = RandomNetwork(0).make
    image = make.input((1, 16, 16, 1))
    answers = make.dense(flat(make, image), len(LABELS))
    types = make.schema.TensorType
    for tensor in make.tensors:
        if tensor.type == types.INT8 and not tensor.buffer:
            tensor.type = getattr(types, inside)
    make.operators, inner = [], make.operators
    if first != inside:
        make.first = make._tensor((1, 16, 16, 1), first, 0, [] if first == "FLOAT32" else [1 / 255], [0])
        make._operator("QUANTIZE", None, (make.first,), image)
    make.operators += inner
    if last != inside:
        ends = make._tensor((1, len(LABELS)), last, 0, [] if last == "FLOAT32" else [make.scale(answers)], [0])
        answers = make._operator("DEQUANTIZE" if last == "FLOAT32" else "QUANTIZE", None, (answers,), ends)
    return make.finish(answers)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (with_ends("INT8", "INT8"), "int8"),
        (with_ends("FLOAT32", "FLOAT32"), "int8 with float32 input and output"),
        (with_ends("UINT8", "UINT8"), "int8 with uint8 input and output"),
        (with_ends("UINT8", "FLOAT32"), "int8 with uint8 input and float32 output"),
        (with_ends("FLOAT32", "FLOAT32", "INT16"), "int16x8 with float32 input and output"),
    ],
)
def test_file_is_described_by_its_compute_type_and_its_input_and_output_types(content, expected):
    assert described(read_model(content, "made")) == expected


def test_lint_names_the_compute_type_of_an_int16x8_network():
    (found,) = (one for one in lint(read_model(with_ends("FLOAT32", "FLOAT32", "INT16"), "made"), "edgetpu") if one.rule == "not-quantized")  # fmt: skip
    assert found.what == "the network computes in int16x8; the Edge TPU runs nothing but int8"


def test_network_that_computes_in_int8_is_listed_as_such_everywhere(tmp_path):
    (tmp_path / "theirs.tflite").write_bytes(with_ends("FLOAT32", "FLOAT32"))
    stated = Stated(labels=LABELS, scale=parse_scale("0..1"))
    imported = import_network(Request(path=tmp_path / "theirs.tflite", stated=stated), tmp_path / "bundle")
    bundle, name = imported.bundle, "int8 with float32 input and output"
    assert bundle.has("float32") and not bundle.has("int8") and title(bundle, "float32") == name
    expected = [f"original .tflite, {name}: {images}" for images in ("the same images again", "different images")]
    assert [check.subject for check in imported.checks] == expected
    assert f"(.tflite, {name}, sha256 " in bundle.card.provenance.steps[0]
    assert [check.subject for check in verify(bundle)][-1] == f"{name} on litert"
    assert list(networks(bundle)) == [name]


def test_edgefer_s_own_forms_keep_their_names():
    bundle = Bundle.open(shipped_bundles()["fer-nano"])
    assert title(bundle, "int8") == "int8" and title(bundle, "float16") == "float16"
