"""The command that trains a network."""

from pathlib import Path
from typing import TYPE_CHECKING

from edgefer.commands.grouped import grouped
from edgefer.commands.inputs import PairFlags
from edgefer.commands.train_flags import DataFlags, RecipeFlags, RunFlags, TeacherFlags, train_request
from edgefer.errors import InputError
from edgefer.options import DetectorFiles

if TYPE_CHECKING:
    from edgefer.train.distribute import Worker
    from edgefer.train.pipeline import Result


@grouped
def train(*, data: DataFlags, recipe: RecipeFlags, teachers: TeacherFlags, run: RunFlags, pair: PairFlags) -> None:
    """Train a network by a recipe, and write it as a bundle.

    The data is checked before training starts; Ctrl-C keeps every finished epoch.

    - `edgefer train --data fer2013.csv`
    - `edgefer train --data builtin --recipe demo --epochs 3`
    - `edgefer train --resume`
    """
    from edgefer import console
    from edgefer.api import start_training
    from edgefer.bundle import Bundle
    from edgefer.commands.bundle_json import bundle_json
    from edgefer.train import distribute

    worker = distribute.this_worker()
    _check_workers(worker, run.out, data.folds)
    if run.resume and (data, recipe, teachers) != (DataFlags(), RecipeFlags(), TeacherFlags()):
        raise InputError("A resumed run keeps its data and recipe: give --resume alone, or with --out DIR.")
    request = None if run.resume else train_request(data, recipe, teachers)
    files = DetectorFiles(yunet=run.yunet, **vars(pair))
    folder, result = start_training(request, run.out, files=files, worker=worker, progress=console.PROGRESS)
    if not worker.chief:
        say = console.log if run.as_json else console.show
        say(f"Worker {worker.index} is done; the chief writes the bundle {folder}.")
    elif run.as_json:
        console.show_json(bundle_json(Bundle.open(folder)) | {"skipped": list(result.skipped if result else ())})
    else:
        _show(result, folder)


def _check_workers(worker: "Worker", out: Path | None, folds: int) -> None:
    if worker.count > 1 and not out:
        raise InputError("Several workers train one network: name its folder for all of them with --out DIR.")
    if worker.count > 1 and folds:
        raise InputError("--folds trains on one machine: cross-validation is for few images. Leave TF_CONFIG out.")


def _show(result: "Result | None", run: Path) -> None:
    from edgefer import console
    from edgefer.train.data.trained import log_skipped

    if result is None:
        console.show(f"Bundle: {run}. Next: edgefer convert {run}, then `edgefer run` with --finder or --refiner.")
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
                f"No image of {', '.join(missed)} was recognised: train longer, on more of them, or with "
                "--set fit.balance=class-weights."
            )
    if crossed := result.cross_validation:
        low, high = crossed.interval
        console.show(
            f"Over {len(crossed.sizes)} folds: {crossed.mean:.1%} on average, standard deviation "
            f"{100 * crossed.standard_deviation:.1f} points; pooled {crossed.scores.accuracy:.1%}, 95% interval {low:.1%} to "
            f"{high:.1%}; with mirror images {crossed.both_views.accuracy:.1%}"
        )
    console.show(f"Bundle: {run} (plots in {run / 'report'}). Next: edgefer convert {run} --int8")
