"""Converts a network to .tflite in a separate process, which isolates what TensorFlow does with an untrusted file."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgefer.errors import InputError
from edgefer.files import MAX_NETWORK, read_regular
from edgefer.text import printable
from edgefer.tflite.trial import limit_memory

TIMEOUT_S = 600
MAX_MEMORY = 16 << 30  # of address space, of which TensorFlow takes 3 GB on start


def tflite_of(source: Path, module: str, library: str) -> bytes:
    """The float32 .tflite that `python -m module SOURCE OUT` writes. library: names the converter in error messages.
    InputError when it fails, or takes longer than TIMEOUT_S."""
    with tempfile.TemporaryDirectory() as work:
        try:
            return made_apart(module, source.absolute(), Path(work), TIMEOUT_S)
        except TimeoutError:
            raise InputError(f"{source} was not converted within {TIMEOUT_S} s.") from None
        except Failed as failed:
            raise InputError(f"{library} cannot convert {source} to .tflite: {failed}") from None


class Failed(Exception):
    """Of the separate process; its text is the reason, as one printable line."""


def made_apart(module: str, source: Path, work: Path, timeout_s: float) -> bytes:
    """The .tflite that `python -m module SOURCE OUT` writes in the folder `work`. Failed, or TimeoutError."""
    out = work / "network.tflite"
    command = [sys.executable, "-m", module, str(source), str(out)]
    environment = os.environ | {"TMPDIR": str(work)}  # a killed process leaves its temporary files
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, errors="replace", cwd=work, env=environment
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    if done.returncode or not out.is_file():
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise Failed(f"{printable(last):.300}")
    return read_regular(out, MAX_NETWORK, error=InputError)


def serve(make: Callable[[str], bytes]) -> None:
    """The main function of that process. make: source -> the .tflite."""
    source, out = sys.argv[1:3]
    limit_memory(MAX_MEMORY)  # a small file may declare a large constant
    try:
        Path(out).write_bytes(make(source))
    except Exception as error:  # TensorFlow's C++ code may raise any exception
        sys.exit(f"{type(error).__name__}: {reason(error)}")


def float_tflite(image: Any, answer: Callable) -> bytes:
    """The float32 .tflite of a loaded network. image: tf.TensorSpec of one. answer: the function of it that is converted."""
    import tensorflow as tf

    from edgefer.convert.quantize import converter_of

    # Its weights as constants: TFLite would leave those of Keras 3 as variables that nothing fills.
    return converter_of(tf.function(answer).get_concrete_function(image)).convert()


def reason(error: Exception) -> str:
    """What an error of the converter says, as one line: the first error that its compiler names, without where in the code
    that was, if there is one."""
    found = re.search(r"error: *(\S.*)", text := str(error))
    return " ".join((found[1] if found else text).split())[:300]
