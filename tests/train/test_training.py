"""Training: augmentation, the learning-rate schedules, and surviving a kill."""

import csv
import os
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import newest_checkpoint
from forks import Fork

from edgefer import console
from edgefer.errors import InputError
from edgefer.train.backend import tensorflow
from edgefer.train.camera import MAX_MOTION, MAX_SIGMA, MIN_SIGMA, resampling_matrices
from edgefer.train.recipe_fields import Augment
from edgefer.train.recipes import load_recipe

ALL = Augment(
    flip=True, rotate_deg=15, zoom=0.15, shift=0.1, brightness=0.2, contrast=0.25, erase=1.0,
    camera=0.5, tilt_deg=35, framing=0.3, dark=0.3, flat=0.3, blur=0.5, motion=0.5, pixels=0.5, noise=0.1, jpeg=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def pixels(builtin):
    return builtin.split("train").images[:64].astype(np.float32) / 255


def augmented(pixels, recipe: Augment, seed=(0, 0)):
    from edgefer.train.augment import Draws, augment_batch

    tf = tensorflow()
    draws = Draws(seed=tf.constant(seed, tf.int64), count=len(pixels), rows=range(len(pixels)))
    return augment_batch(tf.constant(pixels), recipe, draws).numpy()


def test_augmentation_is_off_by_default_and_a_function_of_its_seed(pixels):
    assert np.array_equal(augmented(pixels, Augment()), pixels)
    first = augmented(pixels, ALL)
    assert first.shape == pixels.shape and first.min() >= 0 and first.max() <= 1
    assert np.array_equal(first, augmented(pixels, ALL))
    assert not np.array_equal(first, augmented(pixels, ALL, seed=(0, 1)))
    assert not np.array_equal(first, augmented(pixels, ALL, seed=(1, 0)))


def test_flip_mirrors_about_half_of_the_images(pixels):
    flipped = augmented(pixels, Augment(flip=True))
    same = np.abs(flipped - pixels).max(axis=(1, 2, 3)) < 1e-4
    mirrored = np.abs(flipped - pixels[:, :, ::-1]).max(axis=(1, 2, 3)) < 1e-4
    assert (same | mirrored).all()
    assert 16 < mirrored.sum() < 48


def test_shift_and_zoom_stay_within_their_bounds():
    # A bright dot off the centre; its new position shows what was done to the image.
    dots = np.zeros((64, 49, 49, 1), np.float32)
    dots[:, 23:26, 35:38] = 1
    grid = np.arange(49)

    def centres(images):
        mass = images[..., 0]
        return np.stack([(mass.sum(axis=1) @ grid), (mass.sum(axis=2) @ grid)], axis=1) / mass.sum(axis=(1, 2))[:, None]

    shifted = centres(augmented(dots, Augment(shift=0.1))) - [36, 24]
    assert np.abs(shifted).max() <= 4.95 and shifted.std(axis=0).min() > 1.5
    zoomed = (centres(augmented(dots, Augment(zoom=0.2)))[:, 0] - 24) / 12
    assert 0.78 < zoomed.min() < 0.9 and 1.1 < zoomed.max() < 1.22
    turned = centres(augmented(dots, Augment(rotate_deg=30))) - 24
    assert np.hypot(*turned.T) == pytest.approx(12, abs=0.3)
    assert 20 < np.degrees(np.abs(np.arctan2(turned[:, 1], turned[:, 0]))).max() <= 30.5


def edges(count: int = 200) -> np.ndarray:
    """Images of one vertical edge between black and white."""
    images = np.zeros((count, 48, 48, 1), np.float32)
    images[:, :, 24:] = 1
    return images


def steepest(images, axis: int = 2) -> np.ndarray:
    return np.abs(np.diff(images, axis=axis)).max(axis=(1, 2, 3))


def test_blur_and_noise_have_the_stated_strength():
    blurred = augmented(edges(), Augment(blur=0.5))
    assert 0.35 < (steepest(blurred) < 0.999).mean() < 0.65 and 0.15 < steepest(blurred).min() < 0.3
    np.testing.assert_allclose(blurred.mean(axis=(1, 2, 3)), 0.5, atol=1e-3)
    gray = np.full((200, 48, 48, 1), 0.5, np.float32)
    levels = augmented(gray, Augment(noise=0.1)).std(axis=(1, 2, 3))
    assert levels.min() < 0.01 and 0.09 < levels.max() < 0.105


def test_blur_is_gaussian():
    """One point is blurred as by cv2.GaussianBlur, with a sigma within the stated bounds."""
    points = np.zeros((64, 49, 49, 1), np.float32)
    points[:, 24, 24] = 1
    for spot in augmented(points, Augment(blur=1))[..., 0]:
        sigma = 1 / np.sqrt(2 * np.log(spot[24, 24] / spot[24, 25]))
        assert MIN_SIGMA - 1e-3 < sigma < MAX_SIGMA + 1e-3
        np.testing.assert_allclose(spot, cv2.GaussianBlur(points[0, ..., 0], (0, 0), sigma), atol=0.02 * spot.max())


def test_low_resolution_equals_area_shrinking_and_linear_enlarging():
    noise = np.random.default_rng(0).uniform(size=(48, 48)).astype(np.float32)
    for side in (16, 24, 31, 48):
        matrix = resampling_matrices(48)[side - 1]
        small = cv2.resize(noise, (side, side), interpolation=cv2.INTER_AREA)
        expected = cv2.resize(small, (48, 48), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(matrix @ noise @ matrix.T, expected, atol=1e-5)
    assert steepest(augmented(edges(), Augment(pixels=1))).min() < 0.4


def test_motion_blur_smears_along_lines_of_all_directions():
    points = np.zeros((200, 49, 49, 1), np.float32)
    points[:, 24, 24] = 1
    smeared = augmented(points, Augment(motion=1))[..., 0]
    np.testing.assert_allclose(smeared.sum(axis=(1, 2)), 1, atol=1e-5)
    y, x = np.mgrid[-24:25, -24:25]
    moments = np.array([[(s * x * x).sum(), (s * x * y).sum(), (s * y * y).sum()] for s in smeared])
    matrices = moments[:, [0, 1, 1, 2]].reshape(-1, 2, 2)
    across, along = np.sqrt(np.maximum(np.linalg.eigvalsh(matrices), 0)).T
    assert across.max() < 0.6  # a line is thin
    assert along.min() > 0.6 and along.max() < MAX_MOTION / np.sqrt(12) + 0.4
    directions = np.linalg.eigh(matrices)[1][:, :, 1]
    angles = np.degrees(np.arctan2(directions[:, 1], directions[:, 0])) % 180
    assert np.histogram(angles, bins=4, range=(0, 180))[0].min() > 20


def test_dark_flat_and_jpeg_have_the_stated_strength(pixels):
    gain = augmented(pixels, Augment(dark=1)).mean(axis=(1, 2, 3)) / pixels.mean(axis=(1, 2, 3))
    assert 0.19 < gain.min() < 0.4 and 0.6 < gain.max() < 0.81
    ramps = np.tile(np.linspace(0.3, 0.5, 48, dtype=np.float32)[None, None, :, None], (200, 48, 1, 1))
    spread = np.ptp(augmented(ramps, Augment(flat=1)), axis=(1, 2, 3)) / 0.2
    assert 0.3 < (spread < 1).mean() < 0.7 and spread.min() > 0.29 and 1.5 < spread.max() < 1.81
    noise = np.random.default_rng(0).uniform(size=(32, 48, 48, 1)).astype(np.float32)
    coded = augmented(noise, Augment(jpeg=1))
    assert np.abs(coded - noise).mean(axis=(1, 2, 3)).min() > 0.02 and np.abs(coded.mean() - noise.mean()) < 0.02


def test_camera_effects_apply_to_the_stated_share_of_images():
    harsh = Augment(camera=0.5, blur=1, motion=1, pixels=1, noise=0.1, jpeg=1, dark=1, tilt_deg=40)
    noise = np.random.default_rng(0).uniform(size=(200, 48, 48, 1)).astype(np.float32)
    spared = np.isclose(augmented(noise, harsh), noise, atol=1e-5).all(axis=(1, 2, 3))
    assert 70 < spared.sum() < 130
    assert np.isclose(augmented(noise, harsh.model_copy(update={"camera": 0.0})), noise, atol=1e-5).all()


def test_erasing_blanks_one_rectangle_of_the_stated_size(pixels):
    noise = np.random.default_rng(0).uniform(size=(200, 48, 48, 1)).astype(np.float32)
    changed = (augmented(noise, Augment(erase=0.5)) != noise)[..., 0]
    touched = changed.any(axis=(1, 2))
    assert 70 < touched.sum() < 130
    for hole in changed[touched]:
        height, width = hole.any(axis=1).sum(), hole.any(axis=0).sum()
        assert hole.sum() == height * width
        assert 9 <= height <= 20 and 9 <= width <= 20


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("schedule.name=constant",), {0: 0.1, 399: 0.1}),
        (
            ("schedule.name=cosine", "schedule.warmup_epochs=2", "schedule.final_rate=0.001"),
            {0: 0.01, 200: 0.1, 4200: 0.001},
        ),
        (("schedule.name=cosine", "schedule.final_rate=1"), {0: 0.1, 4000: 0.1, 9000: 0.1}),
        (("schedule.name=step", "schedule.factor=0.5", "schedule.every_epochs=0.001"), {1: 0.05, 2: 0.025}),
        (("schedule.name=step", "schedule.factor=0.5", "schedule.every_epochs=3"), {299: 0.1, 300: 0.05, 600: 0.025}),
        (
            ("schedule.name=exponential", "schedule.factor=0.5", "schedule.every_epochs=3"),
            {150: 0.1 * 0.5**0.5, 600: 0.025},
        ),
    ],
)
def test_learning_rate_schedules(overrides, expected):
    tensorflow()
    from edgefer.train.objective import make_optimizer

    plain = ("optimizer.rate=0.1", "schedule.warmup_epochs=0")
    rate = make_optimizer(load_recipe("small", (*plain, *overrides)), steps=100)._learning_rate
    for step, value in expected.items():
        assert float(rate(step) if callable(rate) else rate) == pytest.approx(value, rel=1e-3)


