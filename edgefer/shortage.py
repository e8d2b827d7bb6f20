"""Recognizes that this machine has run out of memory, threads or open files, by the many exceptions that say so."""

import errno

MEMORY = "The memory is exhausted: close other programs, or read smaller images (--size for a camera)."
THREADS = (
    "No further thread can be started: close other programs, or raise the limit (ulimit -u, TasksMax of a service)."
)
FILES = "Too many files are open: raise the limit (ulimit -n), or name fewer sources and outputs."
BY_NUMBER = {errno.ENOMEM: MEMORY, errno.EMFILE: FILES, errno.ENFILE: FILES}
BY_TEXT = (  # what raises it, by its qualified name, and its text: other exceptions may quote the name of a file
    ("builtins.RuntimeError", "can't start new thread", THREADS),
    ("builtins.ImportError", "failed to map segment", MEMORY),  # of the dynamic linker
    ("builtins.ImportError", "cannot allocate memory", MEMORY),
    ("cv2.error", "Insufficient memory", MEMORY),
    ("cv2.error", "Failed to allocate", MEMORY),
    ("builtins.RuntimeError", "Failed to allocate", MEMORY),  # of the TFLite runtimes, and of C++ in any library
    ("cv2.error", "std::bad_alloc", MEMORY),
    ("builtins.RuntimeError", "std::bad_alloc", MEMORY),
)


def shortage_of(error: BaseException) -> str:
    """A sentence about what ran out, with advice; "" for any other error."""
    if isinstance(error, MemoryError):
        return MEMORY
    if isinstance(error, OSError):
        return BY_NUMBER.get(error.errno or 0, "")
    kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    return next((sentence for kind, text, sentence in BY_TEXT if kind in kinds and text in str(error)), "")
