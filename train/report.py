"""The evaluation as a self-contained HTML page."""

from dataclasses import asdict, dataclass

import numpy as np

from edgefer.card import ModelCard
from edgefer.html import Picture, contact_sheet, heading, page, paragraph, plot, table
from edgefer.metrics import PROMISES, answered_from, answered_with
from edgefer.train.data.dataset import Split
from edgefer.train.data.matching import absent, absent_note
from edgefer.train.evaluate import Evaluation
from edgefer.train.plots import confusion_plot, coverage_plot, reliability_plot
from edgefer.train.shift import MIN_SCORE, Calibrated, Shift

MISTAKES = 48
TRUST = f"Calibration under each change, and the answers with a score of at least {MIN_SCORE}"


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The evaluation of a bundle's networks on one split of `data`. shifts: by network; empty without --domain-shift."""

    card: ModelCard
    data: str
    split_name: str
    split: Split
    evaluations: list[Evaluation]
    shifts: dict[str, Shift]

    @property
    def absent_note(self) -> str:
        """What is not measured since the split has no images of it; "" if all classes have some."""
        where = "the data" if self.split_name == "all" else f"the {self.split_name} split"
        return absent_note(self.absent, len(self.card.labels), where)

    @property
    def absent(self) -> tuple[str, ...]:
        """The classes without images in the split."""
        return absent(self.split.labels, self.card.labels)

    def to_json(self) -> dict:
        """All figures."""
        figures = {
            one.name: one.scores.model_dump()
            | {"interval": one.interval, "nll": one.nll, "ece": one.ece, "aurc": one.aurc}
            | {"confusion": one.confusion.tolist(), **coverage(one, self.split.labels)}
            for one in self.evaluations
        }
        evaluation = {"labels": self.card.labels, "data": self.data, "split": self.split_name, "networks": figures}
        evaluation["without_images"] = self.absent
        return evaluation | {"domain_shift": {form: one.to_json() for form, one in self.shifts.items()}}


def html_report(evaluated: Evaluated) -> str:
    """The page."""
    card, split, evaluations, shifts = evaluated.card, evaluated.split, evaluated.evaluations, evaluated.shifts
    parts = [
        heading(f"{card.name} on the {evaluated.split_name} split", 1),
        paragraph(
            f"{len(split):,} images of {evaluated.data}. Trained on {card.provenance.data}; {'; '.join(card.provenance.everything)}."
        ),
        table(SUMMARY_COLUMNS, summary_rows(evaluations)),
        *([paragraph(f"{evaluated.absent_note}.")] if evaluated.absent else []),
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
        heading("Accuracy by coverage"),
        table(coverage_columns(evaluations), coverage_rows(evaluations, split.labels)),
        table(promise_columns(evaluations), promise_rows(evaluations, split.labels)),
    ]
    last = evaluations[-1]
    parts += [
        heading(f"Most confident mistakes of {last.name}"),
        paragraph("Below each image: its label; the predicted label with its score; its file."),
        contact_sheet(most_confident_mistakes(split, last.probabilities, card.labels), card.input.color),
    ]
    if shifts:
        parts += [heading("Where it breaks"), table(shift_columns(shifts), shift_rows(shifts))]
        parts += [heading(TRUST), table(trust_columns(shifts), trust_rows(shifts))]
    return page(card.name, parts)


SUMMARY_COLUMNS = ["network", "accuracy", "95% interval", "macro recall", "macro F1", "NLL", "ECE", "AURC"]


def summary_rows(evaluations: list[Evaluation]) -> list[list[str]]:
    """One row per evaluation."""
    return [
        [
            one.name,
            f"{one.scores.accuracy:.2%}",
            f"{one.interval[0]:.1%} to {one.interval[1]:.1%}",
            f"{one.scores.macro_recall:.3f}",
            f"{one.scores.macro_f1:.3f}",
            f"{one.nll:.3f}",
            f"{one.ece:.3f}",
            f"{one.aurc:.3f}",
        ]
        for one in evaluations
    ]


SCORES = (0.0, 0.35, MIN_SCORE, 0.55, 0.65, 0.75, 0.85, 0.95)  # thresholds


def coverage(one: Evaluation, labels: np.ndarray) -> dict[str, list]:
    """As JSON. coverage: for each of SCORES, the share of images with at least that score and the accuracy on them,
    None where there are none. promises: for each accuracy of PROMISES, the threshold that gives it and the share that
    is answered; None where no threshold does, or too few images are left to tell.
    """
    found = [answered_with(one.probabilities, labels, promise) for promise in PROMISES]
    return {
        "coverage": [asdict(answered_from(one.probabilities, labels, score)) for score in SCORES],
        "promises": [
            {"promise": promise, "reached": asdict(each) if each else None}
            for promise, each in zip(PROMISES, found, strict=True)
        ],
    }


