"""Is it still the same model? Three questions, each with its own tolerance.

1. Same pixels?      This machine cuts and resizes stored pictures to the very pixels the host did: bit-exact.
2. Same decisions?   On labelled pictures, the converted network against the one it came from: accuracy drop, agreement.
3. Same answers?     This runtime on this processor gives the stored answers to stored pixels: within a few quanta.

1 and 3 need only the bundle (`verify`); 2 needs data (edgefer.convert.comparison).
"""

import io
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from edgefer import drawn
from edgefer.bundle import PARITY, TFLITE_VARIANTS, Bundle
from edgefer.card import ModelCard
from edgefer.checks import Check, status_if
from edgefer.errors import BundleError, RuntimeFault
from edgefer.interpreter import Network
from edgefer.preprocess import face_pixels, prepare

# Int8 kernels of different runtimes and processors round a sum differently by one step now and then, and a network
# passes that on from layer to layer: tflite-runtime 2.14 against ai-edge-litert 2.1 gave at worst 3 quanta in a logit
# and 0.37 on average over 210 faces. A fault moves every answer, so the mean is bounded more tightly than the worst.
INT8_WORST, INT8_MEAN = 4, 0.5
# Float kernels add in different orders; this is a thousandth of what separates two neighbouring logits in practice.
FLOAT_TOLERANCE = 1e-3


def make_vectors(card: ModelCard, networks: dict[str, bytes], *, runtime: str = "auto", seed: int = 11) -> bytes:
    """parity.npz for a card and its .tflite files (variant -> content): questions with this machine's answers.

    The pictures are drawn faces and noise, so a bundle carries nobody's photograph. Arrays: `frames` uint8 [m, h, w, 3],
    `boxes` int64 [m, 4], `crops` uint8 [m, ...]; `pixels` uint8 [n, ...]; `answers_<variant>` [n, classes]; and what no
    picture can tell: `labels`, the card's, in the order of the answers, and `temperature`.
    """
    rng = np.random.default_rng(seed)
    grow = max(1, round(card.input.height / 48))
    size = (160 * grow, 120 * grow)
    frames = [frame.image_bgr for frame, _ in drawn.scene(seconds=4, fps=1, size=size, people=1, seed=seed)]
    # Faces to shrink, beyond the border, and one to enlarge: each takes another path through `prepare`.
    boxes = grow * np.array([[38, 22, 111, 95], [70, 50, 101, 82], [-9, 10, 60, 82], [100, 61, 171, 140]])
    faces, _ = drawn.face_set(6, seed)
    pixels = [prepare(face, card.input) for face in faces]
    pixels += list(rng.integers(0, 256, (6, *card.input.shape), dtype=np.uint8))
    arrays: dict[str, Any] = {
        "frames": np.stack(frames),
        "boxes": boxes,
        "crops": _crops(frames, boxes, card),
        "pixels": np.stack(pixels),
        "labels": np.array(card.labels),
        "temperature": np.array(card.temperature),
    }
    for variant, content in networks.items():
        network = Network.of(content, card, runtime=runtime)
        arrays[f"answers_{variant}"] = network.raw(arrays["pixels"])
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def _crops(frames: Iterable[np.ndarray], boxes: np.ndarray, card: ModelCard) -> np.ndarray:
    """Each frame's box as the card's network would see it, by the first of its crops: uint8 [m, height, width, channels]."""
    crop = next(iter(card.crops.values()), card.crop_for(""))
    return np.stack([face_pixels(f, tuple(b), crop, card.input) for f, b in zip(frames, boxes, strict=True)])


