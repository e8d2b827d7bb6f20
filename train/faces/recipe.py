"""The recipes of face networks, whose only section is [fit]."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgefer.errors import InputError, RecipeError
from edgefer.files import MAX_CARD, read_regular
from edgefer.problems import first_problem
from edgefer.train.faces.fit import Schedule
from edgefer.train.recipe_fields import long_warmup, merge
from edgefer.train.recipes import set_field

FOLDER = Path(__file__).parent / "recipes"
CHECKPOINT_STEPS = 100  # between two checkpoints


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FaceFit(_Section):
    """Steps, batches and optimizer (AdamW)."""

    steps: int = Field(ge=1, le=1_000_000)
    batch_size: int = Field(ge=1, le=4096)
    rate: float = Field(gt=0, le=1)
    warmup: int = Field(ge=0)
    weight_decay: float = Field(ge=0, le=1)
    seed: int = Field(0, ge=0, lt=2**31)

    @property
    def warmup_note(self) -> str:
        """A sentence where the training ends before its warm-up does, else ""."""
        if self.warmup < self.steps:
            return ""
        return long_warmup(f"fit.warmup={self.warmup}", f"{self.steps} steps")

    def schedule(self) -> Schedule:
        """The learning-rate schedule, with the steps of checkpoints."""
        return Schedule(
            steps=self.steps, rate=self.rate, warmup=self.warmup, weight_decay=self.weight_decay, every=CHECKPOINT_STEPS
        )


class FaceRecipe(_Section):
    """A face training but for its data."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    task: Literal["find-faces", "refine-faces"]
    description: str = ""
    fit: FaceFit


def face_recipe_names() -> list[str]:
    """The face recipes that come with edgefer."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def is_face_recipe(name_or_file: str) -> bool:
    """Whether a recipe, by name or .toml file, is for a face network; an unreadable file is not."""
    if name_or_file in face_recipe_names():
        return True
    if not name_or_file.endswith(".toml"):
        return False
    try:
        fields = tomllib.loads(_read(Path(name_or_file)))
        return "task" in fields or fields.get("base") in face_recipe_names()
    except (InputError, ValueError, RecursionError):
        return False


def _read(file: Path) -> str:
    return read_regular(file, MAX_CARD, error=RecipeError).decode("utf-8-sig")


def load_face_recipe(name_or_file: str, overrides: tuple[str, ...] = ()) -> FaceRecipe:
    """A recipe by name or .toml file, with `fit.field=value` overrides; a file may name one that comes with edgefer as its
    base. RecipeError names the invalid field."""
    file = Path(name_or_file) if name_or_file.endswith(".toml") else FOLDER / f"{name_or_file}.toml"
    try:
        fields = tomllib.loads(_read(file))
        if (base := fields.get("base")) in face_recipe_names():
            del fields["base"]
            fields = merge(tomllib.loads(_read(FOLDER / f"{base}.toml")), fields)
        for override in overrides:
            field = override.partition("=")[0].strip()
            if field == "fit.epochs":
                raise RecipeError(
                    "A face training counts steps, not epochs: leave --epochs out, or --set fit.steps=3000."
                )
            if not field.startswith("fit."):
                raise RecipeError(f"Cannot set {override!r}: write fit.field=value, such as fit.steps=3000.")
            set_field(fields, override)
        return FaceRecipe.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(f"Recipe {name_or_file}: {first_problem(error, FaceRecipe)}.") from None
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"The recipe {file} cannot be read: {error}.") from None
