"""Fine-tuning for pruning, slimming and quantization-aware training: the network learns from labels and a teacher.

The teacher is the trained network: its probabilities say more about an image than a label does (Hinton, Vinyals
& Dean 2015, arXiv:1503.02531), and keep the new network's decisions near the old one's.
"""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgefer.card import ModelCard
from edgefer.errors import EdgeferError
from edgefer.interpreter import softmax
from edgefer.metrics import nll
from edgefer.progress import Epoch, Progress
from edgefer.train.backend import tensorflow
from edgefer.train.batches import batches, epoch_size
from edgefer.train.data.dataset import Dataset
from edgefer.train.evaluate import evaluate, keras_logits
from edgefer.train.journal import checkpoint_manager, load_checkpoint
from edgefer.train.memory import check_training
from edgefer.train.objective import (
    apply_clean_statistics,
    create_variables,
    logit_adjustment,
    make_dropout_resumable,
    make_optimizer,
)
from edgefer.train.recipe_fields import Recipe
from edgefer.train.recipes import recipe_of

if TYPE_CHECKING:
    import tf_keras


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """The data, teacher and schedule of a fine-tuning.

    recipe: for augmentation, batches, optimizer and [distill]. rate: the initial learning rate, with cosine decay to
    zero. folder: receives a checkpoint after every epoch; an existing one is resumed.
    """

    recipe: Recipe
    dataset: Dataset
    teacher: "tf_keras.Model"
    epochs: int
    rate: float
    folder: Path
    progress: Progress

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return epoch_size(self.recipe, self.dataset.split("train")).steps

    def optimizer(self):
        """The recipe's optimizer, weight decay included, with this schedule."""
        schedule = {"name": "cosine", "warmup_epochs": 0.0, "final_rate": 0.0}
        changes = {
            "schedule": self.recipe.schedule.model_copy(update=schedule),
            "optimizer": self.recipe.optimizer.model_copy(update={"rate": self.rate}),
            "fit": self.recipe.fit.model_copy(update={"epochs": self.epochs, "ema": 0.0}),
        }
        return make_optimizer(self.recipe.model_copy(update=changes), self.steps)


@dataclass(frozen=True, kw_only=True)
class Tuner:
    """The fine-tunings of one conversion. work_dir: holds the checkpoints of each, in a folder named after everything that
    it depends on. epochs: of each; 0 for the step's default."""

    work_dir: Path
    progress: Progress
    epochs: int = 0

    def task(
        self, step: str, model: "tf_keras.Model", card: ModelCard, dataset: Dataset, teacher: "tf_keras.Model"
    ) -> FineTuning:
        """A fine-tuning of `model` by its recipe; `step` is unique and begins with "slim", "prune" or "aware"."""
        kind = step.split("-")[0]
        recipe = recipe_of(card)
        epochs = self.epochs or EPOCHS[kind]
        names = [hashlib.sha256(b"".join(weight.tobytes() for weight in one.get_weights())) for one in (model, teacher)]
        facts = f"{dataset.content_hash} {[name.hexdigest() for name in names]} {recipe.model_dump_json()}"
        folder = self.work_dir / f"{step}-{epochs}-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"
        return FineTuning(
            recipe=recipe,
            dataset=dataset,
            teacher=teacher,
            epochs=epochs,
            rate=recipe.optimizer.rate * RATES[kind],
            folder=folder,
            progress=self.progress,
        )


EPOCHS = {"slim": 8, "prune": 4, "aware": 3}
RATES = {"slim": 0.3, "prune": 0.1, "aware": 0.01}  # of the recipe's: the more was lost, the more has to be learned


