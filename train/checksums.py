"""Checksums of a training's files as it wrote them, so that one that was swapped for another run's is noticed."""

import hashlib
import json
from pathlib import Path

from edgefer.bundle import write_file
from edgefer.errors import InputError
from edgefer.files import MAX_CARD, read_regular


class Checksums:
    """sha256 of files by name, in a file of their own. A name is noted before its file is written, beside what it was, so that a
    kill in between makes neither of them wrong. What was never noted is taken as it is."""

    def __init__(self, file: Path):
        self.file = file
        self._sums: dict[str, list[str]] = {}
        try:
            read = json.loads(read_regular(file, MAX_CARD))
            self._sums = {str(name): [str(one) for one in listed] for name, listed in read.items()}
        except (InputError, ValueError, TypeError, AttributeError, RecursionError):
            pass  # of an older run, or damaged: nothing is known

    def note(self, name: str, contents: list[bytes], replaced: Path | None = None) -> None:
        """What the file, or the files together, will be or has become. replaced: that is still there until it is written."""
        before = [_digest([replaced.read_bytes()])] if replaced and replaced.is_file() else []
        before = [one for one in before if one in self._sums.get(name, before)]
        self._sums[name] = [*before, _digest(contents)]
        write_file(self.file, json.dumps(self._sums).encode())

    def is_other(self, name: str, *files: Path) -> bool:
        """Whether files are not what was noted of them; False where nothing was."""
        if name not in self._sums:
            return False
        try:
            return _digest([file.read_bytes() for file in files]) not in self._sums[name]
        except OSError:
            return True


def _digest(contents: list[bytes]) -> str:
    total = hashlib.sha256()
    for content in contents:
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()
