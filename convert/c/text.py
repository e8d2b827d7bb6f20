"""Arrays and untrusted text as C source."""

import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain, count

import numpy as np

from edgefer.card import ModelCard

WORDS_PER_LINE, BYTES_PER_LINE = 10, 30
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ._-")


def string(text: str) -> str:
    """A string literal with these UTF-8 bytes. All but letters, digits and a few signs are octal, so nothing can end it."""
    return '"' + "".join(chr(byte) if chr(byte) in PLAIN else f"\\{byte:03o}" for byte in text.encode()) + '"'


def comment(text: str) -> str:
    """The characters of a text that are safe in a C comment."""
    return "".join(letter if letter in PLAIN else "?" for letter in text)


def readable(text: str) -> str:
    """The same for Markdown and pages, with the letters of every script."""
    return "".join(letter if letter in PLAIN or unicodedata.category(letter)[0] in "LMN" else "?" for letter in text)


def credit(card: ModelCard) -> str:
    """The network's author and licence, for a README or a page."""
    author, license_ = readable(card.author), readable(card.license)
    by = f"by {author}" if author else "author not named in its card"
    return f"{by}, licence {license_}" if license_ else f"{by}, no licence named"


def double(value: float) -> str:
    """A double or float constant with exactly this value, in decimal: C++ has hexadecimal ones only since C++17."""
    return repr(float(value))


def words(values: np.ndarray) -> str:
    """uint32 as lines of constants."""
    return "\n".join(_lines([f"0x{value:08x}u" for value in values.ravel().tolist()], WORDS_PER_LINE))


def rows(values: np.ndarray) -> str:
    """Integers [n, m] as n braces."""
    return ",\n".join(
        "{\n" + "\n".join(_lines([str(v) for v in row.ravel().tolist()], BYTES_PER_LINE)) + "}" for row in values
    )


def _lines(items: list[str], length: int) -> Iterator[str]:
    for begin in range(0, len(items), length):
        yield ",".join(items[begin : begin + length]) + ("," if begin + length < len(items) else "")


def macros(names: Iterable[str]) -> dict[str, str]:
    """Each detector's name as part of a macro's: in capitals, with a number if two would be the same."""
    made: dict[str, str] = {}
    for name in sorted(names):
        plain = "".join(letter.upper() if letter.isascii() and letter.isalnum() else "_" for letter in name)
        numbered = (f"{plain}_{number}" for number in count(2))
        made[name] = next(one for one in chain([plain], numbered) if one not in made.values())
    return made