def test_adamw_works_without_weight_decay():
    tensorflow()
    from edgefer.train.objective import make_optimizer

    rates = [
        make_optimizer(load_recipe("demo", f), 1).weight_decay
        for f in (("optimizer.name=adamw",), ("optimizer.name=adamw", "optimizer.weight_decay=0.01"))
    ]
    assert rates == [None, 0.01]


def history(folder):
    with (folder / "history.csv").open() as text:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(text)]


def test_kill_9_and_resume_gives_the_uninterrupted_run(edgefer, builtin, cache, tmp_path):
    """The same epochs, batches and optimizer state: the histories agree to float noise, and no epoch is lost or run twice."""
    from edgefer.train.fit import fit

    changes = ("model.layers=C8/2 C8/2", "fit.epochs=4")
    order = ["train", "--data", "builtin", "--recipe", "demo", *(part for one in changes for part in ("--set", one))]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    fit(load_recipe("demo", changes), builtin, whole)

    fork = Fork([*order, "--out", killed], os.environ | {"XDG_CACHE_HOME": str(cache)})
    deadline = time.monotonic() + 200
    while newest_checkpoint(killed) < 2:
        assert fork.process.is_alive() and time.monotonic() < deadline
        time.sleep(0.05)
    fork.process.kill()
    fork.process.join()
    done = newest_checkpoint(killed)
    assert 2 <= done < 4
    edgefer("convert", killed, expect=2)  # not a bundle yet, and it says so
    stderr = edgefer("train", "--resume", "--out", killed).stderr
    assert f"epoch   {done}/4" not in stderr and f"epoch   {done + 1}/4" in stderr

    assert [row["epoch"] for row in history(killed / "training")] == [1, 2, 3, 4]
    for ours, theirs in zip(history(killed / "training"), history(whole), strict=True):
        for name in ("rate", "loss", "accuracy", "val_loss", "val_accuracy"):
            assert ours[name] == pytest.approx(theirs[name], rel=0.02, abs=0.02), (name, ours, theirs)


