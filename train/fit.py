"""Fitting: one deterministic stream of batches, a checkpoint every epoch, and resuming where a killed run stopped."""

import csv
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgefer.errors import DataError
from edgefer.train.augment import augment_batch
from edgefer.train.backend import precision, tensorflow
from edgefer.train.datasets import Dataset, Split
from edgefer.train.models import build
from edgefer.train.recipes import Recipe

if TYPE_CHECKING:
    import tf_keras

COLUMNS = ("epoch", "seconds", "rate", "loss", "accuracy", "val_loss", "val_accuracy")


@dataclass(frozen=True)
class Epoch:
    """A line of history.csv: losses are mean cross-entropies, accuracies fractions; `epoch` counts from 1."""

    epoch: int
    seconds: float
    rate: float
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float


class Watcher(Protocol):
    """What a fit reports to; the command line's shows a progress bar."""

    def begin(self, first_epoch: int, epochs: int, steps: int) -> None: ...
    def step(self, loss: float, accuracy: float) -> None: ...
    def epoch(self, row: Epoch, best: Epoch) -> None: ...
    def end(self) -> None: ...


def fit(recipe: Recipe, dataset: Dataset, folder: Path, watcher: Watcher) -> tuple["tf_keras.Model", Epoch]:
    """Train on the "train" split, choosing the epoch with the best accuracy on "valid".

    `folder` receives checkpoints, the best weights, history.csv and TensorBoard logs; when it already holds a
    checkpoint, training continues after that epoch with the same optimizer state and the same batches. Returns the
    float32 network with the best weights, and the epoch that gave them.
    """
    tensorflow()
    import tf_keras

    tf_keras.utils.set_random_seed(recipe.fit.seed)
    train, valid = dataset.split("train"), dataset.split("valid")
    batch = min(recipe.fit.batch_size, len(train))
    steps = len(train) // batch

    tf_keras.mixed_precision.set_global_policy(precision())
    model = build(recipe.model, recipe.input, len(dataset.labels))
    model.compile(
        optimizer=_optimizer(recipe, steps),
        loss=tf_keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.fit.label_smoothing),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    journal = _Journal(folder, model, recipe.fit.patience)
    done = journal.restore()
    watcher.begin(done, recipe.fit.epochs, steps)
    try:
        if done < recipe.fit.epochs and not journal.exhausted():
            model.fit(
                batches(recipe, train, len(dataset.labels), batch, steps, first_epoch=done, epochs=recipe.fit.epochs),
                validation_data=_in_order(valid, len(dataset.labels)),
                steps_per_epoch=steps,
                initial_epoch=done,
                epochs=recipe.fit.epochs,
                verbose=0,
                callbacks=[
                    _callback(journal, watcher),
                    tf_keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False),
                ],
            )
    finally:
        watcher.end()
        tf_keras.mixed_precision.set_global_policy("float32")
    if not journal.best_weights.is_file():
        raise DataError(
            f"{folder} has no best weights: training reached no finite validation accuracy. Lower the rate."
        )
    network = build(recipe.model, recipe.input, len(dataset.labels))
    network.load_weights(journal.best_weights)
    return network, journal.best()


