"""Fitting a face network: batches that are a pure function of seed and step, averaged weights, and resuming after a kill."""

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgefer.errors import DataError
from edgefer.train.backend import precision, tensorflow, to_float_in_graph
from edgefer.train.journal import checkpoint_manager, load_checkpoint, save_checkpoint
from edgefer.train.run import FitFolder

if TYPE_CHECKING:
    import tf_keras

AHEAD = 4  # batches composed while one is learned
AVERAGE = 0.998  # decay of the averaged weights

Batch = Callable[[int], tuple[np.ndarray, np.ndarray]]  # step -> uint8 images [n, h, w, 1], float32 targets


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """AdamW's rate: a linear rise over `warmup` steps to `rate`, then a cosine to a hundredth of it at `steps`."""

    steps: int
    rate: float
    warmup: int
    weight_decay: float
    every: int  # steps between two checkpoints

    def at(self, step: int) -> float:
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        share = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


def fit(
    build: Callable[[], "tf_keras.Model"],
    loss: Callable,
    batch: Batch,
    schedule: Schedule,
    folder: Path,
    report: Callable[[int, float], None],
) -> "tf_keras.Model":
    """Train to the schedule's end; `folder` keeps checkpoints and history.jsonl, from which a killed training goes on.

    Returns the float32 network with the averaged weights. report: (step, mean loss since the last) at every checkpoint.
    """
    tf = tensorflow()
    import tf_keras

    tf_keras.mixed_precision.set_global_policy(precision())
    try:
        model = build()
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    optimizer = tf_keras.optimizers.AdamW(schedule.rate, weight_decay=schedule.weight_decay, clipnorm=10.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    optimizer.build(model.trainable_variables)
    averages = [tf.Variable(value, trainable=False) for value in model.get_weights()]
    done = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer, averages=averages, done=done)
    manager = checkpoint_manager(checkpoint, folder / "checkpoints")
    _restore(checkpoint, FitFolder(folder))

    learn = _learner(model, optimizer, loss, averages)
    losses: list[float] = []
    began = time.monotonic()
    for step, (images, targets) in _ahead(batch, int(done), schedule.steps):
        optimizer.learning_rate.assign(schedule.at(step))
        keep = min(AVERAGE, (1 + step) / (10 + step))
        losses.append(float(learn(tf.constant(images), tf.constant(targets), tf.constant(keep, tf.float32))))
        if (step + 1) % schedule.every == 0 or step + 1 == schedule.steps:
            mean = float(np.mean(losses))
            if not math.isfinite(mean):
                raise DataError(f"The loss is {mean} after {step + 1} steps: try --set optimizer.rate ten times lower.")
            done.assign(step + 1)
            save_checkpoint(manager)
            row = {"step": step + 1, "loss": round(mean, 5), "seconds": round(time.monotonic() - began, 1)}
            with (folder / "history.jsonl").open("a") as out:
                out.write(json.dumps(row) + "\n")
            report(step + 1, mean)
            losses, began = [], time.monotonic()
    return averaged(build, averages)


def _restore(checkpoint, folder: FitFolder) -> None:
    """Load the newest checkpoint that is whole, if there are any. DataError when none of them can be read."""
    numbers = folder.checkpoint_numbers()
    if numbers and not any(load_checkpoint(checkpoint, folder.checkpoints / f"ckpt-{number}") for number in numbers):
        raise DataError(
            f"No checkpoint in {folder.checkpoints} can be read: copy one back from where it is whole, or train again with "
            "another --out."
        )


def averaged(build: Callable[[], "tf_keras.Model"], averages) -> "tf_keras.Model":
    """The float32 network with the averaged weights."""
    model = build()
    model.set_weights([np.asarray(average) for average in averages])
    return model


def _learner(model: "tf_keras.Model", optimizer, loss: Callable, averages: list) -> Callable:
    """One step in TensorFlow's graph: uint8 images, targets and the averages' decay -> the loss."""
    tf, floats = tensorflow(), to_float_in_graph()

    @tf.function
    def learn(images, targets, keep):
        with tf.GradientTape() as tape:
            value = loss(model(floats(images), training=True), targets)
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        for average, weight in zip(averages, model.weights, strict=True):
            average.assign_sub((1 - keep) * (average - tf.cast(weight, tf.float32)))
        return value

    return learn


def _ahead(batch: Batch, first: int, steps: int):
    """(step, batch) of first .. steps - 1, composed in another thread."""
    with ThreadPoolExecutor(1) as pool:
        waiting: list[Future] = []
        try:
            for step in range(first, steps):
                while len(waiting) < AHEAD and step + len(waiting) < steps:
                    waiting.append(pool.submit(batch, step + len(waiting)))
                yield step, waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
