"""The configuration of a training, kept in its folder, so that it can be resumed and its data found again."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from edgefer.bundle import Bundle, Form, open_named
from edgefer.errors import InputError
from edgefer.files import MAX_JSON, read_regular, write_file
from edgefer.options import DEFAULT_VALID_FRACTION, as_record
from edgefer.problems import first_problem
from edgefer.text import printable
from edgefer.train.data.ferplus import NAME as FERPLUS
from edgefer.train.data.load import DataOptions
from edgefer.train.recipe_fields import Recipe
from edgefer.train.run import RunFolder

Parsed = TypeVar("Parsed")


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """What supervises a network beside the data's own labels; "" and () for nothing.

    labels: "ferplus" or a file of FER+ votes, in place of those labels. teachers: paths of bundles to distil from.
    soft_labels: an .npz of any network's probabilities. votes: FER+ votes that the data's labels are predicted from;
    auxiliary: bundles whose features help to. init_from: the bundle with the initial weights.
    """

    labels: str = ""
    teachers: tuple[str, ...] = ()
    soft_labels: str = ""
    votes: str = ""
    auxiliary: tuple[str, ...] = ()
    init_from: str = ""

    @classmethod
    def named(
        cls, *, labels: str = "", teachers: str = "", soft_labels: str = "", votes: str = "", init_from: str = ""
    ) -> "Supervision":
        """From the command line's texts: bundles by path or shipped name, teachers separated by commas.

        Every bundle is opened once, so that an invalid one is refused before any work. BundleError, InputError.
        """
        bundles = [bundle_for("read", name.strip(), "--teacher") for name in teachers.split(",") if name.strip()]
        # With votes, a teacher that was trained on votes is not a teacher: its features help to predict labels from them.
        auxiliary = tuple(str(one.path.absolute()) for one in bundles if votes and one.card.provenance.labels)
        paths = (str(one.path.absolute()) for one in bundles)
        if init_from:
            initial = open_named(Path(init_from))
            initial.file(Form.KERAS)  # raises where there is none
            init_from = str(initial.path.absolute())
        return cls(
            labels=labels if labels == FERPLUS else absolute_path(labels),
            teachers=tuple(path for path in paths if path not in auxiliary),
            soft_labels=absolute_path(soft_labels),
            votes=votes if votes == FERPLUS else absolute_path(votes),
            auxiliary=auxiliary,
            init_from=init_from,
        )

    @property
    def soft(self) -> bool:
        """Whether there are soft targets."""
        return bool(self.teachers or self.soft_labels or self.votes)

    def steps(self) -> tuple[str, ...]:
        """The card's description of the initial weights and of what was learned from."""
        names = [Path(path).name for path in (*self.teachers, *self.auxiliary, self.soft_labels) if path]
        names += ["FER+ votes"] if self.votes else []
        start = [f"begin with the weights of {Path(self.init_from).name}"] if self.init_from else []
        return (*start, f"train, learning from {', '.join(names)} too" if names else "train")


def absolute_path(path: str) -> str:
    """The absolute path, so that --resume or convert finds it from another folder; a name of nothing that exists stays
    as it is."""
    return str(Path(path).absolute()) if path and os.path.exists(path) else path


def bundle_for(task: str, name: str, option: str) -> Bundle:
    """The bundle that an option names, by its folder or as a shipped one. InputError if it is one of another task."""
    bundle = open_named(Path(name))
    if bundle.card.task != task:
        raise InputError(
            f"{option} {printable(name)!r} is a network of task {bundle.card.task!r}: name one of {task!r}."
        )
    return bundle


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training: recipe, data, supervision, and how the data is read and split (edgefer.train.data.load.DataOptions).

    also: the path of extra images for training only, also_share of each batch; "" for none. split_seed: by which the
    validation split is held out, None for the recipe's; the stages of a recipe may have other seeds, but hold out the
    same images.
    """

    recipe: Recipe
    data: str
    supervision: Supervision = Supervision()
    names: str = ""
    skip_bad: bool = False
    valid_fraction: float = DEFAULT_VALID_FRACTION
    group_by: str = ""
    folds: int = 0
    also: str = ""
    also_share: float = 0.5
    split_seed: int | None = None

    def __post_init__(self) -> None:
        supervision, model = self.supervision, self.recipe.model
        if model.freeze and not (supervision.init_from or model.weights or self.recipe.stages):
            raise InputError(
                f"The recipe {self.recipe.name} trains only the last layers and needs initial weights for the others: train a network "
                "with the same layers first, such as one of the recipe animals for pets-small, and name its bundle with --init-from BUNDLE."
            )
        if self.folds < 0 or self.folds == 1:
            raise InputError(f"--folds {self.folds}: name 2 or more, such as 5; 0 holds out one validation split.")
        if supervision.votes and (supervision.labels or self.folds):
            raise InputError("--votes teaches the CSV's own labels, in one training: leave --labels and --folds out.")

    @property
    def data_options(self) -> DataOptions:
        return DataOptions(
            labels=self.supervision.labels,
            names=self.names,
            skip_bad=self.skip_bad,
            valid_fraction=self.valid_fraction,
            seed=self.recipe.fit.seed if self.split_seed is None else self.split_seed,
            group_by=self.group_by,
            pooled=self.folds > 0,
        )

    def save(self, run: RunFolder) -> None:
        """Write it twice: without it no training can be resumed. With stages it is the plan, from which the
        configuration of each stage is made."""
        content = vars(self) | {"recipe": self.recipe.model_dump(mode="json")}
        supervision = asdict(content.pop("supervision"))
        text = json.dumps(content | supervision, indent=2).encode()
        for file in (run.plan, run.spare_plan) if self.recipe.stages else (run.config, run.spare_config):
            write_file(file, text)

    @classmethod
    def load(cls, run: RunFolder) -> "TrainConfig":
        """The configuration of a run, of the plan where it has stages, from the copy where the first is damaged.

        InputError where none can be read.
        """
        try:
            config = parse_first((run.plan, run.spare_plan, run.config, run.spare_config), cls._parse)
        except InputError as error:
            raise InputError(
                f"{run.config} cannot be read ({error}): give the command of this training again, with another --out."
            ) from None
        if config is None:
            raise InputError(f"There is no training to resume in {run.path}.")
        return config

    @classmethod
    def _parse(cls, content: dict) -> "TrainConfig":
        content["auxiliary"] = content.pop("witnesses", content.get("auxiliary", ()))  # its name in older runs
        own = {one.name: content.pop(one.name) for one in fields(Supervision) if one.name in content}
        recipe = Recipe.model_validate(content.pop("recipe"))
        return as_record(cls, content | {"recipe": recipe, "supervision": as_record(Supervision, own)})


def parse_first(files: Sequence[Path], parse: Callable[[Any], Parsed]) -> Parsed | None:
    """What `parse` makes of the first JSON file that it accepts, None where none exists. InputError with the first
    file's problem where none is accepted."""
    problem = ""
    for file in files:
        if not file.exists():
            continue
        try:
            return parse(json.loads(read_regular(file, MAX_JSON)))
        except (InputError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = first_problem(error) if isinstance(error, ValidationError) else str(error)
            problem = problem or reason.rstrip(".")
    if problem:
        raise InputError(problem)
    return None
