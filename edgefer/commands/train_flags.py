"""The options of `edgefer train`, as records."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgefer.commands.inputs import INPUT, OUTPUT, AsJson, GroupBy, Names, SkipBad
from edgefer.options import DEFAULT_RECIPE, DEFAULT_VALID_FRACTION

if TYPE_CHECKING:
    from edgefer.train.start import TrainRequest


RECIPE, TEACHERS = "Recipe", "Teachers"

Data = Annotated[
    str,
    typer.Option(
        metavar="PATH",
        help="CSV (.csv, .gz, .zip, .tar.gz), folder of images by class, or 'builtin'.",
        rich_help_panel=INPUT,
    ),
]
Labels = Annotated[
    str,
    typer.Option(
        metavar="ferplus|FILE",
        help="FER+ votes instead of FER2013's own labels: eight expressions, soft targets.",
        rich_help_panel=INPUT,
    ),
]
ValidFraction = Annotated[
    float,
    typer.Option(metavar="SHARE", help="Share held out if the data has no validation split.", rich_help_panel=INPUT),
]
Folds = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Cross-validate first: N networks, each measured on its held-out Nth of the images. For small data sets.",
        show_default=False,
        rich_help_panel=INPUT,
    ),
]
Also = Annotated[
    str,
    typer.Option(
        metavar="PATH[:SHARE]",
        help="More images of the same classes, for training only: SHARE of each batch (0.5).",
        rich_help_panel=INPUT,
    ),
]
RecipeOption = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE",
        help="Built-in recipe, or a .toml file; an unknown name lists them.",
        rich_help_panel=RECIPE,
    ),
]
Epochs = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Instead of the recipe's.", rich_help_panel=RECIPE)
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Instead of the recipe's.", rich_help_panel=RECIPE)
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Instead of the recipe's.", rich_help_panel=RECIPE)]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Any recipe field, such as optimizer.rate=0.05. May be given several times.",
        rich_help_panel=RECIPE,
    ),
]
InitFrom = Annotated[
    str,
    typer.Option(
        metavar="BUNDLE",
        help="Start from a trained bundle's weights, as far as they fit. Of the shipped ones, fer-nano, fer-small and "
        "ferplus-small have theirs.",
        rich_help_panel=RECIPE,
    ),
]
Teacher = Annotated[
    str,
    typer.Option(
        metavar="BUNDLE[,BUNDLE]",
        help="Learn from these networks' outputs too (distillation).",
        rich_help_panel=TEACHERS,
    ),
]
SoftLabels = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Learn from any network's outputs too: .npz of probabilities and labels.",
        rich_help_panel=TEACHERS,
    ),
]
Votes = Annotated[
    str,
    typer.Option(
        metavar="ferplus|FILE",
        help="Learn from FER+ votes too, translated to FER2013's own labels.",
        rich_help_panel=TEACHERS,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The new bundle; by default runs/RECIPE-N.", rich_help_panel=OUTPUT),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue the unfinished training under runs/, or the one at --out; if there are several, they are listed.",
        rich_help_panel=OUTPUT,
    ),
]
Yunet = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="YuNet's .onnx: measure its crop too, for run --detector yunet.",
        rich_help_panel=OUTPUT,
    ),
]


@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """The training data."""

    data: Data = ""
    labels: Labels = ""
    names: Names = ""
    group_by: GroupBy = ""
    valid_fraction: ValidFraction = DEFAULT_VALID_FRACTION
    folds: Folds = 0
    also: Also = ""
    skip_bad: SkipBad = False


@dataclass(frozen=True, kw_only=True)
class RecipeFlags:
    """The recipe, and changes to it."""

    recipe: RecipeOption = DEFAULT_RECIPE
    epochs: Epochs = None
    batch_size: BatchSize = None
    seed: Seed = None
    set_: Set = None
    init_from: InitFrom = ""


@dataclass(frozen=True, kw_only=True)
class TeacherFlags:
    """What is learned from besides the labels."""

    teacher: Teacher = ""
    soft_labels: SoftLabels = ""
    votes: Votes = ""


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """The training's folder, and whether it is resumed."""

    out: Out = None
    resume: Resume = False
    yunet: Yunet = None
    as_json: AsJson = False


def train_request(data: DataFlags, recipe: RecipeFlags, teachers: TeacherFlags) -> "TrainRequest":
    from edgefer.train.start import TrainRequest

    return TrainRequest(
        data=data.data, labels=data.labels, names=data.names, group_by=data.group_by, folds=data.folds, also=data.also,
        valid_fraction=data.valid_fraction, skip_bad=data.skip_bad, recipe=recipe.recipe, epochs=recipe.epochs,
        batch_size=recipe.batch_size, seed=recipe.seed, set=tuple(recipe.set_ or ()), init_from=recipe.init_from,
        teacher=teachers.teacher, soft_labels=teachers.soft_labels, votes=teachers.votes,
    )  # fmt: skip
