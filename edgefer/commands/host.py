"""The commands of the training host: train and convert."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefer.commands.inputs import BundleArgument, SkipBad, bundle_path, list_skipped, training_data
from edgefer.errors import EdgeferError, InputError

if TYPE_CHECKING:
    from edgefer.bundle import Bundle


def train(
    data: Annotated[
        str, typer.Option(metavar="PATH", help="CSV (.csv, .gz, .zip), picture folder, or 'builtin'.")
    ] = "",
    labels: Annotated[
        str,
        typer.Option(
            metavar="ferplus|FILE", help="FER+ votes instead of FER2013's own labels: eight expressions, soft targets."
        ),
    ] = "",
    teacher: Annotated[
        str, typer.Option(metavar="BUNDLE[,BUNDLE]", help="Learn from these networks' answers too (distillation).")
    ] = "",
    soft_labels: Annotated[
        str, typer.Option(metavar="FILE", help="Learn from any network's answers: .npz of probabilities and labels.")
    ] = "",
    init_from: Annotated[
        str, typer.Option(metavar="BUNDLE", help="Begin with this network's weights, as far as they fit.")
    ] = "",
    recipe: Annotated[str, typer.Option(metavar="NAME", help="Built-in recipe, or a .toml file.")] = "fer-small",
    epochs: Annotated[int, typer.Option(help="Instead of the recipe's.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Instead of the recipe's.")] = 0,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Any recipe field, e.g. optimizer.rate=0.05."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Instead of runs/<recipe>-<n>/.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the newest unfinished run, or the one at --out.")
    ] = False,
    valid_fraction: Annotated[
        float, typer.Option(help="Share held back where the data has no validation split.")
    ] = 0.2,
    yunet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YuNet's .onnx: measure its crop too, for run --detector yunet.")
    ] = None,
    skip_bad: SkipBad = False,
) -> None:
    """Train a network by a recipe, and end with a bundle."""
    from edgefer import console
    from edgefer.bundle import CARD, new_directory
    from edgefer.devices.faces import HaarDetector
    from edgefer.devices.yunet import YuNetDetector
    from edgefer.train import distribute
    from edgefer.train.datasets import cache_folder
    from edgefer.train.pipeline import Order
    from edgefer.train.pipeline import train as run_training
    from edgefer.train.recipes import load_recipe

    place = distribute.place()
    if place.workers > 1 and not out:
        raise InputError("Several workers train one network: name its folder for all of them with --out DIR.")
    if resume:
        if data or labels or teacher or soft_labels or init_from or epochs or batch_size or seed is not None or set_:
            raise InputError("A resumed run keeps its data and recipe: give --resume alone, or with --out DIR.")
        run = out or _newest_unfinished()
        order = Order.load(run)
    else:
        if not data:
            raise InputError("Name the data: --data fer2013.csv, a folder of pictures, or --data builtin.")
        named = {"fit.epochs": epochs or None, "fit.batch_size": batch_size or None, "fit.seed": seed}
        overrides = [f"{field}={value}" for field, value in named.items() if value is not None]
        order = Order(
            recipe=load_recipe(recipe, (*overrides, *(set_ or ()))),
            data=_whole(data),
            labels=_whole(labels),
            teachers=tuple(_bundle(name.strip()) for name in teacher.split(",") if name.strip()),
            soft_labels=_whole(soft_labels),
            init_from=_bundle(init_from) if init_from else "",
            skip_bad=skip_bad,
            valid_fraction=valid_fraction,
        )
        run = out or new_directory(Path("runs"), order.recipe.name)
        if run.exists() and place.chief:
            done = "a finished bundle" if (run / CARD).exists() else "something (--resume continues a training)"
            raise InputError(f"{run} already holds {done}: choose another --out.")
    detectors = {HaarDetector.name: HaarDetector().detect}
    if yunet:
        detectors[YuNetDetector.name] = YuNetDetector(yunet).detect
    if place.workers > 1:
        console.say(f"Worker {place.index} of {place.workers}, counted from 0; waiting for the others")
    console.say(f"Training {order.recipe.name} on {order.data} into {run}")
    try:
        result = run_training(
            order,
            run,
            watcher=console.TrainingProgress(),
            track=console.track,
            detectors=detectors,
            cache=cache_folder(),
            place=place,
        )
    except KeyboardInterrupt:
        raise EdgeferError(
            f"Stopped; every finished epoch is kept. Continue with: edgefer train --resume --out {run}"
        ) from None
    if result is None:
        console.show(f"Worker {place.index} is done; the chief writes the bundle {run}.")
        return
    list_skipped(result.skipped)
    for name, rows in result.classes.items():
        console.show_table(
            f"{name} split",
            ("class", "pictures", "precision", "recall", "F1"),
            [(label, count, *(f"{figure:.3f}" for figure in figures)) for label, count, *figures in rows],
        )
        scores = result.scores[name]
        console.show(
            f"{name}: accuracy {scores.accuracy:.2%}  macro recall {scores.macro_recall:.3f}  macro F1 {scores.macro_f1:.3f}"
        )
    console.show(f"Bundle: {run} (plots in {run / 'report'}). Next: edgefer convert {run} --int8")


def _whole(path: str) -> str:
    """An absolute path, so that a later --resume or convert from another folder finds it; a name stays a name."""
    return str(Path(path).absolute()) if path and Path(path).exists() else path


def _bundle(name: str) -> str:
    """A bundle's absolute path, by path or shipped name, once it is known to open."""
    from edgefer.bundle import Bundle

    return str(Bundle.open(bundle_path(Path(name))).path.absolute())


