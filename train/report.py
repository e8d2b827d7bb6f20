"""The evaluation as one HTML file with its pictures inside, to look at or send on."""

from dataclasses import dataclass

import numpy as np

from edgefer.card import ModelCard
from edgefer.html import Picture, contact_sheet, heading, page, paragraph, plot, table
from edgefer.metrics import accuracy_by_coverage
from edgefer.train.data.dataset import Split
from edgefer.train.evaluate import Evaluation
from edgefer.train.plots import confusion_plot, coverage_plot, reliability_plot
from edgefer.train.shift import Shift

MISTAKES = 48


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A bundle's networks measured on one split of `data`. shifts: by network; empty where they were not asked for."""

    card: ModelCard
    data: str
    split_name: str
    split: Split
    evaluations: list[Evaluation]
    shifts: dict[str, Shift]

    def to_json(self) -> dict:
        """All figures."""
        figures = {
            one.name: one.scores.model_dump()
            | {"interval": one.interval, "nll": one.nll, "ece": one.ece, "confusion": one.confusion.tolist()}
            | {"coverage": coverage(one, self.split.labels)}
            for one in self.evaluations
        }
        written = {"labels": self.card.labels, "data": self.data, "split": self.split_name, "networks": figures}
        return written | {"domain_shift": {form: one.to_json() for form, one in self.shifts.items()}}


def html_report(evaluated: Evaluated) -> str:
    """The page."""
    card, split, evaluations, shifts = evaluated.card, evaluated.split, evaluated.evaluations, evaluated.shifts
    parts = [
        heading(f"{card.name} on the {evaluated.split_name} split", 1),
        paragraph(
            f"{len(split):,} images of {evaluated.data}. Trained on {card.provenance.data}; {'; '.join(card.provenance.steps)}."
        ),
        table(SUMMARY_COLUMNS, summary_rows(evaluations)),
    ]
    for one in evaluations:
        title = f"{one.name}: accuracy {one.scores.accuracy:.1%}"
        parts += [
            '<div class="row">',
            plot(confusion_plot(one.confusion, card.labels, title), f"confusion matrix of {one.name}"),
            plot(reliability_plot(one.probabilities, split.labels, one.name), f"reliability of {one.name}"),
            plot(coverage_plot(one.probabilities, split.labels, one.name), f"accuracy by coverage of {one.name}"),
            "</div>",
        ]
    parts += [
        heading("What it is worth where it may be unsure"),
        table(coverage_columns(evaluations), coverage_rows(evaluations, split.labels)),
    ]
    last = evaluations[-1]
    parts += [
        heading(f"Most confident mistakes of {last.name}"),
        paragraph("Below each image: what it is; what it was taken for, with the score; its file."),
        contact_sheet(most_confident_mistakes(split, last.probabilities, card.labels)),
    ]
    if shifts:
        parts += [heading("Where it breaks"), table(shift_columns(shifts), shift_rows(shifts))]
    return page(card.name, parts)


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


COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)


def coverage(one: Evaluation, labels: np.ndarray) -> list[dict[str, float]]:
    """For each of COVERAGES, as `answered`: the lowest score among that share of the images, and the accuracy on them."""
    scores, accuracy = accuracy_by_coverage(one.probabilities, labels)
    rows = []
    for share in COVERAGES:
        at = max(1, round(share * len(scores))) - 1
        rows.append({"answered": share, "score": float(scores[at]), "accuracy": float(accuracy[at])})
    return rows


def coverage_columns(evaluations: list[Evaluation]) -> list[str]:
    """The names of the columns of `coverage_rows`."""
    return ["answered", *(f"{one.name}: {what}" for one in evaluations for what in ("score at least", "accuracy"))]


def coverage_rows(evaluations: list[Evaluation], labels: np.ndarray) -> list[list[str]]:
    """A row for each of COVERAGES: the score to ask for, so that this share is answered, and what the answers are worth."""
    rows = [[f"{share:.0%}"] for share in COVERAGES]
    for one in evaluations:
        for row, found in zip(rows, coverage(one, labels), strict=True):
            row += [f"{found['score']:.2f}", f"{found['accuracy']:.1%}"]
    return rows


def shift_columns(shifts: dict[str, Shift]) -> list[str]:
    """The names of the columns of `shift_rows`."""
    return ["change", "strength", *shifts]


def shift_rows(shifts: dict[str, Shift]) -> list[list[str]]:
    """A row for the images as they are, one for each strength, one for the mean of each kind, and the headline."""

    def row(change: str, strength: str, accuracies) -> list[str]:
        return [change, strength, *(f"{accuracy:.1%}" for accuracy in accuracies)]

    ones = list(shifts.values())
    rows = [row("none", "", (one.clean.accuracy for one in ones))]
    for kind, strengths in ones[0].strengths.items():
        rows += [row(kind, name, (one.strengths[kind][name] for one in ones)) for name in strengths]
        rows.append(row(kind, "mean", (one.kinds[kind].accuracy for one in ones)))
        rows.append([kind, "ECE", *(f"{one.kinds[kind].ece:.3f}" for one in ones)])
    rows.append(["worst kind", "", *(f"{accuracy:.1%} {kind}" for kind, accuracy in (one.worst_kind for one in ones))])
    rows.append(row("mean of kinds", "", (one.mean_of_kinds for one in ones)))
    return rows


def most_confident_mistakes(split: Split, probabilities: np.ndarray, labels: tuple[str, ...]) -> list[Picture]:
    """The wrong answers with the highest scores, the worst first, each with what it is and was taken for."""
    chosen = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(chosen != split.labels)
    wrong = wrong[np.argsort(-probabilities.max(axis=1)[wrong], kind="stable")][:MISTAKES]
    return [
        Picture(
            image=split.images[i],
            lines=(f"is {labels[split.labels[i]]}", f"→ {labels[chosen[i]]} {probabilities[i].max():.0%}"),
            file=str(split.ids[i]),
        )
        for i in wrong
    ]
