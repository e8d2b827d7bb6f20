"""A recipe of several trainings, one after the other: each begins with an earlier one's weights and may learn from others.

The last stage is trained into the run's own folder and becomes its bundle; those before it are bundles under
training/stages/ in it. A finished stage is not trained again when the run is resumed.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgefer.errors import EdgeferError, InputError
from edgefer.files import without_empty_folders
from edgefer.progress import SILENT, Progress
from edgefer.train.data.ferplus import votes_file
from edgefer.train.distribute import SINGLE_WORKER, Worker
from edgefer.train.order import Order, Supervision
from edgefer.train.pipeline import Detect, Result, train
from edgefer.train.recipe_fields import SCRATCH, Stage
from edgefer.train.run import RunFolder


def train_in_stages(
    plan: Order,
    run: Path,
    *,
    progress: Progress = SILENT,
    detectors: Mapping[str, Detect] = {},
    cache: Path | None = None,
    worker: Worker = SINGLE_WORKER,
) -> Result:
    """Train every stage of the plan's recipe that is not finished yet, and return what the last one gave.

    plan: the order of the whole, its recipe with stages. The rest is as edgefer.train.pipeline.train takes it; only the last
    network's framing is measured. InputError for what has no meaning over several trainings.
    """
    recipe, folder = plan.recipe, RunFolder(run)
    if worker.count > 1:
        raise InputError(f"The recipe {recipe.name} has stages, which one machine trains: leave TF_CONFIG out.")
    if plan.supervision != Supervision() or plan.folds:
        raise InputError(
            f"The recipe {recipe.name} is {len(recipe.stages)} trainings, which name their own labels, teachers and weights to "
            "begin with: leave those options out, or train by a recipe without stages."
        )
    for votes in {votes for stage in recipe.stages for votes in (stage.labels, stage.votes) if votes}:
        votes_file(votes, plan.data)  # before hours of training: are they there?
    resumed = folder.resumable
    with without_empty_folders(run.absolute()):
        plan.save(folder)
        try:
            return _train_each(plan, run, progress=progress, detectors=detectors, cache=cache)
        except EdgeferError:
            if not resumed and not any(one.begun() or one.finished for one in (folder, *folder.stages())):
                folder.clear()
            raise


def _train_each(
    plan: Order, run: Path, *, progress: Progress, detectors: Mapping[str, Detect], cache: Path | None
) -> Result:
    recipe, folder = plan.recipe, RunFolder(run)
    folders: dict[str, Path] = {}
    result: Result | None = None
    for number, stage in enumerate(recipe.stages, 1):
        is_last = number == len(recipe.stages)
        path = run if is_last else folder.stage(stage.name)
        if not RunFolder(path).finished:
            progress.log(f"Stage {number} of {len(recipe.stages)}: {stage.name}")
            order = order_of(plan, stage, folders)
            result = train(order, path, progress=progress, detectors=detectors if is_last else {}, cache=cache)
        folders[stage.name] = path
    assert result is not None  # a finished run is refused before
    return result


def order_of(plan: Order, stage: Stage, folders: Mapping[str, Path]) -> Order:
    """The order of one stage's training, given the folders of the stages before it."""
    begin = stage.begin or next(reversed(dict(folders)), SCRATCH)
    labelled = {each.name for each in plan.recipe.stages if each.labels}
    # Beside votes, a teacher that learned from votes helps to translate them instead of answering itself.
    auxiliary = tuple(name for name in stage.teachers if stage.votes and name in labelled)
    teachers = tuple(name for name in stage.teachers if name not in auxiliary)
    supervision = Supervision(
        labels=stage.labels,
        votes=stage.votes,
        teachers=tuple(str(folders[name].absolute()) for name in teachers),
        auxiliary=tuple(str(folders[name].absolute()) for name in auxiliary),
        init_from="" if begin == SCRATCH else str(folders[begin].absolute()),
    )
    # A stage may have a seed of its own, but its teachers must not have been trained on what it holds out.
    return replace(plan, recipe=plan.recipe.of_stage(stage), supervision=supervision, split_seed=plan.data_options.seed)
