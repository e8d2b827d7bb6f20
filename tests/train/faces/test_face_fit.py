"""Fitting of face networks: on the same pixels as every other part of edgefer, and resumable."""

import itertools
import shutil

import numpy as np
import pytest

from edgefer.errors import DataError, EdgeferError
from edgefer.preprocess import to_float
from edgefer.train.backend import tensorflow
from edgefer.train.faces.fit import FitTask, Schedule, fit
from edgefer.train.run import FitFolder

pytestmark = pytest.mark.timeout(120)
GRAYS = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)


@pytest.fixture
def fitted(tmp_path):
    """Fit a network that multiplies pixels by its one weight, for `steps` steps; returns it and the reported losses."""
    tensorflow()
    import tf_keras

    def build():
        pixels = tf_keras.Input((16, 16, 1))
        scaled = tf_keras.layers.DepthwiseConv2D(1, use_bias=False, depthwise_initializer="ones", dtype="float32")(
            pixels
        )
        return tf_keras.Model(pixels, scaled)

    def loss(outputs, targets):
        import tensorflow as tf

        return tf.reduce_max(tf.abs(outputs - targets))

    def run(steps, rate=0.0, report=lambda step, mean: None):
        seen = []

        def record(*row):
            seen.append(row)
            report(*row)

        schedule = Schedule(rate=rate, steps=steps, warmup=0, weight_decay=0.0, every=1)
        task = FitTask(build=build, loss=loss, batch=lambda step: (GRAYS, to_float(GRAYS)))
        model = fit(task, schedule, FitFolder(tmp_path), record)
        return model, seen

    return run


def test_pixels_are_scaled_bit_for_bit_as_in_every_runtime(fitted):
    """Division by 255 differs from multiplication by 1/255 for 126 of the 256 values."""
    _, seen = fitted(2)
    assert seen == [(1, 0.0), (2, 0.0)]


def test_stopped_fit_resumes_after_its_last_checkpoint(fitted):
    fitted(2)
    _, seen = fitted(4)
    assert [step for step, _ in seen] == [3, 4]
    assert list(itertools.chain(*(row[1:] for row in seen))) == [0.0, 0.0]


def test_damaged_checkpoint_is_skipped_for_the_previous_one(fitted, tmp_path):
    fitted(3)
    (tmp_path / "checkpoints" / "ckpt-3.index").write_bytes(b"cut off")
    (tmp_path / "checkpoints" / "checkpoint").write_bytes(b"\xff")
    _, seen = fitted(4)
    assert [step for step, _ in seen] == [3, 4]
    for index in (tmp_path / "checkpoints").glob("*.index"):
        index.write_bytes(b"")
    with pytest.raises(DataError, match=r"^No checkpoint in .*checkpoints can be read"):
        fitted(5)


def test_unwritable_checkpoint_is_an_error_of_one_sentence(fitted, tmp_path):
    def make_unwritable(step, mean):
        shutil.rmtree(tmp_path / "checkpoints")
        (tmp_path / "checkpoints").write_bytes(b"")

    with pytest.raises(EdgeferError, match=r"^/.*checkpoints cannot be written: .*--resume goes on"):
        fitted(2, report=make_unwritable)


def random_task():
    """A network with random initial weights, on batches that differ from step to step."""
    tf = tensorflow()
    import tf_keras

    def build():
        pixels = tf_keras.Input((16, 16, 1))
        convolved = tf_keras.layers.Conv2D(2, 3, 4, dtype="float32")(pixels)
        normed = tf_keras.layers.BatchNormalization(dtype="float32")(convolved)
        return tf_keras.Model(pixels, tf_keras.layers.Flatten(dtype="float32")(normed))

    def batch(step):
        rng = np.random.default_rng(step)
        return rng.integers(0, 256, (4, 16, 16, 1), dtype=np.uint8), rng.random((4, 32), np.float32)

    def loss(outputs, targets):
        return tf.reduce_mean((outputs - targets) ** 2)

    return FitTask(build=build, loss=loss, batch=batch, seed=3)


def weights_after(folder, task, stop_at=0):
    def report(step, mean):
        if step == stop_at:
            raise KeyboardInterrupt

    schedule = Schedule(rate=0.05, steps=4, warmup=1, weight_decay=0.01, every=1)
    return fit(task, schedule, FitFolder(folder), report).get_weights()


def test_seed_determines_the_weights_even_after_an_interrupt(tmp_path):
    uninterrupted = weights_after(tmp_path / "uninterrupted", random_task())
    with pytest.raises(KeyboardInterrupt):
        weights_after(tmp_path / "resumed", random_task(), stop_at=2)
    for one, other in zip(uninterrupted, weights_after(tmp_path / "resumed", random_task()), strict=True):
        np.testing.assert_array_equal(one, other)
