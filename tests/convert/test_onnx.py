"""`convert --onnx`: int8.onnx answers as stored on ONNX Runtime, and a wrong or missing one is reported in its row."""

import numpy as np
import pytest

from edgefer import onnx as core
from edgefer.bundle import Bundle, Form, shipped_bundles, write_bundle
from edgefer.checks import Status
from edgefer.convert import onnx
from edgefer.errors import MissingDependency, RuntimeFault
from edgefer.onnx import check_onnx
from edgefer.parity import check_bundle
from edgefer.vectors import Vectors


def with_onnx(folder, content: bytes) -> Bundle:
    bundle = Bundle.open(shipped_bundles()["fer-nano"])
    files = {name: bundle.read(name) for name in bundle.card.variants} | {Form.ONNX: content}
    return write_bundle(folder / "bundle", bundle.card, files)


@pytest.fixture(scope="module")
def network() -> bytes:
    return onnx.to_onnx(Bundle.open(shipped_bundles()["fer-nano"]).read("int8"))


@pytest.mark.onnx
def test_onnx_network_gives_the_stored_answers_and_verify_checks_it(network, tmp_path):
    bundle = with_onnx(tmp_path, network)
    assert (bundle.path / "int8.onnx").read_bytes() == network
    (row,) = [check for check in check_bundle(bundle) if check.subject == core.SUBJECT]
    assert row.status is Status.PASS and " quanta on average, " in row.detail and "of 336 differ" in row.detail


@pytest.mark.onnx
def test_wrong_answers_fail_and_an_invalid_onnx_file_is_reported(network, tmp_path):
    weights = bytearray(network)
    middle = len(weights) // 2  # weights make up nearly all of it
    weights[middle : middle + 4000] = bytes(4000)
    for number, content in enumerate((bytes(weights), b"no network", network[: len(network) // 2])):
        bundle = with_onnx(tmp_path / str(number), content)
        (row,) = check_onnx(bundle, Vectors.load(bundle))
        assert row.status is Status.FAIL and "Traceback" not in row.detail and "\n" not in row.detail
        assert "quanta" in row.detail if number == 0 else "ONNX Runtime cannot run it" in row.detail


@pytest.mark.onnx
def test_a_tf2onnx_conversion_failure_is_a_one_sentence_error():
    with pytest.raises(RuntimeFault, match="tf2onnx cannot convert the int8 network: ") as raised:
        onnx.to_onnx(b"no network")
    assert "\n" not in str(raised.value)


def test_a_missing_onnx_runtime_is_reported_in_its_row(tmp_path, monkeypatch):
    bundle = with_onnx(tmp_path, b"not looked at")
    monkeypatch.setattr(core, "find_spec", lambda name: None)
    (row,) = check_onnx(bundle, Vectors.load(bundle))
    assert row.status is Status.NOT_CHECKED and row.fix == "pip install onnxruntime"


def fake_onnxruntime(folder, code: str, monkeypatch) -> None:
    (folder / "onnxruntime.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(core, "find_spec", lambda name: True)


def test_an_onnx_runtime_that_does_not_load_says_nothing_about_the_network(tmp_path, monkeypatch):
    bundle = with_onnx(tmp_path, b"not looked at")
    fake_onnxruntime(tmp_path, "raise ImportError('numpy.core.multiarray failed to import')", monkeypatch)
    (row,) = check_onnx(bundle, Vectors.load(bundle))
    assert row.status is Status.NOT_CHECKED and "cannot be loaded (numpy.core.multiarray failed" in row.detail
    assert row.fix


ZEROS = """
import numpy as np
__version__ = "9.9"
class SessionOptions: pass
class InferenceSession:
    def __init__(self, content, options, providers): self.name = "pixels"
    def get_inputs(self): return [self]
    def run(self, names, feeds): return [np.zeros((1, 7), np.int8)]
"""


def test_onnx_runtime_from_a_package_of_another_name_is_named_with_its_version(tmp_path, monkeypatch):
    bundle = with_onnx(tmp_path, b"not looked at")
    fake_onnxruntime(tmp_path, ZEROS, monkeypatch)  # as onnxruntime-gpu installs it: no package `onnxruntime`
    (row,) = check_onnx(bundle, Vectors.load(bundle))
    assert row.status is Status.FAIL and row.detail.endswith("differ (onnxruntime 9.9)")


def test_an_onnx_network_that_answers_with_text_fails_in_one_sentence(tmp_path, monkeypatch):
    bundle = with_onnx(tmp_path, b"not looked at")
    fake_onnxruntime(
        tmp_path, ZEROS.replace("np.zeros((1, 7), np.int8)", "np.full((1, 7), 'happy', object)"), monkeypatch
    )
    (row,) = check_onnx(bundle, Vectors.load(bundle))
    assert row.status is Status.FAIL and "ONNX Runtime cannot run it: ValueError" in row.detail


def test_bundle_without_onnx_has_no_row():
    bundle = Bundle.open(shipped_bundles()["fer-nano"])
    assert check_onnx(bundle, Vectors.load(bundle)) == []


def test_missing_dependencies_are_reported_before_the_work(edgefer, monkeypatch, tmp_path):
    monkeypatch.setattr(onnx, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"--onnx needs tf2onnx and onnxruntime.*pip install 'edgefer\[onnx\]'"):
        onnx.to_onnx(b"")
    done = edgefer("convert", tmp_path, "--onnx", "--no-int8", expect=2)
    assert "--onnx is about the int8 network" in done.stderr or "is not a bundle" in done.stderr


def test_answers_are_compared_in_quanta(monkeypatch, tmp_path):
    bundle = with_onnx(tmp_path, b"not looked at")
    vectors = Vectors.load(bundle)
    stored = vectors.answers["int8"].astype(np.int64)
    monkeypatch.setattr(core, "find_spec", lambda name: True)
    for off, status in ((0, Status.PASS), (1, Status.FAIL), (np.eye(*stored.shape, dtype=int) * 4, Status.FAIL)):
        monkeypatch.setattr(core, "run_onnx", lambda content, images, off=off: (stored + off, "1"))
        assert check_onnx(bundle, vectors)[0].status is status
