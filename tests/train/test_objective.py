"""What a fit minimizes: class balance, mixup, dropout, averaged weights, and the plateau schedule; all off by default."""

from dataclasses import replace

import numpy as np
import pytest

from edgefer.errors import EdgeferError, RecipeError
from edgefer.progress import Epoch
from edgefer.train.backend import tensorflow
from edgefer.train.batches import EpochSize
from edgefer.train.data.dataset import Dataset, ExtraImages, Split
from edgefer.train.history import read_history
from edgefer.train.journal import Journal
from edgefer.train.recipes import load_recipe

TINY = ("model.layers=C8/2 C8/2", "schedule.name=constant", "fit.batch_size=16", "optimizer.rate=0.01")


@pytest.fixture(scope="module")
def lopsided():
    """Two classes, light and dark, seven to one."""
    rng = np.random.default_rng(0)
    labels = (np.arange(128) % 8 == 0).astype(np.int64)
    images = (rng.integers(0, 100, (128, 48, 48, 1)) + 60 * labels[:, None, None, None]).astype(np.uint8)
    split = Split(images=images, labels=labels, ids=np.arange(128).astype(str))
    return Dataset(name="lopsided", labels=("dark", "light"), splits={"train": split, "valid": split})


def stream(dataset, *overrides, steps=8):
    from edgefer.train.batches import batches

    recipe = load_recipe("demo", (*TINY, *overrides))
    return list(batches(recipe, dataset.split("train"), 2, EpochSize(16, steps), epochs=range(20)).as_numpy_iterator())


def test_balance_is_off_by_default_and_oversampling_evens_the_classes(lopsided):
    plain = np.concatenate([targets for _, targets in stream(lopsided)])
    assert plain.mean(axis=0) == pytest.approx([7 / 8, 1 / 8])
    even = np.concatenate([targets for _, targets in stream(lopsided, "fit.balance=oversample")])
    assert even.mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.05)


def test_augmentation_sees_the_colours_of_a_bgr_input(lopsided):
    """JPEG and saturation weight red, green and blue: an input that is BGR is augmented as the same in RGB."""
    images = np.random.default_rng(0).integers(0, 256, (128, 48, 48, 3), np.uint8)
    augment = ("augment.saturation=1", "augment.jpeg=1")

    def fed(color: str, images: np.ndarray) -> np.ndarray:
        split = replace(lopsided.split("train"), images=images)
        return stream(replace(lopsided, splits={"train": split}), f"input.color={color}", *augment, steps=1)[0][0]

    assert np.array_equal(fed("bgr", images[..., ::-1])[..., ::-1], fed("rgb", images))


def test_limited_batches_are_the_first_of_every_epoch(lopsided):
    """On them the batch-norm statistics of averaged weights are estimated, epoch by epoch."""
    from edgefer.train.batches import batches

    recipe, train = load_recipe("demo", TINY), lopsided.split("train")
    every, first = (
        list(batches(recipe, train, 2, EpochSize(16, 3), epochs=range(1, 3), limit=limit).as_numpy_iterator())
        for limit in (None, 2)
    )
    assert len(every) == 6 and len(first) == 4
    for (pixels, targets), (own, theirs) in zip(first, [*every[0:2], *every[3:5]], strict=True):
        assert np.array_equal(pixels, own) and np.array_equal(targets, theirs)


def test_class_weights_make_every_class_count_the_same(lopsided):
    parts = stream(lopsided, "fit.balance=class-weights")
    targets, weights = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    assert (weights @ targets) == pytest.approx([len(weights) / 2] * 2, rel=1e-4)


def test_class_weights_do_so_with_mixup(lopsided):
    """The part of an image that is blended into another counts by its own class, not by the other's."""
    parts = stream(lopsided, "fit.balance=class-weights", "augment.mixup=2")
    targets, weights = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    assert targets.sum(axis=1) == pytest.approx(np.ones(len(targets)), abs=1e-5)
    assert weights.mean() == pytest.approx(1, abs=0.02)
    assert (weights @ targets) == pytest.approx([len(weights) / 2] * 2, rel=0.03)


def test_logit_adjustment_raises_logits_by_the_log_share(lopsided):
    tensorflow()
    from edgefer.train.objective import make_loss

    split = lopsided.split("train")
    recipe = load_recipe("demo", (*TINY, "fit.balance=logit-adjustment", "fit.label_smoothing=0"))
    loss = make_loss(recipe, split, 2)(np.eye(2, dtype=np.float32), np.zeros((2, 2), np.float32)).numpy()
    np.testing.assert_allclose(loss, -np.log([7 / 8, 1 / 8]), rtol=1e-5)


