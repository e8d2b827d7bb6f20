"""Fixtures: the command line as a user runs it, and a network trained once on built-in data."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from boards import READY as BOARDS_READY
from filelock import FileLock
from forks import Fork
from rtsp import READY as RTSP_READY

from edgefer.bundle import Bundle
from edgefer.card import InputSpec
from edgefer.convert import child
from edgefer.records import Face, Frame
from edgefer.train.data.dataset import Dataset
from edgefer.train.data.load import load_dataset

# Not a second conftest.py: tests import names of this one, and Python allows only one module of that name.
pytest_plugins = ["exports"]

GRAY48 = InputSpec(height=48, width=48)
ROOT = Path(__file__).parent.parent
LONG = ("convert", "parity", "train")  # rooms whose tests train and convert networks
MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
MINIBROWSER = next(iter(sorted(glob("/usr/lib/*/webkit2gtk-4*/MiniBrowser"))), None)
NEEDS = {  # mark: (is it here, why not)
    "camera": (Path("/dev/video0").exists(), "no camera at /dev/video0"),
    "aarch64": (BOARDS_READY, "no emulated boards: run tests/aarch64/setup.sh"),
    "mosquitto": (MOSQUITTO is not None, "no MQTT broker: sudo apt install -y mosquitto"),
    "rtsp": (
        RTSP_READY,
        "no RTSP server: sudo apt install -y python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly",
    ),
    "gcc": (shutil.which("cc") is not None, "no C compiler: sudo apt install -y gcc"),
    "arm": (
        all(map(shutil.which, ("arm-none-eabi-gcc", "qemu-system-arm"))),
        "no Cortex-M: sudo apt install -y gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm",
    ),
    "riscv": (
        all(map(shutil.which, ("riscv64-unknown-elf-gcc", "qemu-system-riscv32"))),
        "no RV32: sudo apt install -y gcc-riscv64-unknown-elf qemu-system-misc",
    ),
    "wasm": (
        all(map(shutil.which, ("clang", "wasm-ld"))),
        "no compiler for WebAssembly: sudo apt install -y clang lld",
    ),
    "openvino": (find_spec("openvino") is not None, "no OpenVINO: pip install openvino"),
    "onnx": (all(map(find_spec, ("tf2onnx", "onnxruntime"))), "no ONNX: pip install tf2onnx onnxruntime"),
    "tflm": (find_spec("tflite_micro") is not None, "no TensorFlow Lite Micro: pip install tflite-micro"),
    "vela": (find_spec("ethosu") is not None, "no compiler for Ethos-U: pip install ethos-u-vela"),
    "chromium": (CHROMIUM is not None, "no browser: sudo apt install -y chromium"),
    "firefox": (FIREFOX is not None, "no Firefox: sudo apt install -y firefox-esr"),
    "webkit": (
        MINIBROWSER is not None and shutil.which("Xvfb") is not None,
        "no WebKit: sudo apt install -y libwebkit2gtk-4.1-0 xvfb",
    ),
}


if "PYTEST_XDIST_WORKER" in os.environ:  # one core per worker, and no threads waiting for one
    cv2.setNumThreads(1)
    for variable in ("TF_NUM_INTRAOP_THREADS", "OPENCV_FOR_THREADS_NUM", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")


def newest_checkpoint(run: Path) -> int:
    """The last epoch whose checkpoint is complete, 0 for none: by the file that is written after the checkpoint it names."""
    state = run / "training" / "checkpoints" / "checkpoint"
    return int(re.search(r'model_checkpoint_path: "ckpt-(\d+)"', state.read_text())[1]) if state.exists() else 0


def pytest_addoption(parser):
    parser.addoption(
        "--require",
        action="append",
        default=[],
        metavar="MARK",
        choices=list(NEEDS),
        help=f"fail, not skip, what needs this ({', '.join(NEEDS)})",
    )


def pytest_xdist_auto_num_workers():
    """One more worker than cores, since some tests wait for browsers and emulators; each takes up to 3 GB."""
    memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return max(1, min(len(os.sched_getaffinity(0)) + 1, int(memory_gb // 3)))


def pytest_configure(config):
    config.option.loadscopereorder = False  # pytest-xdist would sort files by their number of tests


def pytest_collection_modifyitems(config, items):
    """A skip is not a pass: on the test bench, --require=camera makes a missing camera a failure."""
    _sort_files(items)
    for mark, (here, why) in NEEDS.items():
        if mark == "aarch64" and here and mark not in config.getoption("-m"):
            here, why = False, "minutes of emulation: ask for it with -m aarch64"
        if not here and mark not in config.getoption("--require"):
            for item in items:
                if item.get_closest_marker(mark):
                    item.add_marker(pytest.mark.skip(reason=why))


def _sort_files(items: list[pytest.Item]) -> None:
    """Put long files first, so that no worker is left alone with one, and files that need the demo after it."""
    needs_demo = {item.path for item in items if "demo" in item.fixturenames}

    def order(item: pytest.Item) -> tuple[bool, bool, bool]:
        room = item.path.relative_to(ROOT / "tests").parts[0]
        return item.path.stem != "test_demo", room not in LONG, item.path in needs_demo

    items.sort(key=order)


@pytest.fixture(scope="session")
def make_frame():
    """Makes frames for sinks: make_frame(number, "happy", ("unsure", "dark"), ...), a face per label. known: the network's labels."""

    def make(number=0, *labels, time_s=None, score=0.8, size=(64, 48), known=("happy", "sad", "neutral")) -> Frame:
        image = np.full((size[1], size[0], 3), number % 256, np.uint8)
        faces = []
        for place, label in enumerate(labels):
            label, unsure = label if isinstance(label, tuple) else (label, "")
            rest = (1 - score) / (len(known) - 1)
            scores = dict.fromkeys(known, rest) | {known[0] if unsure else label: score}
            box = (20 * place, 5, 20 * place + 16 - place, 25)
            faces.append(Face(box_xyxy=box, scores=scores, unsure=unsure, id=place + 1))
        time_s = number / 10 if time_s is None else time_s
        return Frame(index=number, time_s=time_s, image_bgr=image, faces=tuple(faces))

    return make


