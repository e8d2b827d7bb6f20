"""The plots of a report."""

from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgefer.progress import Epoch
from edgefer.train import plots
from edgefer.train.plots import confusion_plot, history_plot


@pytest.mark.parametrize("labels", [("no", "smile"), ("happy", "sad", "angry", "surprise")])
def test_confusion_plot_is_not_cut_off_at_its_edges(labels):
    png = confusion_plot(np.eye(len(labels), dtype=int), labels, "float32: accuracy 100.0%")
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    edges = (image[:3], image[-3:], image[:, :3], image[:, -3:])
    assert all((edge > 200).all() for edge in edges)


def test_dollar_signs_in_a_label_are_no_formula():
    assert confusion_plot(np.eye(2, dtype=int), ("a$^$b", "$\\frac$"), "valid")


def test_confusion_plot_of_many_classes_stays_small():
    labels = tuple(f"class {number}" for number in range(1000))
    png = confusion_plot(np.eye(len(labels), dtype=int), labels, "valid")
    assert max(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).shape) < 4000


@pytest.mark.parametrize("labels", [("高兴", "悲しい"), ("😀", "👩\u200d🚀"), ("ሰላም", "happy")])
def test_labels_in_any_script_are_drawn_without_a_warning(labels, recwarn):
    assert confusion_plot(np.eye(2, dtype=int), labels, "valid")
    assert not recwarn.list


def test_a_font_that_has_a_label_s_letters_is_used(monkeypatch, tmp_path):
    """On a machine where the first family lacks them."""
    from matplotlib import font_manager, get_data_path, rcParams

    assert plots._fonts_for(["happy"]) == list(rcParams["font.family"])
    own = Path(get_data_path(), "fonts", "ttf")
    lacks_greek, has_greek = str(own / "cmr10.ttf"), str(own / "DejaVuSans.ttf")
    monkeypatch.setattr(font_manager, "findfont", lambda *given, **options: lacks_greek)
    broken = font_manager.FontEntry(fname=str(tmp_path / "gone.ttf"), name="Gone")
    last_resort = font_manager.FontEntry(fname=has_greek, name="Last Resort")
    fonts = [broken, last_resort, *font_manager.fontManager.ttflist]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    *families, found = plots._fonts_for(["χαρά"])
    assert families == rcParams["font.family"] and "Last Resort" not in found


@pytest.mark.parametrize("epochs", [1, 2, 3, 40])
def test_a_history_has_ticks_at_whole_epochs_only(epochs, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "_png", figures.append)
    names = [field.name for field in fields(Epoch) if field.name != "epoch"]
    rows = [Epoch(epoch=number + 1, **dict.fromkeys(names, 0.5)) for number in range(epochs)]
    history_plot(rows, rows[-1])
    for axes in figures[0].axes:
        assert all(tick == round(tick) for tick in axes.get_xticks()) and len(axes.get_xticks())
