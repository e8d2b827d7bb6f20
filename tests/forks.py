"""`edgefer ARGS`, and other programs of the package, in a fork of a process that has imported all libraries already: seconds less for each call."""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
from multiprocessing import forkserver, util
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
LIBRARIES = [
    "tensorflow",
    "tf_keras",
    "tensorflow_model_optimization",
    "ai_edge_litert.interpreter",
    "matplotlib.figure",
]
FORKS = multiprocessing.get_context("forkserver")
util.get_temp_dir()  # before edgefer.scratch makes tempfile's directory one of this process, gone before this one is


def ready() -> None:
    """Start the process to fork from, once for each process of the tests."""
    # As edgefer.train.backend sets them, before TensorFlow reads them.
    settings = {"TF_USE_LEGACY_KERAS": "1", "TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    before = dict(os.environ)
    FORKS.set_forkserver_preload([*LIBRARIES, *_own_modules()])
    os.environ.update(settings)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def _own_modules() -> list[str]:
    files = [file for room in ("edgefer", "train", "convert", "devices") for file in (ROOT / room).rglob("*.py")]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files if not file.stem.startswith("__")]
    return sorted(name if name.startswith("edgefer.") else f"edgefer.{name}" for name in names)


class Fork:
    """A process that runs `python -m MODULE ARGS`, or `python FILE ARGS`, as subprocess.Popen would, its text captured."""

    def __init__(
        self, arguments, environment: dict[str, str], cwd: Path | None = None, program: str | Path = "edgefer.cli"
    ):
        ready()
        self._folder = TemporaryDirectory()
        self._outputs = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        start = (program, list(map(str, arguments)), Path(cwd or ".").resolve(), environment, self._outputs)
        self.process = FORKS.Process(target=_main, args=start, daemon=True)
        self.process.start()

    def done(self, timeout: float | None = None) -> subprocess.CompletedProcess:
        """What subprocess.run would return; TimeoutError if it takes longer than `timeout` seconds."""
        self.process.join(timeout)
        if self.process.is_alive():
            raise TimeoutError
        stdout, stderr = (output.read_text() for output in self._outputs)
        return subprocess.CompletedProcess("edgefer", self.process.exitcode, stdout, stderr)


def _main(
    program: str | Path, arguments: list[str], cwd: Path, environment: dict[str, str], outputs: list[Path]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, output in enumerate(outputs, start=1):
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    sys.argv = ["-c", *arguments]
    try:
        if isinstance(program, Path):
            runpy.run_path(str(program), run_name="__main__")
        else:
            sys.modules.pop(program, None)  # or runpy warns that it has been imported already
            runpy.run_module(program, run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out
