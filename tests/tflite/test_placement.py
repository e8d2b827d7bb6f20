"""Where an operator would run: the Edge TPU's limits, one operator at a time, and the tables of versions against the runtimes."""

import time
from importlib import import_module

import numpy as np
import pytest

from edgefer.errors import InputError
from edgefer.interpreter import installed_runtimes
from edgefer.runtimes import runtime_version
from edgefer.tflite.flatbuffer import read_model
from edgefer.tflite.lint import lint
from edgefer.tflite.operators import BUILT_IN_CUSTOM, EDGETPU, LITERT, LITERT_2_2, TFLITE_RUNTIME
from edgefer.tflite.placement import AFTER, DTYPE, LIMIT, MAPPED, RANK, UNSUPPORTED, VERSION, place

INT8, FLOAT32, INT32 = 9, 0, 2


def rules(content: bytes, target: str) -> dict[str, str]:
    """rule -> severity of what lint finds."""
    return {finding.rule: finding.severity for finding in lint(read_model(content, "x.tflite"), target)}


@pytest.fixture(scope="module")
def schema():
    return import_module("ai_edge_litert.schema_py_generated")


@pytest.fixture(scope="module")
def build(schema):
    """The bytes of a network of operators in a row: build([(name, version, shape_in, shape_out, dtype, more), ...])."""
    import flatbuffers

    def make(steps, constants=()) -> bytes:
        model, graph = schema.ModelT(), schema.SubGraphT()
        model.version, model.subgraphs, model.operatorCodes = 3, [graph], []
        model.buffers = [schema.BufferT()]
        graph.tensors, graph.operators = [], []

        def tensor(shape, dtype, data=None):
            made = schema.TensorT()
            made.shape, made.type, made.name, made.buffer = list(shape), dtype, f"t{len(graph.tensors)}".encode(), 0
            if data is not None:
                made.buffer = len(model.buffers)
                model.buffers.append(schema.BufferT())
                model.buffers[-1].data = np.frombuffer(data, np.uint8)
            graph.tensors.append(made)
            return len(graph.tensors) - 1

        last = None
        for name, version, before, after, dtype, more in steps:
            code = schema.OperatorCodeT()
            number = getattr(schema.BuiltinOperator, name, schema.BuiltinOperator.CUSTOM)
            code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
            if number == schema.BuiltinOperator.CUSTOM:
                code.customCode = name.encode()
            operator = schema.OperatorT()
            operator.opcodeIndex = len(model.operatorCodes)
            last = tensor(before, dtype) if last is None else last
            operator.inputs = [last] + [tensor(shape, kind, data) for shape, kind, data in more.get("constants", ())]
            last = tensor(after, more.get("gives", dtype))
            operator.outputs = [last]
            if "options" in more:
                operator.builtinOptionsType, operator.builtinOptions = more["options"]
            model.operatorCodes.append(code)
            graph.operators.append(operator)
        graph.inputs, graph.outputs = [0], [last]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    return make


def one(build, name, version=1, before=(1, 4, 4, 8), after=(1, 4, 4, 8), dtype=INT8, **more):
    """The placement of a network of this one operator."""
    (placement,) = place(read_model(build([(name, version, before, after, dtype, more)]), "x").main)
    return placement


def axes(*numbers):
    return [((len(numbers),), INT32, np.array(numbers, "<i4").tobytes())]


def options(schema, kind, **fields):
    made = getattr(schema, f"{kind}T")()
    for field, value in fields.items():
        setattr(made, field, value)
    return getattr(schema.BuiltinOptions, kind), made


