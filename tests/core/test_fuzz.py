"""A few of the mutated bundles of tests/fuzz.py, which tries 10,000 by default."""

import re
import subprocess
import sys

import fuzz

from edgefer.bundle import CARD


def test_mutated_bundles_open_or_raise_an_edgefer_error():
    seen = fuzz.fuzz(400, seed=1)
    assert seen["int8.tflite", "BundleError"] > 150 and seen[CARD, "BundleError"] > 100
    assert seen[CARD, "passes"] > 0  # a changed provenance, say: the mutations are not all crude


def test_fuzz_fails_on_any_other_exception(monkeypatch):
    def fail(*_):
        raise KeyError("labels")

    monkeypatch.setattr(fuzz.Bundle, "open", fail)
    try:
        fuzz.fuzz(1)
    except KeyError:
        return
    raise AssertionError("a traceback went unseen")


def test_mutated_vectors_give_one_sentence_in_bounded_time_and_memory():
    """In a process of its own: a child's memory begins with its parent's, and this one may hold TensorFlow."""
    done = subprocess.run(
        [sys.executable, fuzz.__file__, "60", "--vectors"], capture_output=True, text=True, check=True
    )
    slowest_s, largest_mb = map(float, re.match(r"slowest child (.*) s, largest (.*) MB", done.stdout).groups())
    seen = {name: int(count) for count, name in re.findall(r"^ *(\d+) (\w+)$", done.stdout, re.MULTILINE)}
    assert set(seen) == {"EdgeferError", "passes"}, seen
    assert seen["EdgeferError"] > 30 and seen["passes"] > 2
    assert slowest_s < 5 and largest_mb < 500
