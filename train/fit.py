"""Fitting with a checkpoint after every epoch, from which an interrupted training resumes."""

import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefer.bundle import Bundle
from edgefer.errors import DataError
from edgefer.progress import SILENT, Epoch, Progress
from edgefer.train.backend import mixed_precision, out_of_memory, tensorflow
from edgefer.train.batches import EpochSize, Shard, batches, epoch_size, validation_batches
from edgefer.train.data.dataset import Dataset
from edgefer.train.history import COLUMNS
from edgefer.train.journal import Journal
from edgefer.train.memory import check_training, outline
from edgefer.train.networks import build_for, initialize
from edgefer.train.objective import (
    apply_clean_statistics,
    apply_ema,
    create_variables,
    make_dropout_resumable,
    make_loss,
    make_optimizer,
)
from edgefer.train.recipe_fields import Recipe

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

EMA_NORM_BATCHES = 50  # batches that the averaged network's batch-norm statistics are estimated on


def fit(
    recipe: Recipe,
    dataset: Dataset,
    folder: Path,
    progress: Progress = SILENT,
    *,
    init_from: Bundle | None = None,
    output: Path | None = None,
    strategy: "tf.distribute.Strategy | None" = None,
) -> tuple["tf_keras.Model", Epoch] | None:
    """Train on "train" and keep the epoch with the best accuracy on "valid"; with fit.keep="last", which needs no
    "valid", the last.

    folder: gets checkpoints, the kept weights, history.csv and TensorBoard logs; where it holds a checkpoint, training
    resumes after that epoch with the same optimizer state and the same batches. init_from: initial weights, as far as
    they fit. strategy: of tf.distribute, over whose replicas the recipe's batch is divided. output: where a worker that
    is not the chief writes instead of `folder`; nobody reads it, but every worker has to save the variables that are
    distributed.

    Returns the float32 network with the kept weights, and their epoch; None for a worker that is not the chief.
    DataError when the loss diverges, EdgeferError without memory or disk space.
    """
    strategy = strategy or tensorflow().distribute.get_strategy()
    journal = _Trainer(recipe, dataset, folder, output or folder, init_from, strategy, progress).run()
    if output:
        return None
    if not journal.best_weights.is_file():
        raise DataError(
            f"{folder} has no best weights: training reached no finite validation accuracy. Lower the learning rate."
        )
    return trained_network(recipe, dataset, journal.best_weights), journal.kept_epoch()


def trained_network(recipe: Recipe, dataset: Dataset, weights: Path) -> "tf_keras.Model":
    """The network of a finished training on the data set, from its weights file."""
    network = build_for(recipe, dataset, pretrained=False)
    network.load_weights(weights)
    apply_clean_statistics(network, recipe, dataset.split("train"))
    return network


class _Trainer:
    """One call of fit."""

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        folder: Path,
        output: Path,
        init_from: Bundle | None,
        strategy: "tf.distribute.Strategy",
        progress: Progress,
    ):
        self.recipe, self.dataset, self.folder, self.output = recipe, dataset, folder, output
        self.init_from, self.strategy, self.progress = init_from, strategy, progress
        self.train, self.classes = dataset.split("train"), len(dataset.labels)
        self.valid = dataset.split("valid") if recipe.needs_validation else dataset.splits.get("valid")
        self.size: EpochSize = epoch_size(recipe, self.train, dataset.extra)
        self.journal: Journal | None = None

    def run(self) -> Journal:
        """Train until the last epoch, or until patience runs out."""
        import tf_keras

        batch = self._batch_per_replica()
        with outline():  # before the seed is set, since building draws from it
            check_training(build_for(self.recipe, self.dataset, pretrained=False), batch)
        tf_keras.utils.set_random_seed(self.recipe.fit.seed)
        try:
            with mixed_precision():
                return self._train(batch)
        except tensorflow().errors.ResourceExhaustedError as error:
            raise out_of_memory(error, self.folder if self.journal and self.journal.rows else None) from None

    def _batch_per_replica(self) -> int:
        replicas = self.strategy.num_replicas_in_sync
        if self.size.batch % replicas:
            raise DataError(
                f"A batch of {self.size.batch} images cannot be divided among {replicas} replicas: set --batch-size."
            )
        return self.size.batch // replicas

    def _train(self, batch_per_replica: int) -> Journal:
        fit = self.recipe.fit
        with self.strategy.scope():
            model = self._compiled_model()
        check_training(model, batch_per_replica)
        journal = self.journal = Journal(self.folder, model, fit.patience, fit.keep, output=self.output)
        done = journal.restore(fit.epochs, self.progress)
        _check_workers_agree(done, self.folder, self.strategy)
        self.progress.begin(done, fit.epochs, self.size.steps)
        try:
            if done < fit.epochs and not journal.out_of_patience():
                self._fit(model, journal, done)
        finally:
            self.progress.end()
        return journal

    def _compiled_model(self) -> "tf_keras.Model":
        """The network with its initial weights, loss and optimizer."""
        recipe, dataset = self.recipe, self.dataset
        model = build_for(recipe, dataset)
        if self.init_from:
            initialize(model, dataset.labels, self.init_from)
        loss = make_loss(recipe, self.train, self.classes, dataset.extra)
        model.compile(optimizer=make_optimizer(recipe, self.size.steps), loss=loss, metrics=["accuracy"])
        create_variables(model, tensorflow().zeros([1, self.classes]))
        make_dropout_resumable(model, recipe.fit.seed)
        return model

    def _fit(self, model: "tf_keras.Model", journal: Journal, done: int) -> None:
        import tf_keras

        epochs = self.recipe.fit.epochs
        callbacks = [_callback(self.recipe, journal, self.progress, self._norm_batches(done))]
        if self.output == self.folder:
            callbacks.append(tf_keras.callbacks.TensorBoard(journal.output.tensorboard, write_graph=False))
        model.fit(
            self._batches(range(done, epochs)),
            validation_data=validation_batches(self.valid, self.classes) if self.valid else None,
            steps_per_epoch=self.size.steps,
            initial_epoch=done,
            epochs=epochs,
            verbose=0,
            callbacks=callbacks,
        )

    def _norm_batches(self, done: int) -> Iterator[Iterator]:
        """Each epoch's first EMA_NORM_BATCHES batches, for averaged weights."""
        if self.recipe.fit.ema:
            epoch_by_epoch = iter(self._batches(range(done, self.recipe.fit.epochs), EMA_NORM_BATCHES))
            while True:
                yield itertools.islice(epoch_by_epoch, min(EMA_NORM_BATCHES, self.size.steps))

    def _batches(self, epochs: range, limit: int | None = None) -> "tf.distribute.DistributedDataset":
        return self.strategy.distribute_datasets_from_function(
            lambda context: batches(
                self.recipe,
                self.train,
                self.classes,
                self.size,
                epochs=epochs,
                limit=limit,
                shard=Shard.of(context),
                extra=self.dataset.extra,
            )
        )