def test_the_edge_tpu_limits_of_single_operators(build, schema):
    relu = schema.ActivationFunctionType.RELU
    assert one(build, "RELU").status == MAPPED
    assert one(build, "GELU").status == one(build, "Flex").status == UNSUPPORTED
    assert one(build, "RELU", version=EDGETPU["RELU"] + 1).status == VERSION
    assert one(build, "RELU", dtype=FLOAT32).status == one(build, "RELU", dtype=INT32).status == DTYPE
    assert one(build, "RELU", before=(2, 4, 4, 8)).status == RANK
    assert one(build, "MAX_POOL_2D").status == MAPPED
    for name, kind in (("MAX_POOL_2D", "Pool2DOptions"), ("CONCATENATION", "ConcatenationOptions")):
        fused = one(build, name, options=options(schema, kind, fusedActivationFunction=relu))
        assert fused.status == LIMIT and "fused RELU" in fused.detail
    for width, status in ((1, MAPPED), (2, LIMIT)):
        chosen = options(schema, "Conv2DOptions", dilationHFactor=1, dilationWFactor=width)
        assert one(build, "CONV_2D", options=chosen).status == status
    assert one(build, "MEAN", after=(1, 8), constants=axes(1, 2)).status == MAPPED
    assert "batch" in one(build, "MEAN", constants=axes(0)).detail
    assert one(build, "MEAN", constants=axes(-1)).status == MAPPED
    assert "multiple of 4" in one(build, "MEAN", before=(1, 4, 4, 6), constants=axes(-1)).detail
    assert "batch" in one(build, "PAD", constants=[((4, 2), INT32, np.array([1] + [0] * 7, "<i4").tobytes())]).detail
    assert (
        one(build, "PAD", constants=[((4, 2), INT32, np.array([0, 0, 1] + [0] * 5, "<i4").tobytes())]).status == MAPPED
    )
    assert one(build, "SOFTMAX", before=(1, 7), after=(1, 7)).status == MAPPED
    assert "16000" in one(build, "SOFTMAX", after=(1, 16_001)).detail
    shuffled = options(schema, "FullyConnectedOptions", weightsFormat=1)
    assert "shuffled" in one(build, "FULLY_CONNECTED", before=(1, 8), after=(1, 8), options=shuffled).detail
    assert "one-dimensional" in one(build, "FULLY_CONNECTED", after=(4, 7)).detail
    assert one(build, "PRELU", constants=[((1, 1, 8), INT8, bytes(8))]).status == MAPPED
    assert "shared_axes" in one(build, "PRELU", constants=[((4, 4, 8), INT8, bytes(128))]).detail


def test_the_edge_tpu_limits_of_layout(build, schema):
    def joined(*values):
        constants = [((1, 4, 4, 8), INT8, np.full(128, value, np.int8).tobytes()) for value in values]
        return one(build, "CONCATENATION", constants=constants)

    assert joined(0).status == joined(-128).status == MAPPED, "any value may be the quantized zero"
    assert "constant" in joined(0, 0).detail
    uneven = [((1, 4, 4, 8), INT8, bytes(range(128)))]
    assert "not all zeros" in one(build, "CONCATENATION", constants=uneven).detail

    def sliced(step, **masks):
        chosen = options(schema, "StridedSliceOptions", **masks)
        return one(build, "STRIDED_SLICE", constants=[*axes(0, 0) * 2, *axes(1, step)], options=chosen)

    assert sliced(1).status == sliced(1, beginMask=3, shrinkAxisMask=1).status == MAPPED
    assert "its strides are [1, 2]" in sliced(2).detail
    assert "ellipsis" in sliced(1, ellipsisMask=1).detail and "new axis" in sliced(1, newAxisMask=2).detail
    for before, after in (((1, 1, 10), (10,)), ((1, 5, 10), (5, 10)), ((1, 1, 1, 7), (1, 7))):
        assert one(build, "SQUEEZE", before=before, after=after).status == MAPPED
    assert "leading ones" in one(build, "SQUEEZE", before=(5, 1, 10), after=(5, 10)).detail


def test_the_first_unsupported_operator_sends_the_rest_to_the_cpu(build):
    shape = (1, 4, 4, 8)
    names = ["CONV_2D", "HARD_SWISH", "CONV_2D", "RELU"]
    placements = place(read_model(build([(name, 1, shape, shape, INT8, {}) for name in names]), "x").main)
    assert [p.status for p in placements] == [MAPPED, UNSUPPORTED, AFTER, AFTER]
    # Slower, but the work is on the Edge TPU.
    tail = build([(name, 1, shape, shape, INT8, {}) for name in ("CONV_2D", "ARG_MAX")])
    assert rules(tail, "edgetpu")["edgetpu-cpu"] == "warning"


def test_a_quantize_at_the_front_does_not_end_the_partition(build):
    steps = [("QUANTIZE", 1, (1, 8), (1, 8), FLOAT32, {"gives": INT8}), ("RELU", 1, (1, 8), (1, 8), INT8, {})]
    assert [p.mapped for p in place(read_model(build(steps), "x").main)] == [False, True]


