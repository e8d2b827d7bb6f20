"""Makes untrusted text, such as a card's labels or names of tensors and files, safe to print in a terminal."""

import json
import re
import unicodedata
from collections.abc import Collection

# Cc: C0 and C1 control characters, with ESC and the C1 form of it. Cf: bidirectional overrides and isolates, zero-width
# characters. Cs: half of a surrogate pair, which no terminal can encode. Zl, Zp: line and paragraph separators.
UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
JOINERS = "\u200c\u200d"  # category Cf, but needed for Persian, Indian languages and emoji


def unprintable(text: str) -> str:
    """The first character of `text` that could control a terminal or hide text, or ""."""
    if text.isascii() and text.isprintable():
        return ""
    return next((char for char in text if _acts(char)), "")


def _acts(char: str) -> bool:
    return unicodedata.category(char) in UNPRINTABLE and char not in JOINERS


def printable(text: str, keep: str = "") -> str:
    """`text` with each such character, except those in `keep`, escaped: "\\x1b[31m" becomes "\\\\x1b[31m"."""
    if not unprintable(text):
        return text
    return "".join(ascii(char)[1:-1] if _acts(char) and char not in keep else char for char in text)


def json_text(value: object, indent: int | None = None) -> str:
    """`value` as JSON, in UTF-8, with unprintable characters as \\u escapes: json.dumps does not escape C1 and bidi."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    if not unprintable(text.replace("\n", "")):
        return text
    return re.sub(r"[^\n]", lambda one: json.dumps(one[0])[1:-1] if unprintable(one[0]) else one[0], text)


def own_word(word: str, labels: Collection[str]) -> str:
    """A word of edgefer's own, such as "none", for use among labels: in parentheses if a label has the same name."""
    while word in labels:
        word = f"({word})"
    return word


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun, and a verb if it has one: "1 epoch", "2 epochs", "1 file is", "2 files are"."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def percent(share: float) -> str:
    """A share that a user gave, in percent, with all its digits.

    >>> percent(0.97), percent(0.999), percent(0.07), percent(1)
    ('97%', '99.9%', '7%', '100%')
    """
    return f"{100 * share:.10g}%"


def safe_name(text: str) -> str:
    """`text` for use in a file name: letters, digits, "_" and "-", at most 40."""
    return re.sub(r"[^\w-]+", "_", text)[:40]
