"""Holds back what C++ libraries write straight to the terminal while they start."""

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO


class _Held:
    """The process's stderr while it is held back: one file descriptor, so that threads that are quiet at once share it.

    The first to come takes it, the last to leave gives it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._saved = -1
        self._file: IO[bytes] | None = None

    def take(self) -> int:
        """Hold stderr back; returns how many bytes of it are held already."""
        with self._lock:
            if self._file is None:
                self._saved = os.dup(2)
                self._file = _temporary_file()
                os.dup2(self._file.fileno(), 2)
            self._users += 1
            return os.fstat(self._file.fileno()).st_size

    def give_back(self, show_from: int | None) -> None:
        """Leave; show what was held after the first `show_from` bytes, unless that is None."""
        with self._lock:
            assert self._file is not None
            if show_from is not None:
                size = os.fstat(self._file.fileno()).st_size
                os.write(self._saved, os.pread(self._file.fileno(), size - show_from, show_from))
            self._users -= 1
            if not self._users:
                os.dup2(self._saved, 2)
                os.close(self._saved)
                self._file.close()
                self._file = None


_HELD = _Held()


def _temporary_file() -> IO[bytes]:
    # In memory where that is possible: on a full disk there is no temporary file, and a camera must run all the same.
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("edgefer"), "w+b")
    return tempfile.TemporaryFile()


@contextlib.contextmanager
def quiet(*, show_on_failure: bool = True) -> Iterator[None]:
    """Hold back what is written to the process's stderr, in whichever thread; it is shown after all if the work inside
    fails, unless the caller says in its own words what failed."""
    sys.stderr.flush()
    start = _HELD.take()
    failed = True
    try:
        yield
        failed = False
    finally:
        _HELD.give_back(start if failed and show_on_failure else None)
