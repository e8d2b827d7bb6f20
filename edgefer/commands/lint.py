"""edgefer lint: what a target would refuse in a .tflite file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefer.commands.inputs import bundle_path
from edgefer.errors import InputError

if TYPE_CHECKING:
    pass


def lint(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A .tflite file, or a bundle: its int8 or float32 one.")
    ],
    target: Annotated[
        str, typer.Option(help="edgetpu, litert, tflite-runtime or mediapipe; all of them when left out.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Say what a target would refuse in a .tflite file.

    Also what it would slow down or get wrong. Exit code 1 when it would not run there; without --target, exit code 1 when it would run nowhere.
    """
    import json
    from collections import Counter
    from dataclasses import asdict

    from edgefer import console
    from edgefer.bundle import Bundle
    from edgefer.tflite.flatbuffer import parameter_bytes, quantization, read_model
    from edgefer.tflite.lint import TARGETS
    from edgefer.tflite.lint import lint as find

    if target and target not in TARGETS:
        raise InputError(f"There is no target {target!r}: choose {', '.join(TARGETS)}.")
    model = bundle_path(model)
    if not model.exists():
        raise InputError(f"There is no {model}: name a .tflite file or a bundle.")
    if model.is_dir():
        bundle = Bundle.open(model)
        model = bundle.file(bundle.best_tflite())
    network = read_model(model.read_bytes(), str(model))
    findings = {name: find(network, name) for name in ([target] if target else TARGETS)}
    counts = {name: Counter(finding.severity for finding in found) for name, found in findings.items()}
    if as_json:
        report = {
            "file": str(model),
            "bytes": network.size,
            "computes_in": quantization(network),
            "parameter_bytes": parameter_bytes(network),
            "targets": {
                name: {"runs": not counts[name]["error"], "findings": [asdict(finding) for finding in found]}
                for name, found in findings.items()
            },
        }
        print(json.dumps(report, indent=2))
    else:
        console.show(
            f"{model}: {quantization(network)}, {len(network.operators)} operators, "
            f"{parameter_bytes(network):,} bytes of parameters"
        )
        console.show_table(
            "",
            ("target", "", "errors", "warnings", "notes"),
            [
                (
                    TARGETS[name].title,
                    "FAIL" if count["error"] else "pass",
                    count["error"],
                    count["warning"],
                    count["note"],
                )
                for name, count in counts.items()
            ],
        )
        for name, found in findings.items():
            for finding in found:
                where = "" if finding.operator is None else f" operator {finding.operator}"
                where += f" {finding.tensor:.60}" if finding.tensor else ""  # converters make names of any length
                console.show(f"{name}: {finding.severity} {finding.rule}:{where}")
                console.show(f"    {finding.what}.\n    Next: {finding.next}.")
    if all(count["error"] for count in counts.values()):
        raise typer.Exit(1)
