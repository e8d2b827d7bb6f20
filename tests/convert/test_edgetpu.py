"""The Edge TPU's compiler (a stand-in program) and its delegate (libraries built here)."""

import ctypes
import errno
import inspect
import json
import os
import shutil
import stat
import subprocess
import sys
from importlib import import_module

import cv2
import numpy as np
import pytest

from edgefer import openvino_interpreter
from edgefer.bundle import Bundle, write_bundle
from edgefer.card import InputSpec, ModelCard, Provenance
from edgefer.checks import Check, Status
from edgefer.convert import extras, start
from edgefer.convert.edgetpu import add_compiled, compile_int8, parse_log
from edgefer.drawn import EXPRESSIONS
from edgefer.errors import BundleError, InputError, Interrupted, MissingDependency, RuntimeFault
from edgefer.interpreter import EDGETPU_LIBRARY, Classifier, Network, RuntimeOptions
from edgefer.parity import check_bundle
from edgefer.tflite.flatbuffer import read_model
from edgefer.tflite.metadata import with_metadata
from edgefer.vectors import make_vectors
from tests.convert.edgetpu_logs import FAILED, WHOLE

SPEC = InputSpec(height=48, width=48)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Bundle:
    """A bundle with an untrained network, and its int8 form."""
    from edgefer.convert.quantize import to_float32, to_int8
    from edgefer.train.backend import tensorflow
    from edgefer.train.networks import keras_bytes

    tensorflow().keras.utils.set_random_seed(0)
    import tf_keras

    layers = tf_keras.layers
    pixels = tf_keras.Input(SPEC.shape)
    hidden = layers.ReLU()(layers.Conv2D(16, 3, strides=4)(pixels))
    hidden = layers.GlobalAveragePooling2D()(hidden)
    model = tf_keras.Model(pixels, layers.Dense(len(EXPRESSIONS), name="logits")(hidden))
    images = np.random.default_rng(0).integers(0, 256, (8, *SPEC.shape), np.uint8)
    provenance = Provenance(data="none", split_sizes={}, recipe={}, seed=0, epoch=0, versions={})
    card = ModelCard(name="tiny", labels=EXPRESSIONS, input=SPEC, provenance=provenance)
    files = {"keras": keras_bytes(model), "float32": to_float32(model), "int8": to_int8(model, images)}
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny", card, files)


