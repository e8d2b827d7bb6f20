"""Reads untrusted files: only regular ones, of a bounded size, and without blocking. Writes files whole or not at all, and
checks, before long work, whether a path is writable."""

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

from edgefer.errors import EdgeferError, InputError
from edgefer.scratch import locked_directory, remove_abandoned
from edgefer.text import printable

MAX_CARD = 1 << 20  # bytes
MAX_JSON = 64 << 20
MAX_BESIDE = 100  # bytes of a name
MAX_NETWORK = 1 << 30  # of a .tflite, .keras or .npz file
# Why there is nothing at a path; the last two where the file system cannot hold such a name.
ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}


def user_cache() -> Path:
    """edgefer/ in the user's cache (XDG Base Directory Specification); nothing can be kept there for a user without a home."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # as in a container
        cache = Path("/nonexistent")  # not a folder that others may write to
    return cache / "edgefer"


def read_regular(path: Path, limit: int, *, error: type[InputError] = InputError) -> bytes:
    """The content of a regular file, or of a link to one, of at most `limit` bytes.

    A FIFO, a device, a socket and a link to one are rejected without being opened. Raises `error`, also for a missing
    file.
    """
    descriptor = -1
    try:
        regular_size(path, limit, error=error)  # by name first: opening some devices has side effects
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        size = _size(path, os.fstat(descriptor), limit, error)
        with os.fdopen(descriptor, "rb") as file:
            descriptor = -1
            content = file.read(size + 1)  # not `limit` at once: read() allocates as much, which small boards refuse
            if len(content) > size:
                content += file.read(limit + 1 - len(content))
    except OSError as trouble:
        raise error(f"{_shown(path)} cannot be read: {trouble.strerror}.") from None
    except ValueError:  # a NUL in the name
        raise error(f"{_shown(path)} is not a valid file name.") from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    if len(content) > limit:
        raise error(f"{_shown(path)} grows while it is read: more than {limit:,} bytes.")
    return content


def mode_of(path: Path, *, error: type[InputError] = InputError) -> int:
    """The st_mode of what is at `path`, 0 if nothing is; `error` if that cannot be determined: this user may not look there,
    or the disk or network drive gives no answer.

    For "there is no ..." messages: pathlib's exists(), is_file() and is_dir() raise a PermissionError before Python 3.14,
    and say no from then on, as those of os.path always do.
    """
    try:
        return path.stat().st_mode
    except PermissionError:
        raise error(
            f"{_shown(path)} cannot be read: Permission denied. Change the rights of its folder (chmod), or name another."
        ) from None
    except OSError as trouble:
        if trouble.errno in ABSENT:
            return 0
        raise error(
            f"{_shown(path)} cannot be read: {trouble.strerror}. Check its disk or network drive, or name another."
        ) from None
    except ValueError:  # a NUL in the name
        return 0


def is_regular(path: Path) -> bool:
    """Whether `path` is a regular file or a link to one; InputError if this user may not look there (see `mode_of`)."""
    return stat.S_ISREG(mode_of(path))


def regular_size(path: Path, limit: int, *, error: type[InputError] = InputError) -> int:
    """The size of a regular file in bytes; `error` if it is not one, is inaccessible, or has more than `limit` bytes."""
    try:
        return _size(path, path.stat(), limit, error)
    except OSError as trouble:
        raise error(f"{_shown(path)} cannot be read: {trouble.strerror}.") from None
    except ValueError:
        raise error(f"{_shown(path)} is not a valid file name.") from None


def read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """A file in an untrusted archive, of which no more than `limit` bytes are unpacked, whatever its directory says.

    ValueError for a larger one and for rare compressions: bzip2 and LZMA unpack gigabytes from one block. KeyError where it
    is not there; what zipfile raises where it is damaged.
    """
    member = archive.getinfo(name)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("is compressed by another method than deflate")
    if member.file_size <= limit:
        with archive.open(member) as file:
            content = file.read(limit + 1)
        if len(content) <= limit:
            return content
    raise ValueError(f"unpacks to more than {limit:,} bytes")


def beside(path: Path, ending: str) -> Path:
    """A hidden name beside `path`, for what will be renamed to it. A long name is replaced by its hash, since file systems
    limit names to 255 bytes."""
    name = os.fsencode(path.name)
    return path.parent / f".{path.name if len(name) <= MAX_BESIDE else hashlib.sha256(name).hexdigest()}.{ending}"


def check_writable(path: Path, option: str = "--out") -> None:
    """InputError unless a file or directory can be written at `path`, whose parents may not exist yet. Leaves no files."""
    parents = (path.parent, *path.parent.parents)
    place = next((one for one in parents if os.path.exists(one)), Path("."))  # Path.exists raises for a long name
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            mode = path.stat().st_mode  # raises for a NUL in the name, or a name that is too long
            if stat.S_ISDIR(mode):
                place = path
            elif not stat.S_ISREG(mode):
                raise OSError(errno.EINVAL, "it is a device")
        for name in set(path.parts) - set(place.parts):  # of folders that do not exist yet, too
            with contextlib.suppress(FileNotFoundError):
                (place / name).lstat()
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(b"\0")
    except (OSError, ValueError) as trouble:  # ValueError: a NUL in the name
        reason = getattr(trouble, "strerror", None) or str(trouble)
        raise InputError(f"{_shown(path)} cannot be written ({reason}): choose another {option}.") from None


def check_absent(path: Path) -> None:
    """InputError if there is something at `path`, where a folder is to be made: a link to nothing, too, cannot be replaced by
    renaming a folder."""
    if os.path.lexists(path):
        raise InputError(f"{path} is there already: choose another --out.")


def with_name_of_its_own(path: Path) -> Path:
    """The path with a final name: "." and ".." become the folder's name."""
    return Path(os.path.abspath(path))