def test_a_training_ends_with_a_bundle_plots_and_logs(trained):
    from edgefer.bundle import Bundle

    card = Bundle.open(trained).card
    assert card.metrics["valid"]["keras"].accuracy > 0.9
    assert card.provenance.split_sizes == {"train": 840, "valid": 280}
    assert card.crops["haar"].faces >= 20 and 0.5 < card.crops["haar"].scale < 1.6
    for name in ("history.png", "confusion-valid.png"):
        assert (trained / "report" / name).read_bytes().startswith(b"\x89PNG")
    assert list((trained / "training" / "tensorboard").rglob("*.tfevents*"))


@pytest.fixture
def order(builtin):
    """Makes configurations of a training on the built-in data, which is drawn already."""
    from edgefer.train.config import TrainConfig

    return lambda **fields: TrainConfig(recipe=load_recipe("demo"), data="builtin", **fields)


def test_invalid_valid_fraction_is_refused_before_training(order, cache, tmp_path):
    from edgefer.train.pipeline import train

    with pytest.raises(InputError, match="valid_fraction"):
        train(order(valid_fraction=0.0), tmp_path / "run", cache=cache / "edgefer" / "datasets")
    assert not (tmp_path / "run").exists()


def test_two_trainings_never_write_into_one_run(order, tmp_path):
    from edgefer.train.pipeline import train
    from edgefer.train.run import RunFolder

    with RunFolder(tmp_path / "run").locked():
        with pytest.raises(InputError, match="by another process"):
            train(order(), tmp_path / "run")
        assert (tmp_path / "run" / "training").is_dir()
    assert not (tmp_path / "run").exists()


