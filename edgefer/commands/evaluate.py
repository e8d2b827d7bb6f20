"""edgefer evaluate: a network measured on labelled images."""

import itertools
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from edgefer.commands.inputs import (
    INPUT,
    BundleArgument,
    RuntimeOption,
    SkipBad,
    bundle_path,
    report_folder,
    training_data,
    usual_split,
)
from edgefer.errors import MissingDependency
from edgefer.options import RuntimeName

MEASURE = "Measure"


def evaluate(
    bundle: BundleArgument = None,
    data: Annotated[
        str,
        typer.Option(
            metavar="PATH", help="Labelled images; what it was trained on when left out.", rich_help_panel=INPUT
        ),
    ] = "",
    split: Annotated[
        str,
        typer.Option(
            metavar="SPLIT",
            help="valid, test, train or all; when left out valid, or train where none was held back.",
            rich_help_panel=INPUT,
        ),
    ] = "",
    skip_bad: SkipBad = False,
    flip: Annotated[
        bool,
        typer.Option(
            "--flip",
            help="Average each image's answer with its mirror image's: what two views give.",
            rich_help_panel=MEASURE,
        ),
    ] = False,
    domain_shift: Annotated[
        bool,
        typer.Option(
            "--domain-shift",
            help="Also under nine kinds of change that cameras make: blur, few pixels, noise and so on.",
            rich_help_panel=MEASURE,
        ),
    ] = False,
    runtime: RuntimeOption = RuntimeName.AUTO,
) -> None:
    """Measure a network on labelled images.

    Every form of the network, with intervals, calibration and what rejection is worth: tables here, and an HTML page with
    images and JSON in the bundle's report/, or in report/ here for a shipped one.

    - `edgefer evaluate ferplus-small --data faces/`
    - `edgefer evaluate --split test --domain-shift`
    """
    import json

    if find_spec("matplotlib") is None:
        raise MissingDependency("evaluate draws its report with matplotlib: pip install matplotlib.")
    from edgefer import console
    from edgefer.bundle import Bundle, write_file
    from edgefer.train import report, shift
    from edgefer.train.data.dataset import pool
    from edgefer.train.evaluate import both_views, full_evaluation, networks

    opened = Bundle.open(bundle_path(bundle))
    card = opened.card
    dataset = training_data(opened, data, skip_bad).with_labels(card.labels)
    splits = dataset.splits
    if not split:
        split = usual_split(card, dataset)
        measured, total = len(dataset.split(split)), sum(map(len, splits.values()))
        if dataset.name != card.provenance.data and measured < total:
            console.say(
                f"{measured} of {total} pictures are measured, the {split} split: --split all takes all of them."
            )
    pictures = pool(list(splits.values())) if split == "all" else dataset.split(split)
    forms = networks(opened, runtime)
    if flip:
        forms = {f"{name}, two views": both_views(logits, card.temperature) for name, logits in forms.items()}
    evaluations = [
        full_evaluation(name, logits(pictures.images), pictures, card.temperature) for name, logits in forms.items()
    ]
    shifts = {}
    if domain_shift:
        shifts = shift.domain_shift(pictures.images, pictures.labels, forms, card.temperature, console.track)

    console.show_table(
        f"{card.name} on {split}, {len(pictures):,} pictures", report.SUMMARY_COLUMNS, report.summary_rows(evaluations)
    )
    console.show_table(
        "Where it may be unsure: the score to ask for, and what the answers are worth",
        report.coverage_columns(evaluations),
        report.coverage_rows(evaluations, pictures.labels),
    )
    if shifts:
        title = "Accuracy where the camera differs from the data"
        console.show_table(title, report.shift_columns(shifts), report.shift_rows(shifts))
    page = _new_page(report_folder(opened), f"evaluation-{split}")
    write_file(page, report.html_report(card, dataset.name, split, pictures, evaluations, shifts).encode())
    figures = {
        one.name: one.scores.model_dump()
        | {"interval": one.interval, "nll": one.nll, "ece": one.ece, "confusion": one.confusion.tolist()}
        | {"coverage": report.coverage(one, pictures.labels)}
        for one in evaluations
    }
    written = {"labels": card.labels, "data": dataset.name, "split": split, "networks": figures}
    written["domain_shift"] = {form: one.to_json() for form, one in shifts.items()}
    write_file(page.with_suffix(".json"), json.dumps(written, indent=2).encode() + b"\n")
    console.show(f"Report: {page} and {page.with_suffix('.json').name}")


def _new_page(folder: Path, name: str) -> Path:
    """The page of that name, with a number where there is one already: a report is never lost to the next one."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(page for each in names if not (page := folder / f"{each}.html").exists())
