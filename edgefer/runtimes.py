"""Which TFLite runtimes there are and which are installed; imports none of them, nor anything heavy."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

# In order of preference. On a 27-MMAC int8 network ai-edge-litert measured 7 to 11 times faster than tflite-runtime.
RUNTIMES = {
    "litert": ("ai_edge_litert.interpreter", "ai-edge-litert"),
    "tflite-runtime": ("tflite_runtime.interpreter", "tflite-runtime"),
    "tensorflow": ("tensorflow.lite.python.interpreter", "tensorflow"),
}


def installed_runtimes() -> list[str]:
    """The names of the TFLite runtimes that are installed, the preferred one first. Imports none of them."""
    return [name for name, (module, _) in RUNTIMES.items() if find_spec(module.split(".")[0]) is not None]


def runtime_version(runtime: str) -> str:
    """The installed version of a runtime's package, "?" where it is unknown."""
    try:
        return version(RUNTIMES[runtime][1])
    except PackageNotFoundError:
        return "?"
