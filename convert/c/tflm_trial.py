"""Runs a network with tflite-micro, in a separate process since it may crash if its arena is too small.

`python -m edgefer.convert.c.tflm_trial FOLDER BYTES`: network.tflite and images.npy in, answers.npy out; exit code 0 if it ran.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from edgefer.tflite.flatbuffer import read_model

TIMEOUT_S = 120


def run_in_arena(content: bytes, images: np.ndarray, arena: int) -> np.ndarray | None:
    """int8 [n, h, w, c] -> int8 [n, answers], outputs concatenated, the largest first, with tflite-micro in an arena of so many
    bytes; None if it does not run."""
    with tempfile.TemporaryDirectory(prefix="edgefer-tflm-") as folder:
        (Path(folder) / "network.tflite").write_bytes(content)
        np.save(Path(folder) / "images.npy", images)
        command = [sys.executable, "-m", "edgefer.convert.c.tflm_trial", folder, str(arena)]
        environment = os.environ | {"PYTHONSAFEPATH": "1"}
        try:
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, env=environment, check=False)
        except subprocess.TimeoutExpired:
            return None
        return None if done.returncode else np.load(Path(folder) / "answers.npy", allow_pickle=False)


def _run(folder: Path, arena: int) -> None:
    from tflite_micro import runtime

    content = (folder / "network.tflite").read_bytes()
    outputs = range(len(read_model(content, "network.tflite").main.outputs))
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=arena)
    answers = []
    for image in np.load(folder / "images.npy", allow_pickle=False):
        interpreter.set_input(image[None], 0)
        interpreter.invoke()
        maps = sorted((interpreter.get_output(number) for number in outputs), key=lambda values: -values.size)
        answers.append(np.concatenate([values.ravel() for values in maps]))
    np.save(folder / "answers.npy", np.array(answers, np.int8))


if __name__ == "__main__":
    _run(Path(sys.argv[1]), int(sys.argv[2]))
