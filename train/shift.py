"""What a camera does to a face that a data set did not: where a network breaks, seen before it is deployed.

Nine kinds of change, each at several strengths. The figure of a kind is the mean over its strengths, and the headline is
the mean over the kinds: no kind counts for more because it has more strengths.
"""

import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial

import cv2
import numpy as np

from edgefer.interpreter import softmax
from edgefer.metrics import Answered, answered_from, ece
from edgefer.options import ReaderOptions
from edgefer.quality import SIDE

Change = Callable[[np.ndarray], np.ndarray]  # one image, uint8 [h, w, c], to another of the same shape
Logits = Callable[[np.ndarray], np.ndarray]  # uint8 [n, h, w, c] -> float32 [n, classes]


def _warp(
    image: np.ndarray, *, angle_deg: float = 0.0, scale: float = 1.0, dx: float = 0.0, dy: float = 0.0
) -> np.ndarray:
    """Rotate and scale about the centre and shift by shares of the side, repeating the border."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle_deg, scale)
    matrix[:, 2] += np.array([dx * width, dy * height])
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """sigma: in pixels of a face of SIDE pixels, however large the network's input is."""
    return cv2.GaussianBlur(image, (0, 0), sigma * image.shape[0] / SIDE)


def _motion(image: np.ndarray, length: int, down: bool) -> np.ndarray:
    """Smeared by `length` pixels of a face of SIDE pixels, across or down."""
    length = round(length * image.shape[0] / SIDE)
    size = (1, length) if down else (length, 1)
    return cv2.blur(image, size, borderType=cv2.BORDER_REPLICATE)


def _small(image: np.ndarray, side: int) -> np.ndarray:
    """As a face of `side` pixels looks once it is enlarged for the network."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    return decoded


def _noise(image: np.ndarray, share: float) -> np.ndarray:
    """Gaussian noise of a standard deviation of `share` of the range; an image always gets the same noise."""
    rng = np.random.default_rng(zlib.crc32(image.tobytes()))
    return _to_pixels(image + rng.normal(0, share * 255, image.shape))


def lit(image: np.ndarray, factor: float) -> np.ndarray:
    return _to_pixels(image * factor)


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Differences from the image's mean times `factor`."""
    mean = image.mean()
    return _to_pixels((image - mean) * factor + mean)


def _to_pixels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Strength:
    """One strength of a kind of change. ways: the changes it is the mean of, such as a tilt to the left and to the right."""

    name: str
    ways: tuple[Change, ...]


def _strength(name: str, *ways: Change) -> Strength:
    return Strength(name=name, ways=ways)


KINDS: dict[str, tuple[Strength, ...]] = {
    "blur": tuple(_strength(f"sigma {sigma} px", partial(blurred, sigma=sigma)) for sigma in (1, 1.5, 2)),
    "motion blur": tuple(
        _strength(f"{length} px", *(partial(_motion, length=length, down=down) for down in (False, True)))
        for length in (5, 7)
    ),
    "few pixels": tuple(_strength(f"a {side}-pixel face", partial(_small, side=side)) for side in (32, 24, 16)),
    "JPEG": tuple(_strength(f"quality {quality}", partial(_jpeg, quality=quality)) for quality in (40, 20, 10)),
    "noise": tuple(
        _strength(f"{share:.0%} of the range", partial(_noise, share=share)) for share in (0.04, 0.08, 0.12)
    ),
    "dark": tuple(_strength(f"{factor:.0%} of the light", partial(lit, factor=factor)) for factor in (0.5, 0.3)),
    "flat light": (
        _strength("160% of the light", partial(lit, factor=1.6)),
        _strength("40% of the contrast", partial(_contrast, factor=0.4)),
    ),
    "tilt": tuple(
        _strength(f"{angle} degrees", *(partial(_warp, angle_deg=sign * angle) for sign in (-1, 1)))
        for angle in (15, 30)
    ),
    "framing": (
        _strength("box too wide: face at 0.8", partial(_warp, scale=0.8)),
        _strength("box too tight: face at 1.25", partial(_warp, scale=1.25)),
        _strength(
            "box a tenth aside",
            *(partial(_warp, dx=dx, dy=dy) for dx, dy in ((-0.1, 0), (0.1, 0), (0, -0.1), (0, 0.1))),
        ),
    ),
}


