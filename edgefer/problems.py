"""pydantic's errors in plain words."""

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

SHOULD_BE = {  # by pydantic's kind of error
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "float_type": "a number", "float_parsing": "a number",
    "bool_type": "true or false", "bool_parsing": "true or false",
    "string_type": "a text",
    "tuple_type": "a list", "list_type": "a list",
    "model_type": "a section with fields", "model_attributes_type": "a section with fields", "dict_type": "a section with fields",
    "missing": "longer", "too_long": "shorter",
}  # fmt: skip


def first_problem(error: "ValidationError", fields_of: "type[BaseModel] | None" = None) -> str:
    """The first problem of a pydantic error as `field.path: what is wrong (got value)`; no path if it is about the whole.
    fields_of: the model, of which a misspelt field is shown with those that there are."""
    problem = error.errors()[0]
    where, got = ".".join(map(str, problem["loc"])), problem["input"]
    what = _hint(problem["loc"], fields_of) if problem["type"] == "extra_forbidden" else in_words(problem)
    whole = isinstance(got, dict) or problem["type"] in ("extra_forbidden", "json_invalid")
    shown = "" if whole else f" (got {got!r:.80})"
    return (f"{where}: " if where else "") + what + shown


def in_words(problem: Mapping[str, Any]) -> str:
    """What one of pydantic's errors says, such as "it should be a whole number"."""
    if problem["type"] == "missing" and problem["loc"] and isinstance(problem["loc"][-1], str):
        return "it is missing"
    if problem["type"] in SHOULD_BE:
        return f"it should be {SHOULD_BE[problem['type']]}"
    said: str = problem["msg"]
    return said.replace("Value error, ", "").replace("Input should be ", "it should be ").replace("Input is ", "it is ")


def _hint(where: Sequence[int | str], model: "type[BaseModel] | None") -> str:
    for part in where[:-1]:
        model = _section(model, str(part))
    if model is None:
        return "there is no such field"
    near = difflib.get_close_matches(str(where[-1]), model.model_fields, 1)
    return f"there is no such field: {f'do you mean {near[0]}? There are' if near else 'choose'} {', '.join(model.model_fields)}"


def _section(model: "type[BaseModel] | None", name: str) -> "type[BaseModel] | None":
    """The model of a field, None if the field is none."""
    from pydantic import BaseModel

    if model is None or name not in model.model_fields:
        return None
    hint = model.model_fields[name].annotation
    kinds = [one for one in (hint, *get_args(hint)) if isinstance(one, type) and issubclass(one, BaseModel)]
    return kinds[0] if kinds else None
