"""edgefer compare: every deployable form of a network, side by side."""

from pathlib import Path
from typing import Annotated

import typer

from edgefer.commands.inputs import (
    INPUT,
    OUTPUT,
    AsJson,
    Names,
    SkipBad,
    TrainedBundle,
    trained_bundle_path,
    training_data,
)
from edgefer.errors import Interrupted
from edgefer.options import MAX_REMOVED

FORMS = "Forms"


Prune = Annotated[
    float,
    typer.Option(
        min=0, max=MAX_REMOVED, metavar="SHARE", help="Share of zeros in the pruned forms.", rich_help_panel=FORMS
    ),
]
Slim = Annotated[
    float,
    typer.Option(
        min=0,
        max=MAX_REMOVED,
        metavar="SHARE",
        help="Share of multiply-adds that the slim forms lose.",
        rich_help_panel=FORMS,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Epochs of each fine-tuning; by default pruning 4, QAT 3, slimming 8.",
        rich_help_panel=FORMS,
    ),
]
Data = Annotated[
    str,
    typer.Option(
        metavar="PATH",
        help="Calibration and validation data; what it was trained on when left out.",
        rich_help_panel=INPUT,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where the bundles go; by default BUNDLE-profiles.", rich_help_panel=OUTPUT),
]


def compare(
    bundle: TrainedBundle = None,
    prune: Prune = 0.5,
    slim: Slim = 0.5,
    epochs: Epochs = None,
    data: Data = "",
    names: Names = "",
    skip_bad: SkipBad = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Make and measure every deployable form of a network.

    float32, float16, int8, quantization-aware, pruned, slim: a bundle of each under one directory, and one table. Existing
    bundles are measured again, not made again. All are compared with the trained network.

    - `edgefer compare runs/small-1`
    - `edgefer compare runs/small-1 --data fer2013.csv --prune 0.7`
    """
    from edgefer import console
    from edgefer.bundle import Bundle, Form, made_from
    from edgefer.convert.compare import COLUMNS, make_profiles, measure_profiles, plans, row, to_json, write_profiles
    from edgefer.convert.slim import why_not
    from edgefer.convert.start import UNLEARNT
    from edgefer.files import check_writable
    from edgefer.train.data.matching import absent, absent_note
    from edgefer.train.recipes import recipe_of

    source = Bundle.open(trained_bundle_path(bundle))
    source.file(Form.KERAS)
    target = out or made_from(source, "profiles")
    check_writable(target)
    dataset = training_data(source, data, skip_bad, names)
    recipe = recipe_of(source.card)
    if dataset.absent_note:
        console.log(f"{dataset.absent_note}. {UNLEARNT}")
    wanted = plans(recipe, prune=prune, slim=slim, epochs=epochs or 0)
    console.log(f"Making {', '.join(wanted)} in {target}")
    if slim and (reason := why_not(recipe, slim)):
        console.log(f"No slim form. {reason}")
    try:
        make_profiles(source, dataset, wanted, target, console.PROGRESS)
    except KeyboardInterrupt:
        raise Interrupted("Stopped; finished bundles are kept: the same command continues.") from None
    missing = absent(dataset.split("valid").labels, source.card.labels)
    measured = measure_profiles(target, wanted, dataset, console.PROGRESS)
    written = write_profiles(target, measured)
    if as_json:
        facts = {
            "bundle": source.hash,
            "out": str(target),
            "split": "valid",
            "without_images": missing,
            "networks": to_json(measured),
        }
        console.show_json(facts | {"report": str(written)})
        return
    count = measured[0].comparison.candidate.scores.count
    title = f"Forms of {source.path}, valid split, {count} images, against the trained network"
    console.show_table(title, COLUMNS, [row(one) for one in measured])
    if note := absent_note(missing, len(source.card.labels), "the valid split"):
        console.show(f"{note}.")
    console.show("Zeros make a file compress better but do not make an int8 network faster; fewer filters do both.")
    console.show(f"The same as JSON: {written}")
