"""The end of a command that has made checks: `report(title, checks, as_json=as_json, bundle=opened.hash)`."""

from collections.abc import Sequence

import typer

from edgefer import console
from edgefer.checks import Check, Status, exit_code, summary, table, to_json

MAX_EXAMPLES = 5  # in a terminal
MEANINGS = {
    Status.DOUBTFUL: "over the budget, but chance may explain it with so few images; use more images.",
    Status.NOT_CHECKED: "it was not run here, so it counts neither as a pass nor as a failure.",
}


def show(title: str, checks: Sequence[Check], verdict: str = "") -> None:
    """Print the table; below it examples, the meaning of statuses, the fixes, each on a separate line, and the verdict, by
    default how many checks passed."""
    console.show_table(title, *table(checks))
    for check in checks:
        if check.status is Status.PASS:
            continue
        name = f"{check.group} {check.subject}".strip()
        for example in check.examples[:MAX_EXAMPLES]:
            console.show(f"{name}: {example}")
        if len(check.examples) > MAX_EXAMPLES:
            console.show(f"{name}: and {len(check.examples) - MAX_EXAMPLES:,} more (--json lists all)")
        if check.fix:  # not in a cell: a wrapped line cannot be copied
            console.show(f"{name}: {check.fix}")
    for status, meaning in MEANINGS.items():
        if any(check.status is status for check in checks):
            console.show(f"{status}: {meaning}")
    console.show(verdict or summary(checks))


def report(title: str, checks: Sequence[Check], *, verdict: str = "", as_json: bool = False, **facts: object) -> None:
    """Show the checks, or print them as one JSON object after `facts`; typer.Exit with 1 or 2 unless nothing failed."""
    if as_json:
        console.show_json(to_json(checks, **facts))
    else:
        show(title, checks, verdict)
    if code := exit_code(checks):
        raise typer.Exit(code)
