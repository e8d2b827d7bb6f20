"""Tests whether the installed runtime loads, allocates and runs a .tflite. Done in a separate process, since a malicious file
may crash the runtime, hang it, or exhaust the memory.

`python -m edgefer.tflite.trial RUNTIME` reads the file from stdin; its last line on stdout is "runs" or the reason why not.
"""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from edgefer.runtimes import RUNTIMES
from edgefer.text import printable

SECONDS = 30.0
MAX_MEMORY = 6 << 30  # of address space, of which a runtime and numpy take 1 or 2 GB on start
MAX_REASON = 300


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The result. runs: None if undecided, such as after a timeout. reason: why it does not run, in one line."""

    runs: bool | None
    reason: str = ""


def try_network(content: bytes, runtime: str, *, seconds: float = SECONDS) -> Trial:
    """Load, allocate and run the .tflite with zeros on one of RUNTIMES, which must be installed."""
    try:
        done = in_child(["edgefer.tflite.trial", runtime], content, seconds)
    except subprocess.TimeoutExpired:
        return Trial(runs=None, reason=f"it did not load and run within {seconds:.0f} s")
    if done.returncode < 0:
        return Trial(runs=False, reason=f"it crashes the runtime ({signal.Signals(-done.returncode).name})")
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        return Trial(runs=answer["runs"], reason=printable(str(answer["reason"]))[:MAX_REASON])
    except (IndexError, ValueError, KeyError, TypeError):
        return Trial(runs=False, reason=f"the runtime fails with exit code {done.returncode}")


def in_child(arguments: Sequence[str], content: bytes, seconds: float) -> subprocess.CompletedProcess[bytes]:
    """Run `python -m ARGUMENTS` with `content` on stdin. subprocess.TimeoutExpired; a crash is a negative exit code."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        input=content,
        capture_output=True,
        timeout=seconds,
        env=os.environ | {"PYTHONSAFEPATH": "1"},
        start_new_session=True,
    )


def limit_memory(most: int = MAX_MEMORY) -> None:
    """Limit this process to `most` bytes of address space, or to less where the system allows less."""
    _, allowed = resource.getrlimit(resource.RLIMIT_AS)
    most = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _try(content: bytes, runtime: str) -> tuple[bool | None, str]:
    """In the child process: whether it runs, and why not."""
    import numpy as np

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        module = import_module(RUNTIMES[runtime][0])
    except ImportError as error:
        return None, f"the runtime cannot be loaded: {error}"
    limit_memory()
    try:
        network = module.Interpreter(model_content=content, num_threads=1)
        network.allocate_tensors()
        inputs, outputs = network.get_input_details(), network.get_output_details()
        if not outputs:
            return False, "it has no output to read"
        for tensor in inputs:
            if np.dtype(tensor["dtype"]).kind in "SUO":
                return None, f"its input {tensor['name']} takes text, which was not tried"
            network.set_tensor(tensor["index"], np.zeros(tensor["shape"], tensor["dtype"]))
        network.invoke()
        for tensor in outputs:
            network.get_tensor(tensor["index"])
    except MemoryError:
        return False, f"it asks for more than {MAX_MEMORY >> 30} GB of memory"
    except Exception as error:  # any exception of a runtime is the result
        return False, " ".join(str(error).split()) or type(error).__name__
    return True, ""


if __name__ == "__main__":
    runs, reason = _try(sys.stdin.buffer.read(), sys.argv[1])
    print("\n" + json.dumps({"runs": runs, "reason": reason}), flush=True)
    os._exit(0)  # a runtime may crash at exit after a malicious file
