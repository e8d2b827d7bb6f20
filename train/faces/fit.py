"""Fitting a face network: batches that are a pure function of seed and step, averaged weights, and checkpoints to
resume from."""

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgefer.errors import DataError, InputError
from edgefer.files import MAX_JSON, read_regular, write_file
from edgefer.train.backend import mixed_precision, out_of_memory, tensorflow, to_float_in_graph
from edgefer.train.journal import checkpoint_manager, load_checkpoint, save_checkpoint
from edgefer.train.run import FitFolder

if TYPE_CHECKING:
    import tf_keras

PREFETCH = 4  # batches prepared while one is trained on
EMA_DECAY = 0.998  # of the averaged weights

Batch = Callable[[int], tuple[np.ndarray, np.ndarray]]  # step -> uint8 images [n, h, w, 1], float32 targets


@dataclass(frozen=True, kw_only=True)
class FitTask:
    """What is fitted: `build` makes the network, from random weights of `seed`, `loss` maps (outputs, targets) to a
    scalar, `batch` makes each step's batch."""

    build: Callable[[], "tf_keras.Model"]
    loss: Callable
    batch: Batch
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """AdamW's learning rate: linear warm-up over `warmup` steps to `rate`, then a cosine to a hundredth of it at
    `steps`.

    >>> schedule = Schedule(steps=1000, rate=0.002, warmup=200, weight_decay=0.001, every=100)
    >>> [round(schedule.at(step), 6) for step in (0, 199, 600, 1000)]
    [1e-05, 0.002, 0.00101, 2e-05]
    """

    steps: int
    rate: float
    warmup: int
    weight_decay: float
    every: int  # steps between checkpoints

    def at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def fit(task: FitTask, schedule: Schedule, folder: FitFolder, report: Callable[[int, float], None]) -> "tf_keras.Model":
    """Train to the schedule's end; `folder` gets checkpoints and a history, from which an interrupted training resumes.

    report: called with (step, mean loss since the last call) at every checkpoint. Returns the float32 network with the
    averaged weights (EMA). DataError when the loss diverges or no checkpoint can be read, EdgeferError without memory
    or disk space.
    """
    tf = tensorflow()
    try:
        return _fit(task, schedule, folder, report)
    except tf.errors.ResourceExhaustedError as error:
        raise out_of_memory(error, folder.path if folder.checkpoint_numbers() else None) from None


def _fit(
    task: FitTask, schedule: Schedule, folder: FitFolder, report: Callable[[int, float], None]
) -> "tf_keras.Model":
    tf = tensorflow()
    import tf_keras

    tf_keras.utils.set_random_seed(task.seed)
    with mixed_precision():
        model = task.build()
    optimizer = tf_keras.optimizers.AdamW(schedule.rate, weight_decay=schedule.weight_decay, clipnorm=10.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(model.trainable_variables)
    averages = [tf.Variable(value, trainable=False) for value in model.get_weights()]
    done = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, averages=averages, done=done)
    manager = checkpoint_manager(checkpoint, folder.checkpoints)
    _restore(checkpoint, folder)

    history = _history(folder, int(done))
    train_step = _train_step(model, optimizer, task.loss, averages)
    losses: list[float] = []
    started = time.monotonic()
    for step, (images, targets) in _prefetch(task.batch, int(done), schedule.steps):
        optimizer.learning_rate.assign(schedule.at(step))
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        losses.append(float(train_step(tf.constant(images), tf.constant(targets), tf.constant(decay, tf.float32))))
        if (step + 1) % schedule.every == 0 or step + 1 == schedule.steps:
            loss = float(np.mean(losses))
            if not math.isfinite(loss):
                raise DataError(
                    f"The loss is {loss} after {step + 1} steps: lower the learning rate, such as --set fit.rate={schedule.rate / 10:g}."
                )
            history.append({"step": step + 1, "loss": round(loss, 5), "seconds": round(time.monotonic() - started, 1)})
            write_file(folder.step_history, "".join(json.dumps(row) + "\n" for row in history).encode())
            done.assign(step + 1)
            save_checkpoint(manager)
            report(step + 1, loss)
            losses, started = [], time.monotonic()
    averaged = task.build()
    averaged.set_weights([np.asarray(average) for average in averages])
    return averaged


def _restore(checkpoint, folder: FitFolder) -> None:
    """Load the newest intact checkpoint, if there are any. DataError when none of them can be read."""
    numbers = folder.checkpoint_numbers()
    if numbers and not any(load_checkpoint(checkpoint, folder.checkpoints / f"ckpt-{number}") for number in numbers):
        raise DataError(
            f"No checkpoint in {folder.checkpoints} can be read: restore one from a backup, or train again with another --out."
        )


def _history(folder: FitFolder, done: int) -> list[dict]:
    """The rows of the first `done` steps; later ones belong to steps that are trained again. Only people read them."""
    try:
        rows = [json.loads(line) for line in read_regular(folder.step_history, MAX_JSON).splitlines()]
        return [row for row in rows if row["step"] <= done]
    except (InputError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _train_step(model: "tf_keras.Model", optimizer, loss: Callable, averages: list) -> Callable:
    """One step as a graph: (uint8 images, targets, EMA decay) -> loss."""
    tf, to_float = tensorflow(), to_float_in_graph()

    @tf.function(autograph=False)
    def train_step(images, targets, decay):
        with tf.GradientTape() as tape:
            value = loss(model(to_float(images), training=True), targets)
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        for average, weight in zip(averages, model.weights, strict=True):
            average.assign_sub((1 - decay) * (average - tf.cast(weight, tf.float32)))
        return value

    return train_step


def _prefetch(batch: Batch, first: int, steps: int) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
    """(step, batch) for the steps first .. steps - 1, prepared in another thread."""
    with ThreadPoolExecutor(1) as pool:
        pending: list[Future] = []
        try:
            for step in range(first, steps):
                while len(pending) < PREFETCH and step + len(pending) < steps:
                    pending.append(pool.submit(batch, step + len(pending)))
                yield step, pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()