def as_compiled(content: bytes) -> bytes:
    """The network with all operators replaced by the compiler's custom one, as the compiler does."""
    from importlib import import_module

    import flatbuffers

    schema = import_module("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    code, operator, graph = schema.OperatorCodeT(), schema.OperatorT(), model.subgraphs[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = b"edgetpu-custom-op", 1
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, graph.inputs, graph.outputs
    model.operatorCodes, graph.operators = [code], [operator]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.fixture(scope="module")
def compiled(source) -> bytes:
    return as_compiled(source.read("int8"))


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Put a stand-in for edgetpu_compiler on PATH: compiler(log, output, exit_code) makes it; returns its folder. Without an
    output it compiles what it is given."""

    def make(log: str, output: bytes | None = b"", exit_code: int = 0):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "log").write_text(log)
        if output is not None:
            (folder / "output").write_bytes(output)
        program = folder / "edgetpu_compiler"
        program.write_text(f"""#!{sys.executable}
import pathlib, sys
{inspect.getsource(as_compiled)}
here = pathlib.Path(__file__).parent
flag, out, folder, source = sys.argv[1:]
assert (flag, out) == ("-s", "-o") and pathlib.Path(source).read_bytes()[4:8] == b"TFL3"
if (here / "output").exists():
    name = pathlib.Path(source).stem + "_edgetpu.tflite"
    written = (here / "output").read_bytes() or as_compiled(pathlib.Path(source).read_bytes())
    pathlib.Path(folder, name).write_bytes(written)
print((here / "log").read_text(), end="")
sys.exit({exit_code})
""")
        program.chmod(program.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", str(folder))
        return folder

    return make


def test_compiling_gives_the_network_and_the_log(source, compiled, compiler):
    compiler(WHOLE, compiled)
    content, log, text = compile_int8(source.read("int8"))
    assert content == compiled and log == parse_log(WHOLE) and text == WHOLE


def test_a_missing_compiler_error_names_the_platforms_that_have_one(source, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match=r"x86-64 Linux only.*coral.ai/docs/edgetpu/compiler"):
        compile_int8(source.read("int8"))


def test_compiler_error_is_quoted(source, compiler):
    compiler(FAILED, None, 1)
    with pytest.raises(
        RuntimeFault, match=r"exit code 1\): ERROR: Attempting to use a delegate that only supports static"
    ):
        compile_int8(source.read("int8"))


BEGIN = "Edge TPU Compiler version 16.0.384591198\nStarted a compilation timeout timer of 180 seconds.\n"
END = "Compilation child process completed within timeout period.\nCompilation failed! \n"


@pytest.mark.parametrize(
    ("log", "reason"),
    [  # as users posted them
        (
            BEGIN + "ERROR: Restored original execution plan after delegate application failure.\n"
            "Compilation failed: Compilation failed due to large activation tensors in model.\n" + END,
            "Compilation failed: Compilation failed due to large activation tensors in model.",
        ),
        (
            BEGIN + "Compilation timeout. This is usually caused by large activations.\nCompilation failed! \n",
            "Compilation timeout. This is usually caused by large activations.",
        ),
        (
            BEGIN + "libc++abi: terminating with uncaught exception of type std::out_of_range: vector\n" + END,
            "libc++abi: terminating with uncaught exception of type std::out_of_range: vector.",
        ),
        ("Edge TPU Compiler version 14.1.317412892\n\nInternal compiler error. Aborting! \n", "Internal compiler error. Aborting."),
        (BEGIN + END, "it gives no reason."),
        ("", "it gives no reason."),
    ],
)  # fmt: skip
def test_the_reason_in_the_log_is_quoted_without_its_other_lines(source, compiler, log, reason):
    compiler(log, None, 1)
    with pytest.raises(RuntimeFault) as raised:
        compile_int8(source.read("int8"))
    assert str(raised.value) == f"edgetpu_compiler failed (exit code 1): {reason}"


def changed_end(content: bytes) -> bytes:
    """The network with another scale of its output."""
    import flatbuffers

    schema = import_module("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    graph = model.subgraphs[0]
    quantization = graph.tensors[graph.outputs[0]].quantization
    quantization.scale = quantization.scale * 2
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_a_compiled_file_of_another_network_is_refused(source, compiler, compiled):
    compiler(WHOLE, changed_end(compiled))
    with pytest.raises(RuntimeFault, match=r"edgetpu_compiler 16\.0\.\d+ wrote a network with another input or output"):
        compile_int8(source.read("int8"))


def test_compiler_that_writes_or_maps_nothing_counts_as_failed(source, compiler):
    compiler(WHOLE, None)
    with pytest.raises(RuntimeFault, match="failed"):
        compile_int8(source.read("int8"))
    nothing = WHOLE.replace("Mapped to Edge TPU", "Operation not supported")
    compiler(nothing, source.read("int8"))  # then it returns the network unchanged
    with pytest.raises(RuntimeFault, match=r"no operator.*4 CONV_2D Operation not supported"):
        compile_int8(source.read("int8"))


def test_compiler_for_another_architecture_gives_a_clear_error(source, compiler):
    program = compiler(WHOLE, None) / "edgetpu_compiler"
    program.write_bytes(b"\x7fELF" + bytes(60))
    with pytest.raises(MissingDependency, match=r"cannot be run \(Exec format error\): it needs x86-64 Linux"):
        extras.Extras(edgetpu=True).check(int8=True)  # before the work


def test_only_int8_is_compiled(source, compiler, compiled, tmp_path):
    compiler(WHOLE, compiled)
    bundle = write_bundle(tmp_path / "float", source.card, {"float32": source.read("float32")})
    with pytest.raises(BundleError, match="holds no int8 network"):
        add_compiled(bundle)


# ---- convert --edgetpu ----


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory) -> str:
    """A folder of noise, a few images of each expression."""
    folder, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for label in EXPRESSIONS:
        (folder / label).mkdir()
        for number in range(5):
            cv2.imwrite(str(folder / label / f"{number}.png"), draw.integers(0, 256, (48, 48), np.uint8))
    return str(folder)


def test_convert_stores_the_compiled_network_and_the_log(edgefer, source, compiler, image_folder, tmp_path):
    compiler(WHOLE)
    out = tmp_path / "out"
    done = edgefer("convert", source.path, "--edgetpu", "--data", image_folder, "--out", out, expect=0)
    bundle = Bundle.open(out)
    assert bundle.read("int8_edgetpu") == with_metadata(as_compiled(bundle.read("int8")), bundle.card)
    assert set(bundle.card.variants) == {"keras", "float32", "int8", "parity", "int8_edgetpu"}
    assert (out / "report" / "edgetpu.log").read_text() == WHOLE
    figures = json.loads((out / "report" / "edgetpu.json").read_text())
    assert (figures["mapped"], figures["on_cpu"], figures["cached_bytes"]) == (6, 0, 3 * 2**20)
    assert "6 operators mapped to the Edge TPU, 0 on the CPU" in done.stdout


def test_convert_reports_a_missing_compiler_before_the_work(edgefer, source, image_folder, tmp_path):
    out = tmp_path / "out"
    done = edgefer(
        "convert", source.path, "--edgetpu", "--data", image_folder, "--out", out, expect=1, PATH=str(tmp_path)
    )
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("edgefer: edgetpu_compiler is not on PATH; it runs on x86-64")
    assert list(tmp_path.iterdir()) == []


def test_convert_reports_a_failing_compiler_and_writes_the_rest(edgefer, source, compiler, image_folder, tmp_path):
    compiler(FAILED, None, 1)
    out = tmp_path / "out"
    done = edgefer("convert", source.path, "--edgetpu", "--data", image_folder, "--out", out, expect=1)
    assert set(Bundle.open(out).card.variants) == {"keras", "float32", "int8", "parity"}
    assert "3 of 3 operators would run on it" in done.stdout
    assert "edgetpu_compiler failed (exit code 1)" in done.stderr.strip().splitlines()[-1]


def test_a_full_disk_while_compiling_is_a_failed_extra_and_stops_no_other(source, monkeypatch):
    def full(bundle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(extras.edgetpu, "add_compiled", full)
    monkeypatch.setattr(extras, "check_in_c", lambda bundle: [])
    _, added = extras.add_extras(extras.Extras(edgetpu=True), source)
    assert [one.failure for one in added] == ["Compiling it for the Edge TPU failed: No space left on device.", ""]


def test_ctrl_c_while_compiling_names_the_finished_bundle(source, monkeypatch, image_folder, tmp_path):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "add_extras", stop)
    with pytest.raises(Interrupted, match=f"Stopped; {tmp_path}/out is complete"):
        start.start(start.ConvertRequest(bundle=source, data=image_folder, out=tmp_path / "out"))
    assert Bundle.open(tmp_path / "out").has("int8")


def test_verify_has_a_row_for_each_form_that_it_cannot_run(compiled, source, tmp_path):
    vectors = make_vectors(source.card, {"int8": source.read("int8")})
    networks = {"int8": source.read("int8"), "parity": vectors, "int8_ethosu": compiled, "mediapipe": compiled}

    def rows(edgetpu: bytes) -> dict[str, Check]:
        bundle = write_bundle(tmp_path / "bundle", source.card, networks | {"int8_edgetpu": edgetpu})
        return {row.subject: row for row in check_bundle(bundle)}

    found = rows(compiled)
    assert {found[form].status for form in ("int8_edgetpu", "int8_ethosu", "mediapipe")} == {Status.NOT_CHECKED}
    assert "run --device coral" in found["int8_edgetpu"].detail
    other = rows(changed_end(compiled))["int8_edgetpu"]
    assert other.status is Status.FAIL and "compiled from another network" in other.detail and other.fix


# ---- run --device coral ----

DELEGATE = """
#include <stddef.h>
#include <stdint.h>
typedef struct Delegate {
  void* data; int (*prepare)(void*, struct Delegate*); void* copy_from; void* copy_to; void* free_handle;
  int64_t flags; void* builder;
} Delegate;
static int prepare(void* context, Delegate* self) { return 0; }
static Delegate idle = {NULL, prepare, NULL, NULL, NULL, 0, NULL};
Delegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count, void (*report)(const char*)) {
  if (FOUND) return &idle;
  if (report) report("no device in sight");
  return NULL;
}
void tflite_plugin_destroy_delegate(Delegate* self) {}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Build a delegate library as libedgetpu.so.1: library("missing") finds no device, library("idle") takes no operator."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is needed to build a delegate library")

    def make(kind: str) -> str:
        folder = tmp_path_factory.mktemp(kind)
        (folder / "delegate.c").write_text(DELEGATE)
        found = f"-DFOUND={int(kind == 'idle')}"
        out = folder / EDGETPU_LIBRARY
        subprocess.run(["gcc", "-shared", "-fPIC", found, "-o", out, folder / "delegate.c"], check=True)
        return str(out)

    return make


