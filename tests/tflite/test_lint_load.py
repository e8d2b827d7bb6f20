"""lint and the runtimes agree: a valid network with one thing changed is refused by lint where the installed runtime refuses it."""

import json
import struct
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import flatbuffers
import numpy as np
import pytest

from edgefer.bundle import Bundle, shipped_bundles
from edgefer.tflite import trial
from edgefer.tflite.flatbuffer import read_model
from edgefer.tflite.lint import lint, with_trial
from edgefer.tflite.trial import Trial, try_network

PYTHON = sys.executable
schema = import_module("ai_edge_litert.schema_py_generated")
Types, Operators = schema.TensorType, schema.BuiltinOperator


@pytest.fixture(scope="module")
def valid() -> bytes:
    return Bundle.open(shipped_bundles()["fer-nano"]).read("int8")


def changed(content: bytes, change) -> bytes:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    change(model, model.subgraphs[0])
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def weights(model):
    """The first convolution's weights and their buffer."""
    tensor = model.subgraphs[0].tensors[first(model).inputs[1]]
    return tensor, model.buffers[tensor.buffer]


def bias(model):
    tensor = model.subgraphs[0].tensors[first(model).inputs[2]]
    return tensor, model.buffers[tensor.buffer]


def first(model, code=Operators.CONV_2D):
    codes = [max(one.builtinCode, one.deprecatedBuiltinCode) for one in model.operatorCodes]
    return next(one for one in model.subgraphs[0].operators if codes[one.opcodeIndex] == code)


def written(model, code=Operators.CONV_2D):
    return model.subgraphs[0].tensors[first(model, code).outputs[0]]


def put(target, **fields):
    for name, value in fields.items():
        setattr(target, name, value)


def fewer(quantization, *names):
    for name in names:
        setattr(quantization, name, getattr(quantization, name)[:-1])


