"""edgefer verify: is this still the same network?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefer.commands.inputs import BundleArgument, SkipBad, bundle_path, report_folder, training_data, usual_split
from edgefer.errors import InputError

if TYPE_CHECKING:
    from edgefer.bundle import Bundle


Runtimes = Annotated[
    list[str] | None, typer.Option("--runtime", help="litert, tflite-runtime or tensorflow; may be given again.")
]


def verify(
    bundle: BundleArgument = None,
    runtime: Runtimes = None,
    certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also: is this the bundle of that parity certificate (.json)?")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Prove that this machine runs what the host shipped.

    In seconds, with the bundle alone: neither data nor TensorFlow. On the runtime that `edgefer run` would take, or on
    those named. Exit code 1 when it does not.
    """
    from edgefer import console
    from edgefer.bundle import Bundle
    from edgefer.checks import report
    from edgefer.parity import check_bundle

    opened = Bundle.open(bundle_path(bundle))
    if certificate:
        _check_certificate(opened, certificate)
    checks = check_bundle(opened, runtime or ["auto"])
    if not as_json:
        console.show(f"Bundle {opened.hash}" + (f", as in {certificate}" if certificate else ""))
    report(str(opened.path), checks, as_json=as_json, bundle=opened.hash)


def parity(
    bundle: BundleArgument = None,
    data: Annotated[
        str, typer.Option(metavar="PATH", help="Labelled pictures: those it was trained on, or like them.")
    ] = "",
    split: Annotated[str, typer.Option(help="Which split of the data; valid, or train where none was held back.")] = "",
    runtime: Runtimes = None,
    max_drop: Annotated[
        float, typer.Option(min=0, max=100, metavar="POINTS", help="Most points of accuracy conversion may cost.")
    ] = 1.0,
    min_agreement: Annotated[
        float, typer.Option(min=0, max=1, metavar="SHARE", help="Least share of equal decisions.")
    ] = 0.97,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE", help="The certificate, parity.html and .json, with reference kernels too; minutes."
        ),
    ] = None,
    skip_bad: SkipBad = False,
) -> None:
    """Prove that the converted network is the same model.

    All three questions, on every installed runtime or those named. Exit code 1 when it is not.
    """
    import json

    from edgefer import checks as grammar
    from edgefer import console
    from edgefer.bundle import Bundle, write_file
    from edgefer.convert.certificate import COST_COLUMNS, WORTH_COLUMNS, Certificate, cost_row, worth_row
    from edgefer.convert.comparison import Budget, judge
    from edgefer.convert.prove import prove
    from edgefer.parity import check_bundle
    from edgefer.runtimes import installed_runtimes

    opened = Bundle.open(bundle_path(bundle))
    dataset = training_data(opened, data, skip_bad)
    split = split or usual_split(opened.card, dataset)
    runtimes = runtime or installed_runtimes()
    checks = check_bundle(opened, runtimes)
    proof = prove(opened, dataset, split, runtimes=runtimes, reference_kernels=report is not None, track=console.track)
    budget = Budget(max_drop=max_drop, min_agreement=min_agreement)
    checks += [judge(comparison, budget) for comparison in proof.cost]
    certificate = Certificate(
        bundle=opened,
        checks=tuple(checks),
        proof=proof,
        budget=budget,
        data=dataset.name,
        split=split,
        runtimes=tuple(runtimes),
    )
    grammar.show(f"Parity of {opened.path}", checks)
    networks = [proof.cost[0].reference, *(one.candidate for one in proof.cost)]
    console.show_table(f"What it gives, {split} split", WORTH_COLUMNS, [worth_row(one) for one in networks])
    console.show_table("What it cost", COST_COLUMNS, [cost_row(one) for one in proof.cost])
    page = _certificate_file(report) if report else report_folder(opened) / "parity.html"
    write_file(page.with_suffix(".json"), json.dumps(certificate.to_json(), indent=2).encode() + b"\n")
    if report:
        write_file(page, certificate.to_html().encode())
    console.show(f"Report: {page if report else page.with_suffix('.json')}")
    if not certificate.passed:
        raise typer.Exit(1)


def _certificate_file(report: Path) -> Path:
    """Where the certificate's page goes: the file that was named, or parity.html in the directory."""
    return report if report.suffix.lower() in (".html", ".htm") else report / "parity.html"


def _check_certificate(opened: "Bundle", file: Path) -> None:
    """BundleError unless the certificate is of this very bundle, and passed."""
    import json

    from edgefer.errors import BundleError

    try:
        told = json.loads(file.read_text())
        proven, passed = told["bundle"]["sha256"], told["passed"]
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{file} is no parity certificate: it is the .json that `edgefer parity --report` writes."
        ) from None
    if proven != opened.hash:
        raise BundleError(
            f"{file} is about another bundle ({proven:.12}…); {opened.path} is {opened.hash:.12}…: what runs here was not proven."
        )
    if not passed:
        raise BundleError(f"{file} is about this bundle, and says that it did not pass.")
