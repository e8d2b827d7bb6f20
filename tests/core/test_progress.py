"""The one Progress: silent for libraries, and nothing of a stranger acts on the terminal that shows it."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from edgefer import console
from edgefer.progress import SILENT, Progress

HOSTILE = "\x1b[31mred\x07 [bold]x[/bold] \u202eevil"


@pytest.fixture
def shown(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(
        console, "err", Console(file=text, force_terminal=True, width=200, highlight=False, emoji=False)
    )
    return text


def test_a_library_is_silent_and_loses_nothing(capfd):
    assert list(SILENT.track([1, 2, 3], 3, "Counting")) == [1, 2, 3]
    SILENT.log("text")
    for method, arguments in (("begin", (0, 1, 1)), ("step", (0.5, 0.5)), ("epoch", (None, None)), ("end", ())):
        getattr(SILENT, method)(*arguments)
    assert capfd.readouterr() == ("", "")


def test_one_method_can_be_overridden_alone():
    class Lines(Progress):
        def __init__(self):
            self.lines: list[str] = []

        def log(self, text):
            self.lines.append(text)

    progress = Lines()
    progress.log("one")
    assert progress.lines == ["one"] and list(progress.track(range(2), 2, "")) == [0, 1]


def test_names_from_strangers_do_not_act_on_the_terminal(shown):
    terminal = console.Terminal()
    terminal.log(HOSTILE)
    assert list(terminal.track([1], 1, HOSTILE)) == [1]
    text = shown.getvalue()
    assert "\x1b[31m" not in text and "\x07" not in text and "\u202e" not in text
    assert text.count(r"\x1b[31mred\x07 [bold]x[/bold] \u202eevil") >= 2  # the bar shows brackets as they are, too


def test_a_table_shows_brackets_and_escapes_as_they_are(monkeypatch, capsys):
    console.show_table(HOSTILE, (HOSTILE,), [(HOSTILE,)])
    text = capsys.readouterr().out
    assert "\x1b" not in text and text.count("[bold]x[/bold]") == 3


def test_a_fit_is_shown_by_epoch(shown):
    terminal = console.Terminal()
    terminal.begin(1, 3, 10)
    terminal.step(0.5, 0.25)
    row = SimpleNamespace(epoch=2, seconds=1.0, rate=0.1, loss=0.5, accuracy=0.25, val_loss=0.4, val_accuracy=0.75)
    terminal.epoch(row, row)
    terminal.end()
    assert "epoch   2/3  loss 0.500  accuracy 25.0%  validation 75.0%  rate 0.1  1 s  best" in shown.getvalue()
