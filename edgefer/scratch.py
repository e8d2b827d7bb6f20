"""Locked temporary directories; those of a killed process are removed by the next one.

One of them holds every library's temporary files: TensorFlow's autograph, its converter and HDF5 leave theirs in the
system's temporary directory when the process is killed.
"""

import atexit
import contextlib
import fcntl
import glob
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "edgefer-work-"
_held: list[int] = []  # the lock on this process's own directory, for as long as the process lives


def use_own_directory() -> Path:
    """Set tempfile's directory to one of this process, removed at exit, and remove those of killed processes."""
    if _held:
        return Path(tempfile.gettempdir())
    parent = Path(tempfile.gettempdir())
    remove_abandoned(parent, PREFIX)
    own, handle = locked_directory(parent, PREFIX)
    _held.append(handle)
    tempfile.tempdir = str(own)
    atexit.register(_remove_own, own, parent, os.getpid())
    return own


def locked_directory(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new directory in `parent`, and the file descriptor whose lock holds it until that is closed.

    On a file system without locks it is not held, but never removed by others either.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # another process removed it before it was locked
            continue
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if folder.exists():
            return folder, handle
        os.close(handle)


def remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove the directories with that prefix that no process holds."""
    for left in parent.glob(f"{glob.escape(prefix)}*"):
        _remove_if_left(left)


def _remove_if_left(folder: Path) -> None:
    """Remove a directory unless a process holds its lock, or it is another user's."""
    with contextlib.suppress(OSError):
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)


def _remove_own(own: Path, parent: Path, pid: int) -> None:
    if os.getpid() == pid:  # not in a child that was forked
        tempfile.tempdir = str(parent)
        shutil.rmtree(own, ignore_errors=True)
