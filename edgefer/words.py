"""Rewrites options in messages, `--max-drop 1`, as keyword arguments, `max_drop=1`, for callers of the Python API."""

import re
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, get_origin

from edgefer.errors import EdgeferError, InputError
from edgefer.options import CHOICES, Color, Outputs, as_flag
from edgefer.progress import Progress
from edgefer.text import printable

P = ParamSpec("P")
T = TypeVar("T")
# A command for the shell is left unchanged: in backticks, or up to the end of its clause.
COMMAND = r"`[^`]*`|\b(?:edgefer|pip) [a-z]+(?:(?![.,;:)] |[.;)]?$).)*"
VALUE = r"[^\s,;:()]*[=./][^\s;:()]*\w|'[^']*'|-?\d+\b|[A-Z][A-Z_]+\b"
# Options whose values are ordinary words, which are not values elsewhere in a sentence.
WORDS: dict[str, tuple[str, ...]] = {
    name: tuple(kind) for name, kind in (CHOICES | {"color": Color, "outputs": Outputs}).items()
}
WORDS |= {"data": ("builtin",), "source": ("builtin",), "labels": ("ferplus",), "votes": ("ferplus",)}
# Options without a value, of all commands; a test compares them with the command line, which no library loads.
FLAGS = frozenset(
    (
        "allow_cpu_fallback", "blur_faces", "check", "domain_shift", "edgetpu", "flip", "float16", "headless", "int8", "json",
        "loop", "mediapipe", "mjpg", "onnx", "overwrite", "print", "prove", "qat", "realtime", "resume", "serve", "skip_bad",
        "trust", "version", "wait",
    )
)  # fmt: skip
WORD = rf"(?:{'|'.join(sorted({word for words in WORDS.values() for word in words}, key=len, reverse=True))})\b"
OPTION = re.compile(
    rf"(?P<command>{COMMAND})|(?<![\w-])(?P<out>(?<=\b[lL]eave ))?--(?P<no>no-)?(?P<name>[a-z][a-z0-9]*(?:-[a-z0-9]+)*)"
    rf"(?: (?P<value>{VALUE}|{WORD}))?"
)


def in_python(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator: errors of the function name its keyword arguments instead of the command's options. Its flags, `log` and
    `progress` are checked, which Python does not do."""

    @wraps(function)
    def called(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            for name, value in options.items():
                _check(name, value, function.__annotations__.get(name))
            return function(*arguments, **options)
        except EdgeferError as error:
            error.args = (with_keywords(str(error)),)
            raise

    return called


def _check(name: str, value: Any, hint: Any) -> None:
    if hint is bool:
        as_flag(value, name)
    if hint is str and not isinstance(value, str):
        raise InputError(f"{name} {printable(repr(value)):.80} is not right: give a text.")
    if (hint is Progress and not isinstance(value, Progress)) or (get_origin(hint) is Callable and not callable(value)):
        wanted = "an edgefer.progress.Progress" if hint is Progress else "a function of one text"
        raise InputError(f"{name} {printable(repr(value)):.80} is not right: give {wanted}.")


def with_keywords(text: str) -> str:
    """A message with each option replaced by its keyword argument."""
    return OPTION.sub(_keyword, text)


def _keyword(found: re.Match[str]) -> str:
    if found["command"]:
        return found[0]
    name, value = found["name"].replace("-", "_"), found["value"]
    no_value = found["no"] or name in FLAGS or value is None
    if no_value or (re.fullmatch(WORD, value) and value not in WORDS.get(name, ())):
        return _without_value(name, found) + (f" {value}" if value else "")
    if name == "set":  # may be given several times
        return f'{name}=["{value}"]'
    plain = re.fullmatch(r"-?[\d.]+|'.*'|[A-Z_]+", value)
    return f"{name}={value}" if plain else f'{name}="{value}"'


def _without_value(name: str, found: re.Match[str]) -> str:
    if found["no"]:
        return f"{name}=False"
    return f"{name}=True" if name in FLAGS and found["out"] is None else name