def test_parameters_beyond_the_edge_tpu_memory_are_reported(build):
    for size, over in ((8 * 2**20, False), (8 * 2**20 + 1, True)):
        weights = {"constants": [((1, size), INT8, bytes(size))]}
        content = build([("FULLY_CONNECTED", 1, (1, size), (1, 1), INT8, weights)])
        assert ("edgetpu-memory" in rules(content, "edgetpu")) is over


def test_unknown_custom_operators_are_errors(build):
    def custom(name):
        return build([(name, 1, (1, 8), (1, 8), INT8, {})])

    for target in ("litert", "tflite-runtime"):
        assert rules(custom("FlexErf"), target) == {"operator-unknown": "error"}
        assert rules(custom(BUILT_IN_CUSTOM[0]), target) == {}
        assert rules(custom("edgetpu-custom-op"), target) == {"operator-unknown": "error"}
    assert rules(custom("edgetpu-custom-op"), "edgetpu") == {"edgetpu-compiled": "note"}


def test_a_version_that_only_newer_releases_know_is_a_warning(build):
    def cast(version):
        return build([("CAST", version, (1, 8), (1, 8), INT8, {})])

    assert rules(cast(LITERT["CAST"]), "litert") == {}
    assert rules(cast(LITERT_2_2["CAST"]), "litert") == {"operator-version": "warning"}
    assert rules(cast(LITERT_2_2["CAST"] + 1), "litert") == {"operator-version": "error"}


# ---- the tables against the runtimes themselves ----


@pytest.mark.parametrize(("runtime", "table"), [("litert", LITERT), ("tflite-runtime", TFLITE_RUNTIME)])
def test_the_runtime_knows_exactly_the_versions_of_the_table(build, schema, runtime, table):
    if runtime not in installed_runtimes() or (runtime == "tflite-runtime" and np.__version__ >= "2"):
        pytest.skip(f"{runtime} is not installed, or cannot work with this numpy")
    from edgefer.interpreter import RUNTIMES
    from edgefer.quiet import quiet

    if runtime == "litert" and runtime_version(runtime) >= "2.2":
        table = LITERT_2_2
    interpreter = import_module(RUNTIMES[runtime][0]).Interpreter

    def knows(name, version):
        # An operator that no graph uses: the runtime looks it up anyway, and does not run it.
        try:
            with quiet():
                interpreter(model_content=_with_code(build, schema, name, version))
        except ValueError as error:
            assert "Didn't find op" in str(error) or "builtin_code out of range" in str(error), error
            return False
        return True

    names = [name for name, value in vars(schema.BuiltinOperator).items() if name.isupper() and isinstance(value, int)]
    wrong = []
    for name in sorted(set(names) - {"CUSTOM", "DELEGATE", "PLACEHOLDER_FOR_GREATER_OP_CODES"}):
        newest = table.get(name, 0)
        if (newest and not knows(name, newest)) or knows(name, newest + 1):
            wrong.append(name)
    assert not wrong


