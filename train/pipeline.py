"""`edgefer train` from a configuration to a bundle: load, fit, evaluate, measure crops, write."""

import contextlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from edgefer.bundle import Bundle, write_bundle
from edgefer.card import ModelCard, Provenance, Scores, first_problem
from edgefer.errors import BundleError, EdgeferError, InputError
from edgefer.files import without_empty_folders
from edgefer.metrics import confusion_matrix
from edgefer.progress import SILENT, Epoch, Progress
from edgefer.text import percent
from edgefer.train import backend, distribute, plots
from edgefer.train.config import TrainConfig
from edgefer.train.data.dataset import Dataset, Split, hold_out, stratified_rows, without_copies
from edgefer.train.data.load import load_dataset, load_extra, summary
from edgefer.train.data.trained import has_other_holdout
from edgefer.train.distill import with_soft_targets
from edgefer.train.distribute import SINGLE_WORKER, Worker
from edgefer.train.evaluate import class_table, evaluate, keras_logits
from edgefer.train.fit import fit
from edgefer.train.folds import CROSS_VALIDATION, CrossValidation, Fold, cross_validate, divide_folds
from edgefer.train.framing import Detect, in_rgb, measure_crop
from edgefer.train.history import read_history
from edgefer.train.networks import keras_bytes
from edgefer.train.recipe_fields import Recipe
from edgefer.train.run import RunFolder
from edgefer.train.soft_targets import soft_targets

if TYPE_CHECKING:
    import tf_keras


SOFT_TARGETS = "what teachers, votes or --soft-labels say of them"  # in the message that they have changed
CROP_IMAGES = 100  # training images that each detector's crop is measured on


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished training. scores, classes: figures and per-class table by evaluated split; skipped: bad rows or files
    that were left out."""

    bundle: Bundle
    scores: dict[str, Scores]
    classes: dict[str, list[tuple[str, int, float, float, float]]]
    cross_validation: CrossValidation | None
    skipped: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    """dataset: as trained on; holdout_hash: of the data as loaded; best: the epoch of the model's weights."""

    dataset: Dataset
    holdout_hash: str
    model: "tf_keras.Model"
    best: Epoch
    cross_validation: CrossValidation | None


@dataclass(frozen=True, kw_only=True)
class _Training:
    """A training in progress. strategy: of tf.distribute; scratch: where a worker that is not the chief writes."""

    config: TrainConfig
    run: RunFolder
    progress: Progress
    cache: Path | None
    worker: Worker
    strategy: Any = field(default=None, repr=False)
    scratch: Path | None = None

    @property
    def init_from(self) -> Bundle | None:
        """The bundle with the initial weights."""
        path = self.config.supervision.init_from
        return Bundle.open(Path(path)) if path else None

    def log(self, *lines: str) -> None:
        """Log the lines that are not empty."""
        for line in filter(None, lines):
            self.progress.log(line)


def train(
    config: TrainConfig,
    run: Path,
    *,
    progress: Progress = SILENT,
    detectors: Mapping[str, Detect] = {},
    cache: Path | None = None,
    worker: Worker = SINGLE_WORKER,
) -> Result | None:
    """Train into the folder `run`, resuming what is there, and make it a bundle.

    With folds the recipe is cross-validated first, for its figures; the network itself is then trained on all images
    but those that choose its epoch. detectors: by name, for each of which the crop is measured. cache: a folder for
    parsed data. worker: of a distributed training, of which only the chief writes to `run`; the others return None.

    InputError where the folder cannot be written or another process is training in it, DataError for the data. A
    training that fails before the end of its first epoch leaves nothing behind.
    """
    folder = RunFolder(run)
    with (
        without_empty_folders(run.absolute()),
        folder.session() if worker.chief else contextlib.nullcontext(),
        tempfile.TemporaryDirectory() as scratch,
    ):
        with distribute.strategy_for(worker, run) as strategy:
            training = _Training(
                config=config, run=folder, progress=progress, cache=cache, worker=worker, strategy=strategy,
                scratch=None if worker.chief else Path(scratch),
            )  # fmt: skip
            fitted = _fit(training)
        if fitted is None:
            return None
        try:
            return _finish(training, fitted, detectors)
        except EdgeferError as error:  # such as a full disk, after hours
            raise type(error)(f"{error} The training itself is kept: --resume finishes it.") from None


