"""Fits the limits beyond which a face is not classified, and measures their benefit. Not a test: it takes minutes and prints
tables.

    python tests/benchmarks/fit_quality.py BUNDLE --data fer2013.csv.gz

1. The limits as fitted by `convert` (edgefer.train.limits), on one half of the validation split, and the accuracy by light and
   sharpness.
2. The benefit of the limits in use for each kind of change, compared with refusing as many faces by score alone, on the other half.
3. The benefit of a temperature that depends on the image: log T = log T_card + w . x, with x the sharpness, noise, contrast,
   light and direction of the edges, fitted over all kinds on images of the training split. Not in use: see devices/README.md.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import minimize

from edgefer.bundle import Bundle
from edgefer.card import Limits
from edgefer.interpreter import Network, softmax
from edgefer.metrics import answered_with, aurc, ece
from edgefer.quality import light, sharpness
from edgefer.train.data.dataset import Split
from edgefer.train.data.trained import training_data
from edgefer.train.limits import BLURRED, BRIGHTER, DARKER, Holdout, answers, bins, fit_limits
from edgefer.train.shift import KINDS, MIN_SCORE, apply_change

NOISE_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)  # Immerkaer 1996, 10.1006/cviu.1996.0060


def refused(images: np.ndarray, limits: Limits) -> np.ndarray:
    """Which gray images the limits refuse, regardless of their score: bool [n]."""
    lights = np.array([light(image[..., 0]) for image in images])
    blurry = np.array([sharpness(image[..., 0]) < limits.min_sharpness for image in images])
    return blurry | (lights < limits.min_light) | (lights > limits.max_light)


def show_bins(held: Holdout, temperature: float) -> None:
    for name, changes, value in (
        ("sharpness", BLURRED, sharpness),
        ("dark", DARKER, light),
        ("bright", BRIGHTER, light),
    ):
        every = [answers([held], temperature, "gray", change) for change in (None, *changes)]
        found = bins(every, value, ascending=name == "bright")
        steps = found[:: max(1, len(found) // 12)]
        print(
            f"{name}:", "; ".join(f"{one.value:.1f}: score {one.score:.2f}, right {one.accuracy:.2f}" for one in steps)
        )


def statistics(images: np.ndarray) -> np.ndarray:
    """Float [n, 5] of uint8 [n, h, w, 1]: logarithms of sharpness, noise and contrast; light; and by how much one direction
    of edges dominates."""
    rows = []
    for image in images[..., 0].astype(np.float32):
        noise = np.abs(cv2.filter2D(image, -1, NOISE_KERNEL))[1:-1, 1:-1].mean()
        across, down = (np.abs(np.diff(image, axis=axis)).mean() + 0.1 for axis in (1, 0))
        sharp = cv2.Laplacian(image, cv2.CV_32F).var()
        rows.append(
            [
                np.log(sharp + 1),
                np.log(noise + 0.1),
                np.log(image.std() + 1),
                image.mean() / 255,
                abs(np.log(across / down)),
            ]
        )
    return np.array(rows)


def by_kind(
    network: Network, split: Split, limits: Limits
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """For each kind of change and none, over all its strengths: logits, statistics, labels, and which images the limits refuse."""
    variants = {"none": [lambda image: image]} | {
        kind: [change for strength in strengths for change in strength.variants] for kind, strengths in KINDS.items()
    }
    found = {}
    for kind, changes in variants.items():
        images = np.concatenate([apply_change(split.images, change, "gray") for change in changes])
        labels = np.tile(split.labels, len(changes))
        found[kind] = network.logits(images), statistics(images), labels, refused(images, limits)
    return found


def fitted(found: dict, temperature: float, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """w, by the negative log-likelihood over all kinds, each counting the same. An offset is fitted too and discarded: the
    network has seen the training split, so that gives no information about the temperature itself."""
    parts = [
        (logits / temperature, (x - mean) / deviation, labels, 1 / len(labels))
        for logits, x, labels, _ in found.values()
    ]

    def loss(weights: np.ndarray) -> float:
        total = 0.0
        for logits, x, labels, share in parts:
            scaled = logits / np.exp(np.clip(weights[0] + x @ weights[1:], -1.5, 1.5))[:, None]
            scaled = scaled - scaled.max(axis=1, keepdims=True)
            likely = scaled[np.arange(len(labels)), labels] - np.log(np.exp(scaled).sum(axis=1))
            total -= share * likely.sum()
        return total / len(parts) + 1e-3 * float((weights[1:] ** 2).sum())

    return minimize(loss, np.zeros(1 + len(mean)), method="L-BFGS-B").x[1:]


def show_limits(found: dict, temperature: float) -> None:
    print(
        f"\n| change | refused | right of those | their mean score | score >= {MIN_SCORE} | and limits | as many by score alone |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|")
    for kind, (logits, _, labels, rejected) in found.items():
        probabilities = softmax(logits, temperature)
        score, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        sure = score >= MIN_SCORE
        kept = sure & ~rejected
        alone = np.argsort(-score, kind="stable")[: kept.sum()]
        of_those = (f"{right[rejected].mean():.1%}", f"{score[rejected].mean():.1%}") if rejected.any() else ("", "")
        cells = (f"{right[mask].mean():.1%} of {mask.mean():.1%}" for mask in (sure, kept))
        print("|", " | ".join([kind, f"{rejected.mean():.1%}", *of_those, *cells, f"{right[alone].mean():.1%}"]), "|")


def show_temperature(found: dict, temperature: float, factors: dict[str, np.ndarray]) -> None:
    print("\n| change | ECE | fitted | AURC | fitted | 90% right of | fitted |\n|---|--:|--:|--:|--:|--:|--:|")
    for kind, (logits, _, labels, _) in found.items():
        plain, new = softmax(logits, temperature), softmax(logits / factors[kind][:, None], temperature)
        errors = (f"{ece(each, labels):.3f}" for each in (plain, new))
        areas = (f"{aurc(each, labels):.4f}" for each in (plain, new))
        shares = (_share(each, labels) for each in (plain, new))
        print("|", " | ".join([kind, *errors, *areas, *shares]), "|")


def _share(probabilities: np.ndarray, labels: np.ndarray) -> str:
    found = answered_with(probabilities, labels, 0.9)
    return f"{found.answered:.1%}" if found else "none"


def some_of(split: Split, count: int) -> Split:
    """`count` random images; of a split with votes, only images with a majority of the votes, as in the validation split."""
    rows = np.random.default_rng(0).permutation(len(split))
    if split.targets is not None:
        rows = rows[split.targets[rows].max(axis=1) > 0.5]
    return split.take(rows[:count])


def halves(split: Split) -> tuple[Split, Split]:
    rows = np.random.default_rng(0).permutation(len(split))
    return split.take(rows[: len(rows) // 2]), split.take(rows[len(rows) // 2 :])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=1500, help="of the training split")
    args = parser.parse_args()
    bundle = Bundle.open(args.bundle)
    dataset, temperature = training_data(bundle, args.data, False), bundle.card.temperature
    network = Network.of(bundle.read("int8"), bundle.card)
    train, (known, valid) = some_of(dataset.split("train"), args.images), halves(dataset.split("valid"))
    held = Holdout(network.logits, known)
    limits = fit_limits([held], temperature, "gray")
    print(f"fitted: {limits}; in use: {bundle.card.limits}")
    show_bins(held, temperature)
    measured = by_kind(network, valid, bundle.card.limits)
    show_limits(measured, temperature)
    learned = by_kind(network, train, bundle.card.limits)
    unchanged = learned["none"][1]
    mean, deviation = unchanged.mean(axis=0), unchanged.std(axis=0)
    weights = fitted(learned, temperature, mean, deviation)
    factors = {
        kind: np.exp(np.clip((x - mean) / deviation @ weights, -1.5, 1.5)) for kind, (_, x, _, _) in measured.items()
    }
    show_temperature(measured, temperature, factors)
    print("\nw (sharpness, noise, contrast, light, direction):", *(f"{weight:.3f}" for weight in weights))


if __name__ == "__main__":
    main()
