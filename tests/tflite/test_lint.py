"""lint finds each fault in networks that are built with it, and nothing in a valid one; garbage gives one sentence."""

import json
import random
import subprocess
import sys
import time

import numpy as np
import pytest

from edgefer.bundle import Bundle, shipped_bundles, write_bundle
from edgefer.commands.lint import Target
from edgefer.convert.quantize import converter_of
from edgefer.errors import InputError
from edgefer.tflite.flatbuffer import parameter_bytes, quantization, read_model
from edgefer.tflite.lint import TARGETS, TITLES, lint
from edgefer.tflite.placement import MAPPED, place

INT8, FLOAT32, INT32 = 9, 0, 2


# ---- networks made with TensorFlow, as users make them ----


@pytest.fixture(scope="module")
def made():
    """Small networks by name, each converted once on demand: made("int8"), made("hard-swish"), ..."""
    cache: dict[str, bytes] = {}

    def make(name: str) -> bytes:
        if name not in cache:
            cache[name] = _convert(name)
        return cache[name]

    return make


def _convert(name: str) -> bytes:
    from edgefer.quiet import quiet
    from edgefer.train.backend import tensorflow

    tf = tensorflow()
    import tf_keras

    layers = tf_keras.layers
    activation = {
        "hard-swish": lambda x: x * tf.nn.relu6(x + 3) / 6,
        "silu": tf.nn.silu,
        "leaky-relu": layers.LeakyReLU(),
        "float-island": lambda x: tf.exp(-tf.nn.relu(x)),
    }.get(name, tf.nn.relu)
    rgb = name.startswith("rgb")
    pixels = tf_keras.Input((12, 12, 3 if rgb else 1))
    hidden = activation(layers.Conv2D(8, 3)(pixels))
    model = tf_keras.Model(pixels, layers.Dense(40)(layers.Flatten()(hidden)))
    batch = {"free-batch": None, "batch-4": 4}.get(name, 1)
    signature = tf.TensorSpec((batch, *model.input_shape[1:]), tf.float32)
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(signature)
    converter = converter_of(function)
    if "float32" not in name:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if "float32" not in name and "dynamic-range" not in name:
        draw = np.random.default_rng(0)
        shape = (batch or 1, *model.input_shape[1:])
        converter.representative_dataset = lambda: ([draw.random(shape, np.float32)] for _ in range(4))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        kind = tf.uint8 if name == "rgb-uint8" else tf.float32 if name == "float-io" else tf.int8
        converter.inference_input_type = converter.inference_output_type = kind
    converter._experimental_disable_per_channel_quantization_for_dense_layers = "per-channel" not in name
    with quiet():
        return converter.convert()


def rules(content: bytes, target: str) -> dict[str, str]:
    """rule -> severity of what lint finds."""
    return {finding.rule: finding.severity for finding in lint(read_model(content, "x.tflite"), target)}


def test_valid_int8_network_passes_for_the_targets_that_run_it(made):
    model = read_model(made("int8"), "x.tflite")
    assert quantization(model) == "int8"
    assert lint(model, "litert") == lint(model, "tflite-runtime") == ()
    assert rules(made("int8"), "edgetpu") == {"edgetpu-map": "note"}
    assert [p.status for p in place(model.main)] == [MAPPED] * 3
    # 8 filters of 3x3 and 800 x 40 dense weights in int8, biases in int32 (the dense layer's are zero and left out)
    assert 8 * 9 + 800 * 40 <= parameter_bytes(model) <= 8 * 9 + 800 * 40 + 4 * 48 + 16


@pytest.mark.parametrize(
    ("name", "target", "rule", "severity"),
    [
        ("hard-swish", "edgetpu", "edgetpu-cpu", "error"),
        ("leaky-relu", "edgetpu", "edgetpu-cpu", "error"),
        ("hard-swish", "edgetpu", "edgetpu-partition", "error"),
        ("float-island", "litert", "float-island", "warning"),
        ("float-island", "edgetpu", "float-island", "error"),
        ("float-island", "edgetpu", "runtime-version", "warning"),  # EXP in int8 came with 2.12
        ("float32", "edgetpu", "not-quantized", "error"),
        ("float-io", "edgetpu", "edgetpu-cpu", "warning"),
        ("free-batch", "edgetpu", "dynamic-shape", "error"),
        ("free-batch", "litert", "dynamic-shape", "warning"),
        ("batch-4", "edgetpu", "batch-size", "error"),
        ("batch-4", "mediapipe", "batch-size", "error"),
        ("per-channel", "edgetpu", "per-channel-dense", "warning"),
        ("per-channel", "tflite-runtime", "per-channel-dense", "note"),
        ("per-channel-dynamic-range", "tflite-runtime", "operator-version", "error"),  # FULLY_CONNECTED version 12
        ("per-channel-dynamic-range", "tflite-runtime", "runtime-version", "warning"),
        ("dynamic-range", "tflite-runtime", "dynamic-range", "warning"),
        ("int8", "mediapipe", "mediapipe-input", "error"),
        ("int8", "mediapipe", "mediapipe-dtype", "error"),
        ("rgb-float32", "mediapipe", "mediapipe-metadata", "error"),
        ("rgb-uint8", "mediapipe", "mediapipe-labels", "warning"),
    ],
)
def test_each_fault_is_found_for_its_target_and_not_in_a_valid_network(made, name, target, rule, severity):
    assert rules(made(name), target).get(rule) == severity
    valid = "rgb-uint8" if target == "mediapipe" else "int8"
    if name != valid:
        assert rule not in rules(made(valid), target)


