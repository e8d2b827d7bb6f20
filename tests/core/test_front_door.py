"""`import edgefer`: what it offers, what it costs, and that it works from a checkout."""

import doctest
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import edgefer
import edgefer.api

ROOT = Path(__file__).parents[2]
HEAVY = (
    "cv2",
    "numpy",
    "tensorflow",
    "tf_keras",
    "ai_edge_litert",
    "tflite_runtime",
    "typer",
    "pydantic",
    "matplotlib",
)


def python(code: str, **options) -> str:
    done = subprocess.run(
        [sys.executable, *options.pop("flags", []), "-c", code], capture_output=True, text=True, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_import_is_free():
    """Under 50 ms (median of seven; about 1 to 16 ms measured), and nothing heavy is loaded."""
    code = (
        "import sys, time; began = time.perf_counter(); import edgefer; print(1000 * (time.perf_counter() - began)); "
    )
    code += f"assert not [name for name in {HEAVY!r} if name in sys.modules]"
    assert statistics.median(float(python(code)) for _ in range(7)) < 50


def test_every_name_that_is_offered_is_there():
    assert len(edgefer.__all__) <= 14 and edgefer.__all__ == sorted(edgefer.__all__)
    assert all(callable(getattr(edgefer, name)) for name in edgefer.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = edgefer.nothing


@pytest.mark.parametrize("first", ["import edgefer.train.recipes, edgefer.convert.quantize", "pass"])
def test_train_and_convert_are_packages_and_functions_in_whatever_order(first):
    python(
        f"import edgefer; {first}\nassert callable(edgefer.train) and callable(edgefer.convert)\n"
        "import edgefer.train.recipes\nassert edgefer.train.recipes and callable(edgefer.train)"
    )


@pytest.mark.parametrize(
    "code",
    [
        "import edgefer.devices.reader, edgefer.train.recipes, edgefer.convert",
        "import edgefer; edgefer.load('fer-nano')",
    ],
)
def test_the_checkout_as_the_current_folder_is_the_package(code):
    """Without the installed package, whose finder would help: the folder edgefer/ stands for all of it."""
    paths = [path for path in sys.path if "site-packages" in path]
    setup = f"import sys; sys.meta_path = [one for one in sys.meta_path if 'ditable' not in repr(one)]; sys.path += {paths!r}\n"
    python(setup + code, cwd=ROOT)
    told = subprocess.run([sys.executable, "-m", "edgefer", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert told.stdout.strip() == f"edgefer {edgefer.__version__}"


@pytest.mark.parametrize("module", [edgefer.api, edgefer])
def test_the_examples_in_the_docstrings_are_true(module):
    results = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0
    if module is edgefer.api:
        assert results.attempted >= 10


def test_training_and_conversion_return_bundles_from_python(monkeypatch, tmp_path, converted):
    """The functions call the commands, and give back what these made."""
    called = []
    monkeypatch.setattr("edgefer.commands.train.train", lambda **given: called.append(given))
    monkeypatch.setattr("edgefer.commands.convert.convert", lambda **given: called.append(given))
    assert edgefer.train("builtin", out=converted.path, recipe="demo", seed=1).path == converted.path
    assert edgefer.convert(converted, out=converted.path, qat=True).path == converted.path
    assert called[0] == {"data": "builtin", "out": converted.path, "recipe": "demo", "seed": 1}
    assert called[1] == {"bundle": converted.path, "out": converted.path, "qat": True}
    assert os.fspath(converted.path)


def test_a_training_does_not_mind_by_which_name_opencv_was_installed(monkeypatch):
    import importlib.metadata as metadata

    from edgefer.train.backend import versions

    real = metadata.version

    def headless(name):
        if name == "opencv-python":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", headless)
    assert versions()["opencv-python"].startswith("4.")
