"""edgefer evaluate: measures a network on labelled images."""

import itertools
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from edgefer.commands.inputs import (
    INPUT,
    AsJson,
    BundleArgument,
    Names,
    RuntimeOption,
    SkipBad,
    bundle_path,
    report_folder,
    training_data,
    usual_split,
)
from edgefer.errors import MissingDependency
from edgefer.options import RuntimeName

if TYPE_CHECKING:
    from edgefer.bundle import Bundle
    from edgefer.train.data.dataset import Dataset
    from edgefer.train.evaluate import Evaluation
    from edgefer.train.report import Evaluated

MEASURE = "Measure"


Data = Annotated[
    str,
    typer.Option(metavar="PATH", help="Labelled images; what it was trained on when left out.", rich_help_panel=INPUT),
]
Split = Annotated[
    str,
    typer.Option(
        metavar="SPLIT",
        help="valid, test, train or all; by default valid, or train if there is no held-out split.",
        rich_help_panel=INPUT,
    ),
]
Flip = Annotated[
    bool,
    typer.Option(
        "--flip", help="Average each image's scores with its mirror image's (test-time flip).", rich_help_panel=MEASURE
    ),
]
DomainShift = Annotated[
    bool,
    typer.Option(
        "--domain-shift",
        help="Also under nine kinds of camera degradation: blur, low resolution, noise and so on.",
        rich_help_panel=MEASURE,
    ),
]


def evaluate(
    bundle: BundleArgument = None,
    data: Data = "",
    split: Split = "",
    names: Names = "",
    skip_bad: SkipBad = False,
    flip: Flip = False,
    domain_shift: DomainShift = False,
    runtime: RuntimeOption = RuntimeName.AUTO,
    as_json: AsJson = False,
) -> None:
    """Measure a network on labelled images.

    Every form of the network, with intervals, calibration and the effect of rejection: tables here, and an HTML page with
    images and JSON in the bundle's report/, or in report/ in the current folder for a shipped one.

    - `edgefer evaluate ferplus-small --data faces/`
    - `edgefer evaluate --split test --domain-shift`
    """
    if find_spec("matplotlib") is None:
        raise MissingDependency("evaluate draws its report with matplotlib: pip install matplotlib.")
    from edgefer import console
    from edgefer.bundle import Bundle

    opened = Bundle.open(bundle_path(bundle))
    folder = report_folder(opened)
    dataset = training_data(opened, data, skip_bad, names)
    evaluated = _evaluated(opened, dataset, split or _split(opened, dataset), runtime, Views(flip, domain_shift))
    page = _write(evaluated, folder)
    if as_json:
        console.show_json({"bundle": opened.hash} | evaluated.to_json() | {"report": str(page)})
        return
    _show(evaluated)
    console.show(f"Report: {page} and {page.with_suffix('.json').name}")


class Views(NamedTuple):
    """Which views of each image are measured. flip: also its mirror image. shifts: also camera degradations."""

    flip: bool
    shifts: bool


def _split(opened: "Bundle", dataset: "Dataset") -> str:
    """The default split; logged unless it is all of the data."""
    from edgefer import console

    split = usual_split(opened.card, dataset)
    measured, total = len(dataset.split(split)), sum(map(len, dataset.splits.values()))
    if dataset.name != opened.card.provenance.data and measured < total:
        console.log(f"{measured} of {total} images are measured, the {split} split: --split all measures all of them.")
    return split


def _evaluated(opened: "Bundle", dataset: "Dataset", split: str, runtime: RuntimeName, views: Views) -> "Evaluated":
    from edgefer.console import PROGRESS
    from edgefer.train.data.dataset import pool
    from edgefer.train.evaluate import both_views, full_evaluation, networks
    from edgefer.train.report import Evaluated
    from edgefer.train.shift import domain_shift

    card = opened.card
    chosen = pool(list(dataset.splits.values())) if split == "all" else dataset.split(split)
    forms = networks(opened, runtime)
    if views.flip:
        forms = {f"{name}, two views": both_views(logits, card.temperature) for name, logits in forms.items()}

    def evaluated(name: str) -> "Evaluation":
        with PROGRESS.stage(f"Measuring {name} on {len(chosen):,} images"):
            return full_evaluation(name, forms[name](chosen.images), chosen, card.temperature)

    return Evaluated(
        card=card,
        data=dataset.name,
        split_name=split,
        split=chosen,
        evaluations=[evaluated(name) for name in forms],
        shifts=domain_shift(chosen, forms, card, PROGRESS.track) if views.shifts else {},
    )


def _show(evaluated: "Evaluated") -> None:
    from edgefer import console
    from edgefer.train import report

    evaluations, split = evaluated.evaluations, evaluated.split
    console.show_table(
        f"{evaluated.card.name} on {evaluated.split_name}, {len(split):,} images",
        report.SUMMARY_COLUMNS,
        report.summary_rows(evaluations),
    )
    if evaluated.absent_note:
        console.show(f"{evaluated.absent_note}.")
    console.show_table(
        "Where it may be unsure: the score to ask for, how many are answered, and what the answers are worth",
        report.coverage_columns(evaluations),
        report.coverage_rows(evaluations, split.labels),
    )
    console.show_table(
        "What an accuracy asks for: the score, and how many are answered then",
        report.promise_columns(evaluations),
        report.promise_rows(evaluations, split.labels),
    )
    if shifts := evaluated.shifts:
        title = "Accuracy where the camera differs from the data"
        console.show_table(title, report.shift_columns(shifts), report.shift_rows(shifts))
        console.show_table(report.TRUST, report.trust_columns(shifts), report.trust_rows(shifts))


def _write(evaluated: "Evaluated", folder: Path) -> Path:
    """Write the page, and the same data as JSON beside it; returns the page's path."""
    import json

    from edgefer.files import write_file
    from edgefer.train.report import html_report

    page = _new_page(folder, f"evaluation-{evaluated.split_name}")
    write_file(page, html_report(evaluated).encode())
    write_file(page.with_suffix(".json"), json.dumps(evaluated.to_json(), indent=2).encode() + b"\n")
    return page


def _new_page(folder: Path, name: str) -> Path:
    """The page with that name, numbered if it or its .json exists: a report is never overwritten."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    pages = (folder / f"{each}.html" for each in names)
    return next(page for page in pages if not page.exists() and not page.with_suffix(".json").exists())
