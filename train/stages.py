"""Recipes with stages: several trainings in turn, each from an earlier one's weights, perhaps with others as teachers.

The last stage is trained in the run's own folder and becomes its bundle; the others are bundles in its
training/stages/. A resumed run skips finished stages.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgefer.errors import EdgeferError, InputError
from edgefer.files import without_empty_folders
from edgefer.progress import SILENT, Progress
from edgefer.train.config import Supervision, TrainConfig
from edgefer.train.data.ferplus import votes_file
from edgefer.train.distribute import SINGLE_WORKER, Worker
from edgefer.train.framing import Detect
from edgefer.train.pipeline import Result, train
from edgefer.train.recipe_fields import SCRATCH, Stage
from edgefer.train.run import RunFolder


def train_in_stages(
    plan: TrainConfig,
    run: Path,
    *,
    progress: Progress = SILENT,
    detectors: Mapping[str, Detect] = {},
    cache: Path | None = None,
    worker: Worker = SINGLE_WORKER,
) -> Result:
    """Train every unfinished stage of the plan's recipe, and return the result of the last one.

    The parameters are those of edgefer.train.pipeline.train; crops are measured for the last network only. InputError
    for options that do not apply to stages, DataError for votes that are missing.
    """
    recipe, folder = plan.recipe, RunFolder(run)
    if worker.count > 1:
        raise InputError(f"The recipe {recipe.name} has stages, which one machine trains: leave TF_CONFIG out.")
    if plan.supervision != Supervision() or plan.folds:
        raise InputError(
            f"The recipe {recipe.name} is {len(recipe.stages)} trainings, which name their own labels, teachers and initial "
            "weights: leave those options out, or train by a recipe without stages."
        )
    for votes in {votes for stage in recipe.stages for votes in (stage.labels, stage.votes) if votes}:
        votes_file(votes, plan.data)  # raises where they are missing, before hours of training
    resumed = folder.resumable
    with without_empty_folders(run.absolute()):
        plan.save(folder)
        try:
            return _train_stages(plan, run, progress=progress, detectors=detectors, cache=cache)
        except (EdgeferError, KeyboardInterrupt) as error:
            if not resumed and folder.holds_nothing_after(error):
                folder.clear()
            raise


def _train_stages(
    plan: TrainConfig, run: Path, *, progress: Progress, detectors: Mapping[str, Detect], cache: Path | None
) -> Result:
    recipe, folder = plan.recipe, RunFolder(run)
    folders: dict[str, Path] = {}
    result: Result | None = None
    for number, stage in enumerate(recipe.stages, 1):
        is_last = number == len(recipe.stages)
        path = run if is_last else folder.stage(stage.name)
        if not RunFolder(path).finished:
            progress.log(f"Stage {number} of {len(recipe.stages)}: {stage.name}")
            config = stage_config(plan, stage, folders)
            result = train(config, path, progress=progress, detectors=detectors if is_last else {}, cache=cache)
        folders[stage.name] = path
    assert result is not None  # the last stage is unfinished: a finished run is not resumed
    return result


def stage_config(plan: TrainConfig, stage: Stage, folders: Mapping[str, Path]) -> TrainConfig:
    """The configuration of one stage. folders: of the stages before it, by name."""
    init_from = stage.init_from or next(reversed(dict(folders)), SCRATCH)
    trained_on_votes = {each.name for each in plan.recipe.stages if each.labels}
    # As in Supervision.named: with votes, a teacher that was trained on votes is auxiliary.
    auxiliary = tuple(name for name in stage.teachers if stage.votes and name in trained_on_votes)
    teachers = tuple(name for name in stage.teachers if name not in auxiliary)
    supervision = Supervision(
        labels=stage.labels,
        votes=stage.votes,
        teachers=tuple(str(folders[name].absolute()) for name in teachers),
        auxiliary=tuple(str(folders[name].absolute()) for name in auxiliary),
        init_from="" if init_from == SCRATCH else str(folders[init_from].absolute()),
    )
    # Of the same split: teachers must not have been trained on what this stage holds out.
    return replace(plan, recipe=plan.recipe.of_stage(stage), supervision=supervision, split_seed=plan.data_options.seed)
