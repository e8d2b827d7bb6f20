"""A training as people ask for it, by names and paths: `edgefer train` and edgefer.train start it alike."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgefer.bundle import new_directory
from edgefer.errors import EdgeferError, InputError
from edgefer.progress import SILENT, Progress
from edgefer.train.data.cache import cache_folder
from edgefer.train.distribute import SINGLE_WORKER, Worker
from edgefer.train.order import Order, Supervision, lasting
from edgefer.train.pipeline import Detect, Result
from edgefer.train.pipeline import train as train_once
from edgefer.train.recipes import load_recipe
from edgefer.train.run import RunFolder
from edgefer.train.stages import train_in_stages

Detectors = Callable[[Order], Mapping[str, Detect]]  # those for which the crop is measured


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What a training is asked for; "" and None where it is left out.

    data: a CSV, a folder of images by class, or "builtin". recipe: a name, or a .toml file. epochs, batch_size, seed:
    instead of the recipe's. set: "field=value" for any field of the recipe. labels: "ferplus" or a file of votes. names:
    "0=angry,1=happy", for labels that are numbers. group_by: a regular expression. valid_fraction: 0..1, held back where
    the data has no validation split. folds: cross-validate first. also: "DIR" or "DIR:SHARE". teacher: bundles, separated by commas; soft_labels,
    votes, init_from: see Supervision.
    """

    data: str
    recipe: str = "small"
    epochs: int | None = None
    batch_size: int | None = None
    seed: int | None = None
    set: tuple[str, ...] = ()
    labels: str = ""
    names: str = ""
    group_by: str = ""
    valid_fraction: float = 0.2
    folds: int = 0
    also: str = ""
    skip_bad: bool = False
    teacher: str = ""
    soft_labels: str = ""
    votes: str = ""
    init_from: str = ""

    def __post_init__(self) -> None:
        if not self.data:
            raise InputError("Name the data with --data: a fer2013.csv, a folder of images, or builtin.")
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{name} {value!r} is not a whole number from 1 up.")
        if not 0 < self.valid_fraction < 1:
            raise InputError(f"valid_fraction {self.valid_fraction!r} is not a share: give a number between 0 and 1.")

    @property
    def changes(self) -> tuple[str, ...]:
        """What is different from the recipe, as `section.field=value`."""
        fields = {"fit.epochs": self.epochs, "fit.batch_size": self.batch_size, "fit.seed": self.seed}
        return (*(f"{field}={value}" for field, value in fields.items() if value is not None), *self.set)

    def order(self) -> Order:
        """The order, with its recipe loaded and every bundle it names opened once. RecipeError, BundleError, InputError."""
        also, also_share = named_share(self.also)
        return Order(
            recipe=load_recipe(self.recipe, self.changes),
            data=lasting(self.data),
            supervision=Supervision.named(
                labels=self.labels,
                teachers=self.teacher,
                soft_labels=self.soft_labels,
                votes=self.votes,
                init_from=self.init_from,
            ),
            names=self.names,
            skip_bad=self.skip_bad,
            valid_fraction=self.valid_fraction,
            group_by=self.group_by,
            folds=self.folds,
            also=also,
            also_share=also_share,
        )


def named_share(also: str) -> tuple[str, float]:
    """`DIR:SHARE` as an absolute path and the share of each batch, half where none is named. InputError for no share."""
    path, _, number = also.rpartition(":")
    if not path or os.path.exists(also):
        return lasting(also), 0.5
    try:
        share = float(number)
    except ValueError:
        share = 0
    if not 0 < share < 1:
        raise InputError(f"--also {also}: the share of each batch must lie between 0 and 1, as in {path}:0.75.")
    return lasting(path), share


def new_run(out: Path | None, order: Order, worker: Worker = SINGLE_WORKER) -> Path:
    """Where a new training goes: `out`, or runs/RECIPE-N. InputError when something is there already."""
    run = out or new_directory(Path("runs"), order.recipe.name)
    if run.exists() and worker.chief and not RunFolder(run).blank:
        done = "a finished bundle" if RunFolder(run).finished else "something (--resume continues a training)"
        raise InputError(f"{run} already holds {done}: choose another --out.")
    return run


def resumed(out: Path) -> tuple[Path, Order]:
    """The training to resume, and its order. InputError when it is finished."""
    run = RunFolder(out)
    if run.finished:
        raise InputError(f"{run.path} is a finished bundle: there is nothing to resume.")
    return run.path, Order.load(run)


def start(
    order: Order,
    run: Path,
    *,
    detectors: Detectors = lambda order: {},
    progress: Progress = SILENT,
    worker: Worker = SINGLE_WORKER,
) -> Result | None:
    """Train as ordered into the folder `run`, in stages where the recipe has them; see edgefer.train.pipeline.train.

    EdgeferError, with the command that goes on, when it is interrupted by Ctrl-C; every finished epoch is kept.
    """
    measured = detectors(order)
    if worker.count > 1:
        progress.log(f"Worker {worker.index} of {worker.count}, counted from 0; waiting for the others")
    by_recipe = train_in_stages if order.recipe.stages else train_once
    try:
        return by_recipe(order, run, progress=progress, detectors=measured, cache=cache_folder(), worker=worker)
    except KeyboardInterrupt:
        if not RunFolder(run).resumable:
            raise EdgeferError("Stopped before training began: nothing is left of it.") from None
        raise EdgeferError(
            f"Stopped; every finished epoch is kept. Continue with: edgefer train --resume --out {run}"
        ) from None
