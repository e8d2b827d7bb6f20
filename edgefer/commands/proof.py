"""The commands that prove a network: parity, lint."""

from pathlib import Path
from typing import Annotated

import typer

from edgefer.commands.inputs import BundleArgument, SkipBad, bundle_path, training_data, usual_split
from edgefer.errors import InputError


def parity(
    bundle: BundleArgument = None,
    data: Annotated[
        str, typer.Option(metavar="PATH", help="Labelled pictures: adds question 2, what conversion cost.")
    ] = "",
    split: Annotated[str, typer.Option(help="Which split of the data; valid, or train where none was held back.")] = "",
    runtime: Annotated[
        list[str] | None, typer.Option(help="litert, tflite-runtime or tensorflow; every installed one by default.")
    ] = None,
    max_drop: Annotated[float, typer.Option(help="Most points of accuracy conversion may cost.")] = 1.0,
    min_agreement: Annotated[float, typer.Option(help="Least share of equal decisions.")] = 0.97,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Instead of BUNDLE/report/parity.json.")
    ] = None,
    skip_bad: SkipBad = False,
) -> None:
    """Prove that the converted network is the same model.

    Exit code 1 when it is not.
    """
    import json

    from edgefer import console
    from edgefer.bundle import Bundle, write_file
    from edgefer.parity import Budget, Check, Comparison, ParityReport, judge, verify
    from edgefer.runtimes import installed_runtimes

    opened = Bundle.open(bundle_path(bundle))
    runtimes = runtime or installed_runtimes()
    checks: list[Check] = []
    for name in runtimes:
        found = verify(opened, runtime=name)
        checks += found if not checks else found[1:]  # question 1 is the same for every runtime
    comparisons: tuple[Comparison, ...] = ()
    if data:
        from edgefer.convert.prove import prove

        dataset = training_data(opened, data, skip_bad)
        split = split or usual_split(opened.card, dataset)
        comparisons = prove(opened, dataset, split, runtimes=runtimes, track=console.track)
        budget = Budget(max_drop=max_drop, min_agreement=min_agreement)
        checks += [judge(comparison, budget) for comparison in comparisons]
    report = ParityReport(checks=tuple(checks), comparisons=comparisons)
    console.show_table(
        f"Parity of {opened.path}",
        ("question", "about", "", "figures"),
        [
            (
                f"{c.question} {('pixels', 'decisions', 'answers')[c.question - 1]}",
                c.subject,
                "pass" if c.passed else "FAIL",
                c.detail,
            )
            for c in sorted(checks, key=lambda c: c.question)
        ],
    )
    if comparisons:
        console.show_table(
            f"What it gives, {split} split, {comparisons[0].reference_scores.count} pictures",
            ("network", "accuracy", "macro recall", "macro F1", "mean |dp|", "ms a picture"),
            [
                (name, f"{s.accuracy:.2%}", f"{s.macro_recall:.3f}", f"{s.macro_f1:.3f}", dp, ms)
                for name, s, dp, ms in _figures(comparisons)
            ],
        )
    file = json_file or opened.path / "report" / "parity.json"
    write_file(file, json.dumps(report.to_json(), indent=2).encode() + b"\n")
    if not data:
        console.say("Question 2, what conversion cost in accuracy, needs labelled pictures: --data PATH.")
    failed = [check for check in checks if not check.passed]
    console.show(
        f"{'FAIL' if failed else 'pass'}: {len(checks) - len(failed)} of {len(checks)} checks passed; report in {file}"
    )
    if failed:
        raise typer.Exit(1)


def _figures(comparisons):
    """Each network once, the references first: name, scores, mean |dp| against its reference, ms a picture."""
    first = comparisons[0]
    yield first.reference, first.reference_scores, "", ""
    for c in comparisons:
        yield c.candidate, c.candidate_scores, f"{c.mean_dp:.4f}", f"{c.ms:.2f}" if c.ms is not None else ""


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
    from edgefer.convert.flatbuffer import parameter_bytes, quantization, read_model
    from edgefer.convert.lint import TARGETS
    from edgefer.convert.lint import lint as find

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
