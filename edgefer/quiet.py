"""Suppresses what C++ libraries write directly to stderr."""

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO


class _Held:
    """The process's redirected stderr: a single file descriptor, shared by all threads in `quiet`.

    The first one to enter redirects it, the last one to leave restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._saved = -1
        self._file: IO[bytes] | None = None

    def take(self) -> int:
        """Redirect stderr; returns how many bytes are already held."""
        with self._lock:
            if self._file is None:
                self._saved = os.dup(2)
                self._file = _temporary_file()
                os.dup2(self._file.fileno(), 2)
            self._users += 1
            return os.fstat(self._file.fileno()).st_size

    def give_back(self, show_from: int | None) -> None:
        """Leave; print what was held after the first `show_from` bytes, unless that is None."""
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


def hush_codecs() -> None:
    """Keep OpenCV and FFmpeg from writing to the terminal at every damaged frame or attempt to connect, from the next opened
    video on. Not with `quiet`: videos are read in threads, and it redirects the whole process's stderr."""
    import cv2

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)


def _temporary_file() -> IO[bytes]:
    # In memory if possible: a camera must run even if the disk is too full for a temporary file.
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("edgefer"), "w+b")
    return tempfile.TemporaryFile()


@contextlib.contextmanager
def quiet(*, show_on_failure: bool = True) -> Iterator[None]:
    """Hold back the process's stderr, of all threads; it is printed if the work inside fails, unless `show_on_failure` is
    False because the caller reports the error."""
    if sys.stderr is None:  # closed, as in a daemon: descriptor 2 may be any file of the program
        yield
        return
    sys.stderr.flush()
    start = _HELD.take()
    failed = True
    try:
        yield
        failed = False
    finally:
        _HELD.give_back(start if failed and show_on_failure else None)