def _optimizer(recipe: Recipe, steps: int):
    from tf_keras import optimizers

    schedule, rate = recipe.schedule, recipe.optimizer.rate
    if schedule.name == "cosine":
        warmup = round(schedule.warmup_epochs * steps)
        rate = optimizers.schedules.CosineDecay(
            rate / 10 if warmup else rate,
            max(1, recipe.fit.epochs * steps - warmup),
            alpha=schedule.final_rate / recipe.optimizer.rate,
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
    elif schedule.name in ("exponential", "step"):
        rate = optimizers.schedules.ExponentialDecay(
            rate, round(schedule.every_epochs * steps), schedule.factor, staircase=schedule.name == "step"
        )
    decay = recipe.optimizer.weight_decay or None
    if recipe.optimizer.name == "sgd":
        momentum = recipe.optimizer.momentum
        optimizer = optimizers.SGD(rate, momentum=momentum, nesterov=momentum > 0, weight_decay=decay)
    else:
        kind = optimizers.Adam if recipe.optimizer.name == "adam" else optimizers.AdamW
        optimizer = kind(rate, weight_decay=decay)
    if decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def batches(recipe: Recipe, split: Split, classes: int, batch: int, steps: int, *, first_epoch: int, epochs: int):
    """Augmented batches of the epochs first_epoch .. epochs - 1, a pure function of seed, epoch and step.

    A tf.data.Dataset of (float32 pixels [batch, h, w, c] in 0..1, float32 targets [batch, classes]).
    """
    tf = tensorflow()
    images, targets = tf.constant(split.images), tf.constant(split.soft_labels(classes))
    seed = recipe.fit.seed

    def rows_of(epoch):
        order = tf.random.experimental.stateless_shuffle(tf.range(len(split)), seed=tf.stack([seed, epoch]))
        rows = tf.data.Dataset.from_tensor_slices(tf.reshape(order[: steps * batch], [steps, batch]))
        return rows.enumerate(start=epoch * steps)

    def load(step, rows):
        # Pictures and targets are gathered by the same rows, so they cannot get out of step.
        pixels = tf.cast(tf.gather(images, rows), tf.float32) / 255
        return augment_batch(pixels, recipe.augment, tf.stack([seed, step])), tf.gather(targets, rows)

    return tf.data.Dataset.range(first_epoch, epochs).flat_map(rows_of).map(load, num_parallel_calls=2).prefetch(4)


def _in_order(split: Split, classes: int):
    tf = tensorflow()
    pairs = tf.data.Dataset.from_tensor_slices((split.images, tf.one_hot(split.labels, classes)))
    return pairs.batch(256).map(lambda images, labels: (tf.cast(images, tf.float32) / 255, labels))


class _Journal:
    """What survives a kill: checkpoints of network and optimizer, the best weights, and the history.

    The checkpoint is written first and names its epoch; history rows after it belong to an epoch that will be run
    again, and are dropped.
    """

    def __init__(self, folder: Path, model, patience: int):
        tf = tensorflow()
        self.model, self.patience = model, patience
        self.history = folder / "history.csv"
        self.best_weights = folder / "best.weights.h5"
        self.epoch = tf.Variable(0, dtype=tf.int64)
        checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer, epoch=self.epoch)
        self.manager = tf.train.CheckpointManager(checkpoint, folder / "checkpoints", max_to_keep=2)
        self.rows: list[Epoch] = []

    def restore(self) -> int:
        """Load the newest checkpoint if there is one; returns how many epochs are done."""
        if self.manager.latest_checkpoint:
            self.manager.checkpoint.restore(self.manager.latest_checkpoint).assert_existing_objects_matched()
            self.rows = read_history(self.history)[: int(self.epoch)]
        return int(self.epoch)

    def add(self, row: Epoch) -> None:
        self.rows.append(row)
        if self.best() is row:
            partial = self.best_weights.with_name("partial.weights.h5")
            self.model.save_weights(partial)
            partial.replace(self.best_weights)
        self.epoch.assign(row.epoch)
        self.manager.save()
        write_history(self.history, self.rows)

    def best(self) -> Epoch:
        return max(self.rows, key=lambda row: row.val_accuracy)

    def exhausted(self) -> bool:
        """Whether `patience` epochs have passed without a better one."""
        return bool(self.patience and self.rows and self.rows[-1].epoch - self.best().epoch >= self.patience)


def _callback(journal: _Journal, watcher: Watcher):
    import tf_keras

    class Report(tf_keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.began = time.monotonic()

        def on_train_batch_end(self, batch, logs=None):
            watcher.step(logs["loss"], logs["accuracy"])

        def on_epoch_end(self, epoch, logs=None):
            if not np.isfinite(logs["loss"]):
                raise DataError(
                    f"The loss is {logs['loss']} in epoch {epoch + 1}: the learning rate is too high for this data; "
                    "try --set optimizer.rate=... ten times lower."
                )
            rate = self.model.optimizer.learning_rate
            rate = float(rate(self.model.optimizer.iterations) if callable(rate) else rate)
            seconds = time.monotonic() - self.began
            journal.add(Epoch(epoch + 1, seconds, rate, **{name: float(logs[name]) for name in COLUMNS[3:]}))
            watcher.epoch(journal.rows[-1], journal.best())
            self.model.stop_training = journal.exhausted()

    return Report()


def write_history(file: Path, rows: list[Epoch]) -> None:
    partial = file.with_suffix(".partial")
    with partial.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(COLUMNS)
        writer.writerows([row.epoch, *(f"{getattr(row, name):.6g}" for name in COLUMNS[1:])] for row in rows)
    partial.replace(file)


def read_history(file: Path) -> list[Epoch]:
    """history.csv as written by `fit`."""
    with file.open(newline="") as text:
        return [
            Epoch(int(row["epoch"]), **{name: float(row[name]) for name in COLUMNS[1:]}) for row in csv.DictReader(text)
        ]
