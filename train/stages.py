"""A recipe of several trainings, one after the other: each begins with an earlier one's weights and may learn from others.

The last stage is trained into the run's own folder and becomes its bundle; those before it are bundles under
training/stages/ in it. A finished stage is not trained again when the run is resumed.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgefer.bundle import CARD
from edgefer.errors import InputError
from edgefer.train.data.ferplus import votes_file
from edgefer.train.pipeline import Order, Result, train
from edgefer.train.recipes import SCRATCH, Stage

PLAN = "stages.json"


def train_in_stages(plan: Order, run: Path, *, say: Callable[[str], None] = lambda text: None, **options) -> Result:
    """Train every stage of the plan's recipe that is not finished yet, and return what the last one gave.

    plan: the order of the whole, its recipe with stages. options: as `train` takes them; only the last network's
    framing is measured. InputError for what has no meaning over several trainings.
    """
    if plan.teachers or plan.witnesses or plan.soft_labels or plan.votes or plan.labels or plan.init_from or plan.folds:
        raise InputError(
            f"The recipe {plan.recipe.name} is {len(plan.recipe.stages)} trainings, which name their own labels, teachers and "
            "weights to begin with: leave those options out, or train by a recipe without stages."
        )
    stages = plan.recipe.stages
    for votes in {votes for stage in stages for votes in (stage.labels, stage.votes) if votes}:
        votes_file(votes, plan.data)  # before hours of training: are they there?
    plan.save(run, PLAN)
    folders: dict[str, Path] = {}
    for number, stage in enumerate(stages, 1):
        is_last = number == len(stages)
        folder = run if is_last else run / "training" / "stages" / stage.name
        if not (folder / CARD).exists():
            say(f"Stage {number} of {len(stages)}: {stage.name}")
            order = order_of(plan, stage, folders)
            result = train(order, folder, say=say, **options if is_last else options | {"detectors": {}})
        folders[stage.name] = folder
    assert result is not None  # stages are trained on one machine, and a finished run is refused by the command
    return result


def order_of(plan: Order, stage: Stage, folders: dict[str, Path]) -> Order:
    """The order of one stage's training, given the folders of the stages before it."""
    begin = stage.begin or next(reversed(folders), SCRATCH)
    labelled = {each.name for each in plan.recipe.stages if each.labels}
    # Beside votes, a teacher that learnt from votes helps to translate them instead of answering itself.
    witnesses = tuple(name for name in stage.teachers if stage.votes and name in labelled)
    teachers = tuple(name for name in stage.teachers if name not in witnesses)
    return replace(
        plan,
        recipe=plan.recipe.of_stage(stage),
        labels=stage.labels,
        votes=stage.votes,
        teachers=tuple(str(folders[name].absolute()) for name in teachers),
        witnesses=tuple(str(folders[name].absolute()) for name in witnesses),
        init_from="" if begin == SCRATCH else str(folders[begin].absolute()),
    )


def unfinished_plan(run: Path) -> Order | None:
    """The plan of the run's stages, where it has any."""
    return Order.load(run, PLAN) if (run / "training" / PLAN).is_file() else None