def _check_workers_agree(done: int, folder: Path, strategy) -> None:
    """DataError where workers would resume after different epochs."""
    tf = tensorflow()
    total = strategy.reduce("SUM", strategy.run(lambda: tf.constant(done)), axis=None)
    if total != done * strategy.num_replicas_in_sync:
        raise DataError(
            f"The workers do not see the same checkpoint: {folder} must be on a disk that all of them share."
        )


def _callback(
    recipe: Recipe, journal: Journal, progress: Progress, norm_batches: Iterator[Iterable]
) -> "tf_keras.callbacks.Callback":
    import tf_keras

    class Callback(_EpochCallback, tf_keras.callbacks.Callback):
        """With Keras's base class, which cannot be imported at the top of the module."""

    return Callback(recipe, journal, progress, norm_batches)


class _EpochCallback:
    """Sets the learning rate of a plateau schedule, evaluates averaged weights, and records and saves each epoch.

    norm_batches: for each epoch the training batches on which the averaged network's batch-norm statistics are
    estimated.
    """

    model: "tf_keras.Model"  # set by Keras

    def __init__(self, recipe: Recipe, journal: Journal, progress: Progress, norm_batches: Iterator[Iterable]):
        super().__init__()
        self._recipe, self._journal, self._progress, self._norm_batches = recipe, journal, progress, norm_batches

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._started = time.monotonic()
        recipe = self._recipe
        if recipe.schedule.name == "plateau":
            reductions = self._journal.plateau_count(recipe.schedule.every_epochs)
            rate = recipe.optimizer.rate * recipe.schedule.factor**reductions
            self.model.optimizer.learning_rate = max(recipe.final_rate, rate)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._progress.step(logs["loss"], logs["accuracy"])

    def on_test_begin(self, logs: Any = None) -> None:
        self._swap_in_ema()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not np.isfinite(logs["loss"]):
            raise DataError(
                f"The loss is {logs['loss']} in epoch {epoch + 1}: the learning rate is too high for this data; "
                "try --set optimizer.rate=... ten times lower."
            )
        rate, seconds = self._rate(), time.monotonic() - self._started
        if "val_loss" not in logs:  # without validation on_test_begin was not called
            self._swap_in_ema()
        # Rounded as in history.csv, so that a resumed run ranks the epochs the same.
        figures = {name: float(f"{logs.get(name, np.nan):.6g}") for name in COLUMNS[3:]}
        self._journal.record(Epoch(epoch + 1, seconds, rate, **figures))
        if self._recipe.fit.ema:
            self.model.set_weights(self._trained_weights)
        self._journal.save()
        self._progress.epoch(self._journal.rows[-1], self._journal.kept_epoch())
        self.model.stop_training = self._journal.out_of_patience()

    def _swap_in_ema(self) -> None:
        """Replace the weights by their moving averages, where the recipe has them."""
        if self._recipe.fit.ema:
            self._trained_weights = self.model.get_weights()
            apply_ema(self.model, next(self._norm_batches))

    def _rate(self) -> float:
        """The current learning rate."""
        rate = self.model.optimizer.learning_rate
        return float((rate(self.model.optimizer.iterations) if callable(rate) else rate).numpy())
