"""The evaluation as one HTML file with its pictures inside, to look at or send on."""

import base64
from html import escape

import cv2
import numpy as np

from edgefer.card import ModelCard
from edgefer.train.datasets import Split
from edgefer.train.evaluate import Evaluation
from edgefer.train.plots import confusion_plot, reliability_plot

MISTAKES = 48
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd }
th { text-align: left } td + td, th + th { text-align: right } img { max-width: 100% } .row { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; align-items: start }
"""


def html_report(
    card: ModelCard, split_name: str, split: Split, evaluations: list[Evaluation], shifts: dict[str, dict[str, float]]
) -> str:
    """The page for evaluations of one split; shifts: change -> network -> accuracy, empty when it was not asked for."""
    parts = [
        f"<h1>{escape(card.name)} on the {escape(split_name)} split</h1>",
        f"<p>{len(split):,} pictures. Trained on {escape(card.provenance.data)}; {escape('; '.join(card.provenance.steps))}.</p>",
        _table(SUMMARY_COLUMNS, summary_rows(evaluations)),
    ]
    for one in evaluations:
        title = f"{one.name}: accuracy {one.scores.accuracy:.1%}"
        parts += [
            '<div class="row">',
            _image(confusion_plot(one.confusion, card.labels, title), f"confusion matrix of {one.name}"),
            _image(reliability_plot(one.probabilities, split.labels, one.name), f"reliability of {one.name}"),
            "</div>",
        ]
    last = evaluations[-1]
    parts += [
        f"<h2>Most confident mistakes of {escape(last.name)}</h2><p>Below each picture: true → predicted, score.</p>",
        _image(contact_sheet(split, last.probabilities, card.labels), "most confident mistakes"),
    ]
    if shifts:
        names = [one.name for one in evaluations]
        rows = [[change, *(f"{by_name[name]:.1%}" for name in names)] for change, by_name in shifts.items()]
        parts += ["<h2>Where it breaks</h2>", _table(["change", *names], rows)]
    return f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(card.name)}</title><style>{STYLE}</style>{''.join(parts)}"


SUMMARY_COLUMNS = ["network", "accuracy", "95% interval", "macro recall", "macro F1", "NLL", "ECE"]


def summary_rows(evaluations: list[Evaluation]) -> list[list[str]]:
    """A row of figures for each evaluation, under SUMMARY_COLUMNS."""
    return [
        [
            one.name,
            f"{one.scores.accuracy:.2%}",
            f"{one.interval[0]:.1%} to {one.interval[1]:.1%}",
            f"{one.scores.macro_recall:.3f}",
            f"{one.scores.macro_f1:.3f}",
            f"{one.nll:.3f}",
            f"{one.ece:.3f}",
        ]
        for one in evaluations
    ]


def contact_sheet(split: Split, probabilities: np.ndarray, labels: tuple[str, ...]) -> bytes:
    """The wrong answers with the highest scores, the worst first, each with what it is and was taken for: PNG bytes."""
    chosen = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(chosen != split.labels)
    wrong = wrong[np.argsort(-probabilities.max(axis=1)[wrong], kind="stable")][:MISTAKES]
    side, text, columns = 112, 34, 8
    rows = max(1, -(-len(wrong) // columns))
    sheet = np.full((rows * (side + text), columns * (side + 8), 3), 255, np.uint8)
    for place, index in enumerate(wrong):
        top, left = place // columns * (side + text), place % columns * (side + 8)
        image = split.images[index]
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if image.shape[2] == 1 else cv2.COLOR_RGB2BGR)
        sheet[top : top + side, left : left + side] = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
        lines = labels[split.labels[index]], f"> {labels[chosen[index]]} {probabilities[index].max():.0%}"
        for number, line in enumerate(lines):
            at = (left, top + side + 13 + 14 * number)
            cv2.putText(sheet, line, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
    return cv2.imencode(".png", sheet)[1].tobytes()


def _table(columns: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _image(png: bytes, what: str) -> str:
    return f'<img alt="{escape(what)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
