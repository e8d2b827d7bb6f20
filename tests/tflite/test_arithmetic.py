"""The int8 arithmetic in numpy gives what ai-edge-litert gives, bit for bit; what it does not cover is refused by name."""

import io
from importlib.metadata import version

import numpy as np
import pytest

from edgefer.bundle import Bundle, shipped_bundles
from edgefer.tflite import layers
from edgefer.tflite.arithmetic import answers, compute, run
from edgefer.tflite.flatbuffer import read_model
from edgefer.tflite.int8_network import UnsupportedNetwork
from edgefer.tflite.layers import OPERATORS, hint, read_layers
from edgefer.tflite.lint import lint
from tests.tflite.networks import Maker, every_mean
from tests.tflite.random_networks import ONE_OPERATOR, RandomNetwork, every_operator


def litert(content: bytes, image: np.ndarray, kernels: str = "AUTO") -> np.ndarray:
    """The answers of ai-edge-litert to int8 [h, w, c]: int8, flat."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=getattr(OpResolverType, kernels))
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(source["index"], image[None])
    interpreter.invoke()
    return interpreter.get_tensor(result["index"]).ravel()


def with_output(content: bytes, tensor: int) -> bytes:
    """The network with another of its tensors as its output."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    model.subgraphs[0].outputs, model.signatureDefs = [tensor], []
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def image_for(network, rng) -> np.ndarray:
    return rng.integers(-128, 128, network.input.shape).astype(np.int8)


def differing(content: bytes, rng, images: int = 3, kernels: str = "AUTO") -> int:
    """How many quanta of ai-edge-litert's answers differ from numpy's."""
    network, count = read_layers(content, "made"), 0
    for _ in range(images):
        image = image_for(network, rng)
        count += int((run(network, image)[network.output.index].ravel() != litert(content, image, kernels)).sum())
    return count


def test_mean_near_a_tie_is_rounded_as_by_the_runtime():
    content, image = every_mean()
    network = read_layers(content, "made")
    assert np.array_equal(run(network, image)[network.output.index].ravel(), litert(content, image))


@pytest.mark.parametrize("name", shipped_bundles())
def test_every_stored_answer_of_the_shipped_networks_is_reproduced_exactly(name):
    bundle = Bundle.open(shipped_bundles()[name])
    with np.load(io.BytesIO(bundle.read("parity"))) as stored:
        got = answers(read_layers(bundle.read("int8"), name), stored["pixels"])
        assert (got != stored["answers_int8"]).sum() == 0
        assert got.dtype == np.int8


def test_every_inner_tensor_of_a_shipped_network_is_reproduced_exactly():
    bundle = Bundle.open(shipped_bundles()["fer-nano"])
    content, rng = bundle.read("int8"), np.random.default_rng(3)
    network = read_layers(content, "fer-nano")
    image = image_for(network, rng)
    tensors = run(network, image)
    for layer in network.layers:
        expected = litert(with_output(content, layer.output.index), image)
        assert (tensors[layer.output.index].ravel() != expected).sum() == 0, layer.number
        again = compute(layer, [tensors[value.index] for value in layer.inputs])
        assert np.array_equal(again.ravel(), expected)


@pytest.mark.parametrize("kind", ONE_OPERATOR)
def test_each_operator_equals_ai_edge_litert(kind):
    for seed in range(12):
        draw = RandomNetwork(seed)
        x = draw.input()
        if seed % 2:
            x = draw.make.conv(x, 7)
        content = draw.make.finish(ONE_OPERATOR[kind](draw, x))
        assert differing(content, draw.rng) == 0, seed


@pytest.mark.parametrize("seed", range(40))
def test_networks_of_every_operator_equal_ai_edge_litert(seed):
    draw = RandomNetwork(seed)
    content = every_operator(draw)
    assert {layer.kind for layer in read_layers(content, "made").layers} <= set(OPERATORS)
    assert differing(content, draw.rng) == 0


def one_convolution(seed: int) -> tuple[RandomNetwork, bytes, int]:
    """A network of one random convolution with padding SAME, and by how many quanta it differs from litert at most."""
    draw = RandomNetwork(seed)
    size, kernel, strides = draw.pair(5, 20), draw.pair(1, 5), draw.pair(1, 4)
    x = draw.make.input((1, *size, 3))
    content = draw.make.finish(
        draw.make.depthwise(x, 1, kernel, strides) if seed % 2 else draw.make.conv(x, 8, kernel, strides)
    )
    network = read_layers(content, "made")
    image = image_for(network, draw.rng)
    ours = run(network, image)[network.output.index].ravel().astype(int)
    return draw, content, int(np.abs(ours - litert(content, image)).max())


def test_lint_warns_exactly_where_xnnpack_shifts_the_image():
    fixed = tuple(int(part) for part in version("ai-edge-litert").split(".")[:2]) >= (2, 2)
    warned = 0
    for seed in range(80):
        _, content, off = one_convolution(seed)
        expected = any(one.rule == "same-padding" for one in lint(read_model(content, "made"), "litert"))
        warned += expected
        assert (off > 1) == (expected and not fixed), seed
        assert not any(one.rule == "same-padding" for one in lint(read_model(content, "made"), "tflite-runtime"))
    assert 10 < warned < 40