CHANGES = {
    "nothing": (lambda m, g: None, ""),
    "schema version 2": (lambda m, g: put(m, version=2), "schema-version"),
    "schema version 4": (lambda m, g: put(m, version=4), "schema-version"),
    "no output": (lambda m, g: put(g, outputs=np.array([], np.int32)), "no-output"),
    "no operators": (lambda m, g: put(g, operators=[]), "no-operator"),
    "fewer scales than channels": (
        lambda m, g: fewer(weights(m)[0].quantization, "scale", "zeroPoint"),
        "quantization",
    ),
    "fewer zero points than scales": (lambda m, g: fewer(weights(m)[0].quantization, "zeroPoint"), "quantization"),
    "scales without zero points": (lambda m, g: put(written(m).quantization, zeroPoint=None), "quantization"),
    "zero points of a bias": (
        lambda m, g: put(bias(m)[0].quantization, zeroPoint=bias(m)[0].quantization.zeroPoint + 3),
        "quantization",
    ),
    "a dimension beyond the shape": (lambda m, g: put(bias(m)[0].quantization, quantizedDimension=3), "quantization"),
    "a negative dimension": (lambda m, g: put(weights(m)[0].quantization, quantizedDimension=-1), "quantization"),
    "another dimension": (lambda m, g: put(weights(m)[0].quantization, quantizedDimension=1), "quantization"),
    "two scales of an activation": (
        lambda m, g: put(written(m).quantization, scale=np.array([0.1, 0.1], np.float32), zeroPoint=np.array([0, 0])),
        "quantization",
    ),
    "a scale of 0": (lambda m, g: put(written(m).quantization, scale=np.zeros(1, np.float32)), "quantization"),
    "an infinite scale": (lambda m, g: put(written(m).quantization, scale=np.float32([np.inf])), "quantization"),
    "zero points of weights": (
        lambda m, g: put(weights(m)[0].quantization, zeroPoint=weights(m)[0].quantization.zeroPoint + 3),
        "quantization",
    ),
    "weights shorter than their shape": (
        lambda m, g: put(weights(m)[1], data=weights(m)[1].data[:-8]),
        "constant-size",
    ),
    "a bias shorter than its shape": (lambda m, g: put(bias(m)[1], data=bias(m)[1].data[:-4]), "constant-size"),
    "input without a scale": (lambda m, g: put(g.tensors[g.inputs[0]], quantization=None), "no-scale"),
    "weights without a scale": (lambda m, g: put(weights(m)[0], quantization=None), "no-scale"),
    "a sum without a scale": (lambda m, g: put(written(m, Operators.ADD), quantization=None), "no-scale"),
    "answers without a scale": (lambda m, g: put(g.tensors[g.outputs[0]], quantization=None), "no-scale"),
    "stride 0": (lambda m, g: put(first(m).builtinOptions, strideH=0, strideW=0), "stride"),
    "a negative stride": (lambda m, g: put(first(m).builtinOptions, strideW=-1), "stride"),
    "dilation 0": (lambda m, g: put(first(m).builtinOptions, dilationHFactor=0), "stride"),
    "int16 weights": (lambda m, g: put(weights(m)[0], type=Types.INT16), "constant-size"),
    "uint8 weights": (lambda m, g: put(weights(m)[0], type=Types.UINT8), "type"),
    "an int16 bias": (lambda m, g: put(bias(m)[0], type=Types.INT16), "type"),
    "float answers": (lambda m, g: put(g.tensors[g.outputs[0]], type=Types.FLOAT32), "type"),
    "a convolution without weights": (lambda m, g: put(first(m), inputs=first(m).inputs[:1]), "inputs"),
    "a convolution without a bias": (lambda m, g: put(first(m), inputs=first(m).inputs[:2]), "inputs"),
    "weights left out before the bias": (
        lambda m, g: put(first(m), inputs=[first(m).inputs[0], -1, first(m).inputs[1]]),
        "inputs",
    ),
    "an addition of nothing": (lambda m, g: put(first(m, Operators.ADD), inputs=[]), "inputs"),
    "a convolution without options": (lambda m, g: put(first(m), builtinOptions=None, builtinOptionsType=0), "stride"),
    "a convolution with an addition's options": (
        lambda m, g: put(
            first(m), builtinOptions=schema.AddOptionsT(), builtinOptionsType=schema.BuiltinOptions.AddOptions
        ),
        "stride",
    ),
    "an operator's version": (lambda m, g: put(m.operatorCodes[0], version=99), "operator-version"),
    # What only the runtime itself knows:
    "axes beyond the shape": (
        lambda m, g: put(
            m.buffers[g.tensors[first(m, Operators.MEAN).inputs[1]].buffer],
            data=np.array([1, 9], np.int32).view(np.uint8),
        ),
        None,
    ),
    "another rank": (lambda m, g: put(g.tensors[g.inputs[0]], shape=[48, 48, 1], shapeSignature=None), None),
    "an input of gigabytes": (
        lambda m, g: put(g.tensors[g.inputs[0]], shape=[1, 60_000, 60_000, 1], shapeSignature=None),
        None,
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_lint_refuses_what_the_installed_runtime_refuses_and_nothing_else(valid, name):
    change, rule = CHANGES[name]
    content = changed(valid, change)
    tried = try_network(content, "litert")
    model = read_model(content, "x.tflite")
    for target in ("litert", "tflite-runtime"):
        static = {one.rule for one in lint(model, target) if one.severity == "error"}
        assert rule in static if rule else not static  # known from the file alone, or not
        verdict = with_trial(lint(model, target), target, "litert", tried)
        refused = any(one.severity == "error" for one in verdict)
        assert refused == (name != "nothing"), (target, verdict)
    assert tried.runs == (name == "nothing"), tried


def swapped(graph):
    graph.operators[1], graph.operators[2] = graph.operators[2], graph.operators[1]


@pytest.mark.parametrize("target", ["litert", "tflite-runtime", "edgetpu", "c"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, g: swapped(g), "before anything has written it"),
        (lambda m, g: put(g, operators=g.operators[:-1]), "an output that nothing writes"),
    ],
)
def test_outputs_that_are_never_computed_are_an_error_although_runtimes_return_them(valid, target, change, message):
    content = changed(valid, change)
    found = lint(read_model(content, "x"), target)
    if target == "litert":
        found = with_trial(found, target, "litert", try_network(content, "litert"))
    assert [message in one.what for one in found if one.rule == "not-computed" and one.severity == "error"] == [True]
    assert not [one for one in lint(read_model(valid, "x"), target) if one.rule == "not-computed"]


def test_a_crash_an_endless_load_and_a_missing_runtime_are_findings(valid, monkeypatch, tmp_path):
    def instead(code: str) -> Trial:
        fake = tmp_path / "python"
        fake.write_text(f"#!{PYTHON}\nimport os, signal, time\n{code}\n")
        fake.chmod(0o755)
        monkeypatch.setattr(trial.sys, "executable", str(fake))
        return try_network(valid, "litert", seconds=1)

    crash = instead("os.kill(os.getpid(), signal.SIGSEGV)")
    assert crash == Trial(runs=False, reason="it crashes the runtime (SIGSEGV)")
    endless = instead("time.sleep(9)")
    assert endless == Trial(runs=None, reason="it did not load and run within 1 s")
    model = read_model(valid, "x")
    assert [one.rule for one in with_trial((), "litert", "litert", endless)] == ["not-tried"]
    assert [one.rule for one in with_trial(lint(model, "litert"), "litert", "litert", crash)] == ["does-not-run"]


def test_a_process_with_a_lower_memory_limit_tries_the_file_within_it(valid):
    limited = [
        "bash",
        "-c",
        'ulimit -v 5000000; exec "$@"',
        "bash",
        sys.executable,
        "-m",
        "edgefer.tflite.trial",
        "litert",
    ]
    done = subprocess.run(limited, input=valid, capture_output=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == {"runs": True, "reason": ""}


def test_verdict_of_the_installed_runtime_takes_precedence(valid):
    """A constant longer than its shape: ai-edge-litert accepts it, tflite-runtime 2.14 does not."""
    content = changed(valid, lambda m, g: put(bias(m)[1], data=np.append(bias(m)[1].data, np.zeros(4, np.uint8))))
    tried = try_network(content, "litert")
    assert tried.runs
    for target, severities in (("litert", set()), ("tflite-runtime", {"error"})):
        found = with_trial(lint(read_model(content, "x"), target), target, "litert", tried)
        assert {one.severity for one in found} == severities


def custom(name: str, shapes: list[tuple[int, ...]], options: bytes) -> bytes:
    """A float network of one of MediaPipe's custom operators: input, constants, output."""
    model, graph, code, operator = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = Operators.CUSTOM
    code.customCode, code.version = name.encode(), 1
    last = len(shapes) - 1
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], []
    graph.tensors, graph.operators = [], [operator]
    graph.inputs, graph.outputs = np.array([0], np.int32), np.array([last], np.int32)
    for number, shape in enumerate(shapes):
        tensor, buffer = schema.TensorT(), schema.BufferT()
        tensor.name, tensor.shape, tensor.buffer = f"t{number}".encode(), np.array(shape, np.int32), number
        if 0 < number < last:
            buffer.data = np.zeros(4 * int(np.prod(shape)), np.uint8)
        graph.tensors.append(tensor)
        model.buffers.append(buffer)
    operator.inputs, operator.outputs = np.arange(last, dtype=np.int32), np.array([last], np.int32)
    operator.customOptions = np.frombuffer(options, np.uint8)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_custom_operators_of_mediapipe_run_on_litert_with_a_warning():
    shapes = [(1, 4, 4, 8), (4, 2, 2, 8), (4,), (1, 8, 8, 4)]
    content = custom("Convolution2DTransposeBias", shapes, struct.pack("<iii", 1, 2, 2))
    tried = try_network(content, "litert")
    assert tried.runs, tried
    model = read_model(content, "x")
    (finding,) = with_trial(lint(model, "litert"), "litert", "litert", tried)
    assert (finding.rule, finding.severity) == (
        "operator-xnnpack",
        "warning",
    ) and "no reference kernels" in finding.what
    assert [one.rule for one in lint(model, "tflite-runtime")] == ["operator-unknown"]
    unknown = custom("Nobody", shapes, b"\0")
    assert "operator-unknown" in [one.rule for one in lint(read_model(unknown, "x"), "litert")]


def test_tensor_names_are_escaped_on_the_terminal(valid, tmp_path, capfd):
    from edgefer.commands.lint import lint as command

    def evil(model, graph):
        graph.tensors[graph.inputs[0]].name = b"x\x1b[31m\xc2\x9b2J"

    file = tmp_path / "x.tflite"
    file.write_bytes(changed(valid, evil))
    command(file)
    shown = capfd.readouterr().out
    assert "\\x1b[31m\\x9b2J" in shown and "\x1b[31m" not in shown and "\x9b" not in shown


def test_only_regular_files_are_read(tmp_path):
    import os

    from edgefer.commands.lint import lint as command
    from edgefer.errors import InputError

    os.mkfifo(tmp_path / "x.tflite")
    with pytest.raises(InputError, match="is a FIFO, not a regular file"):
        command(tmp_path / "x.tflite")
    with pytest.raises(InputError, match="is a device"):
        command(Path("/dev/zero"))
