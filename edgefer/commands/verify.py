"""edgefer verify: whether this is still the same network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgefer.commands.grouped import grouped
from edgefer.commands.inputs import (
    INPUT,
    OUTPUT,
    RUNTIME,
    AsJson,
    BundleArgument,
    Names,
    SkipBad,
    bundle_path,
    report_folder,
    training_data,
    usual_split,
)
from edgefer.errors import BundleError, InputError
from edgefer.files import MAX_JSON, read_regular
from edgefer.options import MAX_DROP, MIN_AGREEMENT, RuntimeName

if TYPE_CHECKING:
    from edgefer.bundle import Bundle
    from edgefer.convert.certificate import Certificate


BUDGET = "Budget"


Runtimes = Annotated[
    list[RuntimeName] | None,
    typer.Option(
        "--runtime",
        metavar="|".join(RuntimeName),
        help="The runtime to test; auto: the first installed one, with --data all of them. May be given several times.",
        show_default=False,
        rich_help_panel=RUNTIME,
    ),
]
Data = Annotated[
    str,
    typer.Option(
        metavar="PATH",
        help="Labelled images, those it was trained on or similar ones: does it make the same decisions?",
        rich_help_panel=INPUT,
    ),
]
SplitOption = Annotated[
    str,
    typer.Option(
        metavar="SPLIT",
        help="The split of the data; by default valid, or train if there is no held-out one.",
        show_default=False,
        rich_help_panel=INPUT,
    ),
]
MaxDrop = Annotated[
    float,
    typer.Option(
        min=0,
        max=100,
        metavar="POINTS",
        help="The maximum accuracy that conversion may cost, in points.",
        rich_help_panel=BUDGET,
    ),
]
MinAgreement = Annotated[
    float,
    typer.Option(min=0, max=1, metavar="SHARE", help="The smallest share of equal decisions.", rich_help_panel=BUDGET),
]
Report = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR|FILE",
        help="Write the certificate, parity.html and .json, also with reference kernels, emulators and browsers; takes minutes.",
        rich_help_panel=OUTPUT,
    ),
]
CertificateFile = Annotated[
    Path | None,
    typer.Option(
        "--certificate",
        metavar="FILE",
        help="Also check that this is the bundle of that certificate (.json).",
        rich_help_panel=INPUT,
    ),
]


@dataclass(frozen=True, kw_only=True)
class VerifyFlags:
    """The options of the checks."""

    data: Data = ""
    names: Names = ""
    split: SplitOption = ""
    runtime: Runtimes = None
    max_drop: MaxDrop = MAX_DROP
    min_agreement: MinAgreement = MIN_AGREEMENT
    report: Report = None
    certificate: CertificateFile = None
    skip_bad: SkipBad = False
    as_json: AsJson = False


@grouped
def verify(bundle: BundleArgument = None, *, flags: VerifyFlags) -> None:
    """Prove that a bundle is still the same network.

    With the bundle alone, in seconds, without data or TensorFlow: does it have the same pixels, weights and answers on this
    machine as when it was made? With --data also, on every installed runtime: does it make the same decisions as the network
    it came from? Exit code 1 if not, 2 if nothing could be checked. A folder from `edgefer export`: are its files unchanged?

    - `edgefer verify`
    - `edgefer verify runs/small-1-int8 --data fer2013.csv --report out/`
    - `edgefer verify small-1-int8 --certificate out/parity.json`
    """
    from edgefer import console
    from edgefer.bundle import CARD, EXPORTED, Bundle
    from edgefer.commands.check_report import report as report_checks
    from edgefer.verification import verify_alone

    path = bundle_path(bundle)
    if (path / EXPORTED).is_file() and not (path / CARD).exists():
        _verify_export(path, flags)
        return
    opened = Bundle.open(path)
    if flags.certificate:
        _check_certificate(opened, flags.certificate)
    if flags.data or _about_images(flags):
        _verify_on_data(opened, flags)
        return
    proof = verify_alone(opened, [*map(str, flags.runtime or ())])
    if not flags.as_json:
        console.show(f"Bundle {opened.hash}" + (f", as in {flags.certificate}" if flags.certificate else ""))
        if (opened.path / "report").exists():
            console.show("Not covered by this hash, nor checked: the plots and tables in report/.")
        _show_machine(proof.runtimes)
    report_checks(str(opened.path), proof.checks, as_json=flags.as_json, **proof.facts())


def _about_images(flags: VerifyFlags) -> str:
    """The first given option that needs labelled images, "" for none."""
    options = {
        "--report": flags.report is not None,
        "--split": bool(flags.split),
        "--max-drop": flags.max_drop != MAX_DROP,
        "--min-agreement": flags.min_agreement != MIN_AGREEMENT,
        "--names": bool(flags.names),
        "--skip-bad": flags.skip_bad,
    }
    return next((option for option, given in options.items() if given), "")


def _show_machine(runtimes: Sequence[str]) -> None:
    from edgefer import __version__, console
    from edgefer.runtimes import machine

    console.show(f"On {', '.join(machine(runtimes).values())}, edgefer {__version__}")


def _verify_export(folder: Path, flags: VerifyFlags) -> None:
    """Check the files; nothing else can be checked here, since an export's targets test themselves."""
    from edgefer.commands.check_report import report as report_checks
    from edgefer.convert.exported import check_export

    if flags.data or flags.certificate or flags.runtime or _about_images(flags):
        raise InputError(f"{folder} is an export, of which only its files can be checked: name the bundle for more.")
    report_checks(str(folder), check_export(folder), as_json=flags.as_json)


