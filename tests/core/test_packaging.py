"""The wheel holds every file that a user needs, and its base install does not require TensorFlow."""

import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {"edgefer": "edgefer", "train": "edgefer/train", "convert": "edgefer/convert", "devices": "edgefer/devices"}


@pytest.fixture(scope="module")
def packed(wheel):
    with zipfile.ZipFile(wheel) as archive:
        yield archive


def test_wheel_holds_every_file_of_the_packages(packed):
    expected = set()
    for room, package in ROOMS.items():
        for file in (ROOT / room).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                expected.add(f"{package}/{file.relative_to(ROOT / room)}")
    files = {name for name in packed.namelist() if ".dist-info/" not in name}
    assert files == expected
    assert len(expected) > 40


def test_base_install_requires_only_what_a_device_needs(packed):
    (name,) = (name for name in packed.namelist() if name.endswith("METADATA"))
    requires = Parser().parsestr(packed.read(name).decode()).get_all("Requires-Dist")
    base = {
        line.split(";")[0].split(">")[0].split("~")[0].split("<")[0].strip()
        for line in requires
        if "extra ==" not in line
    }
    assert base == {"numpy", "opencv-python", "typer", "pydantic", "rich", "ai-edge-litert"}
