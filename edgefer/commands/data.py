"""The commands about data: data check."""

from pathlib import Path
from typing import Annotated

import typer

from edgefer.commands.inputs import GroupBy, bundle_path

data = typer.Typer(help="Look a data set over before training.", no_args_is_help=True)
EXAMPLES = 5


@data.callback()
def _data() -> None:
    pass


@data.command()
def check(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder of pictures, or a FER2013 CSV.")],
    group_by: GroupBy = "",
    bundle: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="Also compare its labels with this network's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, with every example.")] = False,
) -> None:
    """Find what spoils a training: broken files, duplicates, leaks.

    Also class balance, sizes and label order. Exit code 1 when something must be mended.
    """
    import json

    from edgefer import console
    from edgefer.bundle import Bundle
    from edgefer.train.data.audit import audit

    card = Bundle.open(bundle_path(bundle)).card if bundle else None
    found = audit(path, group_by=group_by, card=card, track=console.track)
    if as_json:
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        console.show_table(
            str(path),
            ("class", *found.counts),
            [(label, *(f"{counts[label]:,}" for counts in found.counts.values())) for label in found.labels],
        )
        sizes = [f"{size} ({count:,})" for size, count in list(found.sizes.items())[:EXAMPLES]]
        more = f" and {len(found.sizes) - EXAMPLES} more" if len(found.sizes) > EXAMPLES else ""
        console.show(
            f"Sizes: {', '.join(sizes)}{more}. Colour: {', '.join(f'{k} {n:,}' for k, n in found.colors.items())}"
        )
        for finding in found.findings:
            console.show(f"{finding.status if finding.status != 'fail' else 'FAIL'}  {finding.about}: {finding.found}")
            if finding.status != "pass":
                for example in finding.examples[:EXAMPLES]:
                    console.show(f"        {example}")
                if len(finding.examples) > EXAMPLES:
                    console.show(f"        and {len(finding.examples) - EXAMPLES:,} more (--json lists all)")
    if not found.passed:
        raise typer.Exit(1)