def test_window_smaller_than_its_stride_matches_the_reference_kernels():
    """ai-edge-litert 2.1's XNNPACK shifts the image there, with padding SAME and a larger window the other way: its
    answers are off by more than a hundred. TFLite's reference kernels, which round elsewhere, are off by one at most."""
    draw = RandomNetwork(20)
    make = draw.make
    content = make.finish(make.conv(make.input((1, 18, 12, 1)), 8, (4, 1), (1, 2), "SAME"))
    network = read_layers(content, "made")
    image = image_for(network, draw.rng)
    ours = run(network, image)[network.output.index].ravel().astype(int)
    assert np.abs(ours - litert(content, image, "BUILTIN_REF")).max() <= 1


@pytest.mark.parametrize("kind", ["conv", "dense", "add", "MAX", "AVERAGE", "RELU6"])
@pytest.mark.parametrize("zero", [-128, -127])
def test_a_limit_of_relu6_between_two_quanta_is_rounded_as_the_operator_s_kernel_does(kind, zero):
    make, scale = RandomNetwork(0).make, float(np.float32(6 / 100.5))
    assert np.float32(6) / np.float32(scale) == 100.5
    x = make.input((1, 6, 6, 4), 0.05, -128)
    if kind in ("MAX", "AVERAGE"):
        y = make.pool(kind, make.unary("RELU", x, scale, zero), act="RELU6")
    elif kind == "RELU6":
        y = make.unary("RELU6", x, scale, zero)
    else:
        y = (
            {"conv": make.conv, "dense": make.dense}[kind](x, 40, act="RELU6")
            if kind != "add"
            else make.add(x, x, "RELU6")
        )
        put = make.tensors[y].quantization
        put.scale, put.zeroPoint = [scale], [zero]
    content = make.finish(y)
    assert differing(content, make.rng) == 0
    assert run(read_layers(content, "made"), np.full((6, 6, 4), 127, np.int8))[y].max() <= zero + 101


@pytest.mark.parametrize("asked", [[-1, 192], [1, -1]])
def test_a_reshape_may_leave_one_size_open_and_state_its_shape_in_its_options(asked):
    make = RandomNetwork(0).make
    x = make.input((1, 8, 8, 3))
    y = make.dense(with_constant(make, make.reshape(x, (1, 192)), asked), 5)
    assert differing(make.finish(y), make.rng) == 0
    make.operators[0].inputs = [x]
    assert differing(make.finish(y), make.rng) == 0


def test_options_of_another_operator_are_ignored_as_the_runtime_does():
    make = RandomNetwork(0).make
    x = make.input((1, 8, 8, 3))
    y = with_type(make, make.add(x, x, "RELU"), "SubOptions")
    assert differing(make.finish(y), make.rng) == 0


# ---- what is not covered is refused by name ----


def refused(content: bytes) -> str:
    with pytest.raises(UnsupportedNetwork) as caught:
        read_layers(content, "net.tflite")
    message = str(caught.value)
    assert message.startswith("net.tflite") and message.count("\n") == 0 and message.endswith(".")
    return message


@pytest.mark.parametrize("name", ["SOFTMAX", "LOGISTIC", "HARD_SWISH", "QUANTIZE", "TANH"])
def test_another_operator_is_refused_by_name(name):
    make = RandomNetwork(0).make
    message = refused(make.finish(make.unary(name, make.input((1, 8, 8, 1)))))
    assert f"operator 1, {name}" in message and message.endswith(f"; {hint(name)}.")


def with_constant(make: Maker, output: int, values: list[int]) -> int:
    """The last operator with other values in its second input, an int32 constant."""
    tensor = make.tensors[make.operators[-1].inputs[1]]
    tensor.shape = [len(values)]
    make.buffers[tensor.buffer].data = np.frombuffer(np.array(values, np.int32).tobytes(), np.uint8)
    return output


def with_shape(make: Maker, output: int, shape: tuple[int, ...]) -> int:
    """The last operator with another shape of its second input."""
    make.tensors[make.operators[-1].inputs[1]].shape = list(shape)
    return output


def with_options(make: Maker, output: int, **options) -> int:
    for name, value in options.items():
        setattr(make.operators[-1].builtinOptions, name, value)
    return output


def with_type(make: Maker, output: int, name: str) -> int:
    """The last operator with its options stated to be another operator's."""
    make.operators[-1].builtinOptionsType = getattr(make.schema.BuiltinOptions, name)
    return output


def with_inputs(make: Maker, output: int, change) -> int:
    make.operators[-1].inputs = change(*make.operators[-1].inputs)
    return output


