"""Cross-validation: each image is evaluated by a network that was trained without its group."""

import json
from dataclasses import dataclass, replace

import numpy as np

from edgefer.bundle import Bundle
from edgefer.card import Scores
from edgefer.errors import BundleError, DataError
from edgefer.interpreter import softmax
from edgefer.metrics import confusion_matrix, scores, wilson_interval
from edgefer.progress import SILENT, Progress
from edgefer.train.data.dataset import Dataset, Split, hold_out, pool
from edgefer.train.data.groups import assign_folds, group_images
from edgefer.train.evaluate import keras_logits, mirror_images
from edgefer.train.fit import fit, trained_network
from edgefer.train.recipe_fields import Recipe
from edgefer.train.run import RunFolder

CROSS_VALIDATION = "cross-validation.json"  # the name of the report


@dataclass(frozen=True, kw_only=True)
class Fold:
    """dataset: the images to train on, perhaps with a "valid" split of their own; holdout: those to evaluate on."""

    number: int
    dataset: Dataset
    holdout: Split


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """The out-of-fold predictions.

    holdout: all evaluated images, fold by fold. logits, mirrored: float32 [n, classes] of the images and of their
    mirror images. sizes: images of each fold.
    """

    holdout: Split
    logits: np.ndarray
    mirrored: np.ndarray
    sizes: tuple[int, ...]

    @property
    def scores(self) -> Scores:
        """The figures over all images, without test-time flip."""
        return scores(self.holdout.labels, self.logits.argmax(axis=1), self.logits.shape[1])

    @property
    def interval(self) -> tuple[float, float]:
        """95% confidence interval of the accuracy over all images, without test-time flip."""
        return wilson_interval(self.scores.accuracy, self.scores.count)

    @property
    def both_views(self) -> Scores:
        """The figures over all images, with test-time flip."""
        predicted = (softmax(self.logits) + softmax(self.mirrored)).argmax(axis=1)
        return scores(self.holdout.labels, predicted, self.logits.shape[1])

    @property
    def fold_accuracies(self) -> list[float]:
        """The accuracy of each fold."""
        correct = self.logits.argmax(axis=1) == self.holdout.labels
        return [float(fold.mean()) for fold in np.split(correct, np.cumsum(self.sizes)[:-1])]

    @property
    def mean(self) -> float:
        """The mean of the folds' accuracies."""
        return float(np.mean(self.fold_accuracies))

    @property
    def standard_deviation(self) -> float:
        """The sample standard deviation of the folds' accuracies (ddof=1)."""
        return float(np.std(self.fold_accuracies, ddof=1))

    def to_json(self, labels: tuple[str, ...]) -> bytes:
        """The report: figures over all images with their interval, of each fold, and each image's probabilities."""
        probabilities = softmax(self.logits)
        report = {
            "labels": labels,
            "pooled": self.scores.model_dump() | {"interval": self.interval},
            "with_mirror_images": self.both_views.model_dump(),
            "folds": [{"count": n, "accuracy": a} for n, a in zip(self.sizes, self.fold_accuracies, strict=True)],
            "mean": self.mean,
            "standard_deviation": self.standard_deviation,
            "confusion": confusion_matrix(self.holdout.labels, self.logits.argmax(axis=1), len(labels)).tolist(),
            "images": [
                {"id": str(one), "label": labels[label], "probabilities": row.round(4).tolist()}
                for one, label, row in zip(self.holdout.ids, self.holdout.labels, probabilities, strict=True)
            ],
        }
        return json.dumps(report, indent=2).encode() + b"\n"


def divide_folds(dataset: Dataset, recipe: Recipe, *, folds: int, group_by: str, valid_fraction: float) -> list[Fold]:
    """Divide a data set's "train" split into folds by the recipe's seed: groups stay whole, copies are not evaluated
    on.

    Where the recipe needs a validation split (best epoch, patience, plateau), it is held out from each fold's training
    images, so that its evaluated images choose nothing. DataError where a class cannot be divided.
    """
    split, seed = dataset.split("train"), recipe.fit.seed
    groups, copies = (
        group_images(split.ids, group_by) if group_by else (np.arange(len(split)), np.zeros(len(split), bool))
    )
    for index, label in enumerate(dataset.labels):
        if copies.any() and not (split.labels[~copies] == index).any():
            raise DataError(
                f"--group-by {group_by!r} takes every image of class {label!r} for a copy, which is never evaluated on: "
                "let its group named copy match less."
            )
    # Originals are divided evenly, since only they are evaluated on; a copy goes to its group's fold.
    fold_of_originals = assign_folds(split.labels[~copies], groups[~copies], dataset.labels, folds=folds, seed=seed)
    fold_of_group = dict(zip(groups[~copies].tolist(), fold_of_originals.tolist(), strict=True))
    fold_of = np.array([fold_of_group.get(group, -1) for group in groups.tolist()])
    divided = []
    for number in range(folds):
        rest = replace(dataset, splits={"train": split.take(np.flatnonzero(fold_of != number))})
        if recipe.needs_validation:
            rest = hold_out(rest, valid_fraction, seed, group_by)
        holdout = split.take(np.flatnonzero((fold_of == number) & ~copies))
        divided.append(Fold(number=number, dataset=rest, holdout=holdout))
    return divided


def cross_validate(
    folds: list[Fold],
    recipe: Recipe,
    run: RunFolder,
    progress: Progress = SILENT,
    *,
    init_from: Bundle | None = None,
    strategy=None,
) -> CrossValidation:
    """Train a network for each fold in its folder of `run`, resuming what is there, and evaluate it on the fold's
    holdout.

    init_from, strategy: as for fit.
    """
    logits, mirrored = [], []
    for fold in folds:
        progress.log(
            f"Fold {fold.number + 1} of {len(folds)}: {len(fold.dataset.split('train'))} to train, {len(fold.holdout)} to evaluate"
        )
        folder = run.fold(fold.number).path
        folder.mkdir(parents=True, exist_ok=True)
        fitted = fit(recipe, fold.dataset, folder, progress, init_from=init_from, strategy=strategy)
        assert fitted  # cross-validation has one worker
        model, _ = fitted
        logits.append(keras_logits(model, fold.holdout.images))
        mirrored.append(keras_logits(model, mirror_images(fold.holdout.images)))
        accuracy = float((logits[-1].argmax(axis=1) == fold.holdout.labels).mean())
        progress.log(f"Fold {fold.number + 1}: accuracy {accuracy:.1%}")
    return CrossValidation(
        holdout=pool([fold.holdout for fold in folds]),
        logits=np.concatenate(logits),
        mirrored=np.concatenate(mirrored),
        sizes=tuple(len(fold.holdout) for fold in folds),
    )


def fold_network(bundle: Bundle, fold: Fold, recipe: Recipe):
    """The network of a finished fold, from the bundle's training folder. BundleError where that was not kept."""
    weights = RunFolder(bundle.path).fold(fold.number).best_weights
    if not weights.is_file():
        raise BundleError(
            f"{bundle.path} says it was cross-validated, but {weights} is not there: convert it where it was trained."
        )
    return trained_network(recipe, fold.dataset, weights)
