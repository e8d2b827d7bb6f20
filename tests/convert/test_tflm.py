"""TensorFlow Lite Micro in the exported folder's README: operators, arena size, and output differences."""

import re

import numpy as np
import pytest

from edgefer.bundle import Bundle, shipped_networks
from edgefer.c.subject import read_subject
from edgefer.convert.c import tflm
from edgefer.convert.c.tflm_trial import run_in_arena
from edgefer.preprocess import to_int8
from tests.tflite.networks import Maker

RUNTIME = """
import numpy as np

class Interpreter:
    @classmethod
    def from_bytes(cls, content, arena_size):
        return cls()

    def set_input(self, image, number):
        self.value = image.flat[0]

    def invoke(self):
        pass

    def get_output(self, number):
        return np.full((1, 1 + number), self.value + number, np.int8)
"""


def test_tflm_operators_in_model_h_are_those_of_the_network(project):
    text = (project / "model.h").read_text()
    methods = re.findall(r"resolver\.(Add\w+)\(\)", text)
    assert methods == ["AddAdd", "AddConv2D", "AddFullyConnected", "AddMean"]
    assert "MicroMutableOpResolver<4>" in text


@pytest.mark.tflm
def test_tflm_arena_is_minimal_and_its_tolerance_is_measured(nano):
    measured = tflm.measure(nano)
    assert measured.worst <= 3 and 0 < measured.mean < 0.75
    images = to_int8(nano.vectors.pixels[:1])
    assert run_in_arena(nano.content, images, measured.arena) is not None
    assert run_in_arena(nano.content, images, measured.arena - 1024) is None
    assert run_in_arena(nano.content, images, 1024) is None  # tflite-micro crashes in it
    assert f"an arena of {measured.arena:,} bytes" in tflm.readme(nano)


def test_all_outputs_are_compared_the_largest_first(tmp_path, monkeypatch):
    package = tmp_path / "tflite_micro"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "runtime.py").write_text(RUNTIME)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    make = Maker(np.random.default_rng(0))
    x = make.input((1, 4, 4, 1))
    content = make.finish([make.dense(x, 1), make.dense(x, 2)])
    answers = run_in_arena(content, np.array([10, 20], np.int8).reshape(2, 1, 1, 1), 2**16)
    assert answers.tolist() == [[11, 11, 10], [21, 21, 20]]


@pytest.mark.tflm
def test_a_finder_is_measured_too():
    measured = tflm.measure(read_subject(Bundle.open(shipped_networks()["face-finder"])))
    assert measured.worst <= 4 and measured.mean < 0.75


def test_a_network_that_tflite_micro_cannot_run_is_not_said_to_lack_it(nano, monkeypatch):
    monkeypatch.setattr(tflm, "find_spec", lambda name: name)
    monkeypatch.setattr(tflm, "run_in_arena", lambda *given: None)
    assert "was not measured: the Python package tflite-micro cannot run it here" in tflm.readme(nano)


def test_without_tflite_micro_the_readme_says_that_its_arena_was_not_measured(nano, monkeypatch):
    monkeypatch.setattr(tflm, "find_spec", lambda name: None)
    assert "was not measured: the Python package tflite-micro is not installed" in tflm.readme(nano)
    assert tflm.TOLERANCE in tflm.readme(nano)
