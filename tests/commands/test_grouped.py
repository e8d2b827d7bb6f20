"""Options grouped in dataclasses: their fields are options on the command line and keywords in Python."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from edgefer.commands.grouped import grouped

Count = Annotated[int, typer.Option("--count", min=1, help="How many.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="One or several.")]


@dataclass(frozen=True, kw_only=True)
class Flags:
    count: Count = 1
    tags: Tags = None


@dataclass(frozen=True, kw_only=True)
class MoreFlags(Flags):
    loud: Annotated[bool, typer.Option("--loud")] = False


SEEN = []


@grouped
def command(name: Annotated[str, typer.Argument()] = "none", *, flags: MoreFlags) -> None:
    """What it does."""
    SEEN.append((name, flags))


@pytest.fixture
def invoke():
    app = typer.Typer()
    app.command()(command)
    SEEN.clear()
    return lambda *words: CliRunner().invoke(app, words)


def test_every_field_is_an_option_with_its_default_and_its_checks(invoke):
    assert invoke("x", "--count", "3", "--tag", "a", "--tag", "b", "--loud").exit_code == 0
    assert invoke().exit_code == 0
    assert [("x", MoreFlags(count=3, tags=["a", "b"], loud=True)), ("none", MoreFlags())] == SEEN
    assert invoke("--count", "0").exit_code == 2 and len(SEEN) == 2
    page = invoke("--help").stdout
    assert "How many." in page and "What it does." in page and "flags" not in page


def test_python_passes_the_fields_by_keyword(invoke):
    command("y", count=2)
    command(loud=True)
    assert [("y", MoreFlags(count=2)), ("none", MoreFlags(loud=True))] == SEEN
    with pytest.raises(TypeError, match="cuont"):
        command(cuont=2)
