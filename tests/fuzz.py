"""Mutated bundles: each must end in one of edgefer's errors or open. `python tests/fuzz.py [COUNT]`, 10,000 by default.

Half of them have a changed int8.tflite, half a changed card.json. With --rehash the card is made to match changed .tflite
files, and each is loaded and run in a child: that counts what a runtime does with a file that lies well. With --vectors
the card is made to match a changed parity.npz, each in a child that is timed and weighed.
"""

import argparse
import collections
import hashlib
import io
import json
import os
import shutil
import signal
import tempfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

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
            _end_as(lambda c=content: Network(c, card.input, len(card.labels)).raw(pixels))
        seen[_ending(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))] += 1
    return seen


def as_npy(descr: str, shape: str, data: bytes, fortran: bool = False) -> bytes:
    """An .npy file of that header, whatever its data are."""
    head = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + data


BOMBS: dict[tuple[str, int], bytes] = {}  # they take a second to pack


def mutate_vectors(arrays: dict[str, np.ndarray], rng) -> bytes:
    """parity.npz with one of its arrays, headers or its directory changed so that it lies."""
    name = str(rng.choice(list(arrays)))
    array = arrays[name]
    members = {f"{key}.npy": as_npy(repr(one.dtype.str), repr(one.shape), one.tobytes()) for key, one in arrays.items()}
    packing = zipfile.ZIP_DEFLATED
    kind = rng.integers(0, 9)
    if kind == 0:  # another type
        dtype = str(rng.choice(["f4", "f8", "i1", "u1", "i8", "U9", "S3", "c16", "?", "M8[s]", "f2"]))
        with np.errstate(all="ignore"):
            try:
                changed = array.astype(dtype)
            except (ValueError, TypeError):
                changed = np.zeros(array.shape, dtype)
        members[f"{name}.npy"] = as_npy(repr(changed.dtype.str), repr(changed.shape), changed.tobytes())
    elif kind == 1:  # another shape
        whole = array.reshape(-1)
        options = [
            whole,
            whole[:1].reshape(()),
            whole[:0],
            array[None],
            array[..., None],
            array[:1] if array.ndim else array,
        ]
        changed = options[int(rng.integers(len(options)))]
        members[f"{name}.npy"] = as_npy(repr(changed.dtype.str), repr(changed.shape), changed.tobytes())
    elif kind == 2:  # extreme values
        changed = np.array(array)
        extremes = [2**62, -(2**62), -1, 0, 2**31, 60_000, float("nan"), float("inf"), 1e300]
        with np.errstate(all="ignore"):
            try:
                changed.reshape(-1)[rng.integers(0, changed.size, 3)] = extremes[int(rng.integers(len(extremes)))]
            except (ValueError, OverflowError):
                changed = changed[::-1] if changed.ndim else changed
        members[f"{name}.npy"] = as_npy(repr(changed.dtype.str), repr(changed.shape), changed.tobytes())
    elif kind == 3:  # a header that lies
        shapes = ["(3000000000,)", "(-1,)", "(4, 2**31)", "(65536, 65536, 65536)", "((((" * 200, "()", "(0,)", "('a',)"]
        types = ["'|O'", "[('a', '<f8')]", "'<f8'", "'|V100000000'", "__import__('os')", repr(array.dtype.str)]
        shape, descr = (str(rng.choice(some)) for some in (shapes, types))
        members[f"{name}.npy"] = as_npy(descr, shape, array.tobytes(), fortran=bool(rng.integers(2)))
    elif kind == 4:  # small in the file, large in memory
        megabytes = int(rng.choice([60, 600]))
        first = array.shape[1:] if array.ndim else ()
        count = (megabytes << 20) // max(1, int(np.prod(first)) * array.itemsize)
        members[f"{name}.npy"] = as_npy(repr(array.dtype.str), repr((count, *first)), b"")
        if (name, megabytes) not in BOMBS:
            BOMBS[name, megabytes] = _zip(members, packing, zeros={f"{name}.npy": megabytes})
        return BOMBS[name, megabytes]
    elif kind == 5:
        del members[f"{name}.npy"]
    elif kind == 6:  # many entries
        members |= {f"x{number}.npy": b"" for number in range(int(rng.choice([10, 300, 20_000])))}
    elif kind == 7:
        packing = int(rng.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_STORED]))
    content = _zip(members, packing)
    return mutate_bytes(content, rng) if kind == 8 else content


def _zip(members: dict[str, bytes], packing: int, zeros: Mapping[str, int] = MappingProxyType({})) -> bytes:
    """zeros: megabytes of zeros to write behind a member's content."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing, compresslevel=1) as archive:
        for name, content in members.items():
            with archive.open(name, "w") as file:
                file.write(content)
                for _ in range(zeros.get(name, 0)):
                    file.write(MEGABYTE)
    return out.getvalue()


MEGABYTE = bytes(1 << 20)


def fuzz_vectors(count: int, seed: int = 0) -> tuple[collections.Counter, float, float]:
    """Ask questions 1 and 3 of `count` bundles with a mutated parity.npz and a card that matches it, each in a child.

    Returns what they ended in, the seconds of the slowest and the megabytes of the largest child.
    """
    rng = np.random.default_rng(seed)
    seen: collections.Counter = collections.Counter()
    slowest = largest = 0.0
    with np.load(SHIPPED / "parity.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copytree(SHIPPED, Path(folder) / "bundle"))
        card = json.loads((path / CARD).read_text())
        verify(Bundle.open(path), runtime="litert")  # loads the runtime, once for all children
        for _ in range(count):
            content = mutate_vectors(arrays, rng)
            (path / "parity.npz").write_bytes(content)
            card["variants"]["parity"] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            (path / CARD).write_text(json.dumps(card))
            began = time.monotonic()
            child = os.fork()
            if not child:
                _end_as(lambda: verify(Bundle.open(path), runtime="litert"))
            _, status, usage = os.wait4(child, 0)
            slowest = max(slowest, time.monotonic() - began)
            largest = max(largest, usage.ru_maxrss / 1024)
            seen[_ending(os.waitstatus_to_exitcode(status))] += 1
    return seen, slowest, largest


def _end_as(work, seconds: int = 20) -> None:
    """End this process with the outcome of `work` as its exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    signal.alarm(seconds)
    code = 70
    try:
        code = 0 if outcome(work) == "passes" else 1
    finally:
        os._exit(code)


def _ending(code: int) -> str:
    return {0: "passes", 1: "EdgeferError", 70: "traceback"}.get(code) or signal.Signals(-code).name


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=10_000)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--rehash", action="store_true")
    which.add_argument("--vectors", action="store_true")
    given = parser.parse_args()
    if given.vectors:
        results, slowest, largest = fuzz_vectors(given.count)
        print(f"slowest child {slowest:.1f} s, largest {largest:.0f} MB")
    else:
        results = (fuzz_runtime if given.rehash else fuzz)(given.count)
    for what, times in results.most_common():
        print(f"{times:6} {what}")
