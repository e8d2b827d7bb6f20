"""Lines of a CSV as it is downloaded: plain, .gz, in a .zip, or in a .tar with any compression."""

import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from edgefer.errors import DataError
from edgefer.files import regular_size
from edgefer.images import SUFFIXES

KNOWN = ("fer2013.csv", "icml_face_data.csv")  # of several CSV files in an archive, the one to read
MAX_FILE = 1 << 40  # bytes; it is streamed
MAX_LINE = 16 << 20  # characters; a 2048x2048 image
DAMAGE = (
    OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, UnicodeError,
    RuntimeError,  # an encrypted zip, or a compression that zipfile does not know (NotImplementedError)
)  # fmt: skip


@contextmanager
def open_lines(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a CSV file, or of the only CSV in an archive. Iterating raises one of DAMAGE where the file is
    damaged."""
    regular_size(path, MAX_FILE, error=DataError)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            name = _only_csv(path, archive.namelist())
            with archive.open(name) as raw:
                yield _lines(raw, name, path)
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as tar:
            # Not by getmember(), which may find a link.
            files = {member.name: member for member in tar if member.isreg()}
            name = _only_csv(path, list(files))
            member = tar.extractfile(files[name])
            assert member  # a regular file
            with member:
                yield _lines(member, name, path)
    else:
        with path.open("rb") as raw:
            yield _lines(raw, path.name, path)


def _only_csv(path: Path, members: list[str]) -> str:
    visible = [name for name in members if not any(part.startswith((".", "__")) for part in PurePosixPath(name).parts)]
    names = [name for name in visible if name.lower().endswith((".csv", ".csv.gz"))]
    chosen = [name for name in names if PurePosixPath(name).name.lower().startswith(KNOWN)] or names
    if len(chosen) == 1:
        return chosen[0]
    if not names and any(name.lower().endswith(SUFFIXES) for name in visible):
        raise DataError(f"{path} holds image files: unpack it, and name the resulting folder.")
    listed = f": {', '.join(chosen[:8])}" if chosen else ""
    raise DataError(
        f"{path} should hold one CSV file, not {len(chosen)}{listed}. Unpack it, and name the file to read."
    )


def _lines(raw, name: str, path: Path) -> Iterator[str]:
    buffered = io.BufferedReader(gzip.GzipFile(fileobj=raw) if name.lower().endswith(".gz") else raw)
    if buffered.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path} is UTF-16 text: save it as UTF-8 (iconv -f UTF-16 -t UTF-8 {path.name} > utf8.csv).")
    text = io.TextIOWrapper(buffered, encoding="utf-8-sig", newline="")
    while line := text.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise DataError(f"{path} has a line of more than {MAX_LINE:,} characters: it is not a CSV of images.")
        yield line
