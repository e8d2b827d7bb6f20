"""Files that results go to: room on the disk, one run per file, and a name that only a whole file gets."""

import errno
import fcntl
import hashlib
import os
import shutil
from pathlib import Path

from edgefer.errors import EdgeferError, SourceError
from edgefer.text import printable

KEEP_FREE_BYTES = 20_000_000  # of the disk, for the rest of the system


def check_room(folder: Path, more: int = 0) -> None:
    """EdgeferError when the folder's disk has less than KEEP_FREE_BYTES, and `more`, left."""
    needed = KEEP_FREE_BYTES + more
    usage = shutil.disk_usage(folder)
    if usage.total and usage.free < needed:  # /proc and its like have no size
        raise EdgeferError(f"the disk is full (less than {needed / 1e6:.0f} MB free)")


def check_folder(path: Path, verb: str) -> None:
    """SourceError unless a file can be written at `path`: its folder is there, may be written to, and has room."""
    shown, folder = printable(path.name), printable(str(path.parent))
    try:
        if path.exists() and not path.is_file():
            raise SourceError(f"{printable(str(path))} is a folder or a device: name a file.")
    except OSError as error:
        raise SourceError(
            f"{printable(str(path))} cannot be written ({error.strerror}): choose another name."
        ) from None
    if "\0" in str(path):
        raise SourceError(f"{printable(str(path))} cannot be written (it holds a NUL): choose another name.")
    if not path.parent.is_dir():
        raise SourceError(f"There is no folder {folder} to {verb} {shown} in: make it first, or name another one.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise SourceError(f"You may not write to the folder {folder}: name another one to {verb} {shown} in.")
    try:
        check_room(path.parent)
    except EdgeferError as error:
        raise SourceError(
            f"{printable(str(path))} cannot be written: {error}. Make room, or name a file elsewhere."
        ) from None


def make_folder(folder: Path) -> None:
    """Make a folder for images unless it is there. SourceError when it cannot be, or nothing can be written into it."""
    try:
        folder.mkdir(exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"There can be no folder {printable(str(folder))} ({reason}): name another one.") from None
    check_folder(folder / "image.jpg", "keep")


def lock(descriptor: int, path: Path) -> None:
    """Keep a file for this run. SourceError when another run has it; where the file system has no locks, nothing happens."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SourceError(
            f"Another edgefer run is writing to {printable(str(path))}: choose another name, or end that run."
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise


class PartialFile:
    """A file beside `path` that becomes `path` once it is whole. Its own name follows from the path's, so that two runs meet
    there: the second gets a SourceError. What a killed run left is written over."""

    def __init__(self, path: Path):
        self.path = path.absolute()
        number = hashlib.sha256(os.fsencode(self.path.name)).hexdigest()[:12]
        self.file = self.path.with_name(f".edgefer-{number}.partial{self.path.suffix.lower()}")
        self._folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._held = os.open(self.file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666)
            lock(self._held, path)
            os.ftruncate(self._held, 0)
        except OSError as error:
            os.close(self._folder)
            raise SourceError(f"{printable(str(path))} cannot be written: {error.strerror}.") from None
        except SourceError:
            os.close(self._held)
            os.close(self._folder)
            raise

    @property
    def for_libraries(self) -> str:
        """Its name in ASCII: C++ libraries crash on what is not UTF-8, and FFmpeg takes what stands before a colon for a protocol."""
        whole = str(self.file)
        return (
            whole if whole.isascii() and ":" not in whole else f"/proc/{os.getpid()}/fd/{self._folder}/{self.file.name}"
        )

    def publish(self) -> None:
        """Give it its name. EdgeferError when another file has that by now: nothing is overwritten."""
        try:
            os.link(self.file, self.path)
        except FileExistsError:
            raise EdgeferError("a file of that name is there by now, made by another program") from None
        except OSError:  # a file system without links, as on many SD cards
            self.file.replace(self.path)

    def close(self) -> None:
        """Remove what has not been published."""
        self.file.unlink(missing_ok=True)
        for descriptor in (self._held, self._folder):
            os.close(descriptor)
