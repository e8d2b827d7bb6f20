"""Matches the class names of data with a network's labels, ignoring case: folders are often called Angry or HAPPY."""

import difflib
import unicodedata
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from edgefer.text import printable

SHOWN = 10


def folded(name: str) -> str:
    """A class name for comparisons: without case, and with accents as in NFC."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def matched(names: Collection[str], labels: Sequence[str]) -> dict[str, str]:
    """The label that each name stands for: the same text, else one that differs in case only. Names without one are left
    out; no two have the same.

    >>> matched(["happy", "sad", "wow"], ["Happy", "Sad", "Fear"])
    {'happy': 'Happy', 'sad': 'Sad'}
    """
    known = set(labels)
    found = {name: name for name in names if name in known}
    free = {folded(label): label for label in labels if label not in found}
    for name in names:
        if name not in found and (label := free.pop(folded(name), "")):
            found[name] = label
    return found


def near(name: str, labels: Iterable[str]) -> str:
    """The label that a misspelt name most likely means, "" if none resembles it."""
    by_key = {folded(label): label for label in labels}
    return next((by_key[key] for key in difflib.get_close_matches(folded(name), by_key, 1, 0.6)), "")


def unmatched(names: Sequence[str], labels: Collection[str]) -> str:
    """The names for a message, each with the one of `labels` that it may mean."""
    guesses = ((name, near(name, labels)) for name in names[:SHOWN])
    shown = ", ".join(f"{name} (for {guess}?)" if guess else name for name, guess in guesses)
    return printable(shown) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")


def absent(labels: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes without an image. labels: int64 [n], indices into `names`."""
    counts = np.bincount(labels, minlength=len(names))
    return tuple(name for name, count in zip(names, counts.tolist(), strict=True) if not count)


def absent_note(missing: Sequence[str], classes: int, where: str) -> str:
    """What is not measured since `where`, such as "the valid split", has no images of `missing`; "" if none is missing."""
    if not missing:
        return ""
    shown = printable(", ".join(missing))
    left = classes - len(missing)
    over = f"the {left} classes with images" if left > 1 else "the one class with images"
    return (
        f"No images of {shown} in {where}: how well {'it is' if len(missing) == 1 else 'they are'} recognized is not measured, and "
        f"macro recall and macro F1 are over {over}"
    )