@pytest.fixture(scope="session")
def common(tmp_path_factory, worker_id) -> Path:
    """A folder that all of pytest-xdist's workers share."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def wheel(common) -> Path:
    """The wheel of the package, built once for all workers."""
    out = common / "wheel"
    with FileLock(common / "wheel.lock"):
        if not out.exists():
            # From a copy: setuptools would pack whatever an earlier build left in build/.
            tree = common / "wheel-tree"
            for room in ("edgefer", "train", "convert", "devices"):
                shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
            for name in ("pyproject.toml", "README.md", "LICENSE"):
                shutil.copy(ROOT / name, tree)
            command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, tree]
            subprocess.run(command, check=True, capture_output=True)
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="session")
def cache(common) -> Path:
    """The user's cache for all processes of this run, so that the built-in faces are drawn once."""
    (common / "cache").mkdir(exist_ok=True)
    return common / "cache"


@pytest.fixture(scope="session")
def builtin(cache) -> Dataset:
    """The built-in data as the demo network takes it."""
    with FileLock(cache / "builtin.lock"):
        return load_dataset("builtin", GRAY48, cache=cache / "edgefer" / "datasets")


@pytest.fixture(scope="session")
def tiny(builtin) -> Dataset:
    """Few enough drawn faces for an epoch of two steps."""
    train, valid = builtin.split("train"), builtin.split("valid")
    return replace(builtin, splits={"train": train.take(np.arange(64)), "valid": valid.take(np.arange(56))})


@pytest.fixture(scope="session")
def edgefer(cache):
    """Run `edgefer ARGS` in a process of its own: returns the completed process, text captured."""

    def call(*arguments, cwd=None, expect=0, **environment) -> subprocess.CompletedProcess:
        arguments = list(map(str, arguments))
        variables = os.environ | {"XDG_CACHE_HOME": str(cache), "DISPLAY": "", "WAYLAND_DISPLAY": ""} | environment
        if environment:  # libraries read some of it while they are imported
            command = [sys.executable, "-c", "from edgefer.cli import main; main()", *arguments]
            done = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True)
        else:
            done = Fork(arguments, variables, cwd).done()
        assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return call


@pytest.fixture
def forked_conversion(monkeypatch):
    """An untrusted file is converted in a fork, not in a new process, which would import TensorFlow first."""

    def run(command, *, cwd, timeout, **_) -> subprocess.CompletedProcess:
        _, _, module, *arguments = command
        return Fork(arguments, dict(os.environ), cwd, module).done(timeout)

    monkeypatch.setattr(child, "subprocess", SimpleNamespace(run=run, TimeoutExpired=TimeoutError))


@pytest.fixture(scope="session")
def demo(edgefer, common) -> Path:
    """The folder in which `edgefer demo` was run; a minute, once for all workers. printed.txt holds its output."""
    with FileLock(common / "demo.lock"):
        if not (common / "printed.txt").exists():
            (common / "printed.txt").write_text(edgefer("demo", cwd=common).stdout)
    return common


@pytest.fixture(scope="session")
def trained(demo) -> Path:
    """A bundle trained on drawn faces."""
    return demo / "runs" / "demo-1" / "trained"


@pytest.fixture(scope="session")
def converted(edgefer, trained, common) -> Bundle:
    """The same, in float32 and int8."""
    out = common / "runs" / "converted"
    with FileLock(common / "converted.lock"):
        if not out.exists():
            edgefer("convert", trained, "--int8", "--out", out)
    return Bundle.open(out)
