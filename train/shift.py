"""Accuracy and calibration under domain shift: nine kinds of image changes that cameras make, each at several
strengths.

A kind's accuracy is the mean over its strengths, and the headline the mean over the kinds, so that no kind counts for
more since it has more strengths.
"""

import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial

import cv2
import numpy as np

from edgefer.card import ModelCard
from edgefer.interpreter import softmax
from edgefer.metrics import Answered, answered_from, ece
from edgefer.options import ReaderOptions
from edgefer.quality import SIDE
from edgefer.train.data.dataset import Split

Change = Callable[[np.ndarray], np.ndarray]  # uint8 [h, w, 1] gray or [h, w, 3] BGR -> the same shape
Logits = Callable[[np.ndarray], np.ndarray]  # uint8 [n, h, w, c] -> float32 [n, classes]


def _warp(
    image: np.ndarray, *, angle_deg: float = 0.0, scale: float = 1.0, dx: float = 0.0, dy: float = 0.0
) -> np.ndarray:
    """Rotate and scale about the centre, and shift by fractions of the side; the border is replicated."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle_deg, scale)
    matrix[:, 2] += np.array([dx * width, dy * height])
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur. sigma: in pixels of a face of SIDE pixels, whatever the size of the network's input."""
    height, width = image.shape[:2]
    return cv2.GaussianBlur(image, (0, 0), sigmaX=sigma * width / SIDE, sigmaY=sigma * height / SIDE)


def _motion_blur(image: np.ndarray, length: int, vertical: bool) -> np.ndarray:
    """length: in pixels of a face of SIDE pixels."""
    length = round(length * image.shape[0 if vertical else 1] / SIDE)
    size = (1, length) if vertical else (length, 1)
    return cv2.blur(image, size, borderType=cv2.BORDER_REPLICATE)


def _downsample(image: np.ndarray, side: int) -> np.ndarray:
    """To a face of `side` pixels and back."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    assert decoded is not None
    return decoded


def _noise(image: np.ndarray, level: float) -> np.ndarray:
    """Gaussian noise, a function of the image. level: its standard deviation as a fraction of the range."""
    rng = np.random.default_rng(zlib.crc32(image.tobytes()))
    return _to_pixels(image + rng.normal(0, level * 255, image.shape))


def relight(image: np.ndarray, factor: float) -> np.ndarray:
    """The pixels times `factor`, clipped."""
    return _to_pixels(image * factor)


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale the differences from the image's mean by `factor`."""
    mean = image.mean()
    return _to_pixels((image - mean) * factor + mean)


def _to_pixels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Strength:
    """One strength of a kind of change. variants: the changes it is the mean over, such as a tilt to the left and to
    the right."""

    name: str
    variants: tuple[Change, ...]


def _strength(name: str, *variants: Change) -> Strength:
    return Strength(name=name, variants=variants)


