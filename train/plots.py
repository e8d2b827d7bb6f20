"""Plots of training and evaluation, as PNG bytes."""

import io
import warnings
from collections.abc import Iterable
from contextlib import suppress

import numpy as np

from edgefer.metrics import PROMISES, accuracy_by_coverage, answered_with, aurc, calibration_bins, ece
from edgefer.progress import Epoch

MAX_NAMED = 40  # classes of a confusion matrix with names and counts: those of hundreds take minutes and gigabytes


def _png(figure) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a label in a script of no font here: boxes
        figure.savefig(out, format="png", dpi=110, bbox_inches="tight")
    return out.getvalue()


def _no_math(text: str) -> str:
    """For matplotlib, which reads what stands between two dollar signs as TeX, and fails where it is not."""
    return text.replace("$", r"\$")


def _fonts_for(texts: Iterable[str]) -> list[str]:
    """The families of matplotlib's own font and of those installed ones that have the characters it lacks."""
    from matplotlib import font_manager, rcParams
    from matplotlib.ft2font import FT2Font

    families = list(rcParams["font.family"])
    missing = {ord(character) for text in texts for character in text}
    missing -= FT2Font(font_manager.findfont(font_manager.FontProperties())).get_charmap().keys()
    for font in font_manager.fontManager.ttflist:
        if not missing:
            break
        if font.name.startswith("Last Resort"):  # has a box for every character
            continue
        with suppress(OSError, RuntimeError):  # removed since, or damaged
            face = FT2Font(font.fname)
            if face.scalable and missing & face.get_charmap().keys():  # emoji in bitmaps cannot be drawn
                families.append(font.name)
                missing -= face.get_charmap().keys()
    return families


def confusion_plot(matrix: np.ndarray, labels: tuple[str, ...], title: str) -> bytes:
    """A confusion matrix, int64 [classes, classes] with true classes as rows, coloured by row share; with names
    and counts where it has at most MAX_NAMED classes."""
    from matplotlib.figure import Figure

    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 1.2 + 0.46 * min(len(labels), MAX_NAMED)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(labels) <= MAX_NAMED:
        _write_names_and_counts(axes, matrix, share, labels)
    else:
        figure.colorbar(shown, ax=axes, fraction=0.046, label="share of the true class")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true: share of the row, images")
    axes.set_title(title, fontsize=10)
    return _png(figure)


def _write_names_and_counts(axes, matrix: np.ndarray, share: np.ndarray, labels: tuple[str, ...]) -> None:
    for row, column in np.argwhere(matrix):
        count = matrix[row, column]
        color = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, f"{share[row, column]:.0%}\n{count}", ha="center", va="center", fontsize=7, color=color)
    names = [_no_math(label) for label in labels]
    fonts = _fonts_for(labels)
    axes.set_xticks(range(len(labels)), names, rotation=45, ha="right", fontfamily=fonts)
    axes.set_yticks(range(len(labels)), names, fontfamily=fonts)


def history_plot(rows: list[Epoch], best: Epoch) -> bytes:
    """Loss and accuracy by epoch, with the kept epoch marked."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = [row.epoch for row in rows]
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [getattr(row, name) for row in rows], label="training (augmented)")
        axes.plot(epochs, [getattr(row, f"val_{name}") for row in rows], label="validation")
        axes.axvline(best.epoch, color="gray", linestyle=":", label=f"kept: epoch {best.epoch}")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return _png(figure)


def reliability_plot(probabilities: np.ndarray, labels: np.ndarray, title: str) -> bytes:
    """Reliability diagram: accuracy by confidence in 15 bins. A calibrated network is on the diagonal."""
    from matplotlib.figure import Figure

    count, _, accuracy = calibration_bins(probabilities, labels).T
    middles = (np.arange(len(count)) + 0.5) / len(count)
    figure = Figure(figsize=(5.2, 5.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="gray", linestyle=":")
    axes.bar(middles, accuracy, width=0.9 / len(count), alpha=0.7, label="accuracy")
    axes.plot(middles, count / count.sum(), color="black", marker=".", label="share of images")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.set_title(f"{title}: ECE {ece(probabilities, labels):.3f}", fontsize=10)
    axes.legend(fontsize=8)
    return _png(figure)


def coverage_plot(probabilities: np.ndarray, labels: np.ndarray, title: str) -> bytes:
    """Accuracy by coverage: of the share of images with the highest scores. The area above it is AURC."""
    from matplotlib.figure import Figure

    scores, accuracy = accuracy_by_coverage(probabilities, labels)
    share = np.arange(1, len(scores) + 1) / len(scores)
    figure = Figure(figsize=(5.2, 5.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(share, accuracy, label="accuracy of the answers")
    axes.plot(share, scores, color="gray", linestyle=":", label="threshold")
    for promise in PROMISES:
        if found := answered_with(probabilities, labels, promise):
            text = f"{promise:.0%} right of {found.answered:.0%}: scores from {found.score:.2f}"
            axes.plot(found.answered, promise, "o", label=text)
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="share of images that are answered", ylabel="accuracy, score")
    axes.set_title(f"{title}: accuracy by coverage, AURC {aurc(probabilities, labels):.3f}", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower left")
    return _png(figure)
