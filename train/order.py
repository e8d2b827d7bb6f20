"""What a training is asked for, kept with it so that it can be resumed and its data found again."""

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from edgefer.bundle import Bundle, Form, path_or_shipped, shipped_networks, write_file
from edgefer.errors import InputError
from edgefer.options import as_record
from edgefer.text import printable
from edgefer.train.data.ferplus import NAME as FERPLUS
from edgefer.train.data.load import DataOptions
from edgefer.train.recipe_fields import Recipe
from edgefer.train.run import RunFolder, parse_first


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """What a network learns from beside the data's own labels; paths, "" and () for none.

    labels: "ferplus" or a file of FER+ votes, instead of those labels. teachers: bundles whose answers are learned too.
    soft_labels: an .npz of any network's answers. votes: FER+ votes, translated to the data's labels; auxiliary: bundles
    that help to translate them. init_from: a bundle whose weights it begins with.
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
        """From what a command line names, bundles also by the names of shipped ones, teachers separated by commas.

        Every bundle is opened once, so that a wrong one is refused before any work.
        """
        bundles = [_teacher(name.strip()) for name in teachers.split(",") if name.strip()]
        # Beside votes, a teacher that learned from votes helps to translate them instead of answering itself.
        auxiliary = tuple(str(one.path.absolute()) for one in bundles if votes and one.card.provenance.labels)
        paths = (str(one.path.absolute()) for one in bundles)
        if init_from:
            begin = _bundle(init_from)
            begin.file(Form.KERAS)  # a sentence where there is none
            init_from = str(begin.path.absolute())
        return cls(
            labels=labels if labels == FERPLUS else lasting(labels),
            teachers=tuple(path for path in paths if path not in auxiliary),
            soft_labels=lasting(soft_labels),
            votes=votes if votes == FERPLUS else lasting(votes),
            auxiliary=auxiliary,
            init_from=init_from,
        )

    @property
    def soft(self) -> bool:
        """Whether something gives soft labels."""
        return bool(self.teachers or self.soft_labels or self.votes)

    def steps(self) -> tuple[str, ...]:
        """What the card says of how the training began and what it learned from."""
        names = [Path(path).name for path in (*self.teachers, *self.auxiliary, self.soft_labels) if path]
        names += ["FER+ votes"] if self.votes else []
        start = [f"begin with the weights of {Path(self.init_from).name}"] if self.init_from else []
        return (*start, f"train, learning from {', '.join(names)} too" if names else "train")


def lasting(path: str) -> str:
    """An absolute path, so that a later --resume or convert from another folder finds it; a name stays a name."""
    return str(Path(path).absolute()) if path and os.path.exists(path) else path


def _bundle(name: str) -> Bundle:
    return Bundle.open(path_or_shipped(Path(name), shipped_networks()))


def _teacher(name: str) -> Bundle:
    bundle = _bundle(name)
    if bundle.card.task != "read":
        raise InputError(
            f"--teacher {printable(name)!r} is a network of task {bundle.card.task!r}: name one of 'read'."
        )
    return bundle


@dataclass(frozen=True, kw_only=True)
class Order:
    """A training: recipe, data, and how the data is read and divided (edgefer.train.data.load.DataOptions).

    also: where further images are that are only trained on, also_share of every batch; "" for none. split_seed: by which a
    validation split is held out, where that is not the recipe's: all stages of a recipe hold out the same images.
    """

    recipe: Recipe
    data: str
    supervision: Supervision = Supervision()
    names: str = ""
    skip_bad: bool = False
    valid_fraction: float = 0.2
    group_by: str = ""
    folds: int = 0
    also: str = ""
    also_share: float = 0.5
    split_seed: int | None = None

    def __post_init__(self) -> None:
        supervision = self.supervision
        if self.folds < 0 or self.folds == 1:
            raise InputError(f"--folds {self.folds}: name 2 or more, such as 5; 0 holds one validation split back.")
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
        """Write it twice: without it no training can go on. For a recipe with stages it is the plan, from which the stages'
        orders are made."""
        content = vars(self) | {"recipe": self.recipe.model_dump(mode="json")}
        supervision = asdict(content.pop("supervision"))
        text = json.dumps(content | supervision, indent=2).encode()
        for file in (run.plan, run.spare_plan) if self.recipe.stages else (run.order, run.spare_order):
            write_file(file, text)

    @classmethod
    def load(cls, run: RunFolder) -> "Order":
        """The order of a run: its plan where it has stages, else its order, from the copy where the first is damaged.
        InputError when none can be read."""
        try:
            order = parse_first((run.plan, run.spare_plan, run.order, run.spare_order), cls._parse)
        except InputError as error:
            raise InputError(
                f"{run.order} cannot be read ({error}): give the command of this training again, with another --out."
            ) from None
        if order is None:
            raise InputError(f"There is no training to resume in {run.path}.")
        return order

    @classmethod
    def _parse(cls, content: dict) -> "Order":
        content["auxiliary"] = content.pop("witnesses", content.get("auxiliary", ()))  # its name in older runs
        own = {one.name: content.pop(one.name) for one in fields(Supervision) if one.name in content}
        recipe = Recipe.model_validate(content.pop("recipe"))
        return as_record(cls, content | {"recipe": recipe, "supervision": as_record(Supervision, own)})
