"""The input of an export: a bundle's int8 network as words, and its stored images and answers, all checked."""

from dataclasses import dataclass

import numpy as np

from edgefer.bundle import Bundle, Form
from edgefer.c.program import Program, make_program
from edgefer.card import CropSpec
from edgefer.errors import BundleError
from edgefer.interpreter import is_own_int8_input
from edgefer.preprocess import quantized_table
from edgefer.tflite.int8_network import Int8Network, UnsupportedNetwork
from edgefer.tflite.layers import read_layers
from edgefer.vectors import Vectors, stored_crops

MAX_FRAME_BYTES, MAX_PIXEL_BYTES = 2**18, 2**17  # of a target's self-test, at least one of each
LOGITS = "logits"


@dataclass(frozen=True, kw_only=True)
class Questions:
    """The bundle's stored test data: frames uint8 [m, h, w, 3] BGR, boxes int64 [m, 4], crops and pixels uint8
    [n, h, w, c], answers int8 [n, classes]. `crop`: how the crops were made from the boxes. levelled: see Vectors."""

    frames: np.ndarray
    boxes: np.ndarray
    crops: np.ndarray
    pixels: np.ndarray
    answers: np.ndarray
    crop: CropSpec
    levelled: np.ndarray | None = None

    def small(self) -> "Questions":
        """An evenly spread subset that fits a small target's memory, without the levelled crops."""
        frames = _spread(len(self.frames), MAX_FRAME_BYTES // self.frames[0].nbytes)
        images = _spread(len(self.pixels), MAX_PIXEL_BYTES // self.pixels[0].nbytes)
        return Questions(
            frames=self.frames[frames],
            boxes=self.boxes[frames],
            crops=self.crops[frames],
            pixels=self.pixels[images],
            answers=self.answers[images],
            crop=self.crop,
        )


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A bundle that can be exported."""

    bundle: Bundle
    content: bytes  # of int8.tflite
    program: Program
    vectors: Questions

    @property
    def network(self) -> Int8Network:
        return self.program.network


def read_subject(bundle: Bundle) -> Subject:
    """The bundle's int8 network and vectors. UnsupportedNetwork for an unsupported operator, input or output; BundleError
    for other problems."""
    card = bundle.card
    content = bundle.read(Form.INT8)
    network = read_layers(content, str(bundle.file(Form.INT8)))
    if network.input.shape != card.input.shape or network.answers != card.answers:
        raise BundleError(
            f"{bundle.path}: the int8 network makes {network.answers} answers of {network.input.shape} pixels, its card "
            f"says {card.answers} of {card.input.shape}: they do not belong together; copy the bundle again."
        )
    if card.output.values != LOGITS:
        raise UnsupportedNetwork(
            f"{bundle.path}: its network answers with {card.output.values}; only networks that answer with logits can be exported."
        )
    return Subject(
        bundle=bundle,
        content=content,
        program=make_program(network, _input_table(bundle, network)),
        vectors=_questions(bundle),
    )


def _input_table(bundle: Bundle, network: Int8Network) -> np.ndarray | None:
    """int8 [256, channels]: the network's input for each pixel value; None if it is pixel - 128."""
    spec, scale, zero = bundle.card.input, float(network.input.scale), network.input.zero
    if spec.stated:
        return quantized_table(spec, np.int8, scale, zero).astype(np.int8)
    if not is_own_int8_input(scale, zero):
        raise UnsupportedNetwork(
            f"{bundle.path}: the int8 network's input has scale {scale:.6g} and zero point {zero}, not 1/255 and -128, and "
            "its card states no others: convert it again with `edgefer convert`."
        )
    return None


def _questions(bundle: Bundle) -> Questions:
    stored = Vectors.load(bundle)
    if Form.INT8 not in stored.answers:
        raise BundleError(f"{bundle.path}: its parity vectors hold no answers of int8: convert it again.")
    name, crop = next(iter(stored_crops(bundle.card).items()))
    return Questions(
        frames=stored.frames,
        boxes=stored.boxes,
        crops=stored.crops[name],
        pixels=stored.pixels,
        answers=stored.answers[Form.INT8],
        crop=crop,
        levelled=stored.levelled,
    )


def _spread(count: int, room: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, max(1, min(count, room))).round().astype(int))
