"""What MediaPipe's ImageClassifier would reject in a network: its input and output, and their TFLite Metadata.

The rules were measured on MediaPipe 1.2's ImageClassifier.create_from_options.
"""

import math
import re
from collections.abc import Iterator

import numpy as np

from edgefer.tflite.description import Described, read_description
from edgefer.tflite.findings import Finding
from edgefer.tflite.flatbuffer import Model, Tensor
from edgefer.tflite.metadata import IMAGE, RGB

DTYPES = ("UINT8", "FLOAT32")
PARSER = (1, 5, 0)  # the newest version of the metadata's schema that MediaPipe 1.2 reads
NUMBER = re.compile(r"\s*[+-]?\d")  # as MediaPipe's C++ code parses a part of a version
MIN_DEVIATION = 2.0**-23  # MediaPipe treats a smaller one as 0
WRITE = "write metadata again, as `edgefer convert --mediapipe` does"


def mediapipe(model: Model, target: str) -> Iterator[Finding]:
    """Every finding for MediaPipe's ImageClassifier."""
    yield from _ends(model)
    if not len(model.description):
        yield from _no_metadata(model)
        return
    try:
        described = read_description(bytes(model.description))
    except ValueError:
        yield _error("mediapipe-metadata", "its TFLite metadata cannot be read")
        return
    yield from _description(model, described)


def _error(rule: str, what: str, hint: str = WRITE, tensor: Tensor | None = None) -> Finding:
    return Finding(severity="error", rule=rule, what=what, next=hint, tensor=tensor.name if tensor else "")


def _ends(model: Model) -> Iterator[Finding]:
    inputs, outputs = model.main.inputs, model.main.outputs
    if len(inputs) != 1:
        yield _error(
            "mediapipe-input", f"it wants one input, an image; the network has {len(inputs)}", "give it one input"
        )
    for tensor in inputs[:1]:
        if len(tensor.shape) != 4 or tensor.shape[3] != 3:
            what = f"it wants an RGB input [1, height, width, 3]; this one is {tensor.shape}"
            yield _error("mediapipe-input", what, "give it an RGB input, as `edgefer convert --mediapipe` does", tensor)
    for tensor in (*inputs, *outputs):
        if tensor.dtype not in DTYPES:
            what = f"it takes and gives uint8 or float32; this tensor is {tensor.dtype}"
            yield _error(
                "mediapipe-dtype",
                what,
                "convert with uint8 input and output, as `edgefer convert --mediapipe` does",
                tensor,
            )
    for tensor in outputs:
        if len(tensor.shape) not in (2, 4) or any(size != 1 for size in tensor.shape[:-1]):
            what = f"it wants answers [1, classes]; this tensor is {tensor.shape}"
            yield _error("mediapipe-output", what, "end it with one score per class", tensor)


def _no_metadata(model: Model) -> Iterator[Finding]:
    for tensor in model.main.inputs[:1]:
        if tensor.dtype == "FLOAT32":
            what = "a float input needs NormalizationOptions in TFLite metadata, and the file has none"
            yield _error("mediapipe-metadata", what, "write metadata, or convert with uint8 input", tensor)
    if len(model.main.outputs) != 1:
        what = f"without metadata it takes one output; the network has {len(model.main.outputs)}"
        yield _error("mediapipe-output", what, "give it one output")
    yield Finding(
        severity="warning",
        rule="mediapipe-labels",
        what="the file has no TFLite metadata, so that its answers are numbers without names",
        next="write metadata with the labels",
    )


def _description(model: Model, described: Described) -> Iterator[Finding]:
    if described.inputs == 0:
        yield _error("mediapipe-metadata", "its metadata describes no input")
    if described.outputs not in (None, len(model.main.outputs)):
        what = f"its metadata is about {described.outputs} outputs, the network has {len(model.main.outputs)}"
        yield _error("mediapipe-metadata", what)
    if described.content not in (None, int(IMAGE)):
        yield _error("mediapipe-metadata", "its metadata says that the input is not an image")
    elif described.color not in (None, int(RGB)):
        yield _error("mediapipe-metadata", "its metadata says that the input is not RGB")
    if described.parser is not None and not all(map(NUMBER.match, described.parser.removesuffix(".").split("."))):
        yield _error(
            "mediapipe-metadata", f"its parser's version {described.parser[:20]!r} is not a version: MediaPipe crashes"
        )
    elif _version(described.parser or "") > PARSER:
        yield _error("mediapipe-metadata", f"its metadata asks for a parser of version {described.parser:.20}")
    for name in described.files:
        if name not in model.files:
            yield _error("mediapipe-labels", f"its metadata names the file {name:.60}, which it does not hold")
    yield from _normalization(model, described)


def _normalization(model: Model, described: Described) -> Iterator[Finding]:
    rule, floats = "mediapipe-normalization", any(tensor.dtype == "FLOAT32" for tensor in model.main.inputs[:1])
    if len(described.normalizations) > 1:
        yield _error(rule, f"its metadata has {len(described.normalizations)} normalizations, not one")
    if floats and not described.normalizations:
        yield _error(rule, "a float input needs NormalizationOptions, and its metadata has none")
    for means, stds in described.normalizations[:1]:
        if len(means) != len(stds) or len(means) not in (1, 3):
            yield _error(
                rule, f"its normalization has {len(means)} means and {len(stds)} deviations, not 1 or 3 of each"
            )
        elif not all(std >= MIN_DEVIATION and math.isfinite(std) for std in stds) or not all(map(math.isfinite, means)):
            yield _error(rule, f"its normalization takes off {means[0]:g} and divides by {min(stds):g}")
        elif not all(_keeps_apart(mean, std) for mean, std in zip(means, stds, strict=True)):
            yield _error(rule, f"its normalization takes off {means[0]:g}, which leaves nothing of a pixel in float32")
        elif len(set(means)) > 1 or len(set(stds)) > 1:
            yield _error(rule, "its normalization differs by channel, which it does not take")


def _keeps_apart(mean: float, std: float) -> bool:
    """Whether pixels 0 and 255 are different float32 values after a normalization."""
    with np.errstate(over="ignore"):
        low, high = (np.array([0, 255], np.float32) - np.float32(mean)) / np.float32(std)
    return bool(low < high)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:3] if part.isdecimal() and len(part) < 10)
