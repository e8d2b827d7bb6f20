"""edgefer convert: a trained network as TFLite."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefer.commands.grouped import grouped
from edgefer.commands.inputs import (
    INPUT,
    OUTPUT,
    AsJson,
    Names,
    SkipBad,
    TrainedBundle,
    data_words,
    trained_bundle_path,
)
from edgefer.errors import EdgeferError
from edgefer.options import MAX_REMOVED

if TYPE_CHECKING:
    from edgefer.convert.extras import Added
    from edgefer.convert.pipeline import Converted
    from edgefer.convert.start import Outcome

FORMS, SMALLER = "Forms", "Smaller networks"


Int8 = Annotated[
    bool,
    typer.Option(
        "--int8/--no-int8",
        help="Quantize to int8, input and output included, in addition to float32.",
        rich_help_panel=FORMS,
    ),
]
Float16 = Annotated[
    bool, typer.Option("--float16", help="Also with float16 weights: half the bytes.", rich_help_panel=FORMS)
]
MediaPipe = Annotated[
    bool,
    typer.Option("--mediapipe", help="Also the RGB form for MediaPipe's ImageClassifier.", rich_help_panel=FORMS),
]
EdgeTpu = Annotated[
    bool,
    typer.Option(
        "--edgetpu",
        help="Also compile the int8 network for a Coral Edge TPU (x86-64 Linux).",
        rich_help_panel=FORMS,
    ),
]
EthosU = Annotated[
    str,
    typer.Option(
        metavar="u55-128|...",
        help="Also compile the int8 network for this Arm Ethos-U, with its report (pip install ethos-u-vela).",
        rich_help_panel=FORMS,
    ),
]
Onnx = Annotated[
    bool,
    typer.Option(
        "--onnx",
        help="Also the int8 network as ONNX, proven on ONNX Runtime (pip install 'edgefer[onnx]').",
        rich_help_panel=FORMS,
    ),
]
Qat = Annotated[
    bool,
    typer.Option(
        "--qat", help="int8 by quantization-aware training, instead of only calibration.", rich_help_panel=FORMS
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=100,
        metavar="POINTS",
        help="The maximum accuracy that int8 may lose against the trained network: the cheapest method that satisfies it is used; exit code 1 if none does.",
        rich_help_panel=FORMS,
    ),
]
Prune = Annotated[
    float,
    typer.Option(
        min=0,
        max=MAX_REMOVED,
        metavar="SHARE",
        help="First set this share of the weights to zero: a smaller download.",
        show_default=False,
        rich_help_panel=SMALLER,
    ),
]
Slim = Annotated[
    float,
    typer.Option(
        min=0,
        max=MAX_REMOVED,
        metavar="SHARE",
        help="First remove filters with this share of the multiply-adds: faster.",
        show_default=False,
        rich_help_panel=SMALLER,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Epochs of each fine-tuning; by default --prune 4, --qat 3, --slim 8.",
        rich_help_panel=SMALLER,
    ),
]
Data = Annotated[
    str,
    typer.Option(metavar="PATH", help="Calibration data; what it was trained on when left out.", rich_help_panel=INPUT),
]
Author = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Author of the network, for the card and the files' metadata.", rich_help_panel=OUTPUT
    ),
]
License = Annotated[
    str, typer.Option("--license", metavar="NAME", help="Its licence, likewise.", rich_help_panel=OUTPUT)
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="The new bundle; by default BUNDLE-int8, -float32 and so on.", rich_help_panel=OUTPUT
    ),
]


@dataclass(frozen=True, kw_only=True)
class FormFlags:
    """The forms of the network to make."""

    int8: Int8 = True
    float16: Float16 = False
    mediapipe: MediaPipe = False
    edgetpu: EdgeTpu = False
    ethosu: EthosU = ""
    onnx: Onnx = False
    qat: Qat = False
    max_drop: MaxDrop = None


@dataclass(frozen=True, kw_only=True)
class SmallerFlags:
    """What is removed from the network first."""

    prune: Prune = 0.0
    slim: Slim = 0.0
    epochs: Epochs = None


@dataclass(frozen=True, kw_only=True)
class WrittenFlags:
    """Fields of the card, the new bundle's path, and the output format."""

    author: Author = ""
    license_: License = ""
    out: Out = None
    as_json: AsJson = False


