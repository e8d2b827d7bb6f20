"""edgefer convert: a trained network as TFLite."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefer.commands.inputs import INPUT, OUTPUT, SkipBad, TrainedBundle, bundle_path, made_from, training_data
from edgefer.errors import EdgeferError, InputError

if TYPE_CHECKING:
    from edgefer.bundle import Bundle
    from edgefer.convert.pipeline import Converted
    from edgefer.convert.work import Plan

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
    from edgefer.bundle import Bundle, Form
    from edgefer.convert.edgetpu import find_compiler
    from edgefer.convert.pipeline import convert as run_conversion
    from edgefer.convert.work import Plan
    from edgefer.files import check_writable

    plan = Plan(
        int8=int8, float16=float16, mediapipe=mediapipe, author=author, license=license_, slimmed=slim, sparsity=prune,
        aware=qat, max_drop=max_drop, epochs=epochs or 0,
    )  # fmt: skip
    if edgetpu and not int8:
        raise InputError("--edgetpu is about the int8 network: leave --no-int8 out.")
    source = Bundle.open(bundle_path(bundle, or_shipped=False))
    source.file(Form.KERAS)
    target = _target(source, plan.suffix, out)
    check_writable(target)
    if edgetpu:
        find_compiler()
    if source.card.task != "read":
        _convert_faces(source, data, plan, target)
        if failure := _compile(Bundle.open(target)) if edgetpu else None:
            raise EdgeferError(str(failure))
        return
    dataset = training_data(source, data, skip_bad)
    console.log(f"Converting {source.path} into {target}")
    try:
        converted = run_conversion(source, dataset, plan, target, console.PROGRESS)
    except KeyboardInterrupt:
        raise EdgeferError(
            f"Stopped; {source.path} is as it was, and finished epochs of fine-tuning are kept: the same command goes on."
        ) from None
    failure = _compile(converted.bundle) if edgetpu else None
    _show(converted, done_before=len(source.card.provenance.steps))
    console.show(
        f"Bundle: {target}. Next: edgefer verify {target} --data {data or 'PATH'}; edgefer run {target} --camera 0"
    )
    if failure or not converted.holds:
        raise EdgeferError(" ".join(filter(None, [converted.complaint, str(failure or "")])))


def _convert_faces(source: "Bundle", data: str, plan: "Plan", target: Path) -> None:
    """Convert a network that finds faces: float32 and int8, calibrated on what it was trained on."""
    from dataclasses import replace

    from edgefer import console
    from edgefer.convert.faces import convert_faces
    from edgefer.train.data.cache import cache_folder
    from edgefer.train.faces.run import FaceOrder, calibration_images

    if (
        plan.slimmed
        or plan.sparsity
        or plan.aware
        or plan.max_drop is not None
        or plan.float16
        or plan.mediapipe
        or not plan.int8
    ):
        raise InputError(
            f"{source.path} finds faces: it is converted to float32 and int8, with no other options than --edgetpu."
        )
    order = FaceOrder.load(source.path)
    if data:
        order = replace(order, data=str(Path(data).absolute()))
    console.log(f"Converting {source.path} into {target}")
    images = calibration_images(order, cache_folder() / "faces", console.PROGRESS)
    convert_faces(source, images, target, author=plan.author, license_=plan.license)
    console.show(f"Bundle: {target}. Next: edgefer verify {target}")


def _target(source: "Bundle", suffix: str, out: Path | None) -> Path:
    """Where the new bundle goes: as asked, or beside the old one under a name that is not taken."""
    from edgefer.bundle import new_directory

    target = out or made_from(source, suffix)
    if out is None and target.exists():
        return new_directory(target.parent, target.name)
    if target.exists():
        raise InputError(f"{target} is there already: choose another --out.")
    return target


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


def _compile(converted: "Bundle") -> EdgeferError | None:
    """Add the compiled network to the bundle and show the compiler's table; the error if it cannot."""
    from edgefer import console
    from edgefer.convert.edgetpu import add_compiled, predicted

    try:
        _, log = add_compiled(converted)
    except EdgeferError as error:
        console.show(f"Not compiled for the Edge TPU. {predicted(converted)}")
        return error
    console.show_table(
        f"Edge TPU compiler {log.version}",
        ("operator", "count", "status"),
        [(outcome.operator, outcome.count, outcome.status) for outcome in log.outcomes],
    )
    console.show(log.summary)
    return None
