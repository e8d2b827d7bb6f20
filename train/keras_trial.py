"""Reads all of an untrusted Keras file in a separate process first: the HDF5 library crashes on some damaged files.

`python -m edgefer.train.keras_trial` reads the file from stdin; it says nothing, and only how it ends counts.
"""

import contextlib
import os
import resource
import signal
import subprocess
import sys

from edgefer.errors import InputError
from edgefer.tflite.trial import in_child, limit_memory

SECONDS = 120.0


def check_readable(content: bytes, where: str) -> None:
    """InputError if reading the file crashes or hangs a process; what else is wrong with it is for its reader to say."""
    try:
        done = in_child(["edgefer.train.keras_trial"], content, SECONDS)
    except subprocess.TimeoutExpired:
        raise InputError(f"{where} cannot be read within {SECONDS:.0f} s: save or copy it again.") from None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise InputError(f"{where} is damaged: it crashes the HDF5 library ({name}). Save or copy it again.")


def _read_all(content: bytes) -> None:
    from edgefer.train.keras_file import every_item, open_keras, open_weights

    with open_weights(open_keras(content, "").weights, "") as weights:
        for item in (weights, *every_item(weights)):
            list(item.attrs.values())
            if hasattr(item, "dtype"):
                item[()]


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit_memory()
    with contextlib.suppress(Exception):  # its reader will meet it, too
        _read_all(sys.stdin.buffer.read())
    os._exit(0)
