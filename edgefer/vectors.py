"""parity.npz: images and expected answers, to prove on another machine that a bundle's network is still the same.

frames         uint8 [m, h, w, 3]             scenes, BGR
boxes          int64 [m, 4]                   a detector's box in each of them: left, top, right, bottom
crops          uint8 [m, height, width, c]    `face_pixels` of them with the first of the card's crops
crops_<name>   the same                       with the crop of that detector; bundles from before 0.2 have none
levelled       the same                       with the first crop, levelled by ROLLS_DEG; older bundles have none
pixels         uint8 [n, height, width, c]    the network's input images
answers_<variant>  int8 or float32 [n, classes]  that network's own output for `pixels`, on the machine that made it
quanta_int8    float64 [k, 2]                 scale and zero point of each tensor computed in int8
labels, temperature, faces, output, limits    from the card: not visible in pixels or answers; older bundles have no output
                                              and no limits

The images are drawn faces and noise, so a bundle contains no photographs. The file is untrusted: it is read once per run,
with bounded sizes, and compared with the card before it is used.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle
from typing import Any

import numpy as np

from edgefer import drawn
from edgefer.bundle import PARITY, TFLITE_VARIANTS, Bundle, Form
from edgefer.card import CropSpec, ModelCard
from edgefer.errors import BundleError
from edgefer.interpreter import Network, RuntimeOptions
from edgefer.npz import ArraySpec, read_arrays
from edgefer.preprocess import face_pixels, prepare
from edgefer.tflite.flatbuffer import read_model
from edgefer.tflite.quanta import inner_quanta

MAX_IMAGES = 64
MAX_FRAME = 4096  # pixels, height and width
MAX_CROP = 2048  # pixels, the side of a crop
MAX_BYTES = 192 << 20  # of all arrays together
MAX_TEXT = 64
MAX_TENSORS = 4096
ROLLS_DEG = (-24.0, 9.5, 33.0, -71.0)  # of the levelled crops: the frames' in turn
MEANING = ("labels", "temperature")
IMAGE, TEXT = ("|u1",), ("<U",)
INTEGER_ANSWERS, FLOAT_ANSWERS = ("|i1", "|u1", "<i2"), ("<f4",)


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """The arrays of a bundle's parity.npz, all checked against its card.

    crops: by the name of the detector; "" if the card has none. answers: by variant. faces, levelled and quanta: "", None
    and None in older bundles; a detection network has no `levelled`.
    """

    frames: np.ndarray
    boxes: np.ndarray
    crops: dict[str, np.ndarray]
    pixels: np.ndarray
    answers: dict[str, np.ndarray]
    faces: str
    levelled: np.ndarray | None = None
    quanta: np.ndarray | None = None

    @classmethod
    def load(cls, bundle: Bundle) -> "Vectors":
        """The vectors of a bundle, read and checked; BundleError if anything about them is wrong."""
        try:
            content, specs = bundle.read(PARITY), _specs(bundle.card)
            # The labels first: networks with different labels need not agree in anything else.
            _check_meaning(bundle, read_arrays(content, {name: specs.pop(name) for name in MEANING}, MAX_BYTES))
            return cls(**_checked(read_arrays(content, specs, MAX_BYTES), bundle))
        except ValueError as error:
            raise BundleError(
                f"{bundle.path}: the parity vectors cannot be read ({error}): copy the bundle again, or convert it again."
            ) from None


def make_vectors(card: ModelCard, networks: dict[str, bytes], *, runtime: str = "auto", seed: int = 11) -> bytes:
    """parity.npz for a card and its .tflite files (variant -> content): the images with this machine's answers."""
    rng = np.random.default_rng(seed)
    reads = card.task == "read"
    grow = max(1, round(card.input.height / 48)) if reads else 1  # detection networks get no crops
    frames, faces = _draw((160 * grow, 120 * grow), 6 if reads else 1, seed)
    # Faces to downscale, beyond the border, and one to upscale: each takes another path through `prepare`.
    boxes = grow * np.array([[38, 22, 111, 95], [70, 50, 101, 82], [-9, 10, 60, 82], [100, 61, 171, 140]])
    pixels = [prepare(face, card.input) for face in faces]
    pixels += list(rng.integers(0, 256, (6 if reads else 2, *card.input.shape), dtype=np.uint8))
    by_detector = {name: cut_crops(frames, boxes, crop, card) for name, crop in stored_crops(card).items()}
    arrays: dict[str, Any] = {
        "frames": np.stack(frames),
        "boxes": boxes,
        "crops": next(iter(by_detector.values())),
        **{f"crops_{name}": crops for name, crops in list(by_detector.items())[1:]},
        "pixels": np.stack(pixels),
        "labels": np.array(card.labels),
        "temperature": np.array(card.temperature),
        "faces": np.array(card.faces),
        "output": np.array(str(card.output)),
        "limits": np.array(_limits(card)),
    }
    if reads:
        arrays["levelled"] = cut_crops(frames, boxes, first_crop(card), card, ROLLS_DEG)
    for variant, content in networks.items():
        arrays[f"answers_{variant}"] = Network.of(content, card, RuntimeOptions(runtime=runtime)).raw(arrays["pixels"])
    if Form.INT8 in networks:
        arrays["quanta_int8"] = inner_quanta(read_model(networks[Form.INT8], "int8.tflite"))
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


