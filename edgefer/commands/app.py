"""How commands present themselves: an application whose help shows a type only where a value is to be given."""

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


def _flags_take_no_value(params: list[Any]) -> list[Any]:
    """Typer shows `<bool>` beside a flag, as though one had to be given."""
    for param in params:
        if getattr(param, "is_flag", False) and param.metavar is None:
            param.metavar = ""
    return params


class Command(TyperCommand):
    """A command of edgefer."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _flags_take_no_value(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands of edgefer."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _flags_take_no_value(super().get_params(ctx))


class App(typer.Typer):
    """A Typer application whose commands are of these classes."""

    def __init__(self, **options: Any):
        super().__init__(cls=Group, no_args_is_help=True, **options)

    def command(self, name: str | None = None, **options: Any) -> Any:
        return super().command(name, cls=Command, **options)


def without_passwords(text: str) -> str:
    """The sentence, where it names an address: one that was given in the place of a file may hold a password."""
    if ":/" not in text:
        return text
    from edgefer.devices.sources import urls

    return urls.without_passwords(text)