def test_supported_properties_are_not_reported(made):
    assert rules(made("silu"), "edgetpu") == {"edgetpu-map": "note"}  # LOGISTIC and MUL, both mapped
    assert rules(made("rgb-uint8"), "mediapipe") == {"mediapipe-labels": "warning"}  # opens in MediaPipe 1.2.2
    assert rules(made("per-channel-dynamic-range"), "litert") == {}
    assert rules(made("float32"), "tflite-runtime") == {}


def test_a_finding_names_its_location(made):
    (cpu,) = (f for f in lint(read_model(made("leaky-relu"), "x"), "edgetpu") if f.rule == "edgetpu-cpu")
    assert cpu.operator == 1 and "LeakyRelu" in cpu.tensor and "shared_axes" in cpu.next
    (shape,) = lint(read_model(made("free-batch"), "x"), "litert")
    assert "serving_default" in shape.tensor and "(-1, 12, 12, 1)" in shape.what


# ---- what is not trusted ----


def test_mutated_files_give_one_sentence_or_findings(made):
    draw = random.Random(5)
    seeds = [made("int8"), made("hard-swish"), made("float-island")]
    refused = passed = 0
    worst = 0.0
    for _ in range(2000):
        content = bytearray(draw.choice(seeds))
        if draw.random() < 0.2:
            del content[draw.randrange(len(content)) :]
        else:
            for _ in range(draw.choice((1, 3, 20))):  # most where the tables are: at the two ends of the file
                at = draw.choice((draw.randrange(8, 64), draw.randrange(len(content) - 4000, len(content) - 4)))
                new = draw.choice((b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", bytes(4), draw.randbytes(1)))
                content[at : at + len(new)] = new
        began = time.monotonic()
        try:
            model = read_model(bytes(content), "x.tflite")
            for target in TARGETS:
                lint(model, target)
            passed += 1
        except InputError as error:
            assert str(error).startswith("x.tflite is ") and "\n" not in str(error) and len(str(error)) < 250
            refused += 1
        worst = max(worst, time.monotonic() - began)
    assert refused > 500 and passed > 100
    assert worst < 2


# ---- the command ----


def test_lint_command_reports_pass_or_fail(edgefer, made, tmp_path):
    valid, faulty = tmp_path / "int8.tflite", tmp_path / "leaky.tflite"
    valid.write_bytes(made("int8"))
    faulty.write_bytes(made("leaky-relu"))
    table = edgefer("lint", valid, expect=0).stdout  # one row for each target, one of which it passes
    assert all(title in table for title in TITLES.values()) and "mediapipe-input" in table
    assert table.endswith("It would run on 6 of 7 targets, not on MediaPipe ImageClassifier.\n")
    edgefer("lint", valid, "--target", "edgetpu", expect=0)
    assert "edgetpu-cpu" in edgefer("lint", faulty, "--target", "edgetpu", expect=1).stdout
    report = json.loads(edgefer("lint", faulty, "--target", "edgetpu", "--json", expect=1).stdout)
    assert report["computes_in"] == "int8" and not report["targets"]["edgetpu"]["runs"]
    first = report["targets"]["edgetpu"]["findings"][0]
    assert (first["rule"], first["severity"], first["operator"]) == ("edgetpu-cpu", "error", 1)
    assert "LEAKY_RELU would run on the CPU" in first["what"]
    assert report["checks"][0]["detail"].startswith("operator 2 ")  # counted from 1, as in export's messages
    assert report["passed"] is False and report["checks"][0] == {
        "subject": "edgetpu-cpu", "status": "fail", "passed": False, "detail": report["checks"][0]["detail"],
        "fix": first["next"], "group": "edgetpu",
    }  # fmt: skip


def test_lint_command_takes_the_network_of_a_bundle_that_is_for_the_target(edgefer, tmp_path):
    shipped = Bundle.open(shipped_bundles()["fer-nano"])
    files = {name: shipped.read(name) for name in shipped.card.variants}
    bundle = write_bundle(tmp_path / "bundle", shipped.card, files | {"mediapipe": files["int8"]})
    report = edgefer("lint", bundle.path, "--target", "mediapipe", "--json", expect=1).stdout
    assert json.loads(report)["file"].endswith("mediapipe.tflite")
    assert "int8.tflite: " in edgefer("lint", shipped.path, "--target", "mediapipe", expect=1).stdout


def test_lint_command_refuses_files_that_are_not_networks(edgefer, made, tmp_path):
    def refuse(content: bytes) -> str:
        file = tmp_path / "x.tflite"
        file.write_bytes(content)
        (line,) = edgefer("lint", file, expect=2).stderr.strip().splitlines()
        return line

    assert "is not a .tflite file" in refuse(b"")
    assert "is not a .tflite file" in refuse(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert "is a damaged .tflite file" in refuse(made("int8")[:3000])
    assert "There is no" in edgefer("lint", tmp_path / "none.tflite", expect=2).stderr
    assert "is not a bundle" in edgefer("lint", tmp_path, expect=2).stderr
    refused = " ".join(edgefer("lint", tmp_path, "--target", "npu", expect=2).stderr.replace("│", " ").split())
    assert f"'npu' is not one of {', '.join(repr(str(target)) for target in Target)}." in refused


def test_lint_loads_no_tensorflow(made, tmp_path):
    file = tmp_path / "int8.tflite"
    file.write_bytes(made("int8"))
    code = f"""
import sys
sys.argv = ["edgefer", "lint", {str(file)!r}]
from edgefer.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
print([name for name in ("tensorflow", "tf_keras", "cv2", "ai_edge_litert.interpreter") if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