def tune(network: "tf_keras.Model", task: FineTuning, callbacks: tuple = ()) -> None:
    """Fine-tune `network` in place on the training split and keep the last epoch.

    The teacher gets the same augmented images as the network, and is weighted by the recipe's [distill]. EdgeferError
    when memory or disk space runs out, or the checkpoint to continue from is damaged.
    """
    tf = tensorflow()
    check_training(network, epoch_size(task.recipe, task.dataset.split("train")).batch)
    network.compile(task.optimizer(), _distillation(task), metrics=[_accuracy])
    create_variables(network, tf.zeros([1, 2, len(task.dataset.labels)]))
    network.train_step = unconverted(network.train_step)
    make_dropout_resumable(network, task.recipe.fit.seed)
    done = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(network=network, optimizer=network.optimizer, epoch=done)
    manager = checkpoint_manager(checkpoint, task.folder, keep=1)
    if manager.latest_checkpoint and not load_checkpoint(checkpoint, Path(manager.latest_checkpoint)):
        raise EdgeferError(
            f"{manager.latest_checkpoint}, from which fine-tuning was to continue, is damaged: remove {task.folder} and run the "
            "same command again; this fine-tuning then starts again."
        )
    first = int(done)

    def save(epochs: int) -> None:
        done.assign(epochs)
        manager.save()

    task.progress.begin(first, task.epochs, task.steps)
    try:
        if first < task.epochs:
            network.fit(
                _stream(task, first),
                steps_per_epoch=task.steps,
                initial_epoch=first,
                epochs=task.epochs,
                verbose=0,
                callbacks=[*callbacks, _report(task, save)],
            )
    except tf.errors.ResourceExhaustedError as error:
        raise EdgeferError(
            f"Memory or disk space ran out while fine-tuning in {task.folder} ({str(error).strip().splitlines()[0]:.120}): "
            "make room and run the same command again; finished epochs are kept."
        ) from None
    finally:
        task.progress.end()
    if task.recipe.fit.clean_statistics:
        with task.progress.stage("Measuring its batch-norm statistics"):
            apply_clean_statistics(network, task.recipe, task.dataset.split("train"))


def unconverted(function):
    """The function, which TensorFlow's AutoGraph leaves alone. tfmot's layers branch on no tensor, and converting their code
    takes half the time of a short fine-tuning."""
    return tensorflow().autograph.experimental.do_not_convert(function)


def _stream(task: FineTuning, first: int):
    """Batches of (pixels, targets float32 [n, 2, classes], ...): the labels and the teacher's logits."""
    tf = tensorflow()
    train = task.dataset.split("train")
    size = epoch_size(task.recipe, train)

    @unconverted
    def with_teacher(pixels, labels, *weights):
        return pixels, tf.stack([labels, task.teacher(pixels, training=False)], axis=1), *weights

    classes = len(task.dataset.labels)
    rows = batches(task.recipe, train, classes, size, epochs=range(first, task.epochs))
    return rows.map(with_teacher).prefetch(2)


def _report(task: FineTuning, save):
    """A Keras callback that reports steps and epochs, and calls `save` with the number of finished epochs."""
    import tf_keras

    measured = task.dataset.splits.get("valid", task.dataset.split("train"))

    class Report(tf_keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.began = time.monotonic()

        def on_train_batch_end(self, batch, logs=None):
            task.progress.step(logs["loss"], logs["accuracy"])

        def on_epoch_end(self, epoch, logs=None):
            logits = keras_logits(self.model, measured.images)
            row = Epoch(
                epoch=epoch + 1,
                seconds=time.monotonic() - self.began,
                rate=float(self.model.optimizer.learning_rate),
                loss=float(logs["loss"]),
                accuracy=float(logs["accuracy"]),
                val_loss=nll(softmax(logits), measured.labels),
                val_accuracy=evaluate(measured, logits).accuracy,
            )
            task.progress.epoch(row, None)
            save(epoch + 1)

    return Report()


def _distillation(task: FineTuning):
    """The loss for targets float32 [n, 2, classes], the label and the teacher's logits, against logits [n, classes].

    The recipe's label smoothing and logit adjustment are for the labels: the teacher was trained with them.
    """
    import tensorflow as tf

    share, data, smoothing = task.recipe.distill, task.dataset, task.recipe.fit.label_smoothing
    entropy, temperature = tf.nn.softmax_cross_entropy_with_logits, share.temperature
    adjustment = logit_adjustment(task.recipe, data.split("train"), len(data.labels))

    def loss(targets, logits):
        label, taught = targets[:, 0] * (1 - smoothing) + smoothing / len(data.labels), targets[:, 1] / temperature
        expected = tf.nn.softmax(taught)
        divergence = entropy(expected, logits / temperature) - entropy(expected, taught)
        # Its gradients scale with 1 / temperature².
        return (1 - share.weight) * entropy(label, logits + adjustment) + share.weight * temperature**2 * divergence

    return loss


def _accuracy(targets, logits):
    import tf_keras

    return tf_keras.metrics.categorical_accuracy(targets[:, 0], logits)


_accuracy.__name__ = "accuracy"
