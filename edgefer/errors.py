"""Every failure edgefer expects, so that a user gets one clear sentence and never a traceback.

    EdgeferError             exit 1  the work could not be done
    ├── MissingDependency    exit 1  a library this step needs is not installed, or the installed one cannot work
    ├── RuntimeFault         exit 1  a TFLite runtime failed on a network
    ├── IncompleteError      exit 1  a source ended too early: results so far are kept
    ├── Interrupted          exit 130  Ctrl-C during a training or conversion: the message says what is kept
    └── InputError           exit 2  invalid input
        ├── DataError                a data set, one of its rows or images
        ├── RecipeError              a training recipe or one of its fields
        ├── BundleError              a bundle, its card or one of its files
        ├── ImageError               an image file
        ├── RegionError              a region outside of the image to be searched
        └── SourceError              a camera, video, image or sink

A message says what is wrong, which value it was, and what to do next.
"""


class EdgeferError(Exception):
    """Base of every expected failure; the command line prints its message and exits with `exit_code`.

    >>> import edgefer
    >>> try:
    ...     edgefer.load("nowhere")
    ... except edgefer.EdgeferError as error:
    ...     print(type(error).__name__, error.exit_code)
    BundleError 2
    """

    exit_code = 1


class MissingDependency(EdgeferError):
    """A library is absent or cannot work as installed."""


class RuntimeFault(EdgeferError):
    """A TFLite runtime rejected a network, or failed while running it."""


class IncompleteError(EdgeferError):
    """A source, such as a damaged video, ended too early; results so far are kept."""


class Interrupted(EdgeferError):
    """Ctrl-C during long work; the sentence says what is kept and how to continue."""

    exit_code = 130


class InputError(EdgeferError):
    """The input that the user gave is not valid."""

    exit_code = 2


class DataError(InputError):
    """A data set, or one of its rows or images."""


class ImageError(InputError):
    """An image file that cannot be read; the sentence begins with its path."""


class RegionError(InputError):
    """A region outside of the image to be searched; another image may be larger."""


class RecipeError(InputError):
    """A training recipe, or one of its fields."""


class BundleError(InputError):
    """A bundle, its card or one of its files."""


class SourceError(InputError):
    """A camera, a video, an image folder, or a place to write results to."""
