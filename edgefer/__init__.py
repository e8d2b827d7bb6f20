"""edgefer: train, quantize, prove and run small facial-expression networks on small computers.

    import edgefer

    reader = edgefer.load("ferplus-small")        # a shipped network, or the path of a bundle; proves its stored answers
    for face in reader("photo.jpg"):              # or uint8 BGR pixels, or a PIL image
        print(face.label, face.score, face.box_xyxy)
    for frame in reader.watch(0):                 # a camera, video, folder or URL: tracked and smoothed
        if frame.changed:
            print(frame.time_s, [face.label for face in frame])

`import edgefer` loads neither OpenCV nor a runtime nor TensorFlow: each name below loads what it needs on use.
Every expected failure is an EdgeferError with a one-sentence message; edgefer.errors shows their hierarchy.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = [
    "Bundle", "Detection", "EdgeferError", "Face", "Frame", "Reader", "Verification", "convert", "draw", "import_model", "load",
    "train", "verify",
]  # fmt: skip

_HOMES = {
    "Bundle": "edgefer.bundle",
    "Detection": "edgefer.records",
    "EdgeferError": "edgefer.errors",
    "Face": "edgefer.records",
    "Frame": "edgefer.records",
    "Reader": "edgefer.devices.reader",
    "Verification": "edgefer.verification",
    "draw": "edgefer.api",
    "import_model": "edgefer.api",
    "load": "edgefer.api",
    "verify": "edgefer.api",
}
_CALLABLE_PACKAGES = ("convert", "train")  # packages that can be called, see edgefer.api.CallablePackage

if TYPE_CHECKING:
    from edgefer.api import convert, draw, import_model, load, train, verify
    from edgefer.bundle import Bundle
    from edgefer.devices.reader import Reader
    from edgefer.errors import EdgeferError
    from edgefer.records import Detection, Face, Frame
    from edgefer.verification import Verification

# In a checkout the sub-packages are beside this folder, which hides the installed package if it is the current folder.
_CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if all(os.path.exists(os.path.join(_CHECKOUT, name)) for name in ("pyproject.toml", "train", "convert", "devices")):
    __path__.append(_CHECKOUT)


def __getattr__(name: str) -> Any:
    if name in _CALLABLE_PACKAGES:
        return import_module(f"edgefer.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'edgefer' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
