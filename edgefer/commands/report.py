"""edgefer report: a run's results as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from edgefer.commands.inputs import OUTPUT
from edgefer.errors import InputError


def report(
    csv: Annotated[
        list[Path], typer.Argument(metavar="CSV", help="A file from `edgefer run --csv FILE`; one page per file.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The page; by default beside the CSV, ending in .html. An earlier page is replaced, no other file.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
) -> None:
    """Summarize a run as one HTML page: a timeline of each face, share of each label, longest moments.

    It works in any browser, offline, and contains no images.

    - `edgefer run film.mp4 --csv out.csv && edgefer report out.csv`
    - `edgefer report desk.csv door.csv`
    """
    from edgefer import console
    from edgefer.devices.outputs.files import check_folder
    from edgefer.devices.outputs.recorded import read_report
    from edgefer.devices.outputs.report import to_html
    from edgefer.files import write_file
    from edgefer.html import check_replaceable
    from edgefer.text import printable

    if out and len(csv) > 1:
        raise InputError(f"--out is one page, and {len(csv)} files are named: leave it out, or give one file.")
    for file in csv:
        found = read_report(file)
        name = file.stem if file.suffix.lower() == ".csv" else file.name  # desk.csv-20261128, as logrotate names it
        target = out or file.parent / f"{name}.html"
        if target.exists() and target.samefile(file):
            raise InputError(f"{target} is the CSV itself: name another page with --out.")
        check_folder(target, "write")
        check_replaceable(target, "--out")
        write_file(target, to_html(found, printable(file.name)).encode())
        console.show(f"Wrote {printable(str(target))}: open it in a browser.")
