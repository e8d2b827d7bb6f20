"""The command that trains a network."""

from pathlib import Path
from typing import Annotated

import typer

from edgefer.commands.inputs import GroupBy, SkipBad, bundle_path, list_skipped
from edgefer.errors import EdgeferError, InputError

DEFAULT_RECIPE, DEFAULT_FRACTION = "small", 0.2


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
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Instead of runs/<recipe>-<n>/.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the newest unfinished run, or the one at --out.")
    ] = False,
    valid_fraction: Annotated[
        float, typer.Option(help="Share held back where the data has no validation split.")
    ] = DEFAULT_FRACTION,
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
    from edgefer import console
    from edgefer.bundle import CARD, Bundle, new_directory
    from edgefer.devices.faces.detectors import HaarDetector
    from edgefer.devices.faces.yunet import YuNetDetector
    from edgefer.train import distribute
    from edgefer.train.data.dataset import cache_folder
    from edgefer.train.data.ferplus import NAME as FERPLUS
    from edgefer.train.pipeline import Order
    from edgefer.train.pipeline import train as run_training
    from edgefer.train.recipes import load_recipe
    from edgefer.train.stages import train_in_stages, unfinished_plan

    place = distribute.place()
    if place.workers > 1 and not out:
        raise InputError("Several workers train one network: name its folder for all of them with --out DIR.")
    if place.workers > 1 and folds:
        raise InputError("--folds trains on one machine: cross-validation is for few pictures. Leave TF_CONFIG out.")
    if resume:
        named = (data, labels, teacher, soft_labels, votes, init_from, epochs, batch_size, group_by, folds, set_)
        if any((*named, skip_bad, recipe != DEFAULT_RECIPE, valid_fraction != DEFAULT_FRACTION, seed is not None)):
            raise InputError("A resumed run keeps its data and recipe: give --resume alone, or with --out DIR.")
        run = out or _newest_unfinished()
        if (run / CARD).exists():
            raise InputError(f"{run} is a finished bundle: there is nothing to resume.")
        order = unfinished_plan(run) or Order.load(run)
    else:
        if not data:
            raise InputError("Name the data: --data fer2013.csv, a folder of pictures, or --data builtin.")
        if folds < 0 or folds == 1:
            raise InputError(f"--folds {folds}: name 2 or more, such as 5; 0 holds one validation split back.")
        if votes and (labels or folds):
            raise InputError("--votes teaches the CSV's own labels, in one training: leave --labels and --folds out.")
        teachers = [_bundle(name.strip()) for name in teacher.split(",") if name.strip()]
        # Beside votes, a teacher that learnt from votes helps to translate them instead of answering itself.
        witnesses = tuple(path for path in teachers if votes and Bundle.open(path).card.provenance.labels)
        fields = {"fit.epochs": epochs or None, "fit.batch_size": batch_size or None, "fit.seed": seed}
        overrides = [f"{field}={value}" for field, value in fields.items() if value is not None]
        order = Order(
            recipe=load_recipe(recipe, (*overrides, *(set_ or ()))),
            data=_whole(data),
            labels=labels if labels == FERPLUS else _whole(labels),
            teachers=tuple(path for path in teachers if path not in witnesses),
            soft_labels=_whole(soft_labels),
            votes=votes if votes == FERPLUS else _whole(votes),
            witnesses=witnesses,
            init_from=_bundle(init_from, needs="keras") if init_from else "",
            skip_bad=skip_bad,
            valid_fraction=valid_fraction,
            group_by=group_by,
            folds=folds,
        )
        run = out or new_directory(Path("runs"), order.recipe.name)
        if run.exists() and place.chief:
            done = "a finished bundle" if (run / CARD).exists() else "something (--resume continues a training)"
            raise InputError(f"{run} already holds {done}: choose another --out.")
    detectors = {}
    if order.recipe.faces != "frame":
        cascade = HaarDetector(faces=order.recipe.faces)
        detectors[cascade.name] = cascade.detect
    if yunet:
        detectors[YuNetDetector.name] = YuNetDetector(yunet).detect
    if place.workers > 1:
        console.say(f"Worker {place.index} of {place.workers}, counted from 0; waiting for the others")
    console.say(f"Training {order.recipe.name} on {order.data} into {run}")
    if order.recipe.stages and place.workers > 1:
        raise InputError(f"The recipe {order.recipe.name} has stages, which one machine trains: leave TF_CONFIG out.")
    by_recipe = train_in_stages if order.recipe.stages else run_training
    try:
        result = by_recipe(
            order,
            run,
            watcher=console.TrainingProgress(),
            track=console.track,
            detectors=detectors,
            cache=cache_folder(),
            say=console.say,
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
    if crossed := result.crossed:
        low, high = crossed.interval
        console.show(
            f"Over {len(crossed.sizes)} folds: {crossed.mean:.1%} on average, standard deviation "
            f"{100 * crossed.standard_deviation:.1f} points; pooled {crossed.scores.accuracy:.1%}, 95% interval {low:.1%} to "
            f"{high:.1%}; with mirror images {crossed.both_views.accuracy:.1%}"
        )
    console.show(f"Bundle: {run} (plots in {run / 'report'}). Next: edgefer convert {run} --int8")


def _whole(path: str) -> str:
    """An absolute path, so that a later --resume or convert from another folder finds it; a name stays a name."""
    return str(Path(path).absolute()) if path and Path(path).exists() else path


def _bundle(name: str, needs: str = "") -> str:
    """A bundle's absolute path, by path or shipped name, once it is known to open and to hold what it needs."""
    from edgefer.bundle import Bundle

    bundle = Bundle.open(bundle_path(Path(name)))
    if needs:
        bundle.file(needs)
    return str(bundle.path.absolute())


def _newest_unfinished() -> Path:
    from edgefer.bundle import CARD
    from edgefer.train.stages import PLAN

    found = (file for name in ("order.json", PLAN) for file in Path("runs").glob(f"*/training/{name}"))
    orders = sorted(found, key=lambda file: file.stat().st_mtime)
    runs = [file.parent.parent for file in orders if not (file.parent.parent / CARD).exists()]
    if not runs:
        raise InputError("There is no unfinished training under runs/: name one with --out DIR.")
    return runs[-1]
