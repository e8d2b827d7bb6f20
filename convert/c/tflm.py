"""For TensorFlow Lite Micro: the .tflite as a header, and the code that registers its operators."""

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from edgefer.c.subject import Subject
from edgefer.convert.c import text
from edgefer.convert.c.tflm_trial import run_in_arena
from edgefer.preprocess import look_up, quantized_table
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
IMAGES = 24  # of the stored ones: tflite-micro takes 0.1 s per image
# Measured with tflite-micro on the shipped networks.
TOLERANCE = "at most 2 to 3 quanta off the stored answers, 0.4 to 0.56 on average"


def model_header(content: bytes) -> str:
    """model.h: the .tflite as an aligned array, and the code that registers its operators."""
    padded = content + bytes(-len(content) % 4)
    lines = resolver(content)
    return f"""/* int8.tflite for TensorFlow Lite Micro. Little-endian. */
#ifndef EDGEFER_MODEL_H
#define EDGEFER_MODEL_H

#include <stdint.h>

static const uint32_t model_words[{len(padded) // 4}] __attribute__((aligned(16))) = {{
{text.words(np.frombuffer(padded, "<u4"))}}};
static const unsigned char *const model = (const unsigned char *)model_words;
static const unsigned int model_length = {len(content)};

/* {lines.replace(chr(10), chr(10) + "   ")} */

#endif
"""


def resolver(content: bytes) -> str:
    """The C++ code that registers only the operators that the network needs."""
    names = sorted({operator.name for operator in read_model(content, "int8.tflite").operators})
    adds = "\n".join(f"resolver.{METHODS[name]}();" for name in names)
    return f"tflite::MicroMutableOpResolver<{len(names)}> resolver;\n{adds}"


def readme(subject: Subject) -> str:
    """The section of the README."""
    content, vectors = subject.content, subject.vectors.small()
    measured = measure(subject)
    arena = (
        f"It runs in an arena of {measured.arena:,} bytes on tflite-micro for x86-64 (measured; pointers are larger there). It is at most "
        f"{measured.worst} quanta off the stored answers of {measured.images} images, {measured.mean:.2f} on average."
        if measured
        else f"Its arena was not measured: {_not_measured()}. Expect it to be {TOLERANCE}."
    )
    code = "\n".join(f"    {line}" for line in resolver(content).splitlines())
    return f"""`model.h` holds int8.tflite. Register only the operators it needs:

{code}

{arena} Its reference kernels round differently from the optimized ones that gave
the stored answers, so test it with a tolerance, not for equality ({len(vectors.pixels)} images are in `vectors.h`). Its input is int8: {_input(subject)}."""


def _not_measured() -> str:
    if find_spec("tflite_micro") is None:
        return "the Python package tflite-micro is not installed here"
    return "the Python package tflite-micro cannot run it here"


def _input(subject: Subject) -> str:
    """How a pixel is prepared for tflite-micro, as text."""
    spec, source = subject.bundle.card.input, subject.network.input
    if not spec.stated:
        return "the pixel\nwith its top bit flipped (`pixel ^ 0x80`)"
    end = f"/ {float(source.scale):.9g}) + {source.zero}"
    ways = dict.fromkeys(f"`round((pixel * {scale:.9g} + {offset:.9g}) {end}`" for scale, offset in spec.per_channel())
    return f"of each\nchannel {', '.join(ways)}, within -128 to 127"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """arena: the smallest in which it runs, in bytes, to 1 KB. worst, mean: quanta off the stored answers of `images`."""

    arena: int
    worst: int
    mean: float
    images: int


def measure(subject: Subject) -> Measured | None:
    """Run the network with tflite-micro on this host; None if it is not installed, or cannot run it."""
    if find_spec("tflite_micro") is None:
        return None
    vectors, source = subject.vectors, subject.network.input
    table = quantized_table(subject.bundle.card.input, np.int8, float(source.scale), source.zero)
    images = look_up(vectors.pixels[:IMAGES], table)
    arena = _smallest_arena(subject.content, images[:1])
    answers = run_in_arena(subject.content, images, arena) if arena else None
    if answers is None:
        return None
    off = np.abs(answers.astype(int) - vectors.answers[: len(images)])
    return Measured(arena=arena, worst=int(off.max()), mean=float(off.mean()), images=len(images))


def _smallest_arena(content: bytes, images: np.ndarray) -> int:
    """In bytes; 0 if none up to ARENA_LIMIT is large enough."""

    def runs(kib: int) -> bool:
        return run_in_arena(content, images, kib * 1024) is not None

    low, high = 0, 16
    while not runs(high):
        low, high = high, high * 2
        if high * 1024 > ARENA_LIMIT:
            return 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if runs(middle) else (middle, high)
    return high * 1024