def _fit(training: _Training) -> _Fitted | None:
    """None for a worker that is not the chief."""
    config, recipe = training.config, training.config.recipe
    dataset = _load(training)
    make_card(config, dataset)  # raises before hours of training where the card cannot be written after them
    if config.folds:
        _divided(config, _trained_on(config, _with_row_numbers(dataset)))  # raises before anything is logged or written
    training.log(
        f"Training {recipe.name} on {config.data} into {training.run.path}",
        *summary(dataset),
        *_holdout_warnings(config, dataset),
        recipe.warmup_note,
    )
    holdout_hash = dataset.holdout_hash
    if training.worker.chief:
        training.log(training.run.check_data(dataset.content_hash, dataset.sizes))
        config.save(training.run)
    dataset = _trained_on(config, dataset)
    if config.supervision.soft:
        dataset = _with_soft_targets(training, dataset)
    cross_validation = None
    if config.folds:
        cross_validation = _cross_validate(training, dataset)
        if recipe.needs_validation:
            dataset = hold_out(dataset, config.valid_fraction, recipe.fit.seed, config.group_by)
        validation = f"; {len(dataset.split('valid'))} choose its epoch" if recipe.needs_validation else ""
        training.log(f"Now the network itself, on {len(dataset.split('train'))} images{validation}")
    fitted = fit(
        recipe, dataset, training.run.training.path, training.progress,
        init_from=training.init_from, output=training.scratch, strategy=training.strategy,
    )  # fmt: skip
    if fitted is None:
        return None
    model, best = fitted
    return _Fitted(
        dataset=dataset, holdout_hash=holdout_hash, model=model, best=best, cross_validation=cross_validation
    )


def _trained_on(config: TrainConfig, dataset: Dataset) -> Dataset:
    """The data set, without copies unless the recipe trains on them."""
    leaves_out = config.group_by and not config.recipe.augment.copies
    return without_copies(dataset, config.group_by) if leaves_out else dataset


def _load(training: _Training) -> Dataset:
    """The data set, with extra images where there are any."""
    config, spec = training.config, training.config.recipe.input
    progress, cache = training.progress, training.cache
    dataset = load_dataset(config.data, spec, config.data_options, progress=progress, cache=cache)
    if not config.also:
        return dataset
    extra = load_extra(
        config.also, config.also_share, dataset, spec, skip_bad=config.skip_bad, progress=progress, cache=cache
    )
    return replace(dataset, extra=extra)


def _holdout_warnings(config: TrainConfig, dataset: Dataset) -> list[str]:
    """A warning for each network that this training builds on and that was itself trained on images that are held out
    now."""
    paths = (config.supervision.init_from, *config.supervision.teachers)
    bundles = []
    for path in filter(None, paths):
        with contextlib.suppress(BundleError):  # a resumed training no longer needs its teachers, which may be gone
            bundles.append(Bundle.open(Path(path)))
    return [
        f"{bundle.path} was trained on {dataset.name} with other images held out: it may know some of those that are held out now, "
        "and the figures on them may look better than the network is. Train it again with the same seed and split."
        for bundle in bundles
        if bundle.card.provenance.labels == config.supervision.labels and has_other_holdout(bundle.card, dataset)
    ]


def _with_soft_targets(training: _Training, dataset: Dataset) -> Dataset:
    config, run = training.config, training.run
    probabilities = soft_targets(config, dataset, run, scratch=training.scratch, progress=training.progress)
    train = with_soft_targets(dataset.split("train"), probabilities, config.recipe.distill.weight)
    dataset = replace(dataset, splits=dataset.splits | {"train": train})
    if training.worker.chief:
        training.log(run.check_data(dataset.content_hash, dataset.sizes, derived=SOFT_TARGETS))
    return dataset


