"""Fitting: one deterministic stream of batches, a checkpoint every epoch, and resuming where a killed run stopped."""

import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgefer.bundle import Bundle
from edgefer.errors import DataError, EdgeferError, InputError
from edgefer.progress import SILENT, Epoch, Progress
from edgefer.train.augment import Draws, augment_batch, mix
from edgefer.train.backend import precision, tensorflow, to_float_in_graph
from edgefer.train.data.dataset import Dataset, Further, Split
from edgefer.train.history import COLUMNS
from edgefer.train.journal import Journal
from edgefer.train.memory import check_training
from edgefer.train.networks import build_for, initialize
from edgefer.train.objective import class_shares, make_loss, make_optimizer, take_average, take_clean_statistics
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
    strategy = strategy or tensorflow().distribute.get_strategy()
    journal = _fit(recipe, dataset, folder, written or folder, progress, start, strategy)
    if written:
        return None
    if not journal.best_weights.is_file():
        raise DataError(
            f"{folder} has no best weights: training reached no finite validation accuracy. Lower the rate."
        )
    return kept_network(recipe, dataset, journal.best_weights), journal.kept()


def kept_network(recipe: Recipe, dataset: Dataset, weights: Path) -> "tf_keras.Model":
    """The network that a training on the data set gave, of the weights that it kept."""
    network = build_for(recipe, dataset)
    network.load_weights(weights)
    take_clean_statistics(network, recipe, dataset.split("train"))
    return network


