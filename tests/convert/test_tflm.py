"""TensorFlow Lite Micro in the exported folder's README: operators, arena size, and output differences."""

import re

import pytest

from edgefer.convert.c import tflm
from edgefer.convert.c.tflm_trial import run_in_arena
from edgefer.preprocess import to_int8


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


def test_without_tflite_micro_the_readme_says_that_its_arena_was_not_measured(nano, monkeypatch):
    monkeypatch.setattr(tflm, "find_spec", lambda name: None)
    assert "was not measured: the Python package tflite-micro is not installed" in tflm.readme(nano)
    assert tflm.TOLERANCE in tflm.readme(nano)
