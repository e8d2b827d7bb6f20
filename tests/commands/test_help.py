"""The help of every command as a newcomer reads it, and its examples, which must be right."""

import re
import shlex

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from edgefer.cli import app

WORDS = {"picture": "image", "amiss": "wrong", "anew": "again"}


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
def test_no_help_shows_a_type_where_there_is_no_value_or_two_words_for_one_thing(name):
    page = help_of(name)
    assert not re.search(r"<bool>| range>|--\S+ +<(str|int|float|path)>", page)
    assert [word for word in WORDS if re.search(rf"\b{word}s?\b", page, re.IGNORECASE)] == []
    assert page.count("default: 0]") == (
        name == ("run",)
    )  # --rotate 0; elsewhere 0 stands for something that is not said
    assert "default: 0.0]" not in page


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_every_command_has_examples_that_it_takes(name):
    """Each line is parsed by the very command that it names: options, choices and ranges."""
    given = examples(COMMANDS[name])
    assert 1 <= len(given) <= 3
    own = []
    for line in given:
        for part in line.split(" && "):
            words = shlex.split(part)
            words = words[words.index(next(word for word in words if word.endswith("edgefer"))) + 1 :]
            called = tuple(words[:2]) if tuple(words[:2]) in COMMANDS else tuple(words[:1])
            with COMMANDS[called].make_context(" ".join(called), words[len(called) :]) as context:
                assert not context.args
            own.append(called)
    assert name in own


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_options_that_several_commands_have_lie_in_the_same_panel(name):
    homes = {"skip_bad": "Input", "as_json": "Output", "runtime": "Runtime", "detector": "Faces", "out": "Output"}
    for param in COMMANDS[name].params:
        if param.name in homes and param.param_type_name == "option":
            assert param.rich_help_panel == homes[param.name], param.name


def test_choices_complete_themselves():
    """What the shell asks of `edgefer run --smooth <Tab>`."""
    environment = {"_EDGEFER_COMPLETE": "complete_bash", "COMP_WORDS": "edgefer run --smooth ", "COMP_CWORD": "3"}
    done = CliRunner().invoke(app, [], env=environment, prog_name="edgefer")
    assert done.stdout.split() == ["off", "responsive", "calm"]
    environment |= {"COMP_WORDS": "edgefer ex", "COMP_CWORD": "1"}
    assert CliRunner().invoke(app, [], env=environment, prog_name="edgefer").stdout.split() == ["export"]


def test_the_exit_codes_are_said_once_for_all_commands():
    assert re.search(r"0 all is well; 1 .* failed; 2 .* wrong", " ".join(help_of(()).split()))