def coverage_columns(evaluations: list[Evaluation]) -> list[str]:
    """The names of the columns of `coverage_rows`."""
    return ["score at least", *(f"{one.name}: {figure}" for one in evaluations for figure in ("answered", "accuracy"))]


def coverage_rows(evaluations: list[Evaluation], labels: np.ndarray) -> list[list[str]]:
    """One row for each of SCORES: the share that is answered, and the accuracy of the answers."""
    rows = [[f"{score:.2f}"] for score in SCORES]
    for one in evaluations:
        for row, score in zip(rows, SCORES, strict=True):
            found = answered_from(one.probabilities, labels, score)
            row += [f"{found.answered:.1%}", "" if found.accuracy is None else f"{found.accuracy:.1%}"]
    return rows


def promise_columns(evaluations: list[Evaluation]) -> list[str]:
    """The names of the columns of `promise_rows`."""
    return [
        "accuracy of the answers",
        *(f"{one.name}: {figure}" for one in evaluations for figure in ("score", "answered")),
    ]


def promise_rows(evaluations: list[Evaluation], labels: np.ndarray) -> list[list[str]]:
    """One row for each of PROMISES: the threshold that gives this accuracy, and the share that is answered."""
    rows = [[f"{promise:.0%}"] for promise in PROMISES]
    for one in evaluations:
        for row, promise in zip(rows, PROMISES, strict=True):
            found = answered_with(one.probabilities, labels, promise)
            row += [f"{found.score:.2f}", f"{found.answered:.1%}"] if found else ["none", "0.0%"]
    return rows


def shift_columns(shifts: dict[str, Shift]) -> list[str]:
    """The names of the columns of `shift_rows`."""
    return ["change", "strength", *shifts]


def shift_rows(shifts: dict[str, Shift]) -> list[list[str]]:
    """Accuracy without a change, at each strength, in the mean of each kind, and in the mean of the kinds."""

    def row(change: str, strength: str, accuracies) -> list[str]:
        return [change, strength, *(f"{accuracy:.1%}" for accuracy in accuracies)]

    networks = list(shifts.values())
    rows = [row("none", "", (one.clean.accuracy for one in networks))]
    for kind, strengths in networks[0].strengths.items():
        rows += [row(kind, name, (one.strengths[kind][name] for one in networks)) for name in strengths]
        rows.append(row(kind, "mean", (one.kinds[kind].accuracy for one in networks)))
    worst = (one.worst_kind for one in networks)
    rows.append(["worst kind", "", *(f"{accuracy:.1%} {kind}" for kind, accuracy in worst)])
    rows.append(row("mean of kinds", "", (one.mean_of_kinds for one in networks)))
    return rows


def trust_columns(shifts: dict[str, Shift]) -> list[str]:
    """The names of the columns of `trust_rows`."""
    return ["change", *(f"{name}: {figure}" for name in shifts for figure in ("ECE", "answered", "accuracy"))]


def trust_rows(shifts: dict[str, Shift]) -> list[list[str]]:
    """ECE, and share and accuracy of the answers of at least MIN_SCORE, without a change and under each kind; then the
    kind with the highest ECE."""
    networks = list(shifts.values())
    rows = [["none", *_trust([one.clean for one in networks])]]
    rows += [[kind, *_trust([one.kinds[kind] for one in networks])] for kind in networks[0].kinds]
    worst = (one.worst_calibrated for one in networks)
    return [*rows, ["worst ECE", *(cell for kind, error in worst for cell in (f"{error:.3f}", kind, ""))]]


def _trust(networks: list[Calibrated]) -> list[str]:
    cells = []
    for one in networks:
        accuracy = one.answered.accuracy
        cells += [f"{one.ece:.3f}", f"{one.answered.answered:.1%}", "" if accuracy is None else f"{accuracy:.1%}"]
    return cells


def most_confident_mistakes(split: Split, probabilities: np.ndarray, labels: tuple[str, ...]) -> list[Picture]:
    """The wrong predictions with the highest scores, the highest first."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != split.labels)
    wrong = wrong[np.argsort(-probabilities.max(axis=1)[wrong], kind="stable")][:MISTAKES]
    return [
        Picture(
            image=split.images[i],
            lines=(f"is {labels[split.labels[i]]}", f"→ {labels[predicted[i]]} {probabilities[i].max():.0%}"),
            file=str(split.ids[i]),
        )
        for i in wrong
    ]
