"""The Progress class: silent for libraries, and untrusted text sends no control codes to the terminal."""

import io
import os
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from edgefer import console
from edgefer.progress import SILENT, Progress
from edgefer.quiet import quiet

HOSTILE = "\x1b[31mred\x07 [bold]x[/bold] \u202eevil"


@pytest.fixture
def shown(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(
        console, "err", Console(file=text, force_terminal=True, width=200, highlight=False, emoji=False)
    )
    return text


def test_silent_progress_prints_nothing_and_keeps_all_items(capfd):
    assert list(SILENT.track([1, 2, 3], 3, "Counting")) == [1, 2, 3]
    SILENT.log("text")
    with SILENT.stage("Working"):
        pass
    for method, arguments in (("begin", (0, 1, 1)), ("step", (0.5, 0.5)), ("epoch", (None, None)), ("end", ())):
        getattr(SILENT, method)(*arguments)
    assert capfd.readouterr() == ("", "")


def test_stage_is_one_line_without_a_terminal(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=text, width=200))
    with console.Terminal().stage("Calibrating int8"):
        assert text.getvalue() == "Calibrating int8\n"
    assert text.getvalue() == "Calibrating int8\n"


def test_stage_is_animated_on_a_terminal_while_library_output_is_suppressed(monkeypatch):
    """On a terminal of its own: the stage and its seconds are shown, and what TensorFlow writes to stderr is not."""
    shown, terminal = os.openpty()
    saved = os.dup(2)
    os.dup2(terminal, 2)
    try:
        with open(2, "w", closefd=False) as stream:
            monkeypatch.setattr(console, "err", Console(file=stream, force_terminal=True, width=80))
            with console.Terminal().stage("Calibrating int8"), quiet():
                os.write(2, b"noise of a library")
                time.sleep(1.3)
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(terminal)
    text = os.read(shown, 1 << 20).decode()
    os.close(shown)
    assert "Calibrating int8" in text and "0:00:01" in text and "noise" not in text


def test_one_method_can_be_overridden_alone():
    class Lines(Progress):
        def __init__(self):
            self.lines: list[str] = []

        def log(self, text):
            self.lines.append(text)

    progress = Lines()
    progress.log("one")
    assert progress.lines == ["one"] and list(progress.track(range(2), 2, "")) == [0, 1]


def test_untrusted_names_send_no_control_codes_to_the_terminal(shown):
    terminal = console.Terminal()
    terminal.log(HOSTILE)
    assert list(terminal.track([1], 1, HOSTILE)) == [1]
    with terminal.stage(HOSTILE):
        pass
    text = shown.getvalue()
    assert "\x1b[31m" not in text and "\x07" not in text and "\u202e" not in text
    assert text.count(r"\x1b[31mred\x07 [bold]x[/bold] \u202eevil") >= 3  # the bar shows brackets as they are, too


def test_table_escapes_control_codes_and_keeps_brackets(monkeypatch, capsys):
    console.show_table(HOSTILE, (HOSTILE,), [(HOSTILE,)])
    text = capsys.readouterr().out
    assert "\x1b" not in text and text.count("[bold]x[/bold]") == 3


def test_training_progress_is_one_line_per_epoch(shown):
    terminal = console.Terminal()
    terminal.begin(1, 3, 10)
    terminal.step(0.5, 0.25)
    row = SimpleNamespace(epoch=2, seconds=1.0, rate=0.1, loss=0.5, accuracy=0.25, val_loss=0.4, val_accuracy=0.75)
    terminal.epoch(row, row)
    terminal.end()
    assert "epoch   2/3  loss 0.500  accuracy 25.0%  validation 75.0%  rate 0.1  1 s  best" in shown.getvalue()
