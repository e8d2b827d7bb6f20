"""Recognizes that this machine has run out of memory, threads or open files, by the many exceptions that say so."""

import errno

MEMORY = "The memory is exhausted: close other programs, or read smaller images (--size for a camera)."
THREADS = (
    "No further thread can be started: close other programs, or raise the limit (ulimit -u, TasksMax of a service)."
)
FILES = "Too many files are open: raise the limit (ulimit -n), or name fewer sources and outputs."
BY_NUMBER = {errno.ENOMEM: MEMORY, errno.EMFILE: FILES, errno.ENFILE: FILES}
BY_TEXT = {  # of CPython, the dynamic linker, OpenCV and C++
    "can't start new thread": THREADS,
    "failed to map segment": MEMORY,
    "cannot allocate memory": MEMORY,
    "Insufficient memory": MEMORY,
    "Failed to allocate": MEMORY,
    "std::bad_alloc": MEMORY,
}


def shortage_of(error: BaseException) -> str:
    """A sentence about what ran out, with advice; "" for any other error."""
    if isinstance(error, MemoryError):
        return MEMORY
    if isinstance(error, OSError):
        return BY_NUMBER.get(error.errno or 0, "")
    return next((sentence for text, sentence in BY_TEXT.items() if text in str(error)), "")
