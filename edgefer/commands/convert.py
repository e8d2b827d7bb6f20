"""edgefer convert: a trained network as TFLite."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefer.commands.inputs import INPUT, OUTPUT, SkipBad, TrainedBundle, bundle_path
from edgefer.errors import EdgeferError

if TYPE_CHECKING:
    from edgefer.convert.pipeline import Converted
    from edgefer.convert.start import Outcome

FORMS, SMALLER = "Forms", "Smaller networks"


Int8 = Annotated[
    bool,
    typer.Option("--int8/--no-int8", help="Quantize to int8 in and out, beside float32.", rich_help_panel=FORMS),
]
Float16 = Annotated[
    bool, typer.Option("--float16", help="Also with float16 weights: half the bytes.", rich_help_panel=FORMS)
]
MediaPipe = Annotated[
    bool,
    typer.Option(
        "--mediapipe", help="Also the RGB form that MediaPipe's ImageClassifier takes.", rich_help_panel=FORMS
    ),
]
EdgeTpu = Annotated[
    bool,
    typer.Option(
        "--edgetpu",
        help="Compile the int8 network for a Coral Edge TPU too (x86-64 Linux).",
        rich_help_panel=FORMS,
    ),
]
Qat = Annotated[
    bool,
    typer.Option(
        "--qat", help="int8 by quantization-aware training, instead of calibration alone.", rich_help_panel=FORMS
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=100,
        metavar="POINTS",
        help="int8 by the cheapest way that loses no more accuracy against the trained network; exit code 1 if none does.",
        rich_help_panel=FORMS,
    ),
]
Prune = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        help="First set this share of the weights to zero: a smaller download.",
        show_default=False,
        rich_help_panel=SMALLER,
    ),
]
Slim = Annotated[
    float,
    typer.Option(
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
        help="Of each fine-tuning; when left out: --prune 4, --qat 3, --slim 8.",
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
        metavar="NAME", help="Whose network it is, for the card and the files' metadata.", rich_help_panel=OUTPUT
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


def convert(
    bundle: TrainedBundle = None,
    int8: Int8 = True,
    float16: Float16 = False,
    mediapipe: MediaPipe = False,
    edgetpu: EdgeTpu = False,
    qat: Qat = False,
    max_drop: MaxDrop = None,
    prune: Prune = 0.0,
    slim: Slim = 0.0,
    epochs: Epochs = None,
    data: Data = "",
    skip_bad: SkipBad = False,
    author: Author = "",
    license_: License = "",
    out: Out = None,
) -> None:
    """Convert a trained bundle to TFLite, int8 by default.

    Writes a new bundle beside the old one. Whatever is done to the network, it is compared with the one that was trained.
    Exit code 1 when it loses more than --max-drop.

    - `edgefer convert --int8`
    - `edgefer convert runs/small-1 --max-drop 0.5`
    - `edgefer convert runs/small-1 --prune 0.5 --qat --out runs/tiny`
    """
    from edgefer import console
    from edgefer.bundle import Bundle
    from edgefer.convert.start import ConvertRequest, start
    from edgefer.convert.work import Plan

    plan = Plan(
        int8=int8, float16=float16, mediapipe=mediapipe, author=author, license=license_, slimmed=slim, sparsity=prune,
        aware=qat, max_drop=max_drop, epochs=epochs or 0,
    )  # fmt: skip
    source = Bundle.open(bundle_path(bundle, or_shipped=False))
    outcome = start(
        ConvertRequest(bundle=source, plan=plan, data=data, skip_bad=skip_bad, out=out, edgetpu=edgetpu),
        console.PROGRESS,
    )
    if outcome.converted:
        _show(outcome.converted, done_before=len(source.card.provenance.steps))
    _show_compiled(outcome)
    made = outcome.bundle.path
    checked = f"edgefer verify {made} --data {data or 'PATH'}; edgefer run {made} --camera 0"
    console.show(f"Bundle: {made}. Next: {checked if outcome.converted else f'edgefer verify {made}'}")
    if outcome.complaint:
        raise EdgeferError(outcome.complaint)


def _show(converted: "Converted", done_before: int) -> None:
    """What was done, what every form is worth, and what rounding hurts most where nothing holds."""
    from edgefer import console

    card = converted.bundle.card
    for step in card.provenance.steps[done_before:]:
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
            "Layers that int8 moves most (root mean square, in steps of the layer's scale; rounding alone gives 0.29)",
            ("layer", "operator", "error"),
            [(layer.layer, layer.operator, f"{layer.error:.2f}") for layer in converted.quantized.layers[:5]],
        )


def _show_compiled(outcome: "Outcome") -> None:
    """The Edge TPU compiler's table, or what lint predicts where it compiled nothing."""
    from edgefer import console
    from edgefer.convert.edgetpu import predicted

    if outcome.not_compiled:
        console.show(f"Not compiled for the Edge TPU. {predicted(outcome.bundle)}")
    elif log := outcome.compiled:
        console.show_table(
            f"Edge TPU compiler {log.version}",
            ("operator", "count", "status"),
            [(one.operator, one.count, one.status) for one in log.outcomes],
        )
        console.show(log.summary)
