"""The C code on this host: compiled with the installed compiler and called from Python, to be compared with stored answers."""

import copy
import ctypes
import os
import shutil
import subprocess
import tempfile
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from edgefer.c.program import Program
from edgefer.errors import MissingDependency, RuntimeFault

COMPILERS = ("cc", "gcc", "clang")
# No reordering that changes a sum's rounding is allowed: the kernels are written so that these flags matter only for the
# pixels' geometry in double.
FLAGS = ("-std=c99", "-O2", "-ffp-contract=off", "-fno-fast-math")
TIMEOUT_S = 120


def compiler() -> str | None:
    """The C compiler of this host: $CC, or the first of COMPILERS; None if there is none."""
    names = [os.environ["CC"]] if os.environ.get("CC") else list(COMPILERS)
    return next((path for name in names if (path := shutil.which(name))), None)


@cache
def program_version(program: str) -> str:
    """The first line that a program prints for --version, such as a compiler; its name if it prints nothing."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    return done.stdout.partition("\n")[0].strip() or Path(program).name


def source(name: str) -> str:
    """One of the C files shipped with edgefer."""
    return resources.files("edgefer.c").joinpath("source", name).read_text()


@cache
def compiled(names: tuple[str, ...], flags: tuple[str, ...] = FLAGS) -> ctypes.CDLL:
    """The named C files as one shared library, loaded, once per process. MissingDependency without a compiler."""
    program = compiler()
    if program is None:
        raise MissingDependency("No C compiler was found (cc, gcc, clang): sudo apt install gcc.")
    with tempfile.TemporaryDirectory(prefix="edgefer-c-") as folder:  # a loaded library no longer needs its file
        for name in (*names, *(name.replace(".c", ".h") for name in names)):
            (Path(folder) / name).write_text(source(name))
        command = [program, *flags, "-shared", "-fPIC", "-o", "edgefer.so", *names]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeFault(f"{program} cannot compile the network's C ({error}).") from None
        if done.returncode:
            reason = (done.stderr.strip() or "it gives no reason").splitlines()[0]
            raise RuntimeFault(f"{program} cannot compile the network's C: {reason}")
        return ctypes.CDLL(str(Path(folder) / "edgefer.so"))


class HostNetwork:
    """A network's C code, compiled on this host."""

    def __init__(self, program: Program, flags: tuple[str, ...] = FLAGS):
        self.program = program
        self.words = np.ascontiguousarray(program.words)
        self._library = compiled(("edgefer_net.c",), flags)
        self._library.edgefer_inner.restype = ctypes.POINTER(ctypes.c_int8)
        self._library.edgefer_output_bytes.restype = ctypes.c_uint32
        self._arena = _aligned(program.plan.size)

    def check(self) -> int:
        """0 if the words are intact; see edgefer_check."""
        return int(self._library.edgefer_check(address(self.words), ctypes.c_uint32(len(self.words))))

    def answers(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [n, h, w, c] -> int8 [n, classes], outputs concatenated."""
        found = np.empty((len(pixels), self._library.edgefer_output_bytes(address(self.words))), np.int8)
        for image, row in zip(np.ascontiguousarray(pixels), found, strict=True):
            self._library.edgefer_run(address(self.words), address(image), address(self._arena), address(row))
        return found

    def sized(self, height: int, width: int) -> "HostNetwork":
        """The same network for images of this size, no larger than its own; for fully convolutional networks only."""
        other = copy.copy(self)
        other.words = self.words.copy()
        self._library.edgefer_resize_network(address(other.words), ctypes.c_int32(height), ctypes.c_int32(width))
        return other

    def inner(self, image: np.ndarray, layers: int) -> np.ndarray:
        """The output of layer number `layers`, counted from 1, for uint8 [h, w, c]: int8, flat."""
        size = ctypes.c_uint32()
        where = self._library.edgefer_inner(
            address(self.words), address(np.ascontiguousarray(image)), address(self._arena), ctypes.c_uint32(layers),
            ctypes.byref(size),
        )  # fmt: skip
        return np.ctypeslib.as_array(where, (size.value,)).copy()


def _aligned(size: int) -> np.ndarray:
    whole = np.zeros(size + 16, np.uint8)
    begin = -whole.ctypes.data % 16
    return whole[begin : begin + size]


def address(array: np.ndarray) -> ctypes.c_void_p:
    """The address of an array, for a C call."""
    return ctypes.c_void_p(array.ctypes.data)