@pytest.fixture
def few(builtin):
    """140 of the built-in faces."""
    return replace(builtin, splits={name: split.take(np.arange(140)) for name, split in builtin.splits.items()})


def test_patience_stops_early_and_keeps_the_best(few, tmp_path):
    from edgefer.train.fit import fit

    changes = ("model.layers=C16/2", "optimizer.rate=1e-9", "fit.patience=2", "fit.epochs=9")
    _, kept = fit(load_recipe("demo", changes), few, tmp_path)
    rows = history(tmp_path)
    best = max(rows, key=lambda row: row["val_accuracy"])
    assert len(rows) == best["epoch"] + 2 < 9 and kept.epoch == best["epoch"]


def test_clean_statistics_are_those_of_unaugmented_images(few, tmp_path):
    """The first batch norm's mean is that of its convolution's outputs for the unaugmented training images."""
    import tf_keras

    from edgefer.preprocess import to_float
    from edgefer.train.fit import fit, trained_network
    from edgefer.train.run import FitFolder

    changes = ("model.layers=C8/2 C8/2", "fit.epochs=1", "augment.brightness=0.5")
    recipes = [load_recipe("demo", (*changes, f"fit.clean_statistics={clean}")) for clean in ("true", "false")]
    clean, _ = fit(recipes[0], few, tmp_path, console.Terminal())
    augmented = trained_network(recipes[1], few, FitFolder(tmp_path).best_weights)
    means = []
    for network in (clean, augmented):
        norm = next(layer for layer in network.layers if isinstance(layer, tf_keras.layers.BatchNormalization))
        answers = tf_keras.Model(network.input, norm.input)(to_float(few.split("train").images)).numpy()
        means.append(np.abs(norm.moving_mean.numpy() - answers.mean(axis=(0, 1, 2))).max())
    assert means[0] < 1e-4 and means[1] > 1e-2
