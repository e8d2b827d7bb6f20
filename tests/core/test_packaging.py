"""The wheel holds every file that a user needs, and its base install does not require TensorFlow."""

import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {"edgefer": "edgefer", "train": "edgefer/train", "convert": "edgefer/convert", "devices": "edgefer/devices"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    # From a copy: setuptools would pack whatever an earlier build left in build/.
    tree = out / "tree"
    for room in ROOMS:
        shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", out, tree]
    subprocess.run(command, check=True, capture_output=True)
    (file,) = out.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        yield archive


def test_wheel_holds_every_file_of_the_packages(wheel):
    expected = set()
    for room, package in ROOMS.items():
        for file in (ROOT / room).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                expected.add(f"{package}/{file.relative_to(ROOT / room)}")
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == expected
    assert len(expected) > 40


def test_base_install_requires_only_what_a_device_needs(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
    requires = Parser().parsestr(wheel.read(name).decode()).get_all("Requires-Dist")
    base = {
        line.split(";")[0].split(">")[0].split("~")[0].split("<")[0].strip()
        for line in requires
        if "extra ==" not in line
    }
    assert base == {"numpy", "opencv-python", "typer", "pydantic", "rich", "ai-edge-litert"}
