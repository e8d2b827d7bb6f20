"""edgefer doctor: what is wrong on this computer."""

import typer

from edgefer.commands.inputs import (
    AsJson,
)


def doctor(as_json: AsJson = False) -> None:
    """Check this computer for what is known to go wrong.

    Offline. Exit code 1 when something must be mended, each with the line that mends it.
    """
    from dataclasses import asdict

    from edgefer import console
    from edgefer.devices.board.doctor import examine

    checks = examine()
    count = {status: sum(check.status == status for check in checks) for status in ("pass", "warn", "fail")}
    if as_json:
        console.show_json({"checks": [asdict(check) for check in checks], **count})
    else:
        console.show_table(
            "",
            ("check", "", "found"),
            [
                (check.name, check.status.upper() if check.status == "fail" else check.status, check.found)
                for check in checks
            ],
        )
        # Below the table, each on a line of its own: a line folded in a cell cannot be copied.
        for check in checks:
            if check.fix:
                console.show(f"{check.name}: {check.fix}")
        console.show(f"{count['pass']} passed, {count['warn']} warned, {count['fail']} failed.")
    if count["fail"]:
        raise typer.Exit(1)