def test_half_an_adjustment_raises_logits_by_half_the_log_share(lopsided):
    tensorflow()
    from edgefer.train.objective import make_loss

    half = ("fit.balance=logit-adjustment", "fit.label_smoothing=0", "fit.adjustment=0.5")
    loss = make_loss(load_recipe("demo", (*TINY, *half)), lopsided.split("train"), 2)
    answers = loss(np.eye(2, dtype=np.float32), np.zeros((2, 2), np.float32)).numpy()
    raised = np.sqrt([7 / 8, 1 / 8])
    np.testing.assert_allclose(answers, -np.log(raised / raised.sum()), rtol=1e-5)


def test_adjustment_without_logit_adjustment_is_refused():
    with pytest.raises(RecipeError, match="no effect without balance=logit-adjustment"):
        load_recipe("demo", (*TINY, "fit.adjustment=0.7"))


def test_reestimated_statistics_leave_frozen_layers_unchanged():
    tensorflow()
    import tf_keras

    from edgefer.train.objective import estimate_batch_norm

    frozen, free = (tf_keras.layers.BatchNormalization() for _ in range(2))
    frozen.trainable = False
    model = tf_keras.Sequential([frozen, free])
    pixels = np.full((8, 3), 5, np.float32)
    model(pixels)
    estimate_batch_norm(model, [(pixels,)])
    assert frozen.moving_mean.numpy().tolist() == [0, 0, 0]
    assert free.moving_mean.numpy() == pytest.approx(5, rel=1e-3)


def test_extra_images_fill_their_share_of_each_batch_and_are_used_evenly(lopsided):
    from edgefer.train.batches import batches, epoch_size

    own, others = lopsided.split("train"), lopsided.split("train").take(np.arange(20))
    extra = ExtraImages(name="others", split=replace(others, images=np.full_like(others.images, 255)), share=0.75)
    recipe = load_recipe("demo", (*TINY, "augment.flip=false", "augment.rotate_deg=0", "augment.zoom=0",
                                  "augment.shift=0", "augment.brightness=0", "augment.contrast=0",
                                  "augment.erase=0"))  # fmt: skip
    size = epoch_size(recipe, own, extra)
    assert size == (16, 32)  # 4 of the split's 128 in each
    given = batches(recipe, own, 2, size, epochs=range(1), extra=extra)
    pixels, targets = zip(*given.as_numpy_iterator(), strict=True)
    white = np.array([part.min(axis=(1, 2, 3)) > 0.99 for part in pixels])
    assert white.sum(axis=1).tolist() == [12] * 32
    seen = np.concatenate([part[~row] for part, row in zip(pixels, white, strict=True)])
    assert len(np.unique(seen.reshape(128, -1), axis=0)) == 128
    # 20 extra images, 384 places: 3 of the 20 are light, and each is seen 19 or 20 times.
    light = sum(part[row, 1].sum() for part, row in zip(targets, white, strict=True))
    assert 57 <= light <= 60


def test_logit_adjustment_counts_extra_images_by_their_share(lopsided):
    tensorflow()
    from edgefer.train.objective import make_loss

    split = lopsided.split("train")
    extra = ExtraImages(name="light", split=split.take(np.flatnonzero(split.labels == 1)), share=0.5)
    recipe = load_recipe("demo", (*TINY, "fit.balance=logit-adjustment", "fit.label_smoothing=0"))
    loss = make_loss(recipe, split, 2, extra)(np.eye(2, dtype=np.float32), np.zeros((2, 2), np.float32)).numpy()
    np.testing.assert_allclose(loss, -np.log([7 / 16, 9 / 16]), rtol=1e-4)


def test_mixup_blends_images_and_targets_by_the_same_share(lopsided):
    from edgefer.train.augment import Draws, mix

    tf = tensorflow()
    targets = np.eye(2, dtype=np.float32)[lopsided.split("train").labels]
    images = np.repeat(targets[:, 1], 4).reshape(-1, 2, 2, 1)  # each image encodes its target
    draws = Draws(seed=(0, 1), count=len(targets), rows=range(len(targets)))
    mixed, blended = (part.numpy() for part in mix(tf.constant(images), tf.constant(targets), 0.4, draws))
    assert len(mixed) == len(blended) == len(targets) - 1  # the first only serves as partner of the second
    np.testing.assert_allclose(mixed[:, 0, 0, 0], blended[:, 1], atol=1e-6)
    np.testing.assert_allclose(blended.sum(axis=1), 1, atol=1e-6)
    own = targets[1:].argmax(axis=1)
    assert len(np.unique(blended)) > 20 and ((blended.argmax(axis=1) == own) | (blended == 0.5).any(1)).all()


class Silent:
    def begin(self, *_): ...
    def step(self, *_): ...
    def epoch(self, *_): ...
    def end(self): ...


