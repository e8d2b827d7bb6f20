"""`edgefer train` from an order to a bundle: load, fit, evaluate, measure the framing, write."""

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from edgefer.bundle import Bundle, write_bundle
from edgefer.card import ModelCard, Provenance, Scores, first_problem
from edgefer.errors import InputError
from edgefer.files import without_empty_folders
from edgefer.metrics import confusion_matrix
from edgefer.progress import SILENT, Epoch, Progress
from edgefer.train import backend, distribute, plots
from edgefer.train.data.dataset import Dataset, hold_out, stratified_rows, without_copies
from edgefer.train.data.load import composition, load_dataset, load_further
from edgefer.train.data.trained import has_other_holdout
from edgefer.train.distill import distilled
from edgefer.train.distribute import SINGLE_WORKER, Worker
from edgefer.train.evaluate import class_table, evaluate, keras_logits
from edgefer.train.fit import fit
from edgefer.train.folds import CROSS_VALIDATION, CrossValidation, cross_validate, divide_folds
from edgefer.train.framing import measure_crop
from edgefer.train.history import read_history
from edgefer.train.networks import keras_bytes
from edgefer.train.order import Order
from edgefer.train.run import RunFolder
from edgefer.train.soft_targets import soft_targets

if TYPE_CHECKING:
    import tf_keras

