"""The options for reading faces: the choices as enums, which validate, complete and document themselves, and their record."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

from edgefer.errors import InputError
from edgefer.problems import in_words
from edgefer.text import printable

Choice = TypeVar("Choice", bound=StrEnum)
Record = TypeVar("Record")
MAX_THREADS, MAX_FPS = 256, 1000.0  # more than any board or camera has
MIN_TARGET_FPS = 0.1
# What is read with when no bundle is named, and trained by, with the share held out, when no recipe is.
DEFAULT_MODEL, DEFAULT_RECIPE, DEFAULT_VALID_FRACTION = "ferplus-small", "small", 0.2
# What conversion may cost by default: points of accuracy, and the minimum share of equal decisions.
MAX_DROP, MIN_AGREEMENT = 1.0, 0.97
MAX_REMOVED = 0.95  # of the weights by pruning, and of the multiply-adds by slimming


class DetectorName(StrEnum):
    """The face detector; auto is the best available one."""

    AUTO = "auto"
    OWN = "own"
    YUNET = "yunet"
    HAAR = "haar"


class FaceKind(StrEnum):
    """What is read: human faces, cats' faces, or the centre of the frame."""

    HUMAN = "human"
    CAT = "cat"
    FRAME = "frame"


class Smoothing(StrEnum):
    """How steady labels are; calm is slower to change."""

    OFF = "off"
    RESPONSIVE = "responsive"
    CALM = "calm"


class RuntimeName(StrEnum):
    """What runs the network; auto selects the first installed one."""

    AUTO = "auto"
    LITERT = "litert"
    TFLITE = "tflite-runtime"
    TENSORFLOW = "tensorflow"
    OPENVINO = "openvino"


class DeviceName(StrEnum):
    """Where the network runs; coral is an Edge TPU."""

    CPU = "cpu"
    CORAL = "coral"


class Rotation(StrEnum):
    """How far images are rotated, clockwise, in degrees."""

    NONE = "0"
    RIGHT = "90"
    HALF = "180"
    LEFT = "270"


class Color(StrEnum):
    """The order of a network's channels."""

    GRAY = "gray"
    RGB = "rgb"
    BGR = "bgr"


