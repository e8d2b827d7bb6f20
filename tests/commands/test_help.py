"""The help of every command as a newcomer reads it, and its examples, which must be right."""

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from edgefer.bundle import with_keras
from edgefer.cli import app

ROOT = Path(__file__).parents[2]
ROOMS = ("edgefer", "train", "convert", "devices")
READMES = [ROOT / "README.md", *(file for room in ROOMS for file in sorted((ROOT / room).rglob("README.md")))]
WORDS = {"picture": "image", "amiss": "wrong", "anew": "again", "model": "network"}
NAMES = r"model card|\bmodels\b|model\.\w+"  # an established term, a command, a file


def every_command(command, name=()):
    """Every command that is shown, by its words."""
    if inner := getattr(command, "commands", None):
        for word, one in inner.items():
            if not one.hidden:
                yield from every_command(one, (*name, word))
    else:
        yield name, command


COMMANDS = dict(every_command(get_command(app)))
PAGES = [(), *COMMANDS, *sorted({name[:1] for name in COMMANDS if len(name) > 1})]


def help_of(name) -> str:
    shown = CliRunner().invoke(app, [*name, "--help"], env={"COLUMNS": "160"})
    assert shown.exit_code == 0
    return shown.stdout


def examples(command) -> list[str]:
    return re.findall(r"^- `(.+)`$", command.help or "", flags=re.MULTILINE)


@pytest.mark.parametrize("name", PAGES, ids=" ".join)
def test_help_shows_no_useless_types_and_uses_one_word_per_thing(name):
    page = help_of(name)
    assert not re.search(r"<bool>| range>|--\S+ +<(str|int|float|path)>", page)
    words = re.sub(NAMES, "", page)
    assert [word for word in WORDS if re.search(rf"\b{word}s?\b", words, re.IGNORECASE)] == []
    assert page.count("default: 0]") == (
        name == ("run",)
    )  # --rotate 0; elsewhere a default of 0 has a special meaning and is not shown
    assert "default: 0.0]" not in page


@pytest.mark.parametrize("name", PAGES, ids=" ".join)
def test_help_has_no_double_blank_lines(name):
    lines = [line.rstrip() for line in help_of(name).strip().splitlines()]
    assert not [number for number, pair in enumerate(pairwise(lines)) if pair == ("", "")]


def parsed(line: str) -> list[tuple[str, ...]]:
    """The commands of a shell line, each parsed by itself: options, choices and ranges."""
    called = []
    for part in line.split(" && "):
        words = shlex.split(part.partition(" > ")[0], comments=True)
        starts = [number for number, word in enumerate(words) if word == "edgefer" or word.endswith("/edgefer")]
        if not starts or "clone" in words:
            continue
        words = words[starts[0] + 1 :]
        name = tuple(words[:2]) if tuple(words[:2]) in COMMANDS else tuple(words[:1])
        with COMMANDS[name].make_context(" ".join(name), words[len(name) :]) as context:
            assert not context.args
        called.append(name)
    return called


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_every_command_has_valid_examples(name):
    given = examples(COMMANDS[name])
    assert 1 <= len(given) <= 3
    assert name in [called for line in given for called in parsed(line)]


@pytest.mark.parametrize("file", READMES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_command_in_a_readme_is_valid(file):
    text = file.read_text()
    blocks = re.findall(r"^```(?:bash|sh)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += [line for line in re.findall(r"^    (\S.*)$", text, re.MULTILINE) if "import edgefer" not in line]
    for line in lines:
        if re.match(r"(\S+=\S+ )*(\S*/)?edgefer ", line) or "/edgefer " in line:
            assert parsed(line), line


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_options_shared_by_several_commands_are_in_the_same_panel(name):
    homes = {"skip_bad": "Input", "as_json": "Output", "runtime": "Runtime", "detector": "Faces", "out": "Output"}
    for param in COMMANDS[name].params:
        if param.name in homes and param.param_type_name == "option":
            assert param.rich_help_panel == homes[param.name], param.name


def test_help_names_the_shipped_networks_that_a_training_can_start_from():
    assert "shipped ones, fer-nano, fer-small and ferplus-small have theirs" in " ".join(
        re.sub("[│╭╮╰╯─]", "", help_of(("train",))).split()
    )
    assert with_keras() == ["fer-nano", "fer-small", "ferplus-small"]


def test_shell_completion_lists_the_choices():
    """As the shell asks for `edgefer run --smooth <Tab>`."""
    environment = {"_EDGEFER_COMPLETE": "complete_bash", "COMP_WORDS": "edgefer run --smooth ", "COMP_CWORD": "3"}
    done = CliRunner().invoke(app, [], env=environment, prog_name="edgefer")
    assert done.stdout.split() == ["off", "responsive", "calm"]
    environment |= {"COMP_WORDS": "edgefer ex", "COMP_CWORD": "1"}
    assert CliRunner().invoke(app, [], env=environment, prog_name="edgefer").stdout.split() == ["export"]


def test_the_exit_codes_are_documented_once_for_all_commands():
    assert re.search(r"0 success; 1 .* failed.*; 2 invalid input", " ".join(help_of(()).split()))


def test_models_as_json_are_complete_cards():
    listed = json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout)["models"]
    assert {"fer-nano", "ferplus-small"} <= {one["name"] for one in listed}
    assert all(one["card"]["labels"] and len(one["sha256"]) == 64 for one in listed)
