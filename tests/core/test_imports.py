"""The direction of imports between the packages, and what a device never imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from edgefer.bundle import shipped_bundles

ROOT = Path(__file__).parents[2]
ROOMS = {"edgefer": ROOT / "edgefer", "train": ROOT / "train", "convert": ROOT / "convert", "devices": ROOT / "devices"}
HOST = (
    "tensorflow",
    "tf_keras",
    "keras",
    "tensorflow_model_optimization",
    "matplotlib",
    "edgefer.train",
    "edgefer.convert",
)
FORBIDDEN = {
    "edgefer": ("edgefer.train", "edgefer.convert", "edgefer.devices"),
    "train": ("edgefer.convert", "edgefer.devices"),
    "convert": ("edgefer.devices",),
    "devices": HOST,
}


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_no_package_imports_against_the_allowed_direction(room):
    front_door = (ROOMS["edgefer"] / "__init__.py", ROOMS["edgefer"] / "api.py")
    files = [file for file in ROOMS[room].rglob("*.py") if file.parent.name != "commands" and file not in front_door]
    assert files
    for file in files:
        for name in imported(file):
            wrong = [other for other in FORBIDDEN[room] if f"{name}.".startswith(f"{other}.")]
            assert not wrong, f"{file.relative_to(ROOT)} imports {name}"


def test_only_the_command_line_imports_the_commands():
    """Commands are thin layers over functions that Python programs call too."""
    outside = [file for room in ROOMS.values() for file in room.rglob("*.py") if file.parent.name != "commands"]
    for file in outside:
        if file != ROOMS["edgefer"] / "cli.py":
            assert not [name for name in imported(file) if name.startswith("edgefer.commands")], file


def test_only_the_command_line_loads_what_it_draws_with():
    code = "import sys, edgefer; edgefer.load('fer-nano'); print([name for name in ('typer', 'rich') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("command", [("run", "--source", "builtin", "--headless", "--frames", "3"), ("verify",)])
def test_a_device_loads_neither_tensorflow_nor_the_host_packages(command):
    """A command from start to end, then a look at what was loaded."""
    name, *options = command
    code = f"""
import sys
from edgefer.cli import app
app([{name!r}, {str(shipped_bundles()["fer-nano"])!r}, *{options!r}], standalone_mode=False)
print(sorted(name for name in {HOST!r} if name in sys.modules))
print(sorted(name for name in sys.modules if name.startswith("edgefer.convert.")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    host, converters = map(ast.literal_eval, done.stdout.splitlines()[-2:])
    assert host == converters == []


def test_without_tensorflow_training_says_what_to_install(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise ImportError(\"No module named 'tensorflow'\")")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from edgefer.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "--data", "builtin", "--recipe", "demo", "--out", tmp_path / "run"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "pip install 'edgefer[train]'" in done.stderr and "Traceback" not in done.stderr