def coral(content: bytes, library: str) -> Network:
    options = RuntimeOptions(runtime="litert", device="coral", edgetpu_library=library)
    return Network(content, SPEC, len(EXPRESSIONS), options=options)


def test_each_delegate_fault_has_its_own_message(source, compiled, library):
    with pytest.raises(MissingDependency, match=r"libnothing\.so\.9 cannot be loaded .*install libedgetpu1-std"):
        coral(compiled, "libnothing.so.9")
    with pytest.raises(RuntimeFault, match=r"found no Edge TPU it can use \(no device in sight\): plug it in"):
        coral(compiled, library("missing"))
    with pytest.raises(BundleError, match="not compiled for the Edge TPU"):
        coral(source.read("int8"), library("idle"))


def test_a_runtime_without_delegates_is_refused(compiled, monkeypatch):
    monkeypatch.setattr("edgefer.interpreter._runtime_module", lambda name: openvino_interpreter)
    with pytest.raises(
        InputError, match="--device coral needs a TFLite runtime, and openvino is none: use --runtime litert"
    ):
        Network(compiled, SPEC, len(EXPRESSIONS), options=RuntimeOptions(runtime="openvino", device="coral"))


def test_delegate_that_takes_no_operator_fails_without_cpu_fallback(compiled, library):
    with pytest.raises(RuntimeFault, match="unresolved custom op: edgetpu-custom-op"):
        coral(compiled, library("idle"))


