"""Mutated bundles: each must end in one of edgefer's errors or open. `python tests/fuzz.py [COUNT]`, 10,000 by default.

Half of them have a changed int8.tflite, half a changed card.json. With --rehash the card is made to match changed .tflite
files, and each is loaded and run in a child: that counts what a runtime does with a file that lies well.
"""

import argparse
import collections
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np

from edgefer.bundle import CARD, Bundle, shipped_bundles
from edgefer.errors import EdgeferError
from edgefer.interpreter import Network
from edgefer.parity import verify

SHIPPED = shipped_bundles()["fer-small"]
ODD = (None, -1, 0, 1e308, float("nan"), "", "x" * 1000, "../../etc", [], {}, [[]], True, 2**70)


def mutate_bytes(content: bytes, rng) -> bytes:
    """A few bytes changed, a piece cut out, doubled or put elsewhere; in a .tflite mostly where its structure lies."""
    out = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(0, len(out) or 1))
        if rng.random() < 0.5:  # the structure of a .tflite lies at both ends, weights between
            at = int(rng.choice([at % 4096, -(at % 16384) - 1])) % max(1, len(out))
        size = int(rng.integers(1, 9))
        kind = rng.integers(0, 6)
        if kind < 3:
            out[at : at + size] = rng.integers(0, 256, size, np.uint8).tobytes()
        elif kind == 3:
            out[at : at + 4] = rng.choice([0, 1, 2**31 - 1, 2**32 - 1]).astype(np.uint32).tobytes()
        elif kind == 4:
            del out[at : at + size]
        elif rng.random() < 0.1:
            del out[at:]
    return bytes(out)


def mutate_card(text: str, rng) -> bytes:
    """Bytes changed, or one value of the JSON replaced by an odd one."""
    if rng.random() < 0.3:
        return mutate_bytes(text.encode(), rng)
    node = card = json.loads(text)
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = keys[int(rng.integers(len(keys)))]
        if not isinstance(node[key], dict | list) or not node[key] or rng.random() < 0.2:
            node[key] = ODD[int(rng.integers(len(ODD)))]
            return json.dumps(card).encode()
        node = node[key]


def outcome(work) -> str:
    """The kind of expected error that `work` ends in, or "passes"; any other error is a bug and comes through."""
    try:
        work()
    except EdgeferError as error:
        assert 0 < len(str(error)) < 2000, error
        return type(error).__name__
    return "passes"


def fuzz(count: int, seed: int = 0) -> collections.Counter:
    """Open `count` mutated bundles and ask questions 1 and 3 of those that do."""
    rng = np.random.default_rng(seed)
    seen: collections.Counter = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copytree(SHIPPED, Path(folder) / "bundle"))
        for number in range(count):
            name = "int8.tflite" if number % 2 else CARD
            good = (SHIPPED / name).read_bytes()
            changed = mutate_bytes(good, rng) if number % 2 else mutate_card(good.decode(), rng)
            (path / name).write_bytes(changed)
            ended = outcome(lambda: verify(Bundle.open(path), runtime="litert"))
            assert name == CARD or (ended == "passes") == (changed == good), "a changed network was opened"
            seen[name, ended] += 1
            (path / name).write_bytes(good)
    return seen


def fuzz_runtime(count: int, seed: int = 0) -> collections.Counter:
    """Load and run `count` mutated .tflite files past the hash, each in a child of its own."""
    rng = np.random.default_rng(seed)
    bundle = Bundle.open(SHIPPED)
    good, card = bundle.read("int8"), bundle.card
    pixels = np.zeros((1, *card.input.shape), np.uint8)
    Network(good, card.input, len(card.labels)).raw(pixels)
    seen: collections.Counter = collections.Counter()
    for _ in range(count):
        content = mutate_bytes(good, rng)
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            signal.alarm(20)
            code = 70
            try:
                code = {"passes": 0}.get(
                    outcome(lambda c=content: Network(c, card.input, len(card.labels)).raw(pixels)), 1
                )
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        names = {0: "passes", 1: "EdgeferError", 70: "traceback"}
        seen[names.get(code) or signal.Signals(-code).name] += 1
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=10_000)
    parser.add_argument("--rehash", action="store_true")
    given = parser.parse_args()
    for what, times in (fuzz_runtime if given.rehash else fuzz)(given.count).most_common():
        print(f"{times:6} {what}")
