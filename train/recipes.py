"""Loads recipes: everything about a training but its data, as validated TOML whose every field can be overridden."""

import tomllib
from pathlib import Path

from pydantic import ValidationError

from edgefer.card import ModelCard
from edgefer.errors import RecipeError
from edgefer.files import MAX_CARD, mode_of, read_regular
from edgefer.problems import first_problem
from edgefer.train.recipe_fields import SCRATCH, Recipe, Stage, merge

BUILT_IN = Path(__file__).parent / "recipes"


def recipe_names() -> list[str]:
    """The recipes that come with edgefer."""
    return sorted(file.stem for file in BUILT_IN.glob("*.toml"))


def load_recipe(name_or_file: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """A built-in recipe by name, or any by its .toml file, with `section.field=value` overrides (values as in TOML).

    RecipeError names the invalid field.

    >>> load_recipe("demo", ("fit.epochs=3",)).fit.epochs
    3
    """
    fields = _fields(name_or_file, ())
    for override in overrides:
        for part in (fields, *(stage.setdefault("change", {}) for stage in fields.get("stages", ()))):
            set_field(part, override)
    return _validated(fields, name_or_file)


def _validated(fields: dict, name_or_file: str) -> Recipe:
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise RecipeError(f"Recipe {name_or_file}: {first_problem(error, Recipe)}.") from None


def _fields(name_or_file: str, opened: tuple[str, ...]) -> dict:
    """A recipe's fields, with those of its base, and with stages that name recipes replaced by those recipes' stages.

    opened: the recipes that refer to this one, to detect cycles.
    """
    file = Path(name_or_file) if name_or_file.endswith(".toml") else BUILT_IN / f"{name_or_file}.toml"
    if name_or_file in opened:
        raise RecipeError(f"The recipe {file} refers to itself: {' to '.join((*opened, name_or_file))}.")
    try:
        if not mode_of(file, error=RecipeError):
            known = ", ".join(recipe_names())
            raise RecipeError(f"There is no recipe {name_or_file!r}: choose {known}, or name a .toml file.")
        fields = tomllib.loads(read_regular(file, MAX_CARD, error=RecipeError).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError also for a number of 5,000 digits
        raise RecipeError(f"The recipe {file} cannot be read: {error}.") from None
    opened = (*opened, name_or_file)
    if "base" in fields:
        base = _fields(_text(fields.pop("base"), "base", file), opened)
        base.pop("stages", None)
        fields = merge(base, fields)
    stages = fields.get("stages", [])
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise RecipeError(f"The recipe {file} cannot be read: stages are [[stages]] sections.")
    if stages:
        fields["stages"] = [one for stage in stages for one in _expanded(stage, file, opened)]
    return fields


def _expanded(stage: dict, file: Path, opened: tuple[str, ...]) -> list[dict]:
    """The stage itself, or the stages of the recipe that it names: the last has the name of this one, the others
    <name>-<their name>."""
    if "begin" in stage:  # its name in older recipes
        stage = {"init_from": stage["begin"], **{key: value for key, value in stage.items() if key != "begin"}}
    if "recipe" not in stage:
        try:
            Stage.model_validate(stage)
        except ValidationError as error:
            raise RecipeError(f"The recipe {file} cannot be read: a stage's {first_problem(error, Stage)}.") from None
        return [stage]
    if set(stage) != {"name", "recipe"}:
        raise RecipeError(f"The recipe {file} cannot be read: a stage that is a recipe has a name and nothing else.")
    named = _text(stage["recipe"], "recipe", file)
    fields = _fields(named, opened)
    stages = fields.pop("stages", [{"name": "1"}])
    # With defaults, so that the outer recipe does not set what this one leaves out.
    own = _validated(fields, named).model_dump(mode="json", exclude={"stages"})
    last, names = stages[-1].get("name"), {"": "", SCRATCH: SCRATCH}
    expanded = []
    for number, part in enumerate(stages):
        name = part.get("name", "")
        names[name] = str(stage["name"] if name == last else f"{stage['name']}-{name}")
        changed = {
            "name": names[name],
            "init_from": names.get(part.get("init_from", "" if number else SCRATCH), ""),
            "teachers": [names.get(teacher, teacher) for teacher in part.get("teachers", ())],
            "change": merge(own, part.get("change", {})),
        }
        expanded.append(part | changed)
    return expanded


def _text(value: object, field: str, file: Path) -> str:
    if not isinstance(value, str):
        raise RecipeError(f"The recipe {file} cannot be read: {field} must name a recipe, not be {value!r}.")
    return value


def recipe_of(card: ModelCard) -> Recipe:
    """The recipe that a bundle was trained by. RecipeError where this version cannot read it."""
    try:
        return Recipe.model_validate(card.provenance.recipe)
    except ValidationError as error:
        raise RecipeError(f"The recipe in the card of {card.name} cannot be read: {first_problem(error)}.") from None


def set_field(fields: dict, override: str) -> None:
    """Set `section.field=value` in a recipe's fields; a value that is not TOML is a string. RecipeError for another
    form."""
    path, separator, value = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise RecipeError(f"Cannot set {override!r}: write section.field=value, such as optimizer.rate=0.05.")
    for key in keys[:-1]:
        fields = fields.setdefault(key, {})
        if not isinstance(fields, dict):
            raise RecipeError(f"Cannot set {override!r}: {key} is a value, not a section.")
    try:
        fields[keys[-1]] = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        fields[keys[-1]] = value.strip()
