"""The accuracy-parity suite: the three questions, on a network trained for this run, on every TFLite runtime.

tflite-runtime lives in a virtual environment of its own (it needs numpy 1 and Python 3.11), so there the questions are
asked by `edgefer verify --data` in a process of that environment.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgefer.bundle import Bundle, write_bundle
from edgefer.convert.comparison import Budget, judge
from edgefer.convert.prove import prove
from edgefer.errors import BundleError
from edgefer.interpreter import Network
from edgefer.parity import verify
from edgefer.vectors import make_vectors

BUDGET = Budget(max_drop=1.0, min_agreement=0.97)


@pytest.fixture(scope="session")
def tflite_runtime_python(wheel, tmp_path_factory) -> str:
    """A Python with edgefer[tflite-runtime] installed."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("tflite-runtime 2.14 has wheels up to Python 3.11 only")
    venv = tmp_path_factory.mktemp("tflite-runtime")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = str(venv / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python]
    subprocess.run([*pip, "install", "-q", "--no-compile", f"{wheel}[tflite-runtime]"], check=True)
    return python


@pytest.mark.parametrize("runtime", ["litert", "tensorflow"])
def test_questions_1_and_3_on_the_runtimes_of_the_host(converted, runtime):
    checks = verify(converted, runtime=runtime)
    assert [(check.question, check.subject) for check in checks] == [
        (1, "pixels of haar's crop"), (1, "pixels of own's crop"), (1, "pixels of levelled heads"), (1, "faces"), (3, f"int8 on {runtime}"), (3, f"float32 on {runtime}"),
    ]  # fmt: skip
    assert all(check.passed for check in checks), checks


def test_question_2_conversion_stays_within_the_budget(converted, builtin):
    comparisons = prove(converted, builtin, "valid", runtimes=["litert", "tensorflow"]).cost
    assert [(c.reference.name, c.candidate.name) for c in comparisons] == [
        ("keras", "float32 on litert"), ("keras", "float32 on tensorflow"),
        ("keras", "int8 on litert"), ("keras", "int8 on tensorflow"),
    ]  # fmt: skip
    for comparison in comparisons:
        assert judge(comparison, BUDGET).passed, comparison
    assert comparisons[0].agreement == 1.0  # float to float changes no decision


def test_all_questions_on_tflite_runtime(converted, tflite_runtime_python, cache, tmp_path):
    """Without compilers, emulators and browsers: the certificate's tests ask those."""
    command = [tflite_runtime_python, "-m", "edgefer.cli", "verify", converted.path, "--data", "builtin"]
    done = subprocess.run(
        [*command, "--runtime", "tflite-runtime", "--report", tmp_path],
        env=os.environ | {"XDG_CACHE_HOME": str(cache), "PATH": str(Path(tflite_runtime_python).parent)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "parity.json").read_text())
    elsewhere = ("in C", "STM32", "RV32", "rowser", "Chrom")
    own = [check for check in written["checks"] if not any(part in check["subject"] for part in elsewhere)]
    assert [(check["question"], check["subject"]) for check in own] == [
        (1, "pixels of haar's crop"), (1, "pixels of own's crop"), (1, "pixels of levelled heads"), (1, "faces"),
        (3, "int8 on tflite-runtime"), (3, "float32 on tflite-runtime"), (3, "int8, computed exactly"),
        (2, "int8's weights against float32's"), (2, "int8's scales and zero points"),
        (2, "file of the trained network"),
        (2, "int8 on tflite-runtime against float32 on tflite-runtime"),
    ]  # fmt: skip
    assert all(check["passed"] for check in written["checks"])


