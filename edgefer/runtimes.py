"""The supported TFLite runtimes and which are installed; imports none of them, nor anything heavy."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple


class Runtime(NamedTuple):
    """module: contains the Interpreter. package: its pip package. needs: the top-level module of that package."""

    module: str
    package: str
    needs: str


# In order of preference. On a 27-MMAC int8 network ai-edge-litert measured 7 to 11 times faster than tflite-runtime.
RUNTIMES = {
    "litert": Runtime("ai_edge_litert.interpreter", "ai-edge-litert", "ai_edge_litert"),
    "tflite-runtime": Runtime("tflite_runtime.interpreter", "tflite-runtime", "tflite_runtime"),
    "tensorflow": Runtime("tensorflow.lite.python.interpreter", "tensorflow", "tensorflow"),
    "openvino": Runtime("edgefer.openvino_interpreter", "openvino", "openvino"),
}
WITHOUT_REFERENCE = ("openvino",)  # kernels


def installed_runtimes() -> list[str]:
    """The names of the installed TFLite runtimes, the preferred one first. Imports none of them."""
    return [name for name, runtime in RUNTIMES.items() if find_spec(runtime.needs) is not None]


def machine(runtimes: Sequence[str]) -> dict[str, str]:
    """This machine: system, Python, numpy and the runtimes with their versions (auto: the first installed one)."""
    names = dict.fromkeys(name for one in runtimes for name in ((one,) if one != "auto" else installed_runtimes()[:1]))
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"Python {platform.python_version()}",
        "numpy": f"numpy {version('numpy')}",
        **{name: f"{name} {runtime_version(name)}" for name in names},
    }


def runtime_version(runtime: str) -> str:
    """The installed version of a runtime's package, "?" if unknown."""
    try:
        return version(RUNTIMES[runtime].package)
    except PackageNotFoundError:
        return "?"