Detect = Callable[[np.ndarray], list[tuple[int, int, int, int]]]
SOFT = "what teachers, votes or --soft-labels say of them"
FRAMED = 100  # images whose framing by each detector is measured


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a training gave: the bundle, per held split its scores and per-class table, and the cross-validation."""

    bundle: Bundle
    scores: dict[str, Scores]
    classes: dict[str, list[tuple[str, int, float, float, float]]]
    crossed: CrossValidation | None
    skipped: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Fitted:
    """The data as it was trained on, Dataset.held_pictures of it as it was loaded, the network, the epoch that gave its
    weights, and the cross-validation."""

    dataset: Dataset
    held_pictures: str
    model: "tf_keras.Model"
    best: Epoch
    crossed: CrossValidation | None


@dataclass(frozen=True, kw_only=True)
class _Training:
    """One training under way. strategy: of tf.distribute; scratch: where a worker writes that is not the chief."""

    order: Order
    run: RunFolder
    progress: Progress
    cache: Path | None
    worker: Worker
    strategy: Any = field(default=None, repr=False)
    scratch: Path | None = None

    @property
    def start(self) -> Bundle | None:
        """The bundle whose weights it begins with."""
        path = self.order.supervision.init_from
        return Bundle.open(Path(path)) if path else None


def train(
    order: Order,
    run: Path,
    *,
    progress: Progress = SILENT,
    detectors: Mapping[str, Detect] = {},
    cache: Path | None = None,
    worker: Worker = SINGLE_WORKER,
) -> Result | None:
    """Train as ordered into the directory `run`, continuing what is already there, and make it a bundle.

    With folds the recipe is cross-validated first, which gives its figures; the network itself is then trained by the
    same recipe on all images, less those by which the recipe chooses an epoch. Of several workers only the chief writes
    there; the others help to fit, and get None. InputError when another process is training there, or the directory
    cannot be written. A training that fails before its first epoch has ended leaves nothing behind.
    """
    folder = RunFolder(run)
    with (
        without_empty_folders(run.absolute()),
        folder.session() if worker.chief else contextlib.nullcontext(),
        tempfile.TemporaryDirectory() as scratch,
    ):
        with distribute.strategy_for(worker, run) as strategy:
            training = _Training(
                order=order, run=folder, progress=progress, cache=cache, worker=worker, strategy=strategy,
                scratch=None if worker.chief else Path(scratch),
            )  # fmt: skip
            fitted = _fit(training)
        return _finish(order, folder, fitted, detectors, progress) if fitted else None


def _fit(training: _Training) -> _Fitted | None:
    """None for a worker that only helps."""
    order, run, progress, recipe = training.order, training.run, training.progress, training.order.recipe
    dataset = load_dataset(order.data, recipe.input, order.data_options, progress=progress, cache=training.cache)
    if order.also:
        further = load_further(
            order.also, order.also_share, dataset, recipe.input,
            skip_bad=order.skip_bad, progress=progress, cache=training.cache,
        )  # fmt: skip
        dataset = replace(dataset, further=further)
    _card(order, dataset)
    progress.log(f"Training {recipe.name} on {order.data} into {run.path}")
    for line in (*composition(dataset), *_trained_on_holdout(order, dataset)):
        progress.log(line)
    held_pictures = dataset.held_pictures
    if training.worker.chief:
        _log_unless_empty(progress, run.check_data(dataset.content_hash, dataset.sizes))
        order.save(run)
    if order.group_by and not recipe.augment.copies:
        dataset = without_copies(dataset, order.group_by)
    if order.supervision.soft:
        train_split = dataset.split("train")
        targets = soft_targets(order, dataset, run, scratch=training.scratch, progress=progress)
        soft = distilled(train_split, targets, recipe.distill.weight)
        dataset = replace(dataset, splits=dataset.splits | {"train": soft})
        if training.worker.chief:
            _log_unless_empty(progress, run.check_data(dataset.content_hash, dataset.sizes, derived=SOFT))
    crossed = None
    if order.folds:
        crossed = _cross_validate(training, dataset)
        if recipe.needs_validation:
            dataset = hold_out(dataset, order.valid_fraction, recipe.fit.seed, order.group_by)
        aside = f"; {len(dataset.split('valid'))} choose its epoch" if recipe.needs_validation else ""
        progress.log(f"Now the network itself, on {len(dataset.split('train'))} images{aside}")
    fitted = fit(
        recipe, dataset, run.training.path, progress,
        start=training.start, written=training.scratch, strategy=training.strategy,
    )  # fmt: skip
    return fitted and _Fitted(
        dataset=dataset, held_pictures=held_pictures, model=fitted[0], best=fitted[1], crossed=crossed
    )


def _trained_on_holdout(order: Order, dataset: Dataset) -> list[str]:
    """A warning for each network that this training builds on and that was itself trained on images that are held out now."""
    named = (order.supervision.init_from, *order.supervision.teachers)
    bundles = [Bundle.open(Path(path)) for path in named if path]
    return [
        f"{bundle.path} was trained on {dataset.name} with other images held out: it may know some of those that are held out now, "
        "and the figures on them may look better than the network is. Train it again with the same seed and split."
        for bundle in bundles
        if bundle.card.provenance.labels == order.supervision.labels and has_other_holdout(bundle.card, dataset)
    ]


def _log_unless_empty(progress: Progress, text: str) -> None:
    if text:
        progress.log(text)


def _finish(
    order: Order, run: RunFolder, fitted: _Fitted, detectors: Mapping[str, Detect], progress: Progress
) -> Result:
    """Evaluate, plot, measure the framing, and write the bundle."""
    dataset, model, best, crossed = fitted.dataset, fitted.model, fitted.best, fitted.crossed
    seed, train_split = order.recipe.fit.seed, dataset.split("train")
    held = {name: split for name, split in dataset.splits.items() if name != "train"}
    logits = {name: keras_logits(model, split.images) for name, split in held.items()}
    if crossed:
        name = f"{order.folds}-fold"
        held, logits = {name: crossed.held, **held}, {name: crossed.logits, **logits}
    scores = {name: evaluate(split, logits[name]) for name, split in held.items()}
    report = {"history.png": plots.history_plot(read_history(run.training.history), best)}
    for name, split in held.items():
        matrix = confusion_matrix(split.labels, logits[name].argmax(axis=1), len(dataset.labels))
        figures = f"accuracy {scores[name].accuracy:.1%}, recall {scores[name].macro_recall:.3f}"
        title = f"{order.recipe.name}, {name} split: {figures}"
        report[f"confusion-{name}.png"] = plots.confusion_plot(matrix, dataset.labels, title)
    if crossed:
        report[CROSS_VALIDATION] = crossed.to_json(dataset.labels)

    sample = train_split.take(stratified_rows(train_split.labels, min(FRAMED, len(train_split)), seed))
    card = _card(order, dataset)
    card = card.model_copy(
        update={
            "crops": {name: measure_crop(sample.images, detect, progress) for name, detect in detectors.items()},
            "metrics": {name: {"keras": value} for name, value in scores.items()},
            "provenance": card.provenance.model_copy(
                update={"epoch": best.epoch, "held_pictures": fitted.held_pictures}
            ),
        }
    )
    bundle = write_bundle(run.path, card, {"keras": keras_bytes(model)}, report)
    classes = {name: class_table(split, logits[name], dataset.labels) for name, split in held.items()}
    return Result(bundle=bundle, scores=scores, classes=classes, crossed=crossed, skipped=dataset.skipped)


def _card(order: Order, dataset: Dataset) -> ModelCard:
    """The card but for what training finds out. InputError for what no card can hold, before hours of training and not
    after them."""
    recipe = order.recipe
    try:
        return ModelCard(
            name=recipe.name,
            labels=dataset.labels,
            input=recipe.input,
            faces=recipe.faces,
            provenance=Provenance(
                data=dataset.name,
                labels=order.supervision.labels,
                names=order.names,
                valid_fraction=order.valid_fraction,
                group_by=order.group_by,
                folds=order.folds,
                split_sizes=dataset.sizes,
                recipe=recipe.model_dump(mode="json"),
                seed=order.data_options.seed,
                epoch=0,
                versions=backend.versions(),
                steps=(*order.supervision.steps(), *_further_step(dataset)),
            ),
        )
    except ValidationError as error:
        raise InputError(f"A network of this could not be written: {first_problem(error)}.") from None


def _further_step(dataset: Dataset) -> tuple[str, ...]:
    """What the card says of images that were only trained on."""
    if not (further := dataset.further):
        return ()
    return (f"{further.share:.0%} of each batch from {len(further.split)} further images: {further.name}",)


def _cross_validate(training: _Training, dataset: Dataset) -> CrossValidation:
    order, progress = training.order, training.progress
    folds = divide_folds(
        dataset, order.recipe, folds=order.folds, group_by=order.group_by, valid_fraction=order.valid_fraction
    )
    return cross_validate(folds, order.recipe, training.run, progress, start=training.start, strategy=training.strategy)
