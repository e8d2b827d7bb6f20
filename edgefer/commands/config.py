"""Options from a file, `--config run.toml`, by their names; the command line takes precedence."""

import difflib
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from edgefer.errors import InputError
from edgefer.files import MAX_CARD, read_regular
from edgefer.text import printable

OLDER_NAMES = {"detector-file": "yunet"}  # of options, which still work


def with_new_names(arguments: Sequence[str]) -> list[str]:
    """The arguments with each option by its present name."""
    given = [one.partition("=") for one in arguments]
    return [
        f"--{OLDER_NAMES[option[2:]]}{sign}{value}" if option.startswith("--") and option[2:] in OLDER_NAMES else whole
        for whole, (option, sign, value) in zip(arguments, given, strict=True)
    ]


def read_config(context: typer.Context, file: Path | None) -> Path | None:
    """Use the options in a TOML file as the command's defaults. InputError for an invalid file or name."""
    if file is None or context.resilient_parsing:
        return file
    shown = printable(str(file))
    try:
        given = tomllib.loads(read_regular(file, MAX_CARD).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f'{shown} is not TOML ({error}): write lines such as smooth = "calm".') from None
    options = {
        name.lstrip("-"): parameter
        for parameter in context.command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--") and parameter.name not in ("config", "help")
    }
    defaults: dict[str, object] = {}
    for name, value in given.items():
        option = name.replace("_", "-")
        option = OLDER_NAMES.get(option, option)
        parameter = options.get(option)
        if parameter is None and isinstance(value, dict):
            raise InputError(
                f"{shown} has a section [{printable(name)}]: write its options without the section's line."
            )
        if parameter is None:
            raise InputError(
                f"{shown} holds {printable(name)!r}, which is not an option of run: {_meant(option, options)}"
            )
        if parameter.name in defaults:
            raise InputError(f"{shown} gives {printable(name)} a second time, in another spelling: leave one out.")
        try:
            typed = _typed(value, flag=getattr(parameter, "is_flag", False), many=getattr(parameter, "multiple", False))
        except ValueError as error:
            raise InputError(f"{shown}: {name} {error}.") from None
        opposite = f"--{option}" in parameter.secondary_opts
        defaults[str(parameter.name)] = not typed if opposite else typed
    context.default_map = {**(context.default_map or {}), **defaults}
    return file


def _meant(option: str, options: Iterable[str]) -> str:
    near = difflib.get_close_matches(option, options, 1)
    return f"did you mean {near[0]}?" if near else f"choose {', '.join(sorted(options))}."


def typed_first(context: typer.Context) -> None:
    """Drop the file's sources if the command line names any, and its bundle if the command line names one: arguments and
    options alike. Otherwise a typed source would be read in addition."""
    from edgefer.commands.run_flags import sort_inputs

    params = context.params
    in_file = {name for name in ("bundle", "camera", "source") if _source_of(context, name) == "DEFAULT_MAP"}
    bundle, sources = sort_inputs(params["inputs"] or [], None)
    if sources or any(params[name] for name in {"camera", "source"} - in_file):
        params.update(dict.fromkeys(in_file & {"camera", "source"}))
    if bundle and "bundle" in in_file:
        params["bundle"] = None


def _source_of(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    return source.name if source else ""


def _typed(value: object, *, flag: bool, many: bool) -> bool | str | list[str]:
    """A TOML value as on the command line. flag, many: of its option. ValueError with the end of a message if invalid."""
    if flag:
        if not isinstance(value, bool):
            raise ValueError("takes true or false")
        return value
    values = value if many and isinstance(value, list) else [value]
    for one in values:
        if isinstance(one, dict | list | bool):
            kind = "a table" if isinstance(one, dict) else "a list" if isinstance(one, list) else str(one).lower()
            raise ValueError(f"takes {'texts or numbers' if many else 'one text or number'}, not {kind}")
        if one == "":
            raise ValueError("is given an empty text: give it a value, or leave it out")
    texts = [str(one) for one in values]
    return texts if many else texts[0]


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=read_config,
        help='Options from a TOML file, by their names: smooth = "calm". The command line takes precedence.',
        rich_help_panel="Runtime",
    ),
]