@lru_cache(maxsize=1)  # `edgefer compare` makes the vectors of several networks
def _draw(size: tuple[int, int], per_class: int, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The frames of a scene, and faces."""
    scene = drawn.scene(seconds=4, fps=1, size=size, people=1, seed=seed)
    faces, _ = drawn.face_set(per_class, seed)
    return [frame.image_bgr for frame, _ in scene], list(faces)


def stored_crops(card: ModelCard) -> dict[str, CropSpec]:
    """The crop of each detector in the card, the first one stored as `crops`; an unchanged box if there is none."""
    return dict(card.crops) or {"": card.crop_for("")}


def first_crop(card: ModelCard) -> CropSpec:
    """The crop of the images stored as `crops` and `levelled`."""
    return next(iter(stored_crops(card).values()))


def cut_crops(
    frames: Iterable[np.ndarray],
    boxes: np.ndarray,
    crop: CropSpec,
    card: ModelCard,
    rolls_deg: Sequence[float] = (0.0,),
) -> np.ndarray:
    """The network's input for each frame's box with `crop`: uint8 [m, height, width, channels]. rolls_deg: the heads', in
    turn."""
    heads = zip(frames, boxes.tolist(), cycle(rolls_deg), strict=False)  # the rolls never end
    return np.stack([face_pixels(frame, tuple(box), crop, card.input, roll) for frame, box, roll in heads])


def _specs(card: ModelCard) -> dict[str, ArraySpec]:
    """The spec of each array for this card, by name, the required ones first."""
    images = ArraySpec(dtypes=IMAGE, shape=((MAX_IMAGES,), *card.input.shape))
    answers = ArraySpec(dtypes=(*INTEGER_ANSWERS, *FLOAT_ANSWERS), shape=((MAX_IMAGES,), card.answers))
    return {
        "labels": ArraySpec(dtypes=TEXT, shape=((1000,),), max_chars=MAX_TEXT),
        "temperature": ArraySpec(dtypes=("<f8",), shape=()),
        "faces": ArraySpec(dtypes=TEXT, shape=(), max_chars=MAX_TEXT),
        "output": ArraySpec(dtypes=TEXT, shape=(), max_chars=MAX_TEXT),
        "limits": ArraySpec(dtypes=("<f8",), shape=(3,)),
        "frames": ArraySpec(dtypes=IMAGE, shape=((MAX_IMAGES,), (MAX_FRAME,), (MAX_FRAME,), 3)),
        "boxes": ArraySpec(dtypes=("<i8", "<i4"), shape=((MAX_IMAGES,), 4)),
        "crops": images,
        **{f"crops_{name}": images for name in list(stored_crops(card))[1:]},
        "levelled": images,
        "pixels": images,
        **{f"answers_{variant}": answers for variant in TFLITE_VARIANTS},
        "quanta_int8": ArraySpec(dtypes=("<f8",), shape=((MAX_TENSORS,), 2)),
    }


def _checked(arrays: dict[str, np.ndarray], bundle: Bundle) -> dict[str, Any]:
    """The fields of Vectors; ValueError if they are inconsistent, BundleError if they contradict the card."""
    card = bundle.card
    expected = [f"answers_{variant}" for variant in TFLITE_VARIANTS if bundle.has(variant)]
    for name in ("frames", "boxes", "crops", "pixels", *expected):
        if name not in arrays:
            raise ValueError(f"there is no {name}")
    for name, what, here in (
        ("faces", "faces are", card.faces),
        ("output", "output is", str(card.output)),
        ("limits", "limits are", _limits(card)),
    ):
        if name in arrays and arrays[name].tolist() != here:
            raise _other(bundle, what, here, arrays[name].tolist())
    frames, boxes, pixels = arrays["frames"], arrays["boxes"], arrays["pixels"]
    names = list(stored_crops(card))
    crops = {names[0]: arrays["crops"]}
    crops |= {name: arrays[f"crops_{name}"] for name in names[1:] if f"crops_{name}" in arrays}
    levelled = {"levelled crops": arrays["levelled"]} if "levelled" in arrays else {}
    for what, array in (
        {"boxes": boxes} | {f"crops of {name}": some for name, some in crops.items()} | levelled
    ).items():
        if len(array) != len(frames):
            raise ValueError(f"there are {len(array)} {what} for {len(frames)} frames")
    for crop in stored_crops(card).values():
        _check_boxes(boxes, crop, frames.shape[1:3])
    answers = {variant: arrays[f"answers_{variant}"] for variant in TFLITE_VARIANTS if f"answers_{variant}" in arrays}
    for variant, array in answers.items():
        if len(array) != len(pixels):
            raise ValueError(f"there are {len(array)} answers of {variant} for {len(pixels)} images")
        if not np.isfinite(array).all():
            raise ValueError(f"an answer of {variant} is not a finite number")
    quanta = arrays.get("quanta_int8")
    if quanta is not None and not np.isfinite(quanta).all():
        raise ValueError("a scale or zero point in quanta_int8 is not a finite number")
    return {
        "frames": frames,
        "boxes": boxes,
        "crops": crops,
        "pixels": pixels,
        "answers": answers,
        "faces": str(arrays["faces"].item()) if "faces" in arrays else "",
        "levelled": arrays.get("levelled"),
        "quanta": quanta,
    }


def _limits(card: ModelCard) -> list[float]:
    return [card.limits.min_light, card.limits.max_light, card.limits.min_sharpness]


def _check_boxes(boxes: np.ndarray, crop: CropSpec, frame: tuple[int, ...]) -> None:
    """Check that boxes are in or near the frame, and that crops have a plausible size."""
    most = 2 * max(frame)
    left, top, right, bottom = boxes.T
    if (np.abs(boxes // 2) > most).any() or (left >= right).any() or (top >= bottom).any():
        raise ValueError("a box is empty or far outside its frame")
    side = crop.scale * float(((right - left) + (bottom - top)).max()) / 2
    if not side <= MAX_CROP:
        raise ValueError(f"a box leads to a crop of {side:.0f} pixels, at most {MAX_CROP} are cut")


def _check_meaning(bundle: Bundle, arrays: dict[str, np.ndarray]) -> None:
    """Check the meaning of the answers: swapped labels or another temperature change no pixel and no quantum."""
    for name in MEANING:
        if name not in arrays:
            raise ValueError(f"there is no {name}")
    card = bundle.card
    for what, here, there in (
        ("labels are", list(card.labels), arrays["labels"].tolist()),
        ("temperature is", card.temperature, arrays["temperature"].item()),
    ):
        if here != there:
            raise _other(bundle, what, here, there)


def _other(bundle: Bundle, what: str, here: object, there: object) -> BundleError:
    return BundleError(
        f"{bundle.path}: its card's {what} {here} but its parity vectors were made with {there}: "
        "they do not belong together; copy the bundle again."
    )
