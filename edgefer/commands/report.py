"""edgefer report: what a run saw, as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    csv: Annotated[Path, typer.Argument(metavar="CSV", help="What `edgefer run --csv FILE` wrote.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The page; by default beside the CSV, ending in .html.")
    ] = None,
) -> None:
    """Show what a run saw: one HTML page with timeline, shares and moments."""
    from edgefer import console
    from edgefer.bundle import write_file
    from edgefer.devices.outputs.files import check_folder
    from edgefer.devices.outputs.report import read_report, to_html
    from edgefer.text import printable

    target = out or csv.with_suffix(".html")
    check_folder(target, "write")
    write_file(target, to_html(read_report(csv), printable(csv.name)).encode())
    console.show(f"Wrote {printable(str(target))}: open it in a browser.")
