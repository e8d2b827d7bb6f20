"""edgefer doctor: checks this computer for known problems."""

from edgefer.commands.inputs import AsJson


def doctor(as_json: AsJson = False) -> None:
    """Check this computer for known problems, offline.

    Each problem comes with the command that fixes it. Exit code 1 when something failed.

    - `edgefer doctor`
    - `edgefer doctor --json`
    """
    from edgefer.commands.check_report import report
    from edgefer.devices.board.doctor import examine

    report("", examine(), as_json=as_json)
