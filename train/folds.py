"""Cross-validation: what a recipe is worth on few images, each measured by a network that never saw its group."""

import json
from dataclasses import dataclass, replace

import numpy as np

from edgefer.bundle import Bundle
from edgefer.card import Scores
from edgefer.errors import BundleError
from edgefer.interpreter import softmax
from edgefer.metrics import confusion_matrix, scores, wilson_interval
from edgefer.progress import SILENT, Progress
from edgefer.train.data.dataset import Dataset, Split, hold_out, pool
from edgefer.train.data.groups import assign_folds, group_pictures
from edgefer.train.evaluate import keras_logits, mirror_images
from edgefer.train.fit import fit, kept_network
from edgefer.train.recipe_fields import Recipe
from edgefer.train.run import RunFolder

CROSS_VALIDATION = "cross-validation.json"  # the report's name


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One division: the images to train on, perhaps with a "valid" of their own, and those to measure on."""

    number: int
    dataset: Dataset
    held: Split


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """What the folds' networks said of the images they were not trained on, pooled.

    held: those images, the folds one after the other. logits, mirrored: float32 [n, classes] of the images and of
    their mirror images. sizes: images of each fold.
    """

    held: Split
    logits: np.ndarray
    mirrored: np.ndarray
    sizes: tuple[int, ...]

    @property
    def scores(self) -> Scores:
        """The pooled figures, one view."""
        return scores(self.held.labels, self.logits.argmax(axis=1), self.logits.shape[1])

    @property
    def interval(self) -> tuple[float, float]:
        """95% for the pooled accuracy, one view."""
        return wilson_interval(self.scores.accuracy, self.scores.count)

    @property
    def both_views(self) -> Scores:
        """The same with each image's probabilities averaged with its mirror image's (test-time flip)."""
        chosen = (softmax(self.logits) + softmax(self.mirrored)).argmax(axis=1)
        return scores(self.held.labels, chosen, self.logits.shape[1])

    @property
    def fold_accuracies(self) -> list[float]:
        right = self.logits.argmax(axis=1) == self.held.labels
        return [float(part.mean()) for part in np.split(right, np.cumsum(self.sizes)[:-1])]

    @property
    def mean(self) -> float:
        """The mean of the folds' accuracies."""
        return float(np.mean(self.fold_accuracies))

    @property
    def standard_deviation(self) -> float:
        """Of the folds' accuracies, with one degree of freedom less."""
        return float(np.std(self.fold_accuracies, ddof=1))

    def to_json(self, labels: tuple[str, ...]) -> bytes:
        """The report: pooled figures with their interval, each fold's, and each image's probabilities."""
        probabilities = softmax(self.logits)
        report = {
            "labels": labels,
            "pooled": self.scores.model_dump() | {"interval": self.interval},
            "with_mirror_images": self.both_views.model_dump(),
            "folds": [{"count": n, "accuracy": a} for n, a in zip(self.sizes, self.fold_accuracies, strict=True)],
            "mean": self.mean,
            "standard_deviation": self.standard_deviation,
            "confusion": confusion_matrix(self.held.labels, self.logits.argmax(axis=1), len(labels)).tolist(),
            "images": [
                {"id": str(one), "label": labels[label], "probabilities": row.round(4).tolist()}
                for one, label, row in zip(self.held.ids, self.held.labels, probabilities, strict=True)
            ],
        }
        return json.dumps(report, indent=2).encode() + b"\n"


def divide_folds(dataset: Dataset, recipe: Recipe, *, folds: int, group_by: str, valid_fraction: float) -> list[Fold]:
    """The folds of a data set's "train" split, by the recipe's seed: groups stay whole, copies are never measured on.

    Where the recipe looks at a validation split (best epoch, patience, plateau), each fold's training images give one
    of their own, so that the fold itself decides nothing.
    """
    split, seed = dataset.split("train"), recipe.fit.seed
    groups, copies = (
        group_pictures(split.ids, group_by) if group_by else (np.arange(len(split)), np.zeros(len(split), bool))
    )
    # By the originals, so that each fold has its share of what is measured; a copy goes where its group went.
    folds_of_originals = assign_folds(split.labels[~copies], groups[~copies], folds, seed)
    fold_of_group = dict(zip(groups[~copies].tolist(), folds_of_originals.tolist(), strict=True))
    fold_of = np.array([fold_of_group.get(group, -1) for group in groups.tolist()])
    made = []
    for number in range(folds):
        rest = replace(dataset, splits={"train": split.take(np.flatnonzero(fold_of != number))})
        if recipe.needs_validation:
            rest = hold_out(rest, valid_fraction, seed, group_by)
        made.append(Fold(number=number, dataset=rest, held=split.take(np.flatnonzero((fold_of == number) & ~copies))))
    return made


def cross_validate(
    folds: list[Fold],
    recipe: Recipe,
    run: RunFolder,
    progress: Progress = SILENT,
    *,
    start: Bundle | None = None,
    strategy=None,
) -> CrossValidation:
    """Train a network for each fold in its folder of `run`, continuing what is already there, and pool the answers.

    strategy: as for fit.
    """
    logits, mirrored = [], []
    for fold in folds:
        progress.log(
            f"Fold {fold.number + 1} of {len(folds)}: {len(fold.dataset.split('train'))} to train, {len(fold.held)} to measure"
        )
        inside = run.fold(fold.number).path
        inside.mkdir(parents=True, exist_ok=True)
        fitted = fit(recipe, fold.dataset, inside, progress, start=start, strategy=strategy)
        assert fitted  # this process is the only one
        model, _ = fitted
        logits.append(keras_logits(model, fold.held.images))
        mirrored.append(keras_logits(model, mirror_images(fold.held.images)))
        right = float((logits[-1].argmax(axis=1) == fold.held.labels).mean())
        progress.log(f"Fold {fold.number + 1}: accuracy {right:.1%}")
    return CrossValidation(
        held=pool([fold.held for fold in folds]),
        logits=np.concatenate(logits),
        mirrored=np.concatenate(mirrored),
        sizes=tuple(len(fold.held) for fold in folds),
    )


def fold_network(bundle: Bundle, fold: Fold, recipe: Recipe):
    """The network of a finished fold, from the bundle's training folder; BundleError when that was not kept."""
    weights = RunFolder(bundle.path).fold(fold.number).best_weights
    if not weights.is_file():
        raise BundleError(
            f"{bundle.path} says it was cross-validated, but {weights} is not there: convert it where it was trained."
        )
    return kept_network(recipe, fold.dataset, weights)