class Outputs(StrEnum):
    """The kind of a network's output."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"


def choice(kind: type[Choice], value: Any, name: str) -> Choice:
    """A member of an enum by its value. InputError with the choices."""
    try:
        return kind(str(value))
    except ValueError:
        raise InputError(f"{name} {printable(str(value))!r} is not known: choose {', '.join(kind)}.") from None


def as_path(value: Any, name: str) -> Path:
    """A path from an argument. InputError for an invalid one, and for an empty text, which would be the current folder."""
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"{name} {printable(repr(value)):.80} is not a path: give text or a pathlib.Path.")
    if value == "":
        raise InputError(f"{name} is an empty text: give a path or a name, or leave it out.")
    if "\0" in os.fsdecode(value):
        raise InputError(f"{name} {printable(repr(value)):.80} holds a NUL: give a path or a name.")
    return Path(value)


def as_flag(value: Any, name: str) -> bool:
    """A flag from an argument. InputError for anything but True and False."""
    if not isinstance(value, bool):
        raise InputError(f"{name} {printable(repr(value)):.80} is not right: give True or False.")
    return value


def as_record(kind: type[Record], given: Mapping[str, Any]) -> Record:
    """A record of options from keywords, each with its field's type.

    InputError with the choices for an unknown option, and with the value for one of a wrong type.
    """
    hints = get_type_hints(kind)
    for name in given:
        if name not in hints:
            raise InputError(f"There is no option {printable(name)!r}: choose {', '.join(hints)}.")
    return kind(**{name: _of_type(hints[name], value, name) for name, value in given.items()})


def _of_type(hint: Any, value: Any, name: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    kinds = (hint, *get_args(hint))
    if choices := [one for one in kinds if isinstance(one, type) and issubclass(one, StrEnum)]:
        return value if value is None and NoneType in kinds else choice(choices[0], value, name)
    if isinstance(hint, type) and is_dataclass(hint) and isinstance(value, hint):  # pydantic would not look into it
        return as_record(hint, vars(value))
    if Path in kinds and value is not None:
        return as_path(value, name)
    if hint is bool:  # pydantic would accept "yes"
        return as_flag(value, name)
    if isinstance(value, bool) and not {bool, Any} & set(kinds):  # pydantic would accept True as 1
        raise InputError(f"{name} {value} is not right: it should be no bool.")
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        part = "" if not first["loc"] or first["type"] in ("missing", "too_long") else f" (got {first['input']!r:.40})"
        problem = in_words(first) + part
        raise InputError(f"{name} {printable(repr(value)):.80} is not right: {problem}.") from None


@dataclass(frozen=True, kw_only=True)
class DetectorFiles:
    """The named files of detectors: YuNet's .onnx, and the bundles of a finder and a refiner, by folder or shipped name.
    None selects the cached YuNet, and the shipped finder and refiner."""

    yunet: Path | None = None
    finder: Path | None = None
    refiner: Path | None = None


AS_SHIPPED = DetectorFiles()


@dataclass(frozen=True, kw_only=True)
class ReaderOptions:
    """How a Reader reads faces. Choices may be given as plain text, such as detector="yunet".

    check: verify the stored answers before anything is read. reject: faces below this score are unsure, 0..1; 0: never.
    yunet: its .onnx, instead of downloading it. finder, refiner: bundles that replace the shipped pair; the refiner is also used with YuNet.
    faces: the kind to read; None: the bundle's own. min_face: the minimum side of a face, in pixels; smaller ones are
    dropped. roi: (left, top, width, height) in pixels; faces are only detected inside it. threads: for the network; None:
    this board's default. target_fps: detect faces only as often as this rate allows, and track them in between; None: the
    board's for live sources, every frame for files. follow: search only every Nth frame in full, and in between near the
    known faces; 1 searches every frame in full. allow_cpu_fallback: continue with the int8 network on the
    CPU when an Edge TPU fails or hangs.
    """

    check: bool = True
    smooth: Smoothing = Smoothing.RESPONSIVE
    reject: float = 0.45
    detector: DetectorName = DetectorName.AUTO
    yunet: Path | None = None
    finder: Path | None = None
    refiner: Path | None = None
    faces: FaceKind | None = None
    min_face: int = 0
    roi: tuple[int, int, int, int] | None = None
    runtime: RuntimeName = RuntimeName.AUTO
    threads: int | None = None
    device: DeviceName = DeviceName.CPU
    target_fps: float | None = None
    follow: int = 1
    allow_cpu_fallback: bool = False

    def __post_init__(self) -> None:
        for name, kind in CHOICES.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, choice(kind, value, name))
        if isinstance(self.reject, bool) or not isinstance(self.reject, int | float) or not 0 <= self.reject <= 1:
            raise InputError(f"reject {self.reject!r} is not a probability: give a number from 0 to 1.")
        for name, (least, most) in BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and least <= value <= (most or value)):
                raise InputError(f"{name} {value!r} is not a number from {least} {f'to {most:g}' if most else 'up'}.")
        if self.roi is not None and (len(self.roi) != 4 or min(self.roi) < 0 or min(self.roi[2:]) < 1):
            raise InputError(
                f"roi {self.roi!r} is not a region: give left, top, width and height in pixels, both sizes 1 or more."
            )
        if self.yunet is not None and self.detector in (DetectorName.OWN, DetectorName.HAAR):
            raise InputError(f"--yunet is for --detector yunet: {self.detector}'s comes with edgefer.")
        if self.finder is not None and self.detector in (DetectorName.YUNET, DetectorName.HAAR):
            raise InputError(f"--finder is for --detector own: {self.detector} finds faces without one.")
        if self.finder is not None and self.yunet is not None:
            raise InputError("--finder is for --detector own and --yunet for YuNet: give one of the two.")
        if self.refiner is not None and self.detector is DetectorName.HAAR:
            raise InputError("--refiner is for --detector own and yunet: haar's faces are not refined.")

    @property
    def files(self) -> DetectorFiles:
        """The files of its detectors."""
        return DetectorFiles(yunet=_path(self.yunet), finder=_path(self.finder), refiner=_path(self.refiner))


def _path(named: str | Path | None) -> Path | None:
    """In Python it may be a text."""
    return None if named is None else Path(named)


CHOICES: dict[str, type[StrEnum]] = {
    "smooth": Smoothing,
    "detector": DetectorName,
    "faces": FaceKind,
    "runtime": RuntimeName,
    "device": DeviceName,
}


BOUNDS = {
    "min_face": (0, None),
    "threads": (1, MAX_THREADS),
    "target_fps": (MIN_TARGET_FPS, MAX_FPS),
    "follow": (1, None),
}


def parse_size(text: str) -> tuple[int, int]:
    """`640x480` as (640, 480); InputError for anything else."""
    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", text.strip().lower())
    if not match:
        raise InputError(f"{printable(text)!r} is not an image size: write width x height in pixels, such as 640x480.")
    return int(match[1]), int(match[2])


def parse_region(text: str) -> tuple[int, int, int, int]:
    """`100,50,640x480` as (100, 50, 640, 480): left, top, width and height in pixels; InputError for anything else."""
    match = re.fullmatch(r"(\d{1,5}),(\d{1,5}),([1-9]\d{0,4})x([1-9]\d{0,4})", text.strip().lower())
    if not match:
        raise InputError(
            f"{printable(text)!r} is not a region: write LEFT,TOP,WIDTHxHEIGHT in pixels, such as 100,50,640x480."
        )
    left, top, width, height = map(int, match.groups())
    return left, top, width, height
