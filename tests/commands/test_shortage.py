"""A machine that runs out of memory, threads or open files: one sentence, exit code 1, and earlier results are kept."""

import csv
import errno
import resource
import signal
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

from edgefer import cli
from edgefer.devices.outputs.feeds import reason_of
from edgefer.devices.sources.files import Drawn
from edgefer.errors import SourceError
from edgefer.shortage import FILES, MEMORY, THREADS, shortage_of


@pytest.fixture(autouse=True)
def same_signal_handlers(monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)


RUN = [sys.executable, "-m", "edgefer", "run", "fer-nano", "builtin", "--headless"]


def refused(arguments: list[str], limit: int, value: int, **options) -> str:
    """The last line on stderr of a command under a resource limit, which must end with exit code 1 and no traceback."""
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=120, preexec_fn=lambda: resource.setrlimit(limit, (value, value)), **options
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr.splitlines()[-1]


def test_too_few_open_files():
    for number in (8, 9, 10):
        assert "oo many" in refused([*RUN, "--serve", "0", "--metrics", "0"], resource.RLIMIT_NOFILE, number)


def test_memory_that_does_not_suffice_for_the_libraries():
    program = (
        "import resource, numpy; from edgefer.cli import main; "
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize(); "
        "resource.setrlimit(resource.RLIMIT_AS, (taken + (16 << 20),) * 2); main()"
    )  # OpenCV takes more than 16 MB
    done = subprocess.run([sys.executable, "-c", program, *RUN[3:]], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (1, [f"edgefer: {MEMORY}"])
    assert "Traceback" not in done.stderr


def raised(action) -> BaseException:
    try:
        action()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_real_exceptions_are_recognized(tmp_path):
    assert shortage_of(raised(lambda: np.empty(1 << 60, np.uint8))) == MEMORY
    assert shortage_of(raised(lambda: bytes(1 << 62))) == MEMORY
    image = np.zeros((1, 1, 3), np.uint8)
    assert shortage_of(raised(lambda: cv2.resize(image, (1 << 30, 1 << 30)))) == MEMORY
    assert shortage_of(OSError(errno.ENOMEM, "no memory")) == MEMORY
    assert shortage_of(OSError(errno.EMFILE, "too many")) == FILES
    for error in (OSError(errno.ENOENT, "none"), ValueError("other"), RuntimeError("dictionary changed size")):
        assert shortage_of(error) == ""
    for quoted in ("std::bad_alloc", "can't start new thread", "cannot allocate memory", "Insufficient memory"):
        for error in (SourceError(f"{quoted}.csv cannot be written."), KeyError(quoted), ValueError(quoted)):
            assert shortage_of(error) == "", "the name of a file is not a shortage"
    assert shortage_of(RuntimeError("can't start new thread")) == THREADS
    assert shortage_of(RuntimeError("std::bad_alloc")) == MEMORY
    assert shortage_of(ImportError("libx.so: cannot allocate memory in static TLS block")) == MEMORY
    assert reason_of(MemoryError()) == MEMORY[0].lower() + MEMORY[1:-1]


@pytest.mark.parametrize("threads", range(1, 9))
def test_every_thread_that_cannot_be_started(threads, monkeypatch, capsys, tmp_path):
    """The run's own threads one after the other."""
    start, started = threading.Thread.start, []

    def limited(self):
        started.append(self)
        if len(started) == threads:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", limited)
    monkeypatch.setattr(cli.os, "_exit", sys.exit)
    arguments = ["edgefer", *RUN[3:], "--frames", "3", "--csv", str(tmp_path / "a.csv")]
    monkeypatch.setattr(sys, "argv", arguments)
    code = cli._run()
    text = capsys.readouterr().err
    if len(started) < threads:
        assert code == 0
    else:
        assert code == 1 and text.splitlines()[-1] == f"edgefer: {THREADS}"


@pytest.mark.parametrize(
    "error", [MemoryError(), cv2.error("OpenCV: (-4:Insufficient memory) Failed to allocate 9 bytes")]
)
def test_results_before_a_shortage_are_kept(error, monkeypatch, capsys, tmp_path):
    frames = Drawn.__iter__

    def until_short(self):
        for frame in frames(self):
            if frame.index == 5:
                raise error
            yield frame

    monkeypatch.setattr(Drawn, "__iter__", until_short)
    monkeypatch.setattr(sys, "argv", ["edgefer", *RUN[3:], "--csv", str(tmp_path / "a.csv")])
    assert cli._run() == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"edgefer: {MEMORY}"
    with (tmp_path / "a.csv").open() as lines:
        assert {row["frame"] for row in csv.DictReader(lines)} == set("01234")


def test_other_errors_keep_their_traceback(monkeypatch):
    def fail():
        raise ValueError("a bug")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(ValueError, match="a bug"):
        cli._run()
