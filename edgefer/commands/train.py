"""The command that trains a network."""

from pathlib import Path
from typing import TYPE_CHECKING

from edgefer.commands.grouped import grouped
from edgefer.commands.train_flags import DataFlags, RecipeFlags, RunFlags, TeacherFlags, train_request
from edgefer.errors import InputError

if TYPE_CHECKING:
    from edgefer.bundle import Bundle
    from edgefer.train.distribute import Place
    from edgefer.train.order import Order
    from edgefer.train.pipeline import Result


@grouped
def train(*, data: DataFlags, recipe: RecipeFlags, teachers: TeacherFlags, run: RunFlags) -> None:
    """Train a network by a recipe, and write it as a bundle.

    The data is checked before training starts; Ctrl-C keeps every finished epoch.

    - `edgefer train --data fer2013.csv`
    - `edgefer train --data builtin --recipe demo --epochs 3`
    - `edgefer train --resume`
    """
    from edgefer.api import face_detectors, train_faces
    from edgefer.console import PROGRESS
    from edgefer.train import distribute
    from edgefer.train.faces.recipe import is_face_recipe
    from edgefer.train.faces.start import is_face_run
    from edgefer.train.start import new_run, start

    place = distribute.place()
    _check_workers(place, run.out, data.folds)
    if run.resume:
        if (data, recipe, teachers) != (DataFlags(), RecipeFlags(), TeacherFlags()):
            raise InputError("A resumed run keeps its data and recipe: give --resume alone, or with --out DIR.")
        if run.out and is_face_run(run.out):
            _show_faces(train_faces(None, run.out, progress=PROGRESS))
            return
        folder, order = _resumed(run.out)
    else:
        request = train_request(data, recipe, teachers)
        if is_face_recipe(request.recipe):
            _show_faces(train_faces(request, run.out, run.yunet, progress=PROGRESS))
            return
        order = request.order()
        folder = new_run(run.out, order, place)
    result = start(
        order,
        folder,
        detectors=lambda order: face_detectors(order.recipe.faces, run.yunet),
        progress=PROGRESS,
        place=place,
    )
    _show(result, folder, place)


def _show_faces(bundle: "Bundle") -> None:
    from edgefer import console

    console.show(f"Bundle: {bundle.path}. Next: edgefer convert {bundle.path}")


def _check_workers(place: "Place", out: Path | None, folds: int) -> None:
    if place.workers > 1 and not out:
        raise InputError("Several workers train one network: name its folder for all of them with --out DIR.")
    if place.workers > 1 and folds:
        raise InputError("--folds trains on one machine: cross-validation is for few images. Leave TF_CONFIG out.")


def _resumed(out: Path | None) -> "tuple[Path, Order]":
    """The run to go on with, and its order."""
    from edgefer.train.order import Order
    from edgefer.train.run import RunFolder, unfinished_run

    run = RunFolder(out) if out else unfinished_run()
    if run.finished:
        raise InputError(f"{run.path} is a finished bundle: there is nothing to resume.")
    return run.path, Order.load(run)


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
            ("class", "images", "precision", "recall", "F1"),
            [(label, count, *(f"{figure:.3f}" for figure in figures)) for label, count, *figures in rows],
        )
        scores = result.scores[name]
        console.show(
            f"{name}: accuracy {scores.accuracy:.2%}  macro recall {scores.macro_recall:.3f}  macro F1 {scores.macro_f1:.3f}"
        )
        if missed := [label for label, count, _, recall, _ in rows if count and not recall]:
            console.show(
                f"Not one image of {', '.join(missed)} was recognised: train longer, on more of them, or with "
                "--set fit.balance=class-weights."
            )
    if crossed := result.crossed:
        low, high = crossed.interval
        console.show(
            f"Over {len(crossed.sizes)} folds: {crossed.mean:.1%} on average, standard deviation "
            f"{100 * crossed.standard_deviation:.1f} points; pooled {crossed.scores.accuracy:.1%}, 95% interval {low:.1%} to "
            f"{high:.1%}; with mirror images {crossed.both_views.accuracy:.1%}"
        )
    console.show(f"Bundle: {run} (plots in {run / 'report'}). Next: edgefer convert {run} --int8")
