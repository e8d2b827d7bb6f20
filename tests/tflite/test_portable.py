"""lint predicts what `export c` and `export web` would refuse, and what is too large for a microcontroller."""

import pytest
from typer.testing import CliRunner

from edgefer.bundle import Bundle, shipped_bundles
from edgefer.c.program import make_program
from edgefer.cli import app
from edgefer.tflite.arena import plan
from edgefer.tflite.flatbuffer import read_model
from edgefer.tflite.int8_network import UnsupportedNetwork
from edgefer.tflite.layers import read_layers
from edgefer.tflite.lint import lint
from edgefer.tflite.portable import PORTABLE, RAM, STACK
from tests.tflite.random_networks import RandomNetwork, every_operator, flat
from tests.tflite.test_titles import with_ends


@pytest.mark.parametrize("target", PORTABLE)
def test_shipped_network_passes_for_every_portable_target(target):
    content = Bundle.open(shipped_bundles()["ferplus-small"]).read("int8")
    assert lint(read_model(content, "net"), target) == ()


def test_every_unsupported_operator_is_named_once():
    make = RandomNetwork(0).make
    x = make.input((1, 8, 8, 1))
    content = make.finish(make.unary("TANH", make.unary("LOGISTIC", make.unary("TANH", x))))
    found = lint(read_model(content, "net"), "c")
    assert [finding.severity for finding in found] == ["error", "error"]
    assert "2 times: the C code has no operator TANH" in found[0].what and "LOGISTIC" in found[1].what
    assert found[0].next == "replace the operator" and "swish" in found[1].next


def test_lint_lists_the_supported_operators_once(tmp_path):
    make = RandomNetwork(0).make
    file = tmp_path / "net.tflite"
    file.write_bytes(make.finish(make.unary("TANH", make.unary("LOGISTIC", make.input((1, 8, 8, 1))))))
    for target in ((), ("--target", "c"), ("--target", "web")):
        assert CliRunner().invoke(app, ["lint", str(file), *target]).stdout.count("DEPTHWISE_CONV_2D") == 1
    assert "DEPTHWISE_CONV_2D" not in CliRunner().invoke(app, ["lint", str(file), "--target", "litert"]).stdout


def test_lint_refuses_what_export_refuses():
    make = RandomNetwork(1).make
    content = make.finish(make.mean(make.input((1, 8, 8, 2)), axes=(2,)))
    with pytest.raises(UnsupportedNetwork) as refused:
        read_layers(content, "it")
    (finding,) = lint(read_model(content, "net"), "web")
    assert finding.severity == "error" and finding.what == str(refused.value).rstrip(".")


@pytest.mark.parametrize("kind", ["UINT8", "INT16", "FLOAT32"])
def test_an_input_of_another_type_is_refused_with_what_to_do(kind):
    content = with_ends(kind, "INT8")
    with pytest.raises(
        UnsupportedNetwork, match=f"^it: its input is {kind}, not INT8: convert with int8 input and output"
    ):
        read_layers(content, "it")


def test_network_too_large_for_a_microcontroller_gives_warnings():
    make = RandomNetwork(2).make
    x = make.conv(make.input((1, 96, 96, 1)), 32)
    content = make.finish(make.dense(flat(make, make.pool("MAX", x, (8, 8), (8, 8))), 300))
    found = lint(read_model(content, "net"), "micro")
    assert {finding.rule for finding in found} == {"micro-ram", "micro-flash"}
    assert all(finding.severity == "warning" and "STM32F405" in finding.what for finding in found)
    flash = next(finding for finding in found if finding.rule == "micro-flash")
    assert f"{make_program(read_layers(content, 'net')).words.nbytes:,} bytes of flash" in flash.what  # as exported
    assert lint(read_model(content, "net"), "c") == ()


def test_the_pixels_of_a_face_count_as_ram():
    make = RandomNetwork(3).make
    x = make.conv(make.input((1, 160, 160, 3)), 1, (1, 1))
    content = make.finish(make.dense(flat(make, make.pool("MAX", x, (16, 16), (16, 16))), 7))
    (finding,) = lint(read_model(content, "net"), "micro")
    arena, room = plan(read_layers(content, "net")).size, RAM - STACK
    assert arena <= room < arena + 160 * 160 * 3
    assert finding.rule == "micro-ram" and f"{arena + 160 * 160 * 3 + 7:,} bytes of RAM" in finding.what


def test_random_networks_that_export_accepts_have_no_error():
    for seed in range(10):
        model = read_model(every_operator(RandomNetwork(seed)), "net")
        assert not [f for f in lint(model, "micro") if f.severity == "error"]