def _newest_unfinished() -> Path:
    from edgefer.bundle import CARD

    orders = sorted(Path("runs").glob("*/training/order.json"), key=lambda file: file.stat().st_mtime)
    runs = [file.parent.parent for file in orders if not (file.parent.parent / CARD).exists()]
    if not runs:
        raise InputError("There is no unfinished training under runs/: name one with --out DIR.")
    return runs[-1]


def convert(
    bundle: BundleArgument = None,
    int8: Annotated[bool, typer.Option("--int8/--no-int8", help="Quantize to int8 in and out, beside float32.")] = True,
    prune: Annotated[
        float, typer.Option(metavar="SHARE", help="First set this share of the weights to zero, e.g. 0.5.")
    ] = 0.0,
    prune_epochs: Annotated[int, typer.Option(min=1, help="Epochs of fine-tuning while pruning.")] = 4,
    edgetpu: Annotated[
        bool, typer.Option("--edgetpu", help="Compile the int8 network for a Coral Edge TPU too (x86-64 Linux).")
    ] = False,
    data: Annotated[
        str, typer.Option(metavar="PATH", help="Calibration data; what it was trained on when left out.")
    ] = "",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Instead of <bundle>-int8.")] = None,
    skip_bad: SkipBad = False,
) -> None:
    """Convert a trained bundle to TFLite, int8 by default.

    Writes a new bundle beside the old one.
    """
    from edgefer import console
    from edgefer.bundle import Bundle, new_directory
    from edgefer.convert.pipeline import Plan
    from edgefer.convert.pipeline import convert as run_conversion

    if not 0 <= prune <= 0.95:
        raise InputError(f"--prune {prune:g}: the share of weights to remove must lie between 0 and 0.95.")
    if edgetpu and not int8:
        raise InputError("--edgetpu needs the int8 network: leave --no-int8 out.")
    source = Bundle.open(bundle_path(bundle, or_shipped=False))
    plan = Plan(int8=int8, sparsity=prune, prune_epochs=prune_epochs)
    target = out or source.path.with_name(f"{source.path.name}-{plan.suffix}")
    if out is None and target.exists():
        target = new_directory(target.parent, target.name)
    if target.exists():
        raise InputError(f"{target} is there already: choose another --out.")
    dataset = training_data(source, data, skip_bad)
    console.say(f"Converting {source.path} into {target}")
    converted = run_conversion(source, dataset, plan, target, console.TrainingProgress())
    trouble = _compile_for_edgetpu(converted) if edgetpu else None
    card = converted.card
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
    console.show(
        f"Bundle: {target}. Next: edgefer parity {target} --data {data or 'PATH'}; edgefer run {target} --camera 0"
    )
    if trouble:
        raise trouble


def _compile_for_edgetpu(converted: "Bundle") -> EdgeferError | None:
    """Add the compiled network to the bundle and show the compiler's table; what went wrong if it cannot."""
    from edgefer import console
    from edgefer.convert.edgetpu import add_compiled
    from edgefer.convert.flatbuffer import read_model
    from edgefer.convert.placement import place

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
