"""Fine-tuning that pruning, slimming and quantization-aware training share: the network learns from data and teacher.

The teacher is the float network as it was trained: its probabilities say more about a picture than a label does
(Hinton, Vinyals & Dean 2015, arXiv:1503.02531), and keep the new network's decisions near the old one's.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgefer.interpreter import softmax
from edgefer.metrics import nll
from edgefer.train.backend import tensorflow
from edgefer.train.data.dataset import Dataset
from edgefer.train.evaluate import evaluate, keras_logits
from edgefer.train.fit import Watcher, batches, steps_per_epoch
from edgefer.train.objective import take_clean_statistics
from edgefer.train.recipes import Distill, Recipe
from edgefer.train.run import Epoch

if TYPE_CHECKING:
    import tf_keras


def tune(
    network: "tf_keras.Model",
    recipe: Recipe,
    dataset: Dataset,
    *,
    teacher: "tf_keras.Model",
    epochs: int,
    rate: float,
    folder: Path,
    watcher: Watcher,
    callbacks: tuple = (),
) -> None:
    """Fine-tune `network` in place on the training split, by the recipe's augmentation and optimizer.

    The teacher looks at the very pictures the network sees, and its word counts as the recipe's [distill] says. The
    learning rate falls from `rate` to nothing by a cosine; the last epoch is what stays. `folder` receives a checkpoint
    after every epoch, and one that is there already is continued.
    """
    tf = tensorflow()
    import tf_keras

    train, valid = dataset.split("train"), dataset.split("valid")
    batch, steps = steps_per_epoch(recipe, train)
    decay = tf_keras.optimizers.schedules.CosineDecay(rate, steps * epochs)
    kind = tf_keras.optimizers.SGD if recipe.optimizer.name == "sgd" else tf_keras.optimizers.Adam
    extra = {"momentum": recipe.optimizer.momentum, "nesterov": True} if recipe.optimizer.name == "sgd" else {}
    network.compile(kind(decay, **extra), _distillation(recipe.distill), metrics=[_accuracy])
    network.optimizer.build(network.trainable_variables)
    done = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(network=network, optimizer=network.optimizer, epoch=done)
    manager = tf.train.CheckpointManager(checkpoint, folder, max_to_keep=1)
    if manager.latest_checkpoint:
        checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
    first = int(done)

    class Report(tf_keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.began = time.monotonic()

        def on_train_batch_end(self, batch, logs=None):
            watcher.step(logs["loss"], logs["accuracy"])

        def on_epoch_end(self, epoch, logs=None):
            logits = keras_logits(self.model, valid.images)
            watcher.epoch(
                Epoch(
                    epoch=epoch + 1,
                    seconds=time.monotonic() - self.began,
                    rate=float(decay(self.model.optimizer.iterations)),
                    loss=float(logs["loss"]),
                    accuracy=float(logs["accuracy"]),
                    val_loss=nll(softmax(logits), valid.labels),
                    val_accuracy=evaluate(valid, logits).accuracy,
                ),
                None,
            )
            done.assign(epoch + 1)
            manager.save()

    def ask(pixels, labels, *weights):
        return pixels, tf.stack([labels, teacher(pixels, training=False)], axis=1), *weights

    stream = batches(recipe, train, len(dataset.labels), batch, steps, first_epoch=first, epochs=epochs).map(ask)
    watcher.begin(first, epochs, steps)
    try:
        if first < epochs:
            network.fit(
                stream.prefetch(2),
                steps_per_epoch=steps,
                initial_epoch=first,
                epochs=epochs,
                verbose=0,
                callbacks=[*callbacks, Report()],
            )
    finally:
        watcher.end()
    take_clean_statistics(network, recipe, train)


def _distillation(share: Distill):
    """The loss for targets float32 [n, 2, classes], the label and the teacher's logits, against logits [n, classes]."""
    import tensorflow as tf

    entropy, heat = tf.nn.softmax_cross_entropy_with_logits, share.temperature

    def loss(targets, logits):
        label, taught = targets[:, 0], targets[:, 1] / heat
        expected = tf.nn.softmax(taught)
        divergence = entropy(expected, logits / heat) - entropy(expected, taught)
        # Its gradients shrink by the square of the temperature.
        return (1 - share.weight) * entropy(label, logits) + share.weight * heat**2 * divergence

    return loss


def _accuracy(targets, logits):
    import tf_keras

    return tf_keras.metrics.categorical_accuracy(targets[:, 0], logits)


_accuracy.__name__ = "accuracy"
