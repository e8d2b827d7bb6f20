"""For those who want Google's runtime on a microcontroller: the file as a header, the lines that resolve its operators."""

import contextlib
import os
from importlib.util import find_spec

import numpy as np

from edgefer.convert.c import text
from edgefer.tflite.flatbuffer import read_model

METHODS = {
    "CONV_2D": "AddConv2D",
    "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
    "FULLY_CONNECTED": "AddFullyConnected",
    "ADD": "AddAdd",
    "MEAN": "AddMean",
    "MAX_POOL_2D": "AddMaxPool2D",
    "AVERAGE_POOL_2D": "AddAveragePool2D",
    "RESHAPE": "AddReshape",
    "PAD": "AddPad",
    "RELU": "AddRelu",
    "RELU6": "AddRelu6",
}
ARENA_LIMIT = 2**26
# Measured with the shipped networks against reference kernels of tflite-micro: see the tolerance in the README.
TOLERANCE = "at worst 2 to 3 quanta off the stored answers, 0.4 to 0.55 on average"


def model_header(content: bytes) -> str:
    """model.h: the .tflite as an aligned array, and how its operators are registered."""
    padded = content + bytes(-len(content) % 4)
    lines = resolver(content)
    return f"""/* int8.tflite for TensorFlow Lite Micro. Little-endian. */
#include <stdint.h>

static const uint32_t model_words[{len(padded) // 4}] __attribute__((aligned(16))) = {{
{text.words(np.frombuffer(padded, "<u4"))}}};
static const unsigned char *const model = (const unsigned char *)model_words;
static const unsigned int model_length = {len(content)};

/* {lines.replace(chr(10), chr(10) + "   ")} */
"""


def resolver(content: bytes) -> str:
    """The C++ lines that register what the network needs, and nothing else."""
    names = sorted({operator.name for operator in read_model(content, "int8.tflite").operators})
    adds = "\n".join(f"resolver.{METHODS[name]}();" for name in names)
    return f"tflite::MicroMutableOpResolver<{len(names)}> resolver;\n{adds}"


def readme(content: bytes, count: int) -> str:
    """What the README says of it."""
    measured = arena_bytes(content)
    arena = (
        f"It runs in an arena of {measured:,} bytes on tflite-micro for x86-64 (measured; pointers are larger there)."
        if measured
        else "Its arena was not measured: the Python package tflite-micro is not installed here."
    )
    code = "\n".join(f"    {line}" for line in resolver(content).splitlines())
    return f"""`model.h` holds int8.tflite. Register only what it needs:

{code}

{arena} Its reference kernels round elsewhere than the optimized ones that gave the stored answers:
{TOLERANCE} ({count} images are in `vectors.h`), so hold it to that and not to 0. Its
input is int8: the pixel with its top bit flipped (`pixel ^ 0x80`)."""


def arena_bytes(content: bytes) -> int | None:
    """The smallest arena in which tflite-micro for this host runs the network, to 1 KB; None where it is not installed."""
    if find_spec("tflite_micro") is None:
        return None
    low, high = 0, 1
    while not _runs(content, high * 1024):
        low, high = high, high * 2
        if high * 1024 > ARENA_LIMIT:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _runs(content, middle * 1024) else (middle, high)
    return high * 1024


def _runs(content: bytes, arena: int) -> bool:
    from tflite_micro import runtime

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        try:
            runtime.Interpreter.from_bytes(content, arena_size=arena)
        except RuntimeError:
            return False
    return True