@grouped
def parity(bundle: BundleArgument = None, *, flags: VerifyFlags) -> None:
    """The older name of `edgefer verify --data`; without --data, on the data recorded by the bundle's training."""
    from edgefer.bundle import Bundle

    opened = Bundle.open(bundle_path(bundle))
    if flags.certificate:
        _check_certificate(opened, flags.certificate)
    _verify_on_data(opened, flags)


def _verify_on_data(opened: "Bundle", flags: VerifyFlags) -> None:
    """All three questions, with the host's packages; the certificate is written to `report`, its JSON always."""
    import json

    from edgefer import __version__, console
    from edgefer.commands.check_report import report as report_checks
    from edgefer.commands.page_rules import device_of
    from edgefer.convert.certificate import certify
    from edgefer.convert.comparison import Budget
    from edgefer.files import check_writable, write_file
    from edgefer.runtimes import machine
    from edgefer.train.data.trained import remembered
    from edgefer.verification import certificate_page, check_certificate_replaceable

    if (option := _about_images(flags)) and not flags.data and remembered(opened) is None:
        raise InputError(
            f"{option} is about decisions on labelled images: name some, similar to those it was trained on, with --data PATH."
        )
    page = certificate_page(flags.report) if flags.report else report_folder(opened) / "parity.html"
    for file in (page, page.with_suffix(".json")):
        check_writable(file, "--report")
    if flags.report:
        check_certificate_replaceable(page, "--report")
    dataset = training_data(opened, flags.data, flags.skip_bad, flags.names)
    certificate = certify(
        opened,
        dataset,
        flags.split or usual_split(opened.card, dataset),
        runtimes=[*map(str, flags.runtime or ())],
        budget=Budget.of(flags.max_drop, flags.min_agreement),
        reference_kernels=flags.report is not None,
        device=device_of(opened.card) if flags.report else None,
        progress=console.PROGRESS,
    )
    figures = page.with_suffix(".json")
    write_file(figures, json.dumps(certificate.to_json(), indent=2).encode() + b"\n")
    if flags.report:
        write_file(page, certificate.to_html().encode())
    shown = page if flags.report else figures
    if not flags.as_json:
        _show_figures(certificate)
        _show_machine(certificate.runtimes)
        console.show(f"Report: {shown}")
    facts: dict[str, Any] = {
        "bundle": opened.hash, "edgefer": __version__, "machine": machine(certificate.runtimes),
        "report": str(shown), "certificate": str(figures),
    }  # fmt: skip
    report_checks(f"Parity of {opened.path}", certificate.checks, as_json=flags.as_json, **facts)


def _show_figures(certificate: "Certificate") -> None:
    from edgefer import console
    from edgefer.convert.certificate import COST_COLUMNS, WORTH_COLUMNS, cost_row, worth_row

    rows = [worth_row(one) for one in certificate.networks]
    console.show_table(f"Accuracy, {certificate.split} split", WORTH_COLUMNS, rows)
    console.show_table("What conversion cost", COST_COLUMNS, [cost_row(one) for one in certificate.proof.cost])


def _check_certificate(opened: "Bundle", file: Path) -> None:
    """BundleError unless the certificate is of this bundle, and passed."""
    import json

    try:
        content = json.loads(read_regular(file, MAX_JSON))
        proven, passed = content["bundle"]["sha256"], content["passed"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            f"{file} is not a parity certificate: name the .json that `edgefer verify --data --report` writes."
        ) from None
    if proven != opened.hash:
        raise BundleError(
            f"{file} is about another bundle ({proven!s:.12}…); {opened.path} is {opened.hash:.12}…: this bundle was not certified."
        )
    if passed is not True:
        raise BundleError(f"{file} is about this bundle, and says that it did not pass.")
