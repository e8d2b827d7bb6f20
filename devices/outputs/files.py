"""Output files: disk space, one run per file, and atomic renaming of complete files."""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
from pathlib import Path

from edgefer.errors import EdgeferError, SourceError
from edgefer.files import mode_of
from edgefer.text import counted, printable

KEEP_FREE_BYTES = 20_000_000  # of the disk, for the rest of the system


def check_room(folder: Path, more: int = 0) -> None:
    """EdgeferError when the folder's disk has less than KEEP_FREE_BYTES + `more` free."""
    needed = KEEP_FREE_BYTES + more
    usage = shutil.disk_usage(folder)
    if usage.total and usage.free < needed:  # /proc and similar file systems have no size
        raise EdgeferError(f"the disk is full (less than {needed / 1e6:.0f} MB free)")


def check_folder(path: Path, verb: str) -> None:
    """SourceError unless a file can be written at `path`: its folder exists, is writable, and has room."""
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
    if not stat.S_ISDIR(mode_of(path.parent, error=SourceError)):
        raise SourceError(f"There is no folder {folder} to {verb} {shown} in: make it first, or name another one.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise SourceError(f"You may not write to the folder {folder}: name another one to {verb} {shown} in.")
    try:
        check_room(path.parent)
    except EdgeferError as error:
        raise SourceError(
            f"{printable(str(path))} cannot be written: {error}. Make room, or name a file elsewhere."
        ) from None


def images_in(count: int, place: str) -> str:
    """How many images a folder has: "1 image is in it"."""
    return f"{counted(count, 'image is', 'images are')} in {place}"


def make_folder(folder: Path) -> None:
    """Make a folder for images if it does not exist. SourceError if that fails, or it is not writable."""
    try:
        folder.mkdir(exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"The folder {printable(str(folder))} cannot be made ({reason}): name another one.") from None
    check_folder(folder / "image.jpg", "keep")


def lock(descriptor: int, path: Path) -> None:
    """Lock a file for this run. SourceError when another run has it; does nothing on a file system without locks."""
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
    """A temporary file beside `path` that is renamed to `path` once complete. Its name is derived from the path, so that
    a second run gets a SourceError. A killed run's leftover is overwritten."""

    def __init__(self, path: Path, *, overwrite: bool = False):
        self.path, self._overwrite = path.absolute(), overwrite
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
        """Its name in ASCII: C++ libraries crash on invalid UTF-8, and FFmpeg reads the part before a colon as a protocol."""
        whole = str(self.file)
        return (
            whole if whole.isascii() and ":" not in whole else f"/proc/{os.getpid()}/fd/{self._folder}/{self.file.name}"
        )

    def publish(self) -> None:
        """Rename it to `path`. EdgeferError when that now exists, unless it may be overwritten."""
        if self._overwrite:
            self.file.replace(self.path)
            return
        try:
            os.link(self.file, self.path)
        except OSError as error:  # FileExistsError, or a file system without links, as on many SD cards
            if isinstance(error, FileExistsError) or os.path.lexists(self.path):
                raise EdgeferError("another program has made a file of that name in the meantime") from None
            self.file.replace(self.path)

    def close(self) -> None:
        """Remove it unless it was published."""
        self.file.unlink(missing_ok=True)
        for descriptor in (self._held, self._folder):
            os.close(descriptor)