def _cross_validate(training: _Training, dataset: Dataset) -> CrossValidation:
    folds, recipe = _divided(training.config, dataset), training.config.recipe
    return cross_validate(
        folds, recipe, training.run, training.progress, init_from=training.init_from, strategy=training.strategy
    )


def _divided(config: TrainConfig, dataset: Dataset) -> list[Fold]:
    return divide_folds(
        dataset, config.recipe, folds=config.folds, group_by=config.group_by, valid_fraction=config.valid_fraction
    )


def _with_row_numbers(dataset: Dataset) -> Dataset:
    """The training images as their row numbers, which are divided without copying images."""
    train = dataset.split("train")
    return replace(dataset, splits={"train": replace(train, images=np.arange(len(train)))})


def _finish(training: _Training, fitted: _Fitted, detectors: Mapping[str, Detect]) -> Result:
    """Evaluate, plot, measure crops, and write the bundle."""
    config, run, dataset, model = training.config, training.run, fitted.dataset, fitted.model
    splits = {name: split for name, split in dataset.splits.items() if name != "train"}
    logits = {name: keras_logits(model, split.images) for name, split in splits.items()}
    if crossed := fitted.cross_validation:
        name = f"{config.folds}-fold"
        splits, logits = {name: crossed.holdout, **splits}, {name: crossed.logits, **logits}
    scores = {name: evaluate(split, logits[name]) for name, split in splits.items()}
    report = {"history.png": plots.history_plot(read_history(run.training.history), fitted.best)}
    for name, split in splits.items():
        matrix = confusion_matrix(split.labels, logits[name].argmax(axis=1), len(dataset.labels))
        figures = f"accuracy {scores[name].accuracy:.1%}, recall {scores[name].macro_recall:.3f}"
        title = f"{config.recipe.name}, {name} split: {figures}"
        report[f"confusion-{name}.png"] = plots.confusion_plot(matrix, dataset.labels, title)
    if crossed:
        report[CROSS_VALIDATION] = crossed.to_json(dataset.labels)

    sample = _crop_sample(dataset.split("train"), config.recipe)
    card = make_card(config, dataset)
    card = card.model_copy(
        update={
            "crops": {name: measure_crop(sample, detect, training.progress) for name, detect in detectors.items()},
            "metrics": {name: {"keras": value} for name, value in scores.items()},
            "provenance": card.provenance.model_copy(
                update={"epoch": fitted.best.epoch, "held_images": fitted.holdout_hash}
            ),
        }
    )
    return Result(
        bundle=write_bundle(run.path, card, {"keras": keras_bytes(model)}, report),
        scores=scores,
        classes={name: class_table(split, logits[name], dataset.labels) for name, split in splits.items()},
        cross_validation=crossed,
        skipped=dataset.skipped,
    )


def _crop_sample(train: Split, recipe: Recipe) -> np.ndarray:
    """The images that crops are measured on: uint8 [n, h, w, c], gray or RGB."""
    rows = stratified_rows(train.labels, min(CROP_IMAGES, len(train)), recipe.fit.seed)
    return in_rgb(train.images[rows], recipe.input.color)


def make_card(config: TrainConfig, dataset: Dataset) -> ModelCard:
    """The card, without what only the finished training knows. InputError for what a card cannot hold."""
    recipe, extra = config.recipe, dataset.extra
    steps = config.supervision.steps()
    if extra:
        steps += (f"{percent(extra.share)} of each batch from {len(extra.split)} extra images: {extra.name}",)
    try:
        return ModelCard(
            name=recipe.name,
            labels=dataset.labels,
            input=recipe.input,
            faces=recipe.faces,
            provenance=Provenance(
                data=dataset.name,
                labels=config.supervision.labels,
                names=config.names,
                valid_fraction=config.valid_fraction,
                group_by=config.group_by,
                folds=config.folds,
                split_sizes=dataset.sizes,
                recipe=recipe.model_dump(mode="json"),
                seed=config.data_options.seed,
                epoch=0,
                versions=backend.versions(),
                steps=steps,
            ),
        )
    except ValidationError as error:
        raise InputError(f"The card of this network could not be written: {first_problem(error)}.") from None