def _fit(recipe: Recipe, dataset: Dataset, folder: Path, written: Path, progress: Progress, start, strategy) -> Journal:
    import tf_keras

    train, classes = dataset.split("train"), len(dataset.labels)
    valid = dataset.split("valid") if recipe.needs_validation else dataset.splits.get("valid")
    batch, steps = steps_per_epoch(recipe, train, dataset.further)
    replicas = strategy.num_replicas_in_sync
    if batch % replicas:
        raise DataError(f"A batch of {batch} images cannot be divided among {replicas} replicas: set --batch-size.")
    if not recipe.model.weights:
        with tensorflow().Graph().as_default():  # where no memory is taken; before the seed is set, as it draws from it
            check_training(build_for(recipe, dataset), batch // replicas)
    tf_keras.utils.set_random_seed(recipe.fit.seed)

    def stream(first_epoch: int, epochs: int):
        return strategy.distribute_datasets_from_function(
            lambda context: batches(
                recipe,
                train,
                classes,
                batch,
                steps,
                first_epoch=first_epoch,
                epochs=epochs,
                share=Share.of(context),
                further=dataset.further,
            )
        )

    tf_keras.mixed_precision.set_global_policy(precision())
    journal, begun = None, False
    try:
        with strategy.scope():
            model = _compiled(recipe, dataset, steps, start)
        check_training(model, batch // replicas)
        journal = Journal(folder, model, recipe.fit.patience, recipe.fit.keep, written=written)
        done = journal.restore(recipe.fit.epochs, progress)
        _agree(done, folder, strategy)
        progress.begin(done, recipe.fit.epochs, steps)
        begun = True
        callbacks = [_callback(recipe, journal, progress, lambda epoch: stream(epoch, epoch + 1))]
        if written == folder:
            callbacks.append(tf_keras.callbacks.TensorBoard(journal.written.tensorboard, write_graph=False))
        if done < recipe.fit.epochs and not journal.exhausted():
            model.fit(
                stream(done, recipe.fit.epochs),
                validation_data=_in_order(valid, classes) if valid else None,
                steps_per_epoch=steps,
                initial_epoch=done,
                epochs=recipe.fit.epochs,
                verbose=0,
                callbacks=callbacks,
            )
    except tensorflow().errors.ResourceExhaustedError as error:
        kept = (
            f"Finished epochs are kept in {folder}: make room and --resume, or train"
            if journal and journal.rows
            else "Train"
        )
        raise EdgeferError(
            f"Memory or disk space ran out ({str(error).strip().splitlines()[0]:.120}). {kept} again with a smaller --batch-size."
        ) from None
    finally:
        if begun:
            progress.end()
        tf_keras.mixed_precision.set_global_policy("float32")
    return journal


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


def steps_per_epoch(recipe: Recipe, split: Split, further: Further | None = None) -> tuple[int, int]:
    """How many images a batch has, and how many batches an epoch: the split's images are seen once, the further ones as
    often as their share of the batches asks for."""
    batch = min(recipe.fit.batch_size, len(split))
    return batch, len(split) // (batch - _further_of(batch, further))


def _further_of(batch: int, further: Further | None) -> int:
    """How many images of a batch are further ones: their share of it, but never all."""
    return min(round(batch * further.share), batch - 1) if further else 0


def _agree(done: int, folder: Path, strategy) -> None:
    """Fail when workers would go on from different epochs."""
    tf = tensorflow()
    total = strategy.reduce("SUM", strategy.run(lambda: tf.constant(done)), axis=None)
    if total != done * strategy.num_replicas_in_sync:
        raise DataError(
            f"The workers do not see the same checkpoint: {folder} must lie on a disk that all of them share."
        )


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of every batch that this process takes: the replicas first .. first + here - 1 of `replicas`."""

    first: int = 0
    here: int = 1
    replicas: int = 1

    @classmethod
    def of(cls, context) -> "Share":
        """Of a tf.distribute.InputContext."""
        here = context.num_replicas_in_sync // context.num_input_pipelines
        return cls(first=context.input_pipeline_id * here, here=here, replicas=context.num_replicas_in_sync)


WHOLE = Share()


def batches(
    recipe: Recipe,
    split: Split,
    classes: int,
    batch: int,
    steps: int,
    *,
    first_epoch: int,
    epochs: int,
    share: Share = WHOLE,
    further: Further | None = None,
):
    """Augmented batches of the epochs first_epoch .. epochs - 1, a pure function of seed, epoch and step.

    A tf.data.Dataset of (float32 pixels [batch, h, w, c] in 0..1, float32 targets [batch, classes]), and
    with class weights float32 weights [batch] of mean 1. With a share of it, each element is one replica's part of a
    batch: together, all replicas see the images that one alone would. Further images come last in each batch.
    """
    tf = tensorflow()
    seed, balance, mixup = recipe.fit.seed, recipe.fit.balance, recipe.augment.mixup
    part, floats = batch // share.replicas, to_float_in_graph()
    sources = [split, further.split] if further else [split]
    images = tf.constant(np.concatenate([source.images for source in sources]))
    targets = tf.constant(np.concatenate([source.soft_labels(classes) for source in sources]))
    rarities = [(1 / class_shares(source, classes))[source.labels] for source in sources]
    weights = tf.constant(np.concatenate([rarity / rarity.mean() for rarity in rarities]), tf.float32)

    def columns(first: int, count: int, wide: int, draw):
        """`wide` of the `count` images from `first` on for each batch, int [steps, wide]: each once before any twice."""
        wanted = steps * wide
        if balance == "oversample":
            rare = tf.math.log(weights[first : first + count])
            order = tf.random.stateless_categorical(rare[None], wanted, seed=draw, dtype=tf.int32)[0]
        else:
            rounds = tf.unstack(tf.random.split(draw, -(-wanted // count))) if wanted > count else [draw]
            shuffle = tf.random.experimental.stateless_shuffle
            order = tf.concat([shuffle(tf.range(count), seed=each) for each in rounds], axis=0)
        return first + tf.reshape(order[:wanted], [steps, wide])

    def rows_of(epoch):
        draw, others = tf.stack([seed, epoch]), _further_of(batch, further)
        rows = columns(0, len(split), batch - others, draw)
        if others:
            draw = tf.random.experimental.stateless_fold_in(draw, len(split))
            rows = tf.concat([rows, columns(len(split), len(further.split), others, draw)], axis=1)
        return tf.data.Dataset.from_tensor_slices(rows).enumerate(start=epoch * steps)

    def parts_of(step, rows):
        replicas = tf.data.Dataset.range(share.first, share.first + share.here)
        return replicas.map(lambda replica: (step, rows, tf.cast(replica, tf.int32) * part))

    def load(step, rows, start):
        # The image before the first is loaded too for mixup to blend the first with.
        chosen = tf.math.floormod(tf.range(start - 1 if mixup else start, start + part), batch)
        draws = Draws(seed=tf.stack([seed, step]), count=batch, rows=chosen)
        # Images and targets are gathered by the same rows, so they cannot get out of step.
        rows = tf.gather(rows, chosen)
        pixels, wanted = floats(tf.gather(images, rows)), tf.gather(targets, rows)
        pixels = augment_batch(pixels, recipe.augment, draws)
        if mixup:
            pixels, wanted = mix(pixels, wanted, mixup, draws)
        if balance == "class-weights":
            return pixels, wanted, tf.gather(weights, rows[-part:])
        return pixels, wanted

    stream = tf.data.Dataset.range(first_epoch, epochs).flat_map(rows_of).flat_map(parts_of)
    return stream.map(load, num_parallel_calls=2).prefetch(4)


def _in_order(split: Split, classes: int):
    tf = tensorflow()
    pairs = tf.data.Dataset.from_tensor_slices((split.images, tf.one_hot(split.labels, classes)))
    floats = to_float_in_graph()
    return pairs.batch(256).map(lambda images, labels: (floats(images), labels))


def _callback(recipe: Recipe, journal: Journal, progress: Progress, averaging):
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
            progress.step(logs["loss"], logs["accuracy"])

        def on_test_begin(self, logs=None):
            self.average()

        def average(self):
            if recipe.fit.ema:
                self.trained = self.model.get_weights()
                # Some of the epoch's batches, to estimate batch norm's statistics on.
                take_average(self.model, itertools.islice(averaging(self.number), NORM_BATCHES))

        def on_epoch_end(self, epoch, logs=None):
            if not np.isfinite(logs["loss"]):
                raise DataError(
                    f"The loss is {logs['loss']} in epoch {epoch + 1}: the learning rate is too high for this data; "
                    "try --set optimizer.rate=... ten times lower."
                )
            rate = self.model.optimizer.learning_rate
            rate = float((rate(self.model.optimizer.iterations) if callable(rate) else rate).numpy())
            seconds = time.monotonic() - self.began
            if "val_loss" not in logs:  # nothing was tested, so nothing was averaged yet
                self.average()
            # As history.csv gives them back, so that a resumed run finds the same epochs better than others.
            figures = {name: float(f"{logs.get(name, np.nan):.6g}") for name in COLUMNS[3:]}
            journal.judge(Epoch(epoch + 1, seconds, rate, **figures))
            if recipe.fit.ema:
                self.model.set_weights(self.trained)
            journal.keep()
            progress.epoch(journal.rows[-1], journal.kept())
            self.model.stop_training = journal.exhausted()

    return Report()