SCORE = ReaderOptions.reject


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """Accuracy, how far the scores are from it (expected calibration error over 15 bins), and what is answered, and how
    well, where `edgefer run`'s score is asked for."""

    accuracy: float
    ece: float
    answered: Answered


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A network under change: unchanged, by kind, and the accuracy by kind and the name of the strength.

    A kind's accuracy is the mean over its strengths, its other figures are those of all its answers together.
    """

    clean: Calibrated
    kinds: dict[str, Calibrated]
    strengths: dict[str, dict[str, float]]

    @property
    def mean_of_kinds(self) -> float:
        """The headline."""
        return float(np.mean([kind.accuracy for kind in self.kinds.values()]))

    @property
    def worst_kind(self) -> tuple[str, float]:
        """The kind with the lowest accuracy, and that accuracy."""
        name, kind = min(self.kinds.items(), key=lambda pair: pair[1].accuracy)
        return name, kind.accuracy

    @property
    def worst_calibrated(self) -> tuple[str, float]:
        """The kind with the highest ECE, and that."""
        name, kind = max(self.kinds.items(), key=lambda pair: pair[1].ece)
        return name, kind.ece

    def to_json(self) -> dict:
        """Unchanged, the headline, the worst kind, each kind and each strength."""
        worst, accuracy = self.worst_kind
        return {
            "clean": asdict(self.clean),
            "mean_of_kinds": self.mean_of_kinds,
            "worst_kind": {"kind": worst, "accuracy": accuracy},
            "kinds": {name: asdict(kind) for name, kind in self.kinds.items()},
            "strengths": self.strengths,
        }


def domain_shift(
    images: np.ndarray,
    labels: np.ndarray,
    networks: dict[str, Logits],
    temperature: float,
    track: Callable[..., Iterable],
) -> dict[str, Shift]:
    """Each network under every change: name -> Shift. images uint8 [n, h, w, c], labels int64 [n]."""
    todo = [(kind, strength) for kind, strengths in KINDS.items() for strength in strengths]
    found: dict[str, dict[str, dict[str, list[np.ndarray]]]] = {name: {kind: {} for kind in KINDS} for name in networks}
    for kind, strength in track(todo, len(todo), "Domain shift"):
        for change in strength.ways:
            seen = changed(images, change)
            for name, logits in networks.items():
                found[name][kind].setdefault(strength.name, []).append(softmax(logits(seen), temperature))
    return {
        name: _shift(softmax(logits(images), temperature), found[name], labels) for name, logits in networks.items()
    }


def _shift(clean: np.ndarray, found: dict[str, dict[str, list[np.ndarray]]], labels: np.ndarray) -> Shift:
    """clean, and by kind and strength for each way: probabilities, float64 [n, classes]."""

    def right(probabilities: np.ndarray) -> float:
        return float(np.mean(probabilities.argmax(axis=1) == labels))

    strengths = {
        kind: {name: float(np.mean([right(way) for way in ways])) for name, ways in by_name.items()}
        for kind, by_name in found.items()
    }
    kinds = {}
    for kind, by_name in found.items():
        answers = [way for ways in by_name.values() for way in ways]
        pooled = _calibrated(np.concatenate(answers), np.tile(labels, len(answers)))
        kinds[kind] = replace(pooled, accuracy=float(np.mean(list(strengths[kind].values()))))
    return Shift(clean=_calibrated(clean, labels), kinds=kinds, strengths=strengths)


def _calibrated(probabilities: np.ndarray, labels: np.ndarray) -> Calibrated:
    return Calibrated(
        accuracy=float(np.mean(probabilities.argmax(axis=1) == labels)),
        ece=ece(probabilities, labels),
        answered=answered_from(probabilities, labels, SCORE),
    )


def changed(images: np.ndarray, change: Change) -> np.ndarray:
    """`change` done to each image: uint8 [n, h, w, c] -> the same shape."""
    return np.stack([change(image).reshape(image.shape) for image in images])
