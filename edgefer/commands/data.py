"""The commands about data: data check."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefer.commands.app import App
from edgefer.commands.inputs import INPUT, AsJson, GroupBy, Names, SkipBad, bundle_path
from edgefer.errors import InputError

if TYPE_CHECKING:
    from edgefer.train.data.audit import Audit

data = App(help="Check a data set before training.")
MAX_SIZES = 5


@data.callback()
def _data() -> None:
    pass


@data.command()
def check(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A folder of images, a FER2013 CSV (.csv, .gz, .zip, .tar.gz), or 'builtin'.",
            show_default=False,
        ),
    ] = "",
    data: Annotated[
        str, typer.Option(metavar="PATH", help="The same, as other commands take it.", rich_help_panel=INPUT)
    ] = "",
    names: Names = "",
    labels: Annotated[
        str, typer.Option(metavar="ferplus|FILE", help="FER+ votes, as for edgefer train.", rich_help_panel=INPUT)
    ] = "",
    group_by: GroupBy = "",
    skip_bad: SkipBad = False,
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="BUNDLE", help="Also compare its labels with this network's.", rich_help_panel=INPUT),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a data set for problems: unreadable files, duplicates, leaks between splits.

    Also whether it can be used for training, class balance, sizes and label order. Exit code 1 if something must be fixed.

    - `edgefer data check fer2013.csv`
    - `edgefer data check faces/ --bundle ferplus-small`
    """
    from edgefer import console
    from edgefer.bundle import Bundle
    from edgefer.commands.check_report import report
    from edgefer.train.data.audit import audit
    from edgefer.train.data.load import DataOptions

    if bool(path) == bool(data):
        raise InputError("Name the data once: edgefer data check fer2013.csv, a folder of images, or builtin.")
    card = Bundle.open(bundle_path(bundle)).card if bundle else None
    options = DataOptions(labels=labels, names=names, skip_bad=skip_bad, group_by=group_by)
    found = audit(path or data, options, card=card, progress=console.PROGRESS)
    if not as_json:
        _show(found)
    report(
        "checks", found.checks, as_json=as_json, path=found.path, labels=list(found.labels), images=found.counts,
        sizes=found.sizes, colors=found.colors, notes=list(found.notes),
    )  # fmt: skip


def _show(found: "Audit") -> None:
    """Show the classes by split, sizes and colours, and what is ignored."""
    from edgefer import console

    rows = [(label, *(f"{counts[label]:,}" for counts in found.counts.values())) for label in found.labels]
    console.show_table(found.path, ("class", *found.counts), rows)
    sizes = [f"{size} ({count:,})" for size, count in list(found.sizes.items())[:MAX_SIZES]]
    more = f" and {len(found.sizes) - MAX_SIZES} more" if len(found.sizes) > MAX_SIZES else ""
    colors = ", ".join(f"{color} {count:,}" for color, count in found.colors.items())
    console.show(f"Sizes: {', '.join(sizes)}{more}. Colour: {colors}")
    for note in found.notes:
        console.show(f"{note}.")