def _with_code(build, schema, name, version):
    import flatbuffers

    model, graph, tensor, code = schema.ModelT(), schema.SubGraphT(), schema.TensorT(), schema.OperatorCodeT()
    tensor.shape, tensor.buffer = [1], 0
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [tensor], [0], [0], []
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), version
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_overlapping_vectors_cannot_cause_excessive_reading(schema):
    """Vectors that overlap: n operators that each claim the same n inputs would take n * n steps."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    count = 4000
    builder.StartVector(4, count, 4)
    for _ in range(count):
        builder.PrependInt32(-1)
    shared = builder.EndVector()
    operators = []
    for _ in range(count):
        schema.OperatorStart(builder)
        schema.OperatorAddInputs(builder, shared)
        operators.append(schema.OperatorEnd(builder))
    schema.SubGraphStartOperatorsVector(builder, count)
    for operator in operators:
        builder.PrependUOffsetTRelative(operator)
    vector = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddOperators(builder, vector)
    graph = schema.SubGraphEnd(builder)
    schema.OperatorCodeStart(builder)
    code = schema.OperatorCodeEnd(builder)
    schema.ModelStartOperatorCodesVector(builder, 1)
    builder.PrependUOffsetTRelative(code)
    codes = builder.EndVector()
    schema.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddOperatorCodes(builder, codes)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    began = time.monotonic()
    with pytest.raises(InputError, match="does not fit"):
        read_model(bytes(builder.Output()), "x.tflite")
    assert time.monotonic() - began < 2


# ---- the pairs of google-coral/test_data: what the compiler did ----


def statuses(build, *steps) -> list[str]:
    return [p.status for p in place(read_model(build(steps), "x").main)]


PIXELS = (1, 8, 8, 8)


def test_leading_unsupported_operators_stay_on_the_cpu_and_the_rest_is_mapped(build):
    conv = ("RELU", 1, PIXELS, PIXELS, INT8, {})
    cast = ("CAST", 1, PIXELS, PIXELS, FLOAT32, {"gives": FLOAT32})
    quantize = ("QUANTIZE", 1, PIXELS, PIXELS, FLOAT32, {"gives": INT8})
    for leading in ([quantize], [cast, quantize], [("HARD_SWISH", 1, PIXELS, PIXELS, INT8, {})]):
        assert statuses(build, *leading, conv, conv)[len(leading) :] == [MAPPED, MAPPED]
        found = lint(read_model(build([*leading, conv, conv]), "x"), "edgetpu")
        assert not [finding for finding in found if finding.rule.startswith("edgetpu") and finding.severity == "error"]
    assert statuses(build, conv, cast, conv)[1:] == [DTYPE, DTYPE]  # in the middle it ends the run
    assert statuses(build, conv, ("HARD_SWISH", 1, PIXELS, PIXELS, INT8, {}), conv) == [MAPPED, UNSUPPORTED, AFTER]


def test_an_lstm_is_mapped_although_its_state_is_int16(build):
    state = {"constants": [((1, 8), 7, None)]}
    assert one(build, "UNIDIRECTIONAL_SEQUENCE_LSTM", 3, (1, 6, 8), (1, 6, 8), **state).status == MAPPED
    assert one(build, "ADD", 1, (1, 6, 8), (1, 6, 8), **state).status == DTYPE


@pytest.mark.parametrize(("size", "doubt"), [(8, False), (16, False), (32, False), (64, True), (264, True)])
def test_a_large_resize_may_stay_on_the_cpu(build, size, doubt):
    steps = [("RESIZE_BILINEAR", 3, PIXELS, (1, size, size, 8), INT8, {})]
    content = build(steps)
    (placement,) = place(read_model(content, "x").main)
    assert placement.mapped and bool(placement.detail) == doubt
    found = {finding.rule: finding for finding in lint(read_model(content, "x"), "edgetpu")}
    assert ("edgetpu-maybe" in found) == doubt
    assert not doubt or (
        found["edgetpu-maybe"].severity == "warning" and "may stay on the CPU" in found["edgetpu-maybe"].what
    )


def test_a_float_tail_is_a_warning(build):
    """As in an SSD: int8 up to its boxes, then DEQUANTIZE and a custom operator in float."""
    relu, back = ("RELU", 1, PIXELS, PIXELS, INT8, {}), ("DEQUANTIZE", 2, PIXELS, PIXELS, INT8, {"gives": FLOAT32})
    tail = [back, ("TFLite_Detection_PostProcess", 1, PIXELS, PIXELS, FLOAT32, {})]
    found = {finding.rule: finding.severity for finding in lint(read_model(build([relu, relu, *tail]), "x"), "edgetpu")}
    del found["no-scale"]  # these tensors have none
    assert "error" not in found.values() and found["edgetpu-cpu"] == "warning" and "float-island" in found


def test_network_without_a_mapped_operator_fails(build):
    swish = ("HARD_SWISH", 1, PIXELS, PIXELS, INT8, {})
    assert rules(build([swish, swish]), "edgetpu")["edgetpu-nothing"] == "error"
    assert "edgetpu-nothing" not in rules(build([("RELU", 1, PIXELS, PIXELS, INT8, {}), swish]), "edgetpu")


def test_operators_left_on_the_cpu_must_be_known_there(build):
    relu = ("RELU", 1, PIXELS, PIXELS, INT8, {})
    assert rules(build([relu, ("Nobody", 1, PIXELS, PIXELS, INT8, {})]), "edgetpu")["operator-unknown"] == "error"
    assert rules(build([relu, ("CAST", 99, PIXELS, PIXELS, INT8, {})]), "edgetpu")["operator-version"] == "error"
    assert "operator-unknown" not in rules(build([relu, ("HARD_SWISH", 1, PIXELS, PIXELS, INT8, {})]), "edgetpu")
