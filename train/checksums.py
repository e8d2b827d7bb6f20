"""Checksums of the files that a training wrote, by which a file that was swapped for another run's is detected."""

import hashlib
import json
from pathlib import Path

from edgefer.errors import InputError
from edgefer.files import MAX_CARD, read_regular, write_file


class Checksums:
    """SHA-256 of files by name, kept in a file of their own.

    The checksum of a new file is recorded before it is written, beside that of the one it replaces: after a kill in
    between either is accepted. A file without a recorded checksum is accepted, too.
    """

    def __init__(self, file: Path):
        self.file = file
        self._sums: dict[str, list[str]] = {}
        try:
            recorded = json.loads(read_regular(file, MAX_CARD))
            self._sums = {str(name): [str(one) for one in sums] for name, sums in recorded.items()}
        except (InputError, ValueError, TypeError, AttributeError, RecursionError):
            pass  # of an older run, or damaged

    def record(self, name: str, contents: list[bytes], replaces: Path | None = None) -> None:
        """Record the content of a file, or of several together. replaces: the file that is there until they are
        written."""
        before = [_digest([replaces.read_bytes()])] if replaces and replaces.is_file() else []
        before = [digest for digest in before if digest in self._sums.get(name, before)]
        self._sums[name] = [*before, _digest(contents)]
        write_file(self.file, json.dumps(self._sums).encode())

    def differ(self, name: str, *files: Path) -> bool:
        """Whether the files are not those that were recorded; False where none were."""
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