def test_a_kill_between_checkpoint_and_history_loses_neither(lopsided, tmp_path, monkeypatch):
    from edgefer.train import journal
    from edgefer.train.fit import fit

    class Listening(Silent):
        def epoch(self, row, best):
            self.rows.append(row)

    def killed(*_):
        monkeypatch.undo()
        raise KeyboardInterrupt

    watcher = Listening()
    watcher.rows = []
    recipe = load_recipe("demo", (*TINY, "fit.epochs=2"))
    monkeypatch.setattr(journal, "write_history", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, lopsided, tmp_path, watcher)
    fit(recipe, lopsided, tmp_path, watcher)
    # What a resumed run reads is exactly what the uninterrupted one judged by.
    read = read_history(tmp_path / "history.csv")
    assert [row.epoch for row in read] == [1, 2]
    assert [(r.loss, r.val_loss, r.val_accuracy) for r in read] == [
        (r.loss, r.val_loss, r.val_accuracy) for r in watcher.rows
    ]


def test_out_of_memory_is_a_one_sentence_error(lopsided, tmp_path, monkeypatch):
    from edgefer.train.fit import fit

    def full(*_):
        raise tensorflow().errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\nand ten lines more")

    monkeypatch.setattr(Journal, "restore", full)
    with pytest.raises(EdgeferError, match=r"ran out \(OOM when allocating tensor\).*smaller --batch-size"):
        fit(load_recipe("demo", (*TINY, "fit.epochs=1")), lopsided, tmp_path, Silent())


def test_batch_norm_statistics_match_the_averaged_weights(lopsided):
    """With re-estimated statistics, the evaluated network has its features at mean 0 and variance 1."""
    tf = tensorflow()
    from edgefer.train.networks import build
    from edgefer.train.objective import apply_ema, make_optimizer

    recipe = load_recipe("demo", (*TINY, "fit.ema=0.9"))
    model = build(recipe.model, recipe.input, 2)
    model.compile(optimizer=make_optimizer(recipe, 8), loss="mse")
    model.optimizer.build(model.trainable_variables)
    pixels = 20 * tf.random.stateless_uniform((64, 48, 48, 1), (0, 1))  # far above batch norm's epsilon
    apply_ema(model, [(pixels, None)])
    first = next(layer for layer in model.layers if "batch_norm" in layer.name)
    features = first(model.layers[1](pixels))
    assert float(tf.reduce_mean(features)) == pytest.approx(0, abs=0.01)
    assert float(tf.math.reduce_variance(features)) == pytest.approx(1, abs=0.05)
    assert first.momentum == 0.9


def test_the_rate_falls_on_a_plateau_and_is_the_same_after_a_resume(tmp_path, lopsided):
    from edgefer.train.fit import fit

    journal = Journal.__new__(Journal)
    journal.rows = [Epoch(i, 0, 0, 0, 0, 0, accuracy) for i, accuracy in enumerate([0.1, 0.2, 0.2, 0.1, 0.3, 0.3, 0.3])]
    assert [journal.plateau_count(n) for n in (1, 2, 3)] == [4, 2, 0]
    overrides = ("schedule.name=plateau", "schedule.every_epochs=1", "schedule.factor=0.5", "optimizer.rate=1e-9")
    recipe = load_recipe("demo", (*TINY, *overrides, "schedule.final_rate=3e-10", "fit.epochs=4"))
    fit(recipe, lopsided, tmp_path, Silent())
    rates = [row.rate for row in read_history(tmp_path / "history.csv")]
    assert rates[0] == pytest.approx(1e-9) and min(rates) == pytest.approx(3e-10)
    assert load_recipe("demo", overrides).final_rate == 1e-9  # fine-tuning: never raised to the default


def test_dropout_differs_from_step_to_step_layer_to_layer_and_seed_to_seed():
    from edgefer.train.objective import make_dropout_resumable

    tensorflow()
    from tf_keras import Input, Model, layers

    ones = Input((100,))

    def masks(seed: int, step: int) -> list[np.ndarray]:
        model = Model(ones, [layers.Dropout(0.5)(ones), layers.Dropout(0.5)(ones)])
        model.compile("sgd")
        model.optimizer.iterations.assign(step)
        make_dropout_resumable(model, seed)
        return [np.asarray(mask[0]) for mask in model(np.ones((1, 100), np.float32), training=True)]

    drawn = [*masks(0, 0), *masks(0, 1), *masks(1, 0)]
    assert all(set(mask.tolist()) == {0, 2} and 25 < (mask > 0).sum() < 75 for mask in drawn)
    assert len({mask.tobytes() for mask in drawn}) == len(drawn)
    assert [mask.tobytes() for mask in masks(0, 1)] == [mask.tobytes() for mask in drawn[2:4]]


def test_images_that_are_all_of_one_source_are_not_copied_to_join_them():
    from edgefer.train.batches import _joined

    one = np.zeros(3)
    assert _joined([one]) is one and len(_joined([one, one])) == 6
