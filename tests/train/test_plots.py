"""The plots of a report."""

import cv2
import numpy as np
import pytest

from edgefer.train.plots import confusion_plot


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
