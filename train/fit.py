"""Fitting: a checkpoint every epoch, and resuming where a killed run stopped."""

import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefer.bundle import Bundle
from edgefer.errors import DataError, InputError
from edgefer.progress import SILENT, Epoch, Progress
from edgefer.train.backend import mixed_precision, out_of_memory, tensorflow
from edgefer.train.batches import Share, batches, in_order, steps_per_epoch
from edgefer.train.data.dataset import Dataset
from edgefer.train.history import COLUMNS
from edgefer.train.journal import Journal
from edgefer.train.memory import check_training
from edgefer.train.networks import build_for, initialize
from edgefer.train.objective import make_loss, make_optimizer, take_average, take_clean_statistics
from edgefer.train.recipe_fields import Recipe

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

NORM_BATCHES = 50


def fit(
    recipe: Recipe,
    dataset: Dataset,
    folder: Path,
    progress: Progress = SILENT,
    *,
    start: Bundle | None = None,
    written: Path | None = None,
    strategy: "tf.distribute.Strategy | None" = None,
) -> tuple["tf_keras.Model", Epoch] | None:
    """Train on the "train" split, choosing the epoch with the best accuracy on "valid", or the last where the recipe
    keeps that; then "valid" may be absent. `start`: whose weights to begin with, as far as they fit.

    `folder` receives checkpoints, the best weights, history.csv and TensorBoard logs; when it already holds a
    checkpoint, training continues after that epoch with the same optimizer state and the same batches. Returns the
    float32 network with the best weights, and the epoch that gave them.

    strategy: of tf.distribute; the recipe's batch is divided among its replicas, and they see the images that one
    alone would. written: for a worker that is not the chief, another place to write into, which nobody reads: every
    worker must save the variables that are spread over all. It gets None.
    """
    places = _Places(folder=folder, written=written or folder)
    strategy = strategy or tensorflow().distribute.get_strategy()
    journal = _Fitting(recipe, dataset, places, start, strategy, progress).run()
    if written:
        return None
    if not journal.best_weights.is_file():
        raise DataError(
            f"{folder} has no best weights: training reached no finite validation accuracy. Lower the rate."
        )
    return kept_network(recipe, dataset, journal.best_weights), journal.kept()


def kept_network(recipe: Recipe, dataset: Dataset, weights: Path) -> "tf_keras.Model":
    """The network that a training on the data set gave, of the weights that it kept."""
    network = build_for(recipe, dataset, pretrained=False)
    network.load_weights(weights)
    take_clean_statistics(network, recipe, dataset.split("train"))
    return network


@dataclass(frozen=True, kw_only=True)
class _Places:
    """Where a training lies, and where this worker writes: the same, or what nobody reads."""

    folder: Path
    written: Path


class _Fitting:
    """One training, see fit."""

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        places: _Places,
        start: Bundle | None,
        strategy: "tf.distribute.Strategy",
        progress: Progress,
    ):
        self.recipe, self.dataset, self.places, self.start = recipe, dataset, places, start
        self.strategy, self.progress = strategy, progress
        self.train, self.classes = dataset.split("train"), len(dataset.labels)
        self.valid = dataset.split("valid") if recipe.needs_validation else dataset.splits.get("valid")
        self.batch, self.steps = steps_per_epoch(recipe, self.train, dataset.further)
        self.journal: Journal | None = None

    def run(self) -> Journal:
        """Train until the last epoch, or until no later one would be better."""
        import tf_keras

        part = self._part_of_a_replica()
        with tensorflow().Graph().as_default():  # takes no memory; before the seed is set, since building draws from it
            check_training(build_for(self.recipe, self.dataset, pretrained=False), part)
        tf_keras.utils.set_random_seed(self.recipe.fit.seed)
        try:
            with mixed_precision():
                return self._trained(part)
        except tensorflow().errors.ResourceExhaustedError as error:
            raise out_of_memory(error, self.places.folder if self.journal and self.journal.rows else None) from None

    def _part_of_a_replica(self) -> int:
        """How many images of a batch each replica gets."""
        replicas = self.strategy.num_replicas_in_sync
        if self.batch % replicas:
            raise DataError(
                f"A batch of {self.batch} images cannot be divided among {replicas} replicas: set --batch-size."
            )
        return self.batch // replicas

    def _trained(self, part: int) -> Journal:
        fit, places = self.recipe.fit, self.places
        with self.strategy.scope():
            model = _compiled(self.recipe, self.dataset, self.steps, self.start)
        check_training(model, part)
        journal = self.journal = Journal(places.folder, model, fit.patience, fit.keep, written=places.written)
        done = journal.restore(fit.epochs, self.progress)
        _agree(done, places.folder, self.strategy)
        self.progress.begin(done, fit.epochs, self.steps)
        try:
            if done < fit.epochs and not journal.exhausted():
                self._fit(model, journal, done)
        finally:
            self.progress.end()
        return journal

    def _fit(self, model: "tf_keras.Model", journal: Journal, done: int) -> None:
        import tf_keras

        epochs = self.recipe.fit.epochs
        callbacks = [_callback(self.recipe, journal, self.progress, lambda epoch: self._stream(epoch, epoch + 1))]
        if self.places.written == self.places.folder:
            callbacks.append(tf_keras.callbacks.TensorBoard(journal.written.tensorboard, write_graph=False))
        model.fit(
            self._stream(done, epochs),
            validation_data=in_order(self.valid, self.classes) if self.valid else None,
            steps_per_epoch=self.steps,
            initial_epoch=done,
            epochs=epochs,
            verbose=0,
            callbacks=callbacks,
        )

    def _stream(self, first_epoch: int, epochs: int) -> "tf.distribute.DistributedDataset":
        return self.strategy.distribute_datasets_from_function(
            lambda context: batches(
                self.recipe,
                self.train,
                self.classes,
                self.batch,
                self.steps,
                first_epoch=first_epoch,
                epochs=epochs,
                share=Share.of(context),
                further=self.dataset.further,
            )
        )