@contextlib.contextmanager
def without_empty_folders(path: Path) -> Iterator[None]:
    """Remove folders that were made for `path` inside this block and are empty at its end: rejected work leaves nothing."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    try:
        yield
    finally:
        for one in missing:
            with contextlib.suppress(OSError):
                one.rmdir()


@contextlib.contextmanager
def staging_directory(path: Path) -> Iterator[Path]:
    """A temporary directory beside `path`, to be renamed when complete, removed at the end. Those of killed processes for
    the same path, whose locks are no longer held, are removed too."""
    prefix = beside(path, "staging-").name
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent, prefix)
        staging, lock = locked_directory(path.parent, prefix)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an OSError into a message that names `path`, not a temporary file."""
    try:
        yield
    except OSError as error:
        raise EdgeferError(
            f"{path} could not be written: {error.strerror or error}. Make room there, or choose another place."
        ) from None


def write_file(path: Path, content: bytes, *, shown: Path | None = None) -> None:
    """Write a file atomically: to a temporary file, which is then renamed.

    EdgeferError, with the file's name, or that of `shown`, if writing fails.
    """
    with naming(shown or path):
        _write(path, content)


def _write(path: Path, content: bytes) -> None:
    if path.exists() and not path.is_file():  # renaming over a device as root would replace it
        raise OSError(errno.EINVAL, "it is a folder or a device")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = beside(path, f"{threading.get_native_id()}.partial")  # another process may write it, too
    # In an untrusted bundle it may be a link to another place, or a FIFO, which would block.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(partial, flags, 0o666), "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def _size(path: Path, status: os.stat_result, limit: int, error: type[InputError]) -> int:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a directory"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a device")
        raise error(f"{_shown(path)} is {kind}, not a regular file.")
    if status.st_size > limit:
        raise error(
            f"{_shown(path)} has {status.st_size:,} bytes, more than the {limit:,} that are read of such a file."
        )
    return status.st_size


def _shown(path: Path) -> str:
    return printable(str(path))
