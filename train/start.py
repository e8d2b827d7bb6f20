"""Trainings from names and paths, as `edgefer train` and edgefer.train start them."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgefer.bundle import Bundle, new_directory
from edgefer.errors import InputError, Interrupted
from edgefer.options import DEFAULT_RECIPE, DEFAULT_VALID_FRACTION, as_record
from edgefer.progress import SILENT, Progress
from edgefer.train.config import Supervision, TrainConfig, absolute_path
from edgefer.train.data.cache import cache_folder
from edgefer.train.distribute import SINGLE_WORKER, Worker
from edgefer.train.framing import Detect
from edgefer.train.pipeline import Result
from edgefer.train.pipeline import train as train_once
from edgefer.train.recipes import load_recipe
from edgefer.train.run import RunFolder
from edgefer.train.stages import train_in_stages

Detectors = Callable[[TrainConfig], Mapping[str, Detect]]  # whose crops are measured


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """The options of a training, as texts like those of the command line; "" and None where one is left out. In Python paths
    may also be a pathlib.Path, bundles a Bundle, `teacher` a list of them, and `names` and `set` a dict.

    data: a CSV, a folder of images by class, or "builtin". recipe: a name, or a .toml file. epochs, batch_size, seed:
    override the recipe's. set: "section.field=value" for any other field. labels: "ferplus" or a file of votes. names:
    "0=angry,1=happy", for labels that are numbers. group_by: a regular expression. valid_fraction: 0..1, held out where
    the data has no validation split. folds: cross-validate first. also: "PATH" or "PATH:SHARE" of extra images.
    teacher: bundles, separated by commas; soft_labels, votes, init_from: see Supervision.
    """

    data: str
    recipe: str = DEFAULT_RECIPE
    epochs: int | None = None
    batch_size: int | None = None
    seed: int | None = None
    set: tuple[str, ...] = ()
    labels: str = ""
    names: str = ""
    group_by: str = ""
    valid_fraction: float = DEFAULT_VALID_FRACTION
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
            raise InputError(f"--valid-fraction {self.valid_fraction!r} is not a share: give a number between 0 and 1.")

    @classmethod
    def of(cls, **options: Any) -> "TrainRequest":
        """The request of a Python program, which may give paths, bundles, lists and dicts. InputError for other types."""
        given = {name: _as_text(value) for name, value in options.items()}
        if isinstance(given.get("names"), Mapping):
            given["names"] = [f"{key}={value}" for key, value in given["names"].items()]
        if "set" in given:
            given["set"] = _as_changes(given["set"])
        for name in ("names", "teacher"):
            if isinstance(given.get(name), list | tuple):
                given[name] = ",".join(str(_as_text(one)) for one in given[name])
        return as_record(cls, given)

    @property
    def changes(self) -> tuple[str, ...]:
        """The overrides of the recipe, as `section.field=value`."""
        fields = {"fit.epochs": self.epochs, "fit.batch_size": self.batch_size, "fit.seed": self.seed}
        return (*(f"{field}={value}" for field, value in fields.items() if value is not None), *self.set)

    def config(self) -> TrainConfig:
        """The configuration, with its recipe loaded and every bundle opened once. RecipeError, BundleError, InputError."""
        also, also_share = parse_also(self.also)
        return TrainConfig(
            recipe=load_recipe(self.recipe, self.changes),
            data=absolute_path(self.data),
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


def _as_text(value: Any) -> Any:
    """A path or a bundle as text; anything else as it is."""
    value = value.path if isinstance(value, Bundle) else value
    return os.fsdecode(value) if isinstance(value, os.PathLike) else value


def _as_changes(given: Any) -> Any:
    """The `set` of a TrainRequest from a dict of fields or a single text, as users of Python may give it; others unchanged.

    >>> _as_changes({"optimizer.rate": 0.1, "augment.flip": True})
    ('optimizer.rate=0.1', 'augment.flip=true')
    """
    if isinstance(given, Mapping):
        return tuple(f"{field}={json.dumps(value, default=_as_text)}" for field, value in given.items())
    return (given,) if isinstance(given, str) else given


def parse_also(also: str) -> tuple[str, float]:
    """The absolute path and the share of each batch in "PATH:SHARE", 0.5 where there is none. InputError for an invalid
    share.

    >>> parse_also("/data/more:0.75")
    ('/data/more', 0.75)
    """
    path, _, number = also.rpartition(":")
    if not path or os.path.exists(also):
        return absolute_path(also), 0.5
    try:
        share = float(number)
    except ValueError:
        share = 0
    if not 0 < share < 1:
        raise InputError(f"--also {also}: the share of each batch must be between 0 and 1, as in {path}:0.75.")
    return absolute_path(path), share


def new_run(out: Path | None, config: TrainConfig, worker: Worker = SINGLE_WORKER) -> Path:
    """The folder of a new training: `out`, or runs/RECIPE-N. InputError where it is taken."""
    run = out or new_directory(Path("runs"), config.recipe.name)
    if run.exists() and worker.chief and not RunFolder(run).blank:
        done = "a finished bundle" if RunFolder(run).finished else "something (--resume continues a training)"
        raise InputError(f"{run} already holds {done}: choose another --out.")
    return run


def resumed(out: Path) -> tuple[Path, TrainConfig]:
    """The folder and configuration of a training to resume. InputError where it is finished."""
    run = RunFolder(out)
    if run.finished:
        raise InputError(f"{run.path} is a finished bundle: there is nothing to resume.")
    return run.path, TrainConfig.load(run)


def start(
    config: TrainConfig,
    run: Path,
    *,
    detectors: Detectors = lambda config: {},
    progress: Progress = SILENT,
    worker: Worker = SINGLE_WORKER,
) -> Result | None:
    """Train into the folder `run`, in stages where the recipe has them; see edgefer.train.pipeline.train.

    Interrupted, with the command to resume by, on Ctrl-C; every finished epoch is kept.
    """
    measured = detectors(config)
    if worker.count > 1:
        progress.log(f"Worker {worker.index} of {worker.count}, counted from 0; waiting for the others")
    train = train_in_stages if config.recipe.stages else train_once
    try:
        return train(config, run, progress=progress, detectors=measured, cache=cache_folder(), worker=worker)
    except KeyboardInterrupt:
        if RunFolder(run).finished:
            raise Interrupted(
                f"Stopped; {run} is a finished bundle, without the figures here: edgefer evaluate {run}."
            ) from None
        if not RunFolder(run).resumable:
            raise Interrupted("Stopped before training began: nothing is left of it.") from None
        raise Interrupted(
            f"Stopped; every finished epoch is kept. Continue with: edgefer train --resume --out {run}"
        ) from None
