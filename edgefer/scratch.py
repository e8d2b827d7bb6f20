"""A temporary directory of this process, into which every library writes its temporary files; a killed process's is removed
by the next one.

TensorFlow's autograph, its converter and HDF5 leave files in the system's temporary directory when the process is killed.
"""

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "edgefer-work-"
_held: list[int] = []  # the lock on this process's own directory, for as long as the process lives


def use_own_directory() -> Path:
    """Make tempfile's directory one of this process, gone at exit, and remove those that killed processes left."""
    if _held:
        return Path(tempfile.gettempdir())
    parent = Path(tempfile.gettempdir())
    for left in parent.glob(f"{PREFIX}*"):
        _remove_if_left(left)
    own = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    handle = os.open(own, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(handle, fcntl.LOCK_EX)
    _held.append(handle)
    tempfile.tempdir = str(own)
    atexit.register(_remove_own, own, parent, os.getpid())
    return own


def _remove_if_left(folder: Path) -> None:
    """Remove another process's directory unless that process still holds its lock, or it is another user's."""
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
