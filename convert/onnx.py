"""Converts an int8 network to ONNX with tf2onnx, from the deployed .tflite."""

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from edgefer.bundle import Bundle, Form, write_bundle
from edgefer.checks import Check
from edgefer.errors import BundleError, MissingDependency, RuntimeFault
from edgefer.onnx import check_onnx
from edgefer.vectors import Vectors

OPSET = 13  # the first with per-channel quantization
TIMEOUT_S = 600


def find_tf2onnx() -> None:
    """MissingDependency unless tf2onnx and ONNX Runtime are installed."""
    missing = [name for name in ("tf2onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise MissingDependency(
            f"--onnx needs {' and '.join(missing)}, not installed here: pip install 'edgefer[onnx]', or leave --onnx out."
        )


def to_onnx(content: bytes) -> bytes:
    """An int8 .tflite as ONNX, int8 in and out. MissingDependency, or RuntimeFault with tf2onnx's reason."""
    find_tf2onnx()
    with tempfile.TemporaryDirectory(prefix="edgefer-onnx-") as folder:
        source, target = Path(folder) / "int8.tflite", Path(folder) / "int8.onnx"
        source.write_bytes(content)
        command = [sys.executable, "-m", "tf2onnx.convert", "--opset", str(OPSET)]
        command += ["--tflite", str(source), "--output", str(target)]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise RuntimeFault(f"tf2onnx did not finish within {TIMEOUT_S} s: convert without --onnx.") from None
        if done.returncode or not target.is_file():
            reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise RuntimeFault(f"tf2onnx cannot convert the int8 network: {reason[:300]}")
        return target.read_bytes()


def add_onnx(bundle: Bundle) -> tuple[Bundle, list[Check]]:
    """The bundle with int8.onnx, and ONNX Runtime's answers compared with the stored ones."""
    if not bundle.has(Form.INT8):
        raise BundleError(f"{bundle.path} holds no int8 network to write as ONNX: convert with --int8.")
    files = {variant: bundle.read(variant) for variant in bundle.card.variants}
    files[Form.ONNX] = to_onnx(files[Form.INT8])
    added = write_bundle(bundle.path, bundle.card, files)
    return added, check_onnx(added, Vectors.load(added))