KINDS: dict[str, tuple[Strength, ...]] = {
    "blur": tuple(_strength(f"sigma {sigma} px", partial(blur, sigma=sigma)) for sigma in (1, 1.5, 2)),
    "motion blur": tuple(
        _strength(
            f"{length} px", *(partial(_motion_blur, length=length, vertical=vertical) for vertical in (False, True))
        )
        for length in (5, 7)
    ),
    "few pixels": tuple(_strength(f"a {side}-pixel face", partial(_downsample, side=side)) for side in (32, 24, 16)),
    "JPEG": tuple(_strength(f"quality {quality}", partial(_jpeg, quality=quality)) for quality in (40, 20, 10)),
    "noise": tuple(
        _strength(f"{level:.0%} of the range", partial(_noise, level=level)) for level in (0.04, 0.08, 0.12)
    ),
    "dark": tuple(_strength(f"{factor:.0%} of the light", partial(relight, factor=factor)) for factor in (0.5, 0.3)),
    "flat light": (
        _strength("160% of the light", partial(relight, factor=1.6)),
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


MIN_SCORE = ReaderOptions.reject  # of what `edgefer run` answers by default


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """Accuracy, expected calibration error over 15 bins, and the share and accuracy of the answers of at least
    MIN_SCORE."""

    accuracy: float
    ece: float
    answered: Answered


@dataclass(frozen=True, kw_only=True)
class Shift:
    """The figures of one network. clean: on unchanged images; kinds: by kind; strengths: the accuracy by kind and
    strength.

    A kind's accuracy is the mean over its strengths; its other figures are over all its images together.
    """

    clean: Calibrated
    kinds: dict[str, Calibrated]
    strengths: dict[str, dict[str, float]]

    @property
    def mean_of_kinds(self) -> float:
        """The mean accuracy over the kinds: the headline."""
        return float(np.mean([kind.accuracy for kind in self.kinds.values()]))

    @property
    def worst_kind(self) -> tuple[str, float]:
        """The kind with the lowest accuracy, and its accuracy."""
        name, kind = min(self.kinds.items(), key=lambda pair: pair[1].accuracy)
        return name, kind.accuracy

    @property
    def worst_calibrated(self) -> tuple[str, float]:
        """The kind with the highest ECE, and its ECE."""
        name, kind = max(self.kinds.items(), key=lambda pair: pair[1].ece)
        return name, kind.ece

    def to_json(self) -> dict:
        """All figures."""
        worst, accuracy = self.worst_kind
        return {
            "clean": asdict(self.clean),
            "mean_of_kinds": self.mean_of_kinds,
            "worst_kind": {"kind": worst, "accuracy": accuracy},
            "kinds": {name: asdict(kind) for name, kind in self.kinds.items()},
            "strengths": self.strengths,
        }


def domain_shift(
    split: Split, networks: dict[str, Logits], card: ModelCard, track: Callable[..., Iterable]
) -> dict[str, Shift]:
    """Evaluate each network, a form of the card's, under every change: name -> Shift.

    track: reports progress, as edgefer.progress.Progress.track.
    """
    runs = [(kind, strength) for kind, strengths in KINDS.items() for strength in strengths]
    probabilities: dict[str, dict[str, dict[str, list[np.ndarray]]]] = {
        name: {kind: {} for kind in KINDS} for name in networks
    }
    for kind, strength in track(runs, len(runs), "Domain shift"):
        for change in strength.variants:
            shifted = apply_change(split.images, change, card.input.color)
            for name, logits in networks.items():
                by_strength = probabilities[name][kind].setdefault(strength.name, [])
                by_strength.append(softmax(logits(shifted), card.temperature))
    return {
        name: _shift(softmax(logits(split.images), card.temperature), probabilities[name], split.labels)
        for name, logits in networks.items()
    }


def _shift(clean: np.ndarray, by_kind: dict[str, dict[str, list[np.ndarray]]], labels: np.ndarray) -> Shift:
    """clean, and for each variant of each strength of each kind: probabilities float64 [n, classes]."""

    def accuracy(probabilities: np.ndarray) -> float:
        return float(np.mean(probabilities.argmax(axis=1) == labels))

    strengths = {
        kind: {name: float(np.mean([accuracy(one) for one in variants])) for name, variants in by_strength.items()}
        for kind, by_strength in by_kind.items()
    }
    kinds = {}
    for kind, by_strength in by_kind.items():
        every = [one for variants in by_strength.values() for one in variants]
        pooled = _calibrated(np.concatenate(every), np.tile(labels, len(every)))
        kinds[kind] = replace(pooled, accuracy=float(np.mean(list(strengths[kind].values()))))
    return Shift(clean=_calibrated(clean, labels), kinds=kinds, strengths=strengths)


def _calibrated(probabilities: np.ndarray, labels: np.ndarray) -> Calibrated:
    return Calibrated(
        accuracy=float(np.mean(probabilities.argmax(axis=1) == labels)),
        ece=ece(probabilities, labels),
        answered=answered_from(probabilities, labels, MIN_SCORE),
    )


def apply_change(images: np.ndarray, change: Change, color: str) -> np.ndarray:
    """`change` on each image: uint8 [n, h, w, c] -> the same shape. color: as in the card's input."""
    order = slice(None, None, -1 if color == "rgb" else 1)  # JPEG weights colours, and OpenCV takes them as BGR
    return np.stack([change(np.ascontiguousarray(one[..., order])).reshape(one.shape) for one in images])[..., order]