@grouped
def convert(
    bundle: TrainedBundle = None,
    *,
    forms: FormFlags,
    smaller: SmallerFlags,
    data: Data = "",
    names: Names = "",
    skip_bad: SkipBad = False,
    written: WrittenFlags,
) -> None:
    """Convert a trained bundle to TFLite, int8 by default.

    Writes a new bundle beside the old one. The result is always compared with the trained network. Exit code 1 if it loses
    more than --max-drop.

    - `edgefer convert --int8`
    - `edgefer convert runs/small-1 --max-drop 0.5`
    - `edgefer convert runs/small-1 --prune 0.5 --qat --out runs/tiny`
    """
    from edgefer import console
    from edgefer.bundle import Bundle
    from edgefer.checks import to_json
    from edgefer.commands.bundle_json import bundle_json
    from edgefer.convert.extras import Extras
    from edgefer.convert.start import ConvertRequest, start
    from edgefer.convert.work import Plan

    plan = Plan(
        int8=forms.int8, float16=forms.float16, mediapipe=forms.mediapipe, qat=forms.qat, max_drop=forms.max_drop,
        author=written.author, license=written.license_,
        slim=smaller.slim, prune=smaller.prune, epochs=smaller.epochs or 0,
    )  # fmt: skip
    source = Bundle.open(trained_bundle_path(bundle))
    extras = Extras(edgetpu=forms.edgetpu, ethosu=forms.ethosu, onnx=forms.onnx)
    request = ConvertRequest(
        bundle=source, plan=plan, data=data, names=names, skip_bad=skip_bad, out=written.out, extras=extras
    )
    outcome = start(request, console.PROGRESS)
    done = outcome.bundle.card.provenance.everything[len(source.card.provenance.steps) :]
    if written.as_json:
        shown = to_json(outcome.checks, **bundle_json(outcome.bundle), steps=list(done))
        if outcome.converted:
            shown["decisions"] = [check.to_json() for check in outcome.converted.decisions]
        console.show_json(shown | {"passed": not outcome.complaint})  # without a compiler nothing may have been checked
    else:
        _show(outcome, done)
    if outcome.complaint:
        raise EdgeferError(outcome.complaint)


def _show(outcome: "Outcome", done: Sequence[str]) -> None:
    from edgefer import console

    if outcome.converted:
        _show_converted(outcome.converted, done)
    for added in outcome.added:
        _show_added(added)
    if outcome.converted and outcome.converted.holds and outcome.converted.warning:
        console.show(outcome.converted.warning)
    path = outcome.bundle.path
    console.show(f"Bundle: {path}. Next: {_next(outcome, shlex.quote(str(path)))}")


def _next(outcome: "Outcome", path: str) -> str:
    if outcome.converted is None:
        named = "finder" if outcome.bundle.card.task == "find-faces" else "refiner"
        return f"edgefer verify {path}; edgefer run --{named} {path} --camera 0"
    data = data_words(outcome.data, outcome.names, outcome.skip_bad)
    allowed = outcome.converted.max_drop
    budget = "" if allowed is None else f" --max-drop {allowed:g}"
    return f"edgefer verify {path} --data {data}{budget}; edgefer run {path} --camera 0"


def _show_converted(converted: "Converted", done: Sequence[str]) -> None:
    """Show what was done, every form's figures, and the layers with the largest rounding errors if nothing holds."""
    from edgefer import console

    card = converted.bundle.card
    for step in done:
        console.show(f"  {step}")
    for split, by_form in card.metrics.items():
        rows = []
        for form, s in by_form.items():
            sizes = [f"{card.variants[form].bytes:,}", f"{card.variants[form].gzip_bytes:,}"]
            rows.append((form, f"{s.accuracy:.2%}", f"{s.macro_recall:.3f}", f"{s.macro_f1:.3f}", *sizes))
        count = next(iter(by_form.values())).count
        columns = ("network", "accuracy", "macro recall", "macro F1", "bytes", "gzipped")
        console.show_table(f"{split} split, {count} images", columns, rows)
    if converted.quantized and converted.quantized.layers:
        console.show_table(
            "Layers with the largest int8 errors (root mean square, in steps of the layer's scale; rounding alone gives 0.29)",
            ("layer", "operator", "error"),
            [(layer.layer, layer.operator, f"{layer.error:.2f}") for layer in converted.quantized.layers[:5]],
        )


def _show_added(added: "Added") -> None:
    from edgefer import console

    if added.rows:
        console.show_table(added.title, added.columns, added.rows)
    if added.note:
        console.show(added.note)
