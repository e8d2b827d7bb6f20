"""edgefer convert: a trained network as TFLite."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefer.commands.inputs import BundleArgument, SkipBad, bundle_path, check_share, made_from, training_data
from edgefer.errors import EdgeferError, InputError

if TYPE_CHECKING:
    from edgefer.bundle import Bundle
    from edgefer.convert.search import Quantized


def convert(
    bundle: BundleArgument = None,
    int8: Annotated[bool, typer.Option("--int8/--no-int8", help="Quantize to int8 in and out, beside float32.")] = True,
    qat: Annotated[
        bool, typer.Option("--qat", help="int8 by quantization-aware training, instead of calibration alone.")
    ] = False,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0, max=100, metavar="POINTS", help="int8 by the cheapest way that loses no more accuracy on validation."
        ),
    ] = None,
    float16: Annotated[bool, typer.Option("--float16", help="Also with float16 weights: half the bytes.")] = False,
    prune: Annotated[
        float, typer.Option(metavar="SHARE", help="First set this share of the weights to zero: a smaller download.")
    ] = 0.0,
    slim: Annotated[
        float,
        typer.Option(metavar="SHARE", help="First remove filters with this share of the multiply-adds: faster."),
    ] = 0.0,
    epochs: Annotated[
        int, typer.Option(min=0, help="Of each fine-tuning; when left out: --prune 4, --qat 3, --slim 8.")
    ] = 0,
    mediapipe: Annotated[
        bool, typer.Option("--mediapipe", help="Also the RGB form that MediaPipe's ImageClassifier takes.")
    ] = False,
    edgetpu: Annotated[
        bool, typer.Option("--edgetpu", help="Compile the int8 network for a Coral Edge TPU too (x86-64 Linux).")
    ] = False,
    data: Annotated[
        str, typer.Option(metavar="PATH", help="Calibration data; what it was trained on when left out.")
    ] = "",
    author: Annotated[str, typer.Option(help="Whose network it is, for the card and the files' metadata.")] = "",
    license_: Annotated[str, typer.Option("--license", help="Its licence, likewise.")] = "",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Instead of <bundle>-int8.")] = None,
    skip_bad: SkipBad = False,
) -> None:
    """Convert a trained bundle to TFLite, int8 by default.

    Writes a new bundle beside the old one. With --max-drop, exit code 1 when no way to int8 holds; the best is kept.
    """
    from edgefer import console
    from edgefer.bundle import Bundle, new_directory
    from edgefer.convert.pipeline import Plan
    from edgefer.convert.pipeline import convert as run_conversion

    for option, share in (("--prune", prune), ("--slim", slim)):
        check_share(option, share)
    for option, needs_int8 in (("--edgetpu", edgetpu), ("--qat", qat), ("--max-drop", max_drop is not None)):
        if needs_int8 and not int8:
            raise InputError(f"{option} is about the int8 network: leave --no-int8 out.")
    if qat and max_drop is not None:
        raise InputError("--max-drop tries quantization-aware training by itself where it must: leave --qat out.")
    source = Bundle.open(bundle_path(bundle, or_shipped=False))
    plan = Plan(
        int8=int8,
        float16=float16,
        mediapipe=mediapipe,
        author=author,
        license=license_,
        slimmed=slim,
        sparsity=prune,
        aware=qat,
        max_drop=max_drop,
        epochs=epochs,
    )
    source.file("keras")
    target = out or made_from(source, plan.suffix)
    if out is None and target.exists():
        target = new_directory(target.parent, target.name)
    if target.exists():
        raise InputError(f"{target} is there already: choose another --out.")
    dataset = training_data(source, data, skip_bad)
    console.say(f"Converting {source.path} into {target}")
    try:
        converted = run_conversion(source, dataset, plan, target, console.TrainingProgress())
    except KeyboardInterrupt:
        raise EdgeferError(
            f"Stopped; {source.path} is as it was, and finished epochs of fine-tuning are kept: the same command goes on."
        ) from None
    trouble = _compile_for_edgetpu(converted.bundle) if edgetpu else None
    card = converted.bundle.card
    for step in card.provenance.steps[len(source.card.provenance.steps) :]:
        console.show(f"  {step}")
    for split, by_variant in card.metrics.items():
        console.show_table(
            f"{split} split, {next(iter(by_variant.values())).count} pictures",
            ("network", "accuracy", "macro recall", "macro F1", "bytes", "gzipped"),
            [
                (name, f"{s.accuracy:.2%}", f"{s.macro_recall:.3f}", f"{s.macro_f1:.3f}",
                 f"{card.variants[name].bytes:,}", f"{card.variants[name].gzip_bytes:,}")
                for name, s in by_variant.items()
            ],
        )  # fmt: skip
    if converted.quantized and not converted.quantized.holds:
        trouble = _no_way_holds(converted.quantized, target, max_drop)
    console.show(
        f"Bundle: {target}. Next: edgefer parity {target} --data {data or 'PATH'}; edgefer run {target} --camera 0"
    )
    if trouble:
        raise trouble


def _no_way_holds(quantized: "Quantized", target: Path, max_drop: float | None) -> EdgeferError:
    """Show the layers that quantization hurts most; what to say in the end."""
    from edgefer import console

    console.show_table(
        "Layers that int8 moves most (root mean square, in steps of the layer's scale; rounding alone gives 0.29)",
        ("layer", "operator", "error"),
        [(layer.layer, layer.operator, f"{layer.error:.2f}") for layer in quantized.layers[:5]],
    )
    return EdgeferError(
        f"No way to int8 stays within --max-drop {max_drop:g}: the best, {quantized.best}, is kept in {target}. "
        f"It is hurt most in {', '.join(layer.layer for layer in quantized.layers[:3])}; all layers are in "
        "report/quantization.json."
    )


def _compile_for_edgetpu(converted: "Bundle") -> EdgeferError | None:
    """Add the compiled network to the bundle and show the compiler's table; what went wrong if it cannot."""
    from edgefer import console
    from edgefer.convert.edgetpu import add_compiled
    from edgefer.tflite.flatbuffer import read_model
    from edgefer.tflite.placement import place

    try:
        _, log = add_compiled(converted)
    except EdgeferError as error:
        placements = place(read_model(converted.read("int8"), str(converted.file("int8"))).main)
        console.show(
            f"Not compiled for the Edge TPU. lint predicts that {sum(p.mapped for p in placements)} of "
            f"{len(placements)} operators would run on it: edgefer lint {converted.path} --target edgetpu"
        )
        return error
    console.show_table(
        f"Edge TPU compiler {log.version}",
        ("operator", "count", "status"),
        [(outcome.operator, outcome.count, outcome.status) for outcome in log.outcomes],
    )
    figures = (log.cached_bytes, log.cache_left_bytes, log.streamed_bytes)
    cached, left, streamed = ("?" if figure is None else f"{figure:,}" for figure in figures)
    console.show(
        f"{log.mapped} operators mapped to the Edge TPU, {log.on_cpu} on the CPU. Parameters: {cached} bytes cached on "
        f"the chip ({left} left), {streamed} fetched anew for every picture."
    )
    return None
