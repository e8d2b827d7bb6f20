"""Runs a bundle's int8.onnx with ONNX Runtime on the stored images, in a separate process, since the file is untrusted.

`python -m edgefer.onnx FOLDER` is that process: network.onnx and images.npy in, answers.npy out.
"""

import os
import resource
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from edgefer.bundle import Bundle, Form
from edgefer.checks import Check, Status, status_if
from edgefer.errors import MissingDependency, RuntimeFault
from edgefer.interpreter import Network
from edgefer.tflite.trial import limit_memory
from edgefer.vectors import Vectors

SUBJECT = "int8.onnx on onnxruntime"
# Measured on the shipped networks: at most 1 quantum, 0.00 to 0.04 on average. An error moves every answer.
WORST, MEAN = 2, 0.25
TIMEOUT_S = 60
NOT_LOADED = 3  # the separate process's exit code if onnxruntime itself does not load


def check_onnx(bundle: Bundle, vectors: Vectors) -> list[Check]:
    """Question 3 for a bundle's int8.onnx; empty if it has none."""
    if not bundle.has(Form.ONNX):
        return []
    if find_spec("onnxruntime") is None:
        return [_not_checked("onnxruntime is not installed", "pip install onnxruntime")]
    network = Network.open(bundle, Form.INT8)  # for its input; the answers are ONNX Runtime's
    images, expected = np.stack([network.feed(one) for one in vectors.pixels]), vectors.answers[Form.INT8]
    try:
        answers, version = run_onnx(bundle.read(Form.ONNX), images)
        if answers.shape != expected.shape:
            raise RuntimeFault(f"it gives {answers.shape} answers, not {expected.shape}")
    except MissingDependency as error:
        return [_not_checked(str(error).rstrip("."), "pip install --upgrade --force-reinstall onnxruntime")]
    except RuntimeFault as error:
        return [Check(question=3, subject=SUBJECT, status=Status.FAIL, detail=str(error).rstrip("."))]
    off = np.abs(answers - expected)
    worst, mean = int(off.max()), float(off.mean())
    detail = (
        f"off by {mean:.2f} quanta on average, {worst} at worst (allowed {MEAN} and {WORST}), {int((off > 0).sum())} of "
        f"{off.size} differ (onnxruntime {version})"
    )
    return [Check(question=3, subject=SUBJECT, status=status_if(worst <= WORST and mean <= MEAN), detail=detail)]


def _not_checked(detail: str, fix: str) -> Check:
    return Check(question=3, subject=SUBJECT, status=Status.NOT_CHECKED, detail=detail, fix=fix)


def run_onnx(content: bytes, images: np.ndarray) -> tuple[np.ndarray, str]:
    """Network inputs [n, h, w, c] -> its answers [n, classes], maps concatenated, the largest first, and ONNX Runtime's
    version. RuntimeFault if it cannot run it, MissingDependency if ONNX Runtime itself does not load."""
    with tempfile.TemporaryDirectory(prefix="edgefer-onnx-") as folder:
        (Path(folder) / "network.onnx").write_bytes(content)
        np.save(Path(folder) / "images.npy", images)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "edgefer.onnx", folder],
                capture_output=True, text=True, timeout=TIMEOUT_S, start_new_session=True, check=False,
                env=os.environ | {"PYTHONSAFEPATH": "1"},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise RuntimeFault(f"ONNX Runtime did not answer within {TIMEOUT_S} s.") from None
        if done.returncode:
            reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1][:300]
            if done.returncode == NOT_LOADED:
                raise MissingDependency(f"the installed onnxruntime cannot be loaded ({reason}).")
            raise RuntimeFault(f"ONNX Runtime cannot run it: {reason}")
        # The version is the module's own: its package may be onnxruntime-gpu or another.
        # Mapped, not read: their shape, which the untrusted file decides, is not checked yet.
        return np.load(Path(folder) / "answers.npy", mmap_mode="r", allow_pickle=False), done.stdout.strip()


def _run(folder: Path) -> None:
    try:
        import onnxruntime
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(NOT_LOADED)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = (folder / "network.onnx").read_bytes()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    rows = []
    for image in np.load(folder / "images.npy", allow_pickle=False):
        maps = sorted(session.run(None, {source.name: image[None]}), key=lambda one: -one.size)
        rows.append(np.concatenate([one.reshape(-1) for one in maps]))
    np.save(folder / "answers.npy", np.stack(rows).astype(np.int64))  # here, where texts and objects are no danger
    print(onnxruntime.__version__)


if __name__ == "__main__":
    _run(Path(sys.argv[1]))