def test_a_device_with_tflite_runtime_alone_reads_faces(converted, tflite_runtime_python, tmp_path):
    command = [tflite_runtime_python, "-m", "edgefer.cli", "run", converted.path, "--runtime", "tflite-runtime"]
    done = subprocess.run(
        [*command, "--source", "builtin", "--frames", "4", "--json"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert [len(json.loads(line)["faces"]) for line in done.stdout.splitlines()] == [2, 2, 2, 2]


def test_a_pruned_network_has_its_zeros_and_passes(demo, converted, builtin):
    import io
    import tempfile

    pruned = Bundle.open(demo / "runs" / "demo-1" / "converted")
    with tempfile.NamedTemporaryFile(suffix=".keras") as file:
        shutil.copyfileobj(io.BytesIO(pruned.read("tuned")), file)
        file.flush()
        import tf_keras

        from edgefer.convert.prune import measured_sparsity

        assert measured_sparsity(tf_keras.models.load_model(file.name, compile=False)) == pytest.approx(0.5, abs=0.01)
    assert pruned.card.variants["int8"].gzip_bytes < 0.85 * converted.card.variants["int8"].gzip_bytes
    checks = [judge(c, Budget(max_drop=3.0)) for c in prove(pruned, builtin, "valid", runtimes=["litert"]).cost]
    # What pruning changed, what rounding changed, and both together: always against the network as it was trained too.
    assert [check.subject for check in checks] == [
        "tuned against keras", "float32 on litert against tuned", "int8 on litert against tuned",
        "float32 on litert against keras", "int8 on litert against keras",
    ]  # fmt: skip
    assert all(check.passed for check in checks), checks


# What must not pass: each fault is caught by the question that should catch it.


def rebuilt(bundle: Bundle, path: Path, *, card=None, **files: bytes) -> Bundle:
    whole = {name: bundle.read(name) for name in bundle.card.variants} | files
    return write_bundle(path, card or bundle.card, whole)


def patched(bundle: Bundle, change) -> bytes:
    """parity.npz with its arrays changed in place by `change`."""
    import io

    with np.load(io.BytesIO(bundle.read("parity"))) as arrays:
        vectors = {name: arrays[name] for name in arrays.files}
    change(vectors)
    out = io.BytesIO()
    np.savez_compressed(out, **vectors)
    return out.getvalue()


def failed(checks) -> list[int]:
    return [check.question for check in checks if not check.passed]


def test_changed_crop_or_resize_is_caught_by_question_1(converted, tmp_path, monkeypatch):
    import cv2

    from edgefer import parity, preprocess

    crop = converted.card.crops["haar"]
    card = converted.card.model_copy(
        update={"crops": {**converted.card.crops, "haar": crop.model_copy(update={"scale": crop.scale * 1.1})}}
    )
    assert failed(verify(rebuilt(converted, tmp_path / "crop", card=card))) == [1, 1]  # level and levelled

    # A resize kernel other than the host's.
    shrink = cv2.resize
    monkeypatch.setattr(
        preprocess.cv2,
        "resize",
        lambda image, size, interpolation: shrink(image, size, interpolation=cv2.INTER_NEAREST),
    )
    assert failed(parity.verify(converted)) == [1, 1, 1]


def test_stale_answers_and_a_runtime_that_returns_zeros_are_caught_by_question_3(converted, tmp_path, monkeypatch):
    def stale(vectors):
        vectors["answers_int8"] = np.roll(vectors["answers_int8"], 1, axis=0)

    assert failed(verify(rebuilt(converted, tmp_path / "stale", parity=patched(converted, stale)))) == [3]

    swapped = rebuilt(converted, tmp_path / "swapped", int8=converted.read("float32"))
    with pytest.raises(BundleError, match="is the bundle's int8 file, but takes float32"):
        verify(swapped)

    monkeypatch.setattr(Network, "raw", lambda self, pixels, **limits: np.zeros((len(pixels), 7), self.dtype))
    checks = verify(converted)
    assert failed(checks) == [3, 3]
    answers = [check for check in checks if check.question == 3]
    assert all("every answer is zero" in check.detail for check in answers)


def test_rounding_passes_and_a_shift_of_every_answer_does_not(converted, tmp_path):
    """A few quanta here and there, by which runtimes differ, are no fault; one quantum everywhere is."""
    rng = np.random.default_rng(0)
    scattered = (rng.random((48, 7)) < 0.1) * 3
    lone = np.zeros((48, 7), int)
    lone[5, 2] = 5
    for name, off, expected in (("scattered", scattered, []), ("everywhere", 1, [3]), ("lone", lone, [3])):

        def shift(vectors, off=off):
            answers = vectors["answers_int8"].astype(int)
            vectors["answers_int8"] = np.where(answers > 0, answers - off, answers + off).astype(np.int8)

        bundle = rebuilt(converted, tmp_path / name, parity=patched(converted, shift))
        assert failed(verify(bundle, variants=("int8",))) == expected


def narrowed(network: bytes, times: int) -> bytes:
    """An int8 .tflite whose inner ranges are `times` too narrow, as if calibrated on images that differ less than real ones:
    answers near the zero point stay as they were, and larger ones saturate."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(network))
    graph = model.subgraphs[0]
    inner = [t for op in graph.operators for t in op.outputs if t not in graph.outputs and graph.tensors[t].type == 9]
    for tensor in inner:
        graph.tensors[tensor].quantization.scale = [graph.tensors[tensor].quantization.scale[0] / times]
    for operator in graph.operators:
        if operator.inputs[0] in inner and len(operator.inputs) == 3:  # a bias counts in its input's scale
            bias = graph.tensors[operator.inputs[2]]
            bias.quantization.scale = np.asarray(bias.quantization.scale) / times
            values = np.asarray(model.buffers[bias.buffer].data, np.uint8).view(np.int32) * times
            model.buffers[bias.buffer].data = values.astype(np.int32).view(np.uint8)
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize(("times", "caught"), [(1, []), (16, ["int8 on litert"])])
def test_ranges_that_are_too_narrow_are_caught_by_question_2(converted, builtin, tmp_path, times, caught):
    """Its own vectors cannot detect it: the network answers on every board as it answered on the host."""
    broken = narrowed(converted.read("int8"), times)
    bundle = rebuilt(
        converted,
        tmp_path / "narrow",
        int8=broken,
        parity=make_vectors(converted.card, {"float32": converted.read("float32"), "int8": broken}),
    )
    assert failed(verify(bundle, variants=("int8",))) == []
    comparisons = prove(bundle, builtin, "valid", runtimes=["litert"]).cost
    checks = {comparison.candidate.name: judge(comparison, BUDGET) for comparison in comparisons}
    assert [name for name, one in checks.items() if one.doubtful or not one.passed] == caught, comparisons


def test_permuted_labels_are_caught_by_question_2(converted, builtin):
    from edgefer.train.data.dataset import Dataset, Split

    split = builtin.split("valid")
    moved = Split(images=split.images, labels=(split.labels + 1) % 7, ids=split.ids)
    wrong = Dataset(name="wrong", labels=builtin.labels, splits={"valid": moved})
    comparison = prove(converted, wrong, "valid", runtimes=["litert"]).cost[-1]
    assert comparison.candidate.name == "int8 on litert"
    assert comparison.reference.scores.accuracy < 0.2 and comparison.candidate.scores.accuracy < 0.2


def test_unreadable_and_missing_vectors_are_reported(converted, tmp_path):
    with pytest.raises(BundleError, match="parity vectors cannot be read"):
        verify(rebuilt(converted, tmp_path / "garbage", parity=b"garbage"))
    with pytest.raises(BundleError, match="holds no parity vectors"):
        bundle = write_bundle(tmp_path / "none", converted.card, {"int8": converted.read("int8")})
        verify(bundle)
