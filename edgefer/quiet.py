"""Holds back what C++ libraries write straight to the terminal while they start."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(*, show_on_failure: bool = True) -> Iterator[None]:
    """Hold back what is written to the process's stderr; it is shown after all if the work inside fails, unless the caller
    says in its own words what failed."""
    sys.stderr.flush()
    saved = os.dup(2)
    # In memory where that is possible: on a full disk there is no temporary file, and a camera must run all the same.
    in_memory = hasattr(os, "memfd_create")
    with os.fdopen(os.memfd_create("edgefer"), "w+b") if in_memory else tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            if show_on_failure:
                os.write(saved, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