@pytest.mark.parametrize(
    ("words", "build"),
    [
        ("[2], not over rows", lambda make, x: make.mean(x, axes=(2,))),
        ("RELU_N1_TO_1", lambda make, x: make.conv(x, 4, act="RELU_N1_TO_1")),
        ("2^-10 to 2^8", lambda make, x: make.add(x, x, scale=1e4)),
        ("of its output's", lambda make, x: make.unary("RELU", x, 1e9, 0)),
        ("the dimensions [1, 6]", lambda make, x: with_constant(make, make.mean(x), [1, 6])),
        ("asks for [1, 4, 16, 2]", lambda make, x: with_constant(make, make.reshape(x, (1, 8, 8, 2)), [1, 4, 16, 2])),
        ("asks for [-1, -1]", lambda make, x: with_constant(make, make.reshape(x, (1, 128)), [-1, -1])),
        ("each of (8, 8) places", lambda make, x: with_options(make, make.dense(x, 4), keepNumDims=True)),
        ("depth multiplier is 3", lambda make, x: with_options(make, make.depthwise(x), depthMultiplier=3)),
        ("not (2,)", lambda make, x: with_options(make, make.mean(x, keep=True), keepDims=False)),
        (
            "has the shape (2, 4)",
            lambda make, x: with_shape(make, make.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (2, 4)),
        ),
        ("has the shape (1, 2)", lambda make, x: with_shape(make, make.mean(x), (1, 2))),
        ("leaves out an input", lambda make, x: with_inputs(make, make.dense(x, 4), lambda x, w, b: [x, -1, w])),
        ("it has the strides (0, 0)", lambda make, x: with_type(make, make.conv(x, 4), "Pool2DOptions")),
        ("pads (8, 8, 2) to", lambda make, x: make.pool("MAX", x, (8000, 8000), (1, 1), "SAME")),
        ("1,000 operators", lambda make, x: [x := make.unary("RELU", x) for _ in range(1000)][-1]),
    ],
)
def test_unsupported_values_are_refused_and_named(words, build, monkeypatch):
    monkeypatch.setattr(layers, "MAX_LAYERS", 999)
    make = RandomNetwork(1).make
    assert words in refused(make.finish(build(make, make.input((1, 8, 8, 2)))))


def test_damaged_quanta_and_weights_are_refused_not_computed():
    def damaged(change) -> str:
        make = RandomNetwork(2).make
        x = make.input((1, 8, 8, 2))
        y = make.conv(x, 4)
        change(make, *make.operators[0].inputs, y)
        return refused(make.finish(y))

    def quanta(make, tensor):
        return make.tensors[tensor].quantization

    assert "scale nan" in damaged(lambda m, x, w, b, y: setattr(quanta(m, y), "scale", [float("nan")]))
    assert "zero point 300" in damaged(lambda m, x, w, b, y: setattr(quanta(m, y), "zeroPoint", [300]))
    assert "far apart" in damaged(lambda m, x, w, b, y: setattr(quanta(m, y), "scale", [1e-20]))
    assert "batch size 1" in damaged(lambda m, x, w, b, y: setattr(m.tensors[x], "shape", [3, 8, 8, 2]))
    assert "2 scales" in damaged(lambda m, x, w, b, y: setattr(quanta(m, y), "scale", [1.0, 2.0]))
    assert "of dimension 1" in damaged(lambda m, x, w, b, y: setattr(quanta(m, x), "quantizedDimension", 1))
    assert "of dimension 3" in damaged(lambda m, x, w, b, y: setattr(quanta(m, y), "quantizedDimension", 3))
    assert "its bias has no scale" in damaged(lambda m, x, w, b, y: setattr(m.tensors[b], "quantization", None))
    assert "its bias has no scale" in damaged(lambda m, x, w, b, y: setattr(quanta(m, b), "zeroPoint", [1, 0, 0, 0]))
    assert "zero points" in damaged(lambda m, x, w, b, y: setattr(quanta(m, w), "zeroPoint", [1, 0, 0, 0]))
    assert "dimension 3" in damaged(lambda m, x, w, b, y: setattr(quanta(m, w), "quantizedDimension", 3))
    assert "bytes" in damaged(lambda m, x, w, b, y: setattr(m.tensors[w], "shape", [4, 3, 3, 3]))
    assert "not (8, 8, 4)" in damaged(lambda m, x, w, b, y: setattr(m.tensors[y], "shape", [1, 9, 8, 4]))
    assert "elements" in damaged(lambda m, x, w, b, y: setattr(m.tensors[y], "shape", [1, 9999, 9999, 4]))
    assert "bias" in damaged(lambda m, x, w, b, y: setattr(m.tensors[b], "shape", [2, 2]))


@pytest.mark.filterwarnings("error")
def test_an_activation_s_limit_far_beyond_int8_is_no_clamp():
    make = Maker(np.random.default_rng(0))
    content = make.finish(make.pool("MAX", make.input((1, 8, 8, 1), 1e-36, 0), act="RELU6"))
    (layer,) = read_layers(content, "made").layers
    assert (layer.low, layer.high) == (0, 127)


def test_sums_beyond_32_bits_are_refused():
    make = RandomNetwork(3).make
    y = make.conv(make.input((1, 8, 8, 2)), 4)
    bias = make.operators[0].inputs[2]
    make.buffers[make.tensors[bias].buffer].data = np.frombuffer(np.full(4, 2**31 - 1, np.int32).tobytes(), np.uint8)
    assert "32 bits" in refused(make.finish(y))
