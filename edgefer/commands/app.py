"""The Typer application and its classes: help without redundant types, and messages without passwords."""

import contextlib
import os
import shlex
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from edgefer.commands.config import typed_first, with_new_names
from edgefer.errors import InputError, Interrupted

UsageError: Any = typer.BadParameter.__mro__[1]  # of typer's own click, or of click itself in older versions
RATE = "Use --set optimizer.rate=0.1"
# What other tools have as options, by command and option.
ELSEWHERE = {("train", "--lr"): RATE, ("train", "--learning-rate"): RATE, ("train", "--rate"): RATE}
GIVEN = "edgefer.given"  # in a context's meta: the original arguments

STOPPED = {
    "import": "Stopped; no bundle was written.",
    "evaluate": "Stopped; no report was written.",
    "verify": "Stopped; nothing was proven, and no certificate was written.",
}


def _plain_types(params: list[Any]) -> list[Any]:
    """Hide types in help: Typer shows `<bool>` beside a flag, and Python's types beside arguments with a metavar."""
    for param in params:
        if getattr(param, "is_flag", False) and param.metavar is None:
            param.metavar = ""
        if param.param_type_name == "argument":
            param.display_type_rich = _no_type
    return params


def _no_type(ctx: Any) -> None:
    """Shows no type for an argument in Typer's help, since its name says it."""


class Command(TyperCommand):
    """A command of edgefer. An empty value is rejected: as a path it would be the current folder."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = with_new_names(args)
        try:
            if not ctx.resilient_parsing:
                self._refuse_empty(ctx, args)
            rest = super().parse_args(ctx, args)
        except UsageError as error:
            if hint := ELSEWHERE.get((ctx.info_name, getattr(error, "option_name", ""))):
                error.message, error.possibilities = f"No such option: {error.option_name}. {hint}", []
            if "unexpected extra argument" in error.message and any("--data" in param.opts for param in self.params):
                error.message += ". Images to learn from or to measure on are given with --data PATH."
            raise
        if ctx.params.get("config"):
            typed_first(ctx)
        return rest

    def _refuse_empty(self, ctx: Any, args: Sequence[str]) -> None:
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        for param in self.get_params(ctx):
            value = given.get(param.name)
            if "" in (value if isinstance(value, list | tuple) else (value,)):
                name = param.opts[0] if param.param_type_name == "option" else param.metavar
                raise InputError(
                    f"{name} is given an empty text: give it a value{'' if param.required else ', or leave it out'}."
                )

    def invoke(self, ctx: Any) -> Any:
        for number in (signal.SIGTERM, signal.SIGHUP):  # from here on as Ctrl-C: unfinished files are removed
            if signal.getsignal(number) == signal.SIG_DFL:  # SIGHUP is ignored under nohup
                signal.signal(number, signal.default_int_handler)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # which Typer ends without a word
            raise Interrupted(STOPPED.get(ctx.command.name, "Stopped.")) from None

    def get_params(self, ctx: Any) -> list[Any]:
        return _plain_types(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands of edgefer. Its messages about wrong arguments hide passwords in them."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        given = tuple(args)  # parsing removes them
        with _without_secrets(given), self._hinting(given, f"edgefer {info_name}" if parent else "edgefer"):
            context = super().make_context(info_name, args, parent, **extra)
        context.meta.setdefault(GIVEN, given)
        return context

    @contextlib.contextmanager
    def _hinting(self, given: Sequence[str], group: str) -> Iterator[None]:
        """Say where an option belongs that is given before the command."""
        try:
            yield
        except UsageError as error:
            option, command = (
                getattr(error, "option_name", ""),
                next((one for one in given if one in self.commands), ""),
            )
            if option and command:
                error.message += f". Options come after the command: {group} {command} {option}"
            raise

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except UsageError as error:
            if ctx.parent is None and args and os.path.exists(args[0]):
                error.message += f" To read its faces: edgefer run {shlex.quote(args[0])}"
            raise

    def invoke(self, ctx: Any) -> Any:
        with _without_secrets(ctx.meta[GIVEN]):
            return super().invoke(ctx)

    def get_params(self, ctx: Any) -> list[Any]:
        return _plain_types(super().get_params(ctx))


class App(typer.Typer):
    """A Typer application that uses these classes for its commands."""

    def __init__(self, **options: Any):
        super().__init__(cls=Group, no_args_is_help=True, **options)

    def command(self, name: str | None = None, **options: Any) -> Any:
        return super().command(name, cls=Command, **options)


@contextlib.contextmanager
def _without_secrets(given: Sequence[str]) -> Iterator[None]:
    """Redact the arguments quoted in usage errors that are raised inside."""
    try:
        yield
    except UsageError as error:
        error.message = _quoted(error.message, given)
        raise


def _quoted(message: str, given: Sequence[str]) -> str:
    """The message with each argument in it, and each value after a `=`, redacted."""
    from edgefer.devices.sources import urls

    values = {part for one in given for part in (one, one.partition("=")[2]) if part}
    for value in sorted(values, key=len, reverse=True):
        shown = urls.shown_address(value)
        for written in (value, repr(value)[1:-1]):
            if shown != value and written in message:
                message = message.replace(written, shown)
    return message


def without_passwords(text: str) -> str:
    """The message with addresses redacted: one given in place of a file may hold a password."""
    if ":/" not in text:
        return text
    from edgefer.devices.sources import urls

    return urls.without_passwords(text)
