"""edgefer lint: what a target would reject in a .tflite file."""

import stat
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefer.commands.inputs import AsJson, bundle_path
from edgefer.errors import InputError
from edgefer.text import counted

if TYPE_CHECKING:
    from edgefer.checks import Check
    from edgefer.tflite.findings import Finding
    from edgefer.tflite.flatbuffer import Model
    from edgefer.tflite.trial import Trial


class Target(StrEnum):
    """The target that will run the network."""

    LITERT = "litert"
    TFLITE_RUNTIME = "tflite-runtime"
    MEDIAPIPE = "mediapipe"
    EDGETPU = "edgetpu"
    C = "c"
    WEB = "web"
    MICRO = "micro"


def lint(
    network: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|BUNDLE",
            help="A .tflite file, or a bundle: its int8 or float32 one, its MediaPipe one for that target.",
        ),
    ],
    target: Annotated[
        Target | None, typer.Option(help="The target; all of them when left out.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find what a target would reject, run slowly or get wrong in a .tflite file.

    From the file alone, and by loading and running it in a separate process on the installed runtimes. Exit code 1 if it
    would not run there; without --target, if it would run nowhere.

    - `edgefer lint model.tflite`
    - `edgefer lint ferplus-small --target edgetpu`
    """
    from dataclasses import asdict

    from edgefer import console
    from edgefer.commands.check_report import report
    from edgefer.tflite.flatbuffer import parameter_bytes, quantization, read_model
    from edgefer.tflite.layers import OPERATORS
    from edgefer.tflite.portable import PORTABLE, unsupported
    from edgefer.tflite.titles import described
    from edgefer.tflite.trial import try_network

    file, content = _content(network, target)
    parsed = read_model(content, str(file))
    trials = {name: try_network(content, name) for name in _installed()}
    findings = {name: _findings(parsed, name, trials) for name in ([target] if target else Target)}
    rows = _each(findings[target], target, trials) if target else _overview(findings, trials)
    if not as_json:
        console.show(
            f"{file}: {described(parsed)}, {counted(len(parsed.operators), 'operator')}, "
            f"{parameter_bytes(parsed):,} bytes of parameters"
        )
        if unsupported(parsed) and PORTABLE.keys() & findings.keys():
            console.show(f"The C code of `edgefer export` has the operators {', '.join(OPERATORS)}.")
    report(
        "",
        rows,
        verdict="" if target else _verdict(findings),
        as_json=as_json,
        file=str(file),
        bytes=parsed.size,
        computes_in=quantization(parsed),
        parameter_bytes=parameter_bytes(parsed),
        targets={
            name: {"runs": _runs(found), "findings": [asdict(finding) for finding in found]}
            for name, found in findings.items()
        },
    )


def _findings(model: "Model", target: Target, trials: "dict[str, Trial]") -> "tuple[Finding, ...]":
    """What the rules find for a target, corrected by the trials."""
    from edgefer.tflite.lint import lint, with_trial

    found = lint(model, target)
    for runtime, trial in trials.items():
        found = with_trial(found, target, runtime, trial)
    return found


def _content(named: Path, target: Target | None) -> tuple[Path, bytes]:
    """The named file, or the named bundle's network for the target."""
    from edgefer.bundle import Bundle, Form
    from edgefer.files import MAX_NETWORK, mode_of, read_regular

    named = bundle_path(named)
    if not (mode := mode_of(named)):
        raise InputError(f"There is no {named}: name a .tflite file or a bundle.")
    if stat.S_ISDIR(mode):
        bundle = Bundle.open(named)
        wanted = Form.MEDIAPIPE if target is Target.MEDIAPIPE else None
        variant = wanted if wanted and bundle.has(wanted) else bundle.best_tflite()
        return bundle.file(variant), bundle.read(variant)
    return named, read_regular(named, MAX_NETWORK)


def _installed() -> list[str]:
    """The installed runtimes that are targets."""
    from edgefer.runtimes import installed_runtimes

    return [name for name in installed_runtimes() if name in (Target.LITERT, Target.TFLITE_RUNTIME)]


def _runs(findings: "tuple[Finding, ...]") -> bool:
    return all(finding.severity != "error" for finding in findings)


def _each(findings: "tuple[Finding, ...]", target: Target, trials: "dict[str, Trial]") -> "list[Check]":
    """A check per finding of one target."""
    from edgefer.checks import Check, Status

    statuses = {"error": Status.FAIL, "warning": Status.WARN, "note": Status.PASS}
    rows = [
        Check(
            subject=one.rule, status=statuses[one.severity], detail=_where(one) + one.what, fix=one.next, group=target
        )
        for one in findings
    ]
    if _runs(findings):
        tried = target in trials and trials[target].runs
        detail = "it loads, allocates and runs here" if tried else "no problem was found in the file"
        rows.append(Check(subject="runs", status=Status.PASS, detail=detail, group=target))
    if target in (Target.LITERT, Target.TFLITE_RUNTIME) and target not in trials:
        detail = f"{target} is not installed here, so the file was not loaded with it"
        rows.append(Check(subject="load", status=Status.NOT_CHECKED, detail=detail, group=target))
    return rows


def _overview(findings: "dict[Target, tuple[Finding, ...]]", trials: "dict[str, Trial]") -> "list[Check]":
    """A check per target. One that would not run it is only a warning, as long as another would."""
    from edgefer.checks import Check, Status
    from edgefer.tflite.lint import TITLES

    nowhere = not any(_runs(found) for found in findings.values())
    rows = []
    for name, found in findings.items():
        counts = {severity: sum(one.severity == severity for one in found) for severity in ("error", "warning")}
        problems = ", ".join(counted(n, severity) for severity, n in counts.items() if n)
        status = Status.PASS if not problems else Status.FAIL if nowhere and counts["error"] else Status.WARN
        tried = " (loaded and run here)" if name in trials and trials[name].runs is not None else ""
        detail = ("would not run" if counts["error"] else "runs") + tried + (f": {problems}" if problems else "")
        lines = tuple(f"{one.severity} {one.rule}: {_where(one)}{one.what}; next: {one.next}" for one in found)
        rows.append(Check(subject=TITLES[name], status=status, detail=detail, examples=lines))
    return rows


def _verdict(findings: "dict[Target, tuple[Finding, ...]]") -> str:
    """On how many targets it would run, and on which not."""
    from edgefer.tflite.lint import TITLES

    without = ", ".join(TITLES[name] for name, found in findings.items() if not _runs(found))
    count = sum(map(_runs, findings.values()))
    return f"It would run on {count} of {len(findings)} targets{without and f', not on {without}'}."


def _where(finding: "Finding") -> str:
    """The location of a finding: its operator, counted from 1 as in export's messages, and its tensor."""
    parts = [] if finding.operator is None else [f"operator {finding.operator + 1}"]
    parts += [f"{finding.tensor:.60}"] if finding.tensor else []  # converters make names of any length
    return f"{' '.join(parts)}: " if parts else ""
