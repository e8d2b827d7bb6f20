"""The command that trains a network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefer.commands.inputs import GroupBy, Names, SkipBad
from edgefer.errors import EdgeferError, InputError

if TYPE_CHECKING:
    from edgefer.train.distribute import Place
    from edgefer.train.order import Order
    from edgefer.train.pipeline import Detect, Result

DEFAULT_RECIPE, DEFAULT_FRACTION = "small", 0.2


def train(
    data: Annotated[
        str, typer.Option(metavar="PATH", help="CSV (.csv, .gz, .zip, .tar.gz), folder of images, or 'builtin'.")
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
    votes: Annotated[
        str,
        typer.Option(metavar="ferplus|FILE", help="Learn from FER+ votes too, translated to FER2013's own labels."),
    ] = "",
    init_from: Annotated[
        str, typer.Option(metavar="BUNDLE", help="Begin with this network's weights, as far as they fit.")
    ] = "",
    recipe: Annotated[str, typer.Option(metavar="NAME", help="Built-in recipe, or a .toml file.")] = DEFAULT_RECIPE,
    epochs: Annotated[int, typer.Option(help="Instead of the recipe's.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Instead of the recipe's.")] = 0,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Any recipe field, e.g. optimizer.rate=0.05."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Instead of runs/RECIPE-N/.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the unfinished run under runs/, or the one at --out.")
    ] = False,
    valid_fraction: Annotated[
        float, typer.Option(help="Share held back where the data has no validation split.")
    ] = DEFAULT_FRACTION,
    names: Names = "",
    group_by: GroupBy = "",
    folds: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Cross-validate first: N networks, each measured on the Nth of the pictures it never saw. For small data.",
        ),
    ] = 0,
    yunet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YuNet's .onnx: measure its crop too, for run --detector yunet.")
    ] = None,
    skip_bad: SkipBad = False,
) -> None:
    """Train a network by a recipe, and end with a bundle."""
    from edgefer.console import PROGRESS
    from edgefer.train import distribute
    from edgefer.train.data.cache import cache_folder
    from edgefer.train.faces.recipe import FACE_ORDER, is_face_recipe
    from edgefer.train.order import Order, Supervision, lasting
    from edgefer.train.pipeline import train as run_training
    from edgefer.train.recipes import load_recipe
    from edgefer.train.run import RunFolder
    from edgefer.train.stages import train_in_stages

    place = distribute.place()
    _check_workers(place, out, folds)
    if is_face_recipe(recipe) or (resume and out and (out / FACE_ORDER).is_file()):
        _train_faces(
            recipe, data, init_from, yunet, out, resume, (*_overrides(epochs, batch_size, seed), *(set_ or ()))
        )
        return
    if resume:
        named = (data, labels, teacher, soft_labels, votes, init_from, epochs, batch_size, names, group_by, folds, set_)
        if any((*named, skip_bad, recipe != DEFAULT_RECIPE, valid_fraction != DEFAULT_FRACTION, seed is not None)):
            raise InputError("A resumed run keeps its data and recipe: give --resume alone, or with --out DIR.")
        run, order = _resumed(out)
    else:
        if not data:
            raise InputError("Name the data: --data fer2013.csv, a folder of images, or --data builtin.")
        order = Order(
            recipe=load_recipe(recipe, (*_overrides(epochs, batch_size, seed), *(set_ or ()))),
            data=lasting(data),
            supervision=Supervision.named(
                labels=labels, teachers=teacher, soft_labels=soft_labels, votes=votes, init_from=init_from
            ),
            names=names,
            skip_bad=skip_bad,
            valid_fraction=valid_fraction,
            group_by=group_by,
            folds=folds,
        )
        run = _new_run(out, order, place)
    detectors = _detectors(order, yunet)
    if place.workers > 1:
        PROGRESS.log(f"Worker {place.index} of {place.workers}, counted from 0; waiting for the others")
    PROGRESS.log(f"Training {order.recipe.name} on {order.data} into {run}")
    by_recipe = train_in_stages if order.recipe.stages else run_training
    try:
        result = by_recipe(order, run, progress=PROGRESS, detectors=detectors, cache=cache_folder(), place=place)
    except KeyboardInterrupt:
        if not RunFolder(run).resumable:
            raise EdgeferError("Stopped before training began: nothing is left of it.") from None
        raise EdgeferError(
            f"Stopped; every finished epoch is kept. Continue with: edgefer train --resume --out {run}"
        ) from None
    _show(result, run, place)


def _overrides(epochs: int, batch_size: int, seed: int | None) -> list[str]:
    fields = {"fit.epochs": epochs or None, "fit.batch_size": batch_size or None, "fit.seed": seed}
    return [f"{field}={value}" for field, value in fields.items() if value is not None]


def _train_faces(
    recipe: str, data: str, finder: str, yunet: Path | None, out: Path | None, resume: bool, overrides: tuple[str, ...]
) -> None:
    """Train a network that finds faces. finder: the bundle of the finder whose candidates a refiner learns from."""
    from edgefer.bundle import CARD, Bundle, new_directory, shipped_networks
    from edgefer.console import PROGRESS
    from edgefer.devices.faces.own import Miner
    from edgefer.devices.faces.yunet import cached_yunet
    from edgefer.train.data.cache import cache_folder
    from edgefer.train.faces.recipe import load_face_recipe
    from edgefer.train.faces.run import FaceOrder, train_faces

    if resume:
        if out is None:
            raise InputError("Name the training to go on with: --resume --out DIR.")
        if (out / CARD).exists():
            raise InputError(f"{out} is a finished bundle: there is nothing to resume.")
        run, order = out, FaceOrder.load(out)
    else:
        if not data or not Path(data).is_dir():
            raise InputError(f"--data {data!r}: name a folder that holds archives or folders of pictures.")
        teacher = yunet or cached_yunet()
        if not teacher.is_file():
            raise InputError(f"There is no {teacher}: the teacher is YuNet, whose .onnx is named with --yunet FILE.")
        loaded = load_face_recipe(recipe, overrides)
        run = out or new_directory(Path("runs"), loaded.name)
        if run.exists():
            raise InputError(f"{run} already holds something: choose another --out, or --resume --out {run}.")
        order = FaceOrder(recipe=loaded, data=str(Path(data).absolute()), teacher=str(teacher.absolute()))
    miner = None
    if order.recipe.task == "refine-faces":
        path = Path(finder) if finder else shipped_networks().get("face-finder")
        miner = Miner.of(Bundle.open(path)) if path else None
    PROGRESS.log(f"Training {order.recipe.name} on {order.data} into {run}")
    try:
        bundle = train_faces(order, run, cache_folder() / "faces", mine=miner, progress=PROGRESS)
    except KeyboardInterrupt:
        raise EdgeferError(f"Stopped. Continue with: edgefer train --resume --out {run}") from None
    PROGRESS.log(f"Bundle: {bundle.path}. Next: edgefer convert {bundle.path}")


def _check_workers(place: "Place", out: Path | None, folds: int) -> None:
    if place.workers > 1 and not out:
        raise InputError("Several workers train one network: name its folder for all of them with --out DIR.")
    if place.workers > 1 and folds:
        raise InputError("--folds trains on one machine: cross-validation is for few pictures. Leave TF_CONFIG out.")


def _resumed(out: Path | None) -> "tuple[Path, Order]":
    """The run to go on with, and its order."""
    from edgefer.train.order import Order
    from edgefer.train.run import RunFolder, unfinished_run

    run = RunFolder(out) if out else unfinished_run()
    if run.finished:
        raise InputError(f"{run.path} is a finished bundle: there is nothing to resume.")
    return run.path, Order.load(run)


def _new_run(out: Path | None, order: "Order", place: "Place") -> Path:
    from edgefer.bundle import new_directory
    from edgefer.train.run import RunFolder

    run = out or new_directory(Path("runs"), order.recipe.name)
    if run.exists() and place.chief:
        done = "a finished bundle" if RunFolder(run).finished else "something (--resume continues a training)"
        raise InputError(f"{run} already holds {done}: choose another --out.")
    return run


def _detectors(order: "Order", yunet: Path | None) -> "dict[str, Detect]":
    """What the crop is measured for."""
    from edgefer.devices.faces.detectors import HaarDetector
    from edgefer.devices.faces.own import OwnDetector
    from edgefer.devices.faces.yunet import YuNetDetector

    detectors: dict[str, Detect] = {}
    if order.recipe.faces != "frame":
        cascade = HaarDetector(faces=order.recipe.faces)
        detectors[cascade.name] = cascade.detect
    if order.recipe.faces == "human" and OwnDetector.is_shipped():
        detectors[OwnDetector.name] = OwnDetector.shipped().detect
    if yunet:
        detectors[YuNetDetector.name] = YuNetDetector(yunet).detect
    return detectors


def _show(result: "Result | None", run: Path, place: "Place") -> None:
    from edgefer import console
    from edgefer.train.data.trained import log_skipped

    if result is None:
        console.show(f"Worker {place.index} is done; the chief writes the bundle {run}.")
        return
    log_skipped(result.skipped, console.PROGRESS)
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
    if crossed := result.crossed:
        low, high = crossed.interval
        console.show(
            f"Over {len(crossed.sizes)} folds: {crossed.mean:.1%} on average, standard deviation "
            f"{100 * crossed.standard_deviation:.1f} points; pooled {crossed.scores.accuracy:.1%}, 95% interval {low:.1%} to "
            f"{high:.1%}; with mirror images {crossed.both_views.accuracy:.1%}"
        )
    console.show(f"Bundle: {run} (plots in {run / 'report'}). Next: edgefer convert {run} --int8")
