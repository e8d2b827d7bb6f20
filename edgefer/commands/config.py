"""A long command line from a file: `--config run.toml` gives options by their names; what is typed goes before it."""

import tomllib
from pathlib import Path
from typing import Annotated

import typer

from edgefer.errors import InputError
from edgefer.files import MAX_CARD, read_regular
from edgefer.text import printable


def read_config(context: typer.Context, file: Path | None) -> Path | None:
    """Take the options of a TOML file as the command's defaults. InputError for a file or a name that is wrong."""
    if file is None or context.resilient_parsing:
        return file
    shown = printable(str(file))
    try:
        given = tomllib.loads(read_regular(file, MAX_CARD).decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f'{shown} is not TOML ({error}): write lines such as smooth = "calm".') from None
    options = {
        name.lstrip("-"): parameter
        for parameter in context.command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("--") and parameter.name not in ("config", "help")
    }
    defaults: dict[str, object] = {}
    for name, value in given.items():
        parameter = options.get(name.replace("_", "-"))
        if parameter is None or isinstance(value, dict):
            raise InputError(
                f"{shown} holds {printable(name)!r}, which is not an option of run: choose {', '.join(sorted(options))}."
            )
        many = getattr(parameter, "multiple", False)
        listed = value if isinstance(value, list) else [value]
        if not many and isinstance(value, list):
            raise InputError(f"{shown}: {name} takes one value, not a list.")
        defaults[str(parameter.name)] = [str(one) for one in listed] if many else value
    context.default_map = {**(context.default_map or {}), **defaults}
    return file


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
