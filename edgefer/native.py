"""Paths for C++ libraries, which accept only UTF-8: OpenCV crashes on a name in another encoding."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def native_path(path: Path) -> Iterator[str]:
    """The absolute name of `path` for a C++ library, while the block runs.

    A name that is not UTF-8 is replaced by a symbolic link with the same suffix in a temporary folder. The file need not
    exist: creating it through the link creates the right file. The name is absolute, since FFmpeg reads the 10 of a
    relative 10:30.mp4 as a protocol.
    """
    absolute = path.absolute()
    try:
        str(absolute).encode()
    except UnicodeEncodeError:
        suffix = path.suffix if path.suffix.isascii() else ""
        with tempfile.TemporaryDirectory(prefix="edgefer-name-") as folder:
            link = Path(folder) / f"file{suffix}"
            link.symlink_to(absolute)
            yield str(link)
    else:
        yield str(absolute)
