"""Fitting: one deterministic stream of batches, a checkpoint every epoch, and resuming where a killed run stopped."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgefer.bundle import Bundle
from edgefer.errors import DataError
from edgefer.train.augment import augment_batch, mix
from edgefer.train.backend import precision, tensorflow
from edgefer.train.datasets import Dataset, Split
from edgefer.train.journal import COLUMNS, Epoch, Journal
from edgefer.train.models import build, initialize
from edgefer.train.objective import class_shares, make_loss, make_optimizer, take_average
from edgefer.train.recipes import Recipe

if TYPE_CHECKING:
    import tf_keras

NORM_BATCHES = 50


class Watcher(Protocol):
    """What a fit reports to; the command line's shows a progress bar."""

    def begin(self, first_epoch: int, epochs: int, steps: int) -> None: ...
    def step(self, loss: float, accuracy: float) -> None: ...
    def epoch(self, row: Epoch, best: Epoch | None) -> None: ...
    def end(self) -> None: ...


def fit(
    recipe: Recipe, dataset: Dataset, folder: Path, watcher: Watcher, *, start: Bundle | None = None
) -> tuple["tf_keras.Model", Epoch]:
    """Train on the "train" split, choosing the epoch with the best accuracy on "valid". `start`: whose weights to
    begin with, as far as they fit.

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
    if start:
        initialize(model, dataset.labels, start)
    model.compile(
        optimizer=make_optimizer(recipe, steps),
        loss=make_loss(recipe, train, len(dataset.labels)),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    journal = Journal(folder, model, recipe.fit.patience)
    done = journal.restore()
    watcher.begin(done, recipe.fit.epochs, steps)

    def averaging(epoch: int):
        """Some of the batches of an epoch, to estimate batch norm's statistics on."""
        stream = batches(recipe, train, len(dataset.labels), batch, steps, first_epoch=epoch, epochs=epoch + 1)
        return stream.take(NORM_BATCHES)

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
                    _callback(recipe, journal, watcher, averaging),
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


def batches(recipe: Recipe, split: Split, classes: int, batch: int, steps: int, *, first_epoch: int, epochs: int):
    """Augmented batches of the epochs first_epoch .. epochs - 1, a pure function of seed, epoch and step.

    A tf.data.Dataset of (float32 pixels [batch, h, w, c] in 0..1, float32 targets [batch, classes]), and
    with class weights float32 weights [batch] of mean 1.
    """
    tf = tensorflow()
    images, targets = tf.constant(split.images), tf.constant(split.soft_labels(classes))
    seed, balance = recipe.fit.seed, recipe.fit.balance
    rarity = (1 / class_shares(split, classes))[split.labels]
    weights = tf.constant(rarity / rarity.mean(), tf.float32)

    def rows_of(epoch):
        draw = tf.stack([seed, epoch])
        if balance == "oversample":
            order = tf.random.stateless_categorical(tf.math.log(weights)[None], steps * batch, seed=draw)[0]
        else:
            order = tf.random.experimental.stateless_shuffle(tf.range(len(split)), seed=draw)
        rows = tf.data.Dataset.from_tensor_slices(tf.reshape(order[: steps * batch], [steps, batch]))
        return rows.enumerate(start=epoch * steps)

    def load(step, rows):
        # Pictures and targets are gathered by the same rows, so they cannot get out of step.
        pixels = tf.cast(tf.gather(images, rows), tf.float32) / 255
        draw = tf.stack([seed, step])
        pixels, wanted = mix(
            augment_batch(pixels, recipe.augment, draw), tf.gather(targets, rows), recipe.augment.mixup, draw
        )
        return (pixels, wanted, tf.gather(weights, rows)) if balance == "class-weights" else (pixels, wanted)

    return tf.data.Dataset.range(first_epoch, epochs).flat_map(rows_of).map(load, num_parallel_calls=2).prefetch(4)


def _in_order(split: Split, classes: int):
    tf = tensorflow()
    pairs = tf.data.Dataset.from_tensor_slices((split.images, tf.one_hot(split.labels, classes)))
    return pairs.batch(256).map(lambda images, labels: (tf.cast(images, tf.float32) / 255, labels))


def _callback(recipe: Recipe, journal: Journal, watcher: Watcher, averaging):
    import tf_keras

    class Report(tf_keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.began = time.monotonic()
            if recipe.schedule.name == "plateau":
                falls = journal.plateaus(recipe.schedule.every_epochs)
                self.model.optimizer.learning_rate = max(
                    recipe.schedule.final_rate, recipe.optimizer.rate * recipe.schedule.factor**falls
                )
            self.number = epoch

        def on_train_batch_end(self, batch, logs=None):
            watcher.step(logs["loss"], logs["accuracy"])

        def on_test_begin(self, logs=None):
            if recipe.fit.ema:
                self.trained = self.model.get_weights()
                take_average(self.model, averaging(self.number))

        def on_epoch_end(self, epoch, logs=None):
            if not np.isfinite(logs["loss"]):
                raise DataError(
                    f"The loss is {logs['loss']} in epoch {epoch + 1}: the learning rate is too high for this data; "
                    "try --set optimizer.rate=... ten times lower."
                )
            rate = self.model.optimizer.learning_rate
            rate = float(rate(self.model.optimizer.iterations) if callable(rate) else rate)
            seconds = time.monotonic() - self.began
            journal.judge(Epoch(epoch + 1, seconds, rate, **{name: float(logs[name]) for name in COLUMNS[3:]}))
            if recipe.fit.ema:
                self.model.set_weights(self.trained)
            journal.keep()
            watcher.epoch(journal.rows[-1], journal.best())
            self.model.stop_training = journal.exhausted()

    return Report()