def verify(bundle: Bundle, *, runtime: str = "auto", variants: tuple[str, ...] = TFLITE_VARIANTS) -> list[Check]:
    """Questions 1 and 3 for the bundle on this machine: needs neither data nor TensorFlow."""
    _check_card(bundle)
    frames, boxes, expected, pixels = _vectors(bundle, "frames", "boxes", "crops", "pixels")
    card = bundle.card
    crops = _crops(frames, boxes, card)
    if crops.shape != expected.shape:
        raise BundleError(
            f"{bundle.path}: the parity vectors hold {expected.shape} crops, its card makes {crops.shape}."
        )
    wrong = int((crops != expected).sum())
    detail = f"{wrong:,} of {crops.size:,} pixels of {len(crops)} crops differ"
    checks = [Check(question=1, subject="pixels", status=status_if(wrong == 0), detail=detail)]
    for variant in variants:
        if bundle.has(variant):
            network = Network.of(bundle.read(variant), card, runtime=runtime)
            checks.append(_check_answers(network, variant, pixels, *_vectors(bundle, f"answers_{variant}")))
    return checks


def check_at_load(bundle: Bundle, network: Network, variant: str) -> None:
    """Question 3 on a few pictures, in milliseconds: RuntimeFault when the network does not give its stored answers.

    It catches a runtime that answers zeros, or other numbers than the host's, before the first frame.
    """
    _check_card(bundle)
    variant = "int8" if network.quantized else variant  # the one compiled for the Edge TPU answers as int8 does
    pixels, answers = _vectors(bundle, "pixels", f"answers_{variant}")
    check = _check_answers(network, variant, pixels[::6], answers[::6])
    if not check.passed:
        raise RuntimeFault(
            f"{check.subject} does not give this bundle's stored answers ({check.detail}): do not trust it here. "
            "See `edgefer verify`, try another --runtime, or run it all the same with --no-check."
        )


def _check_card(bundle: Bundle) -> None:
    """The meaning of the answers: swapped labels or another temperature change no pixel and no quantum."""
    labels, temperature = _vectors(bundle, "labels", "temperature")
    card = bundle.card
    for what, here, there in (
        ("labels are", list(card.labels), labels.tolist()),
        ("temperature is", card.temperature, temperature.item()),
    ):
        if here != there:
            raise BundleError(
                f"{bundle.path}: its card's {what} {here} but its parity vectors were made with {there}: "
                "they do not belong together; copy the bundle again."
            )


def _check_answers(network: Network, variant: str, pixels: np.ndarray, expected: np.ndarray) -> Check:
    if network.quantized != (variant == "int8"):
        raise BundleError(
            f"The bundle's {variant} file holds a network that takes {np.dtype(network.dtype).name}: convert it again."
        )
    answers = network.raw(pixels).astype(np.float64)
    if answers.shape != expected.shape:
        raise BundleError(f"The parity vectors hold {expected.shape} answers, the network gives {answers.shape}.")
    off = np.abs(answers - expected)
    worst, mean = float(off.max()), float(off.mean())
    same = float((answers.argmax(axis=1) == expected.argmax(axis=1)).mean())
    if network.quantized:
        passed = worst <= INT8_WORST and mean <= INT8_MEAN
        detail = f"off by {mean:.2f} quanta on average, {worst:.0f} at worst (allowed {INT8_MEAN} and {INT8_WORST})"
    else:
        passed = worst <= FLOAT_TOLERANCE  # False for a NaN
        detail = f"off by {worst:.2g} in a logit at worst (allowed {FLOAT_TOLERANCE})"
    detail += f", {same:.0%} of {len(pixels)} decisions equal"
    if not answers.any():
        detail += "; every answer is zero: this runtime cannot run this network"
    return Check(question=3, subject=f"{variant} on {network.runtime}", status=status_if(passed), detail=detail)


def _vectors(bundle: Bundle, *names: str) -> tuple[np.ndarray, ...]:
    """The named arrays of the bundle's parity.npz."""
    try:
        with np.load(io.BytesIO(bundle.read(PARITY)), allow_pickle=False) as arrays:
            return tuple(arrays[name] for name in names)
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise BundleError(f"{bundle.path}: the parity vectors cannot be read ({error}): convert it again.") from None