def _compiled(recipe: Recipe, dataset: Dataset, steps: int, start: Bundle | None) -> "tf_keras.Model":
    """The network to fit, with the weights that it begins with, its loss and its optimizer."""
    model = build_for(recipe, dataset)
    if start:
        initialize(model, dataset.labels, start)
    elif recipe.model.freeze and not recipe.model.weights:
        raise InputError("A frozen network needs weights to begin with: --init-from BUNDLE.")
    loss = make_loss(recipe, dataset.split("train"), len(dataset.labels), dataset.further)
    model.compile(optimizer=make_optimizer(recipe, steps), loss=loss, metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)
    return model


def _agree(done: int, folder: Path, strategy) -> None:
    """Fail when workers would go on from different epochs."""
    tf = tensorflow()
    total = strategy.reduce("SUM", strategy.run(lambda: tf.constant(done)), axis=None)
    if total != done * strategy.num_replicas_in_sync:
        raise DataError(
            f"The workers do not see the same checkpoint: {folder} must lie on a disk that all of them share."
        )


def _callback(
    recipe: Recipe, journal: Journal, progress: Progress, averaging: Callable[[int], Iterable]
) -> "tf_keras.callbacks.Callback":
    import tf_keras

    class Callback(_EpochEnds, tf_keras.callbacks.Callback):
        """What Keras calls."""

    return Callback(recipe, journal, progress, averaging)


class _EpochEnds:
    """What is done at the ends of an epoch, mixed into Keras's callback. averaging: an epoch's batches, by its number, to
    estimate the averaged network's batch norm on."""

    model: "tf_keras.Model"  # Keras sets it

    def __init__(self, recipe: Recipe, journal: Journal, progress: Progress, averaging: Callable[[int], Iterable]):
        super().__init__()
        self._recipe, self._journal, self._progress, self._averaging = recipe, journal, progress, averaging

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began, self._number = time.monotonic(), epoch
        recipe = self._recipe
        if recipe.schedule.name == "plateau":
            falls = self._journal.plateaus(recipe.schedule.every_epochs)
            rate = recipe.optimizer.rate * recipe.schedule.factor**falls
            self.model.optimizer.learning_rate = max(recipe.schedule.final_rate, rate)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._progress.step(logs["loss"], logs["accuracy"])

    def on_test_begin(self, logs: Any = None) -> None:
        self._average()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not np.isfinite(logs["loss"]):
            raise DataError(
                f"The loss is {logs['loss']} in epoch {epoch + 1}: the learning rate is too high for this data; "
                "try --set optimizer.rate=... ten times lower."
            )
        rate, seconds = self._rate(), time.monotonic() - self._began
        if "val_loss" not in logs:  # nothing was tested, so nothing was averaged yet
            self._average()
        # As history.csv gives them back, so that a resumed run finds the same epochs better than others.
        figures = {name: float(f"{logs.get(name, np.nan):.6g}") for name in COLUMNS[3:]}
        self._journal.judge(Epoch(epoch + 1, seconds, rate, **figures))
        if self._recipe.fit.ema:
            self.model.set_weights(self._trained)
        self._journal.keep()
        self._progress.epoch(self._journal.rows[-1], self._journal.kept())
        self.model.stop_training = self._journal.exhausted()

    def _average(self) -> None:
        """Put the average of the weights in their place, where the recipe keeps one."""
        if self._recipe.fit.ema:
            self._trained = self.model.get_weights()
            take_average(self.model, itertools.islice(self._averaging(self._number), NORM_BATCHES))

    def _rate(self) -> float:
        """The learning rate, as it is or as its schedule has it now."""
        rate = self.model.optimizer.learning_rate
        return float((rate(self.model.optimizer.iterations) if callable(rate) else rate).numpy())