def test_library_that_is_not_a_delegate_is_refused(compiled):
    with pytest.raises(MissingDependency, match=r"libc\.so\.6 cannot be loaded .*tflite_plugin_create_delegate"):
        coral(compiled, "libc.so.6")


def test_running_on_the_cpu_needs_no_delegate(source):
    image = np.zeros((1, *SPEC.shape), np.uint8)
    assert Classifier.load(source, device="cpu").predict(image).shape == (1, len(EXPRESSIONS))


def test_run_names_the_fault(edgefer, source, compiled, library, tmp_path):
    def refuse(bundle, device="coral", code=1, **environment):
        arguments = ["run", bundle.path, "--source", "builtin", "--headless", "--device", device]
        return " ".join(edgefer(*arguments, expect=code, **environment).stderr.replace("│", " ").split())

    files = {"int8": source.read("int8"), "int8_edgetpu": compiled}
    bundle = write_bundle(tmp_path / "compiled", source.card, files)
    assert "holds no int8_edgetpu network" in (message := refuse(source, code=2)) and "convert --edgetpu" in message
    assert "'gpu' is not one of" in refuse(bundle, "gpu", code=2)
    folder = str(os.path.dirname(library("missing")))
    assert "found no Edge TPU it can use" in refuse(bundle, LD_LIBRARY_PATH=folder)
    try:
        ctypes.CDLL(EDGETPU_LIBRARY)
    except OSError:
        assert f"{EDGETPU_LIBRARY} cannot be loaded" in refuse(bundle)


def test_lint_takes_a_bundle(edgefer, source):
    assert "int8.tflite: int8, 3 operators" in edgefer("lint", source.path, "--target", "edgetpu", expect=0).stdout


def test_a_compiled_network_is_not_imported(edgefer, compiled, tmp_path):
    file = tmp_path / "net_edgetpu.tflite"
    file.write_bytes(compiled)
    done = edgefer("import", file, "--labels", ",".join(EXPRESSIONS), "--out", tmp_path / "out", expect=2)
    assert f"{file} is compiled for the Edge TPU: import the file it was compiled from." in done.stderr


def test_lint_recognizes_a_compiled_network(compiled):
    assert [operator.name for operator in read_model(compiled, "x").operators] == ["edgetpu-custom-op"]
