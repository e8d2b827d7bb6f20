"""Ways to ship a network: float16, quantization-aware, pruned, slim; accuracy control; the table of profiles."""

import json
import re
import shutil
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from edgefer.bundle import Bundle, write_bundle
from edgefer.card import ModelCard, Provenance
from edgefer.convert.pipeline import convert
from edgefer.convert.start import ConvertRequest, start
from edgefer.convert.work import Plan
from edgefer.errors import InputError, Interrupted, RuntimeFault
from edgefer.interpreter import Classifier, Network
from edgefer.parity import verify
from edgefer.progress import SILENT, Progress
from edgefer.train.backend import tensorflow
from edgefer.train.networks import build, keras_bytes, load_keras
from edgefer.train.recipes import load_recipe, recipe_of

LAYERS = "C16/2 R16"
SLIM = "C8/2 R8"


class Counting(Progress):
    """Counts the steps that are reported to it."""

    def __init__(self):
        self.steps = 0

    def step(self, *_):
        self.steps += 1


class Watching(Progress):
    """Keeps the epochs and stages that are reported to it, in their order."""

    def __init__(self):
        self.seen: list[str] = []

    def epoch(self, row, best):
        self.seen.append(f"epoch {row.epoch}")

    def stage(self, description):
        self.seen.append(description)
        return nullcontext()


@pytest.fixture(scope="module")
def source(builtin, tmp_path_factory) -> Bundle:
    """A tiny network, trained for a few steps so that its batch norms know the data."""
    tensorflow()
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    recipe = load_recipe("demo", (f'model.layers="{LAYERS}"',))
    model = build(recipe.model, recipe.input, 7)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(0.01), loss)
    train = builtin.split("train")
    model.fit(train.images / np.float32(255), train.labels, batch_size=64, epochs=4, verbose=0)
    provenance = Provenance(
        data="builtin", split_sizes={}, recipe=recipe.model_dump(mode="json"), seed=0, epoch=1, versions={}
    )
    card = ModelCard(name="tiny", labels=builtin.labels, input=recipe.input, provenance=provenance)
    return write_bundle(tmp_path_factory.mktemp("source") / "tiny", card, {"keras": keras_bytes(model)})


@pytest.fixture(scope="module")
def watched(source, tiny, tmp_path_factory) -> tuple[Bundle, list[str]]:
    """A bundle pruned and trained quantization-aware, and what was reported during both."""
    plan, watching = Plan(prune=0.5, qat=True, float16=True, epochs=2), Watching()
    bundle = convert(source, tiny, plan, tmp_path_factory.mktemp("out") / "pruned-qat", watching).bundle
    return bundle, watching.seen


@pytest.fixture(scope="module")
def pruned_aware(watched) -> Bundle:
    return watched[0]


def logits(bundle: Bundle, variant: str, images) -> np.ndarray:
    return Network(bundle.read(variant), bundle.card.input, 7).logits(images)


def test_quantization_aware_int8_is_pixel_minus_128_and_agrees_with_its_float_form(pruned_aware, tiny):
    images = tiny.split("valid").images
    near, far = logits(pruned_aware, "int8", images), logits(pruned_aware, "float32", images)  # the pixel contract held
    assert (near.argmax(axis=1) == far.argmax(axis=1)).mean() > 0.9
    # Ranges that tfmot starts at -6..6 would leave logits of this size with a few steps only.
    assert np.abs(near - far).mean() < 0.1 * far.std()


def test_pruned_weights_stay_zero_in_quantization_aware_training(pruned_aware):
    from edgefer.convert.prune import measured_sparsity

    assert measured_sparsity(load_keras(pruned_aware, "tuned")) == pytest.approx(0.5, abs=0.02)
    steps = pruned_aware.card.provenance.conversion
    assert steps[0].startswith("prune to 50% zeros") and "prune-preserving" in steps[1] and "drop" in steps[1]


def test_stages_after_the_last_epoch_are_reported(watched):
    bundle, seen = watched
    last = len(seen) - seen[::-1].index("epoch 2")
    assert [one.partition(" on ")[0] for one in seen[last:]] == [
        "Converting the quantization-aware network to int8",
        "Measuring int8",
        "Writing the float forms",
        "Fitting the temperature of its scores",
        "Fitting the limits of light and sharpness",
        "Measuring every form",
        f"Storing images and answers for its proof, and writing {bundle.path}",
    ]


def test_float16_is_half_the_bytes_and_proven_like_any_other(pruned_aware, tiny, tmp_path):
    sizes = {name: variant.bytes for name, variant in pruned_aware.card.variants.items()}
    assert sizes["float16"] < 0.75 * sizes["float32"]
    images = tiny.split("valid").images
    assert np.abs(logits(pruned_aware, "float16", images) - logits(pruned_aware, "float32", images)).max() < 0.05
    checks = {check.subject.split()[0]: check.passed for check in verify(pruned_aware)}
    assert checks == {"pixels": True, "faces": True, "int8": True, "float16": True, "float32": True}

    from edgefer.parity import check_at_load

    files = {name: pruned_aware.read(name) for name in ("float32", "float16", "parity")}
    without_int8 = write_bundle(tmp_path / "halves", pruned_aware.card, files)
    classifier = Classifier.load(without_int8)
    assert classifier.variant == "float16"
    check_at_load(without_int8, classifier.network, classifier.variant)


@pytest.fixture(scope="module")
def interrupted(source, tiny, tmp_path_factory):
    """A slimming that was interrupted in the second of three epochs and resumed: the steps after that, and the bundle."""

    class Interrupting(Counting):
        def step(self, *figures):
            super().step(*figures)
            if self.steps == 3:
                raise KeyboardInterrupt

    plan, out = Plan(slim=0.5, epochs=3), tmp_path_factory.mktemp("interrupted") / "slim"
    with pytest.raises(KeyboardInterrupt):
        convert(source, tiny, plan, out, Interrupting())
    assert not out.exists()
    watcher = Counting()
    return watcher, convert(source, tiny, plan, out, watcher).bundle


def test_interrupted_conversion_resumes_after_its_last_epoch(interrupted):
    watcher, bundle = interrupted
    assert watcher.steps == 4 and [file.name for file in bundle.path.parent.iterdir()] == ["slim"]


@pytest.mark.parametrize(("steps", "left"), [(1, []), (3, [".slim.unfinished"])])
def test_interruption_leaves_only_what_the_same_command_continues(source, tiny, tmp_path, monkeypatch, steps, left):
    class Interrupting(Counting):
        def step(self, *figures):
            super().step(*figures)
            if self.steps == steps:
                raise KeyboardInterrupt

    monkeypatch.setattr("edgefer.convert.start.training_data", lambda *_, **__: tiny)
    request = ConvertRequest(bundle=source, plan=Plan(slim=0.5, epochs=2), data="tiny", out=tmp_path / "slim")
    with pytest.raises(Interrupted, match=f"Stopped; .* and .*{left[0] if left else 'nothing is left behind'}"):
        start(request, Interrupting())
    assert [file.name for file in tmp_path.iterdir()] == left


def test_slimming_keeps_the_best_filters_of_added_layers_together(source):
    from edgefer.convert.slim import slim

    recipe = recipe_of(source.card)
    model = load_keras(source, "keras")
    # Filters whose output is zero must be the ones removed, the same ones in all layers that are added, and the
    # network's output must not change.
    for number, layer in enumerate(layer for layer in model.layers if "batch_normalization" in layer.name):
        gamma, beta, mean, variance = layer.get_weights()
        idle = slice(1, None, 2) if number == 1 else slice(0, None, 2)  # 1: inside the block, where nothing is added
        gamma[idle] = beta[idle] = 0
        layer.set_weights([gamma, beta, mean, variance])
    slimmed = slim(model, recipe, 0.5)
    assert slimmed.recipe.model.layers == SLIM
    assert slimmed.multiply_adds_before == 24 * 24 * 9 * 16 * (1 + 2 * 16)
    assert slimmed.multiply_adds == 24 * 24 * 9 * 8 * (1 + 2 * 8)
    pixels = np.random.default_rng(0).random((8, 48, 48, 1), np.float32)
    assert np.allclose(model(pixels), slimmed.network(pixels), atol=1e-4)
    assert slim(model, recipe, 0.0).recipe == recipe


def test_a_slim_bundle_is_smaller_and_can_be_converted_again(interrupted, source, tiny, tmp_path):
    _, slim = interrupted
    whole = convert(source, tiny, Plan(), tmp_path / "whole", SILENT).bundle
    for variant in ("keras", "float32", "int8"):
        assert slim.card.variants[variant].bytes < whole.card.variants[variant].bytes
    assert slim.card.provenance.recipe["model"]["layers"] == SLIM
    (step,) = slim.card.provenance.steps
    assert step.startswith(f"slim to {SLIM}") and "drop" in step
    again = convert(slim, tiny, Plan(float16=True), tmp_path / "again", SILENT).bundle
    assert again.card.variants["keras"] == slim.card.variants["keras"] and again.has("float16")
    assert (
        again.card.provenance.steps == (step,) and again.card.provenance.conversion == slim.card.provenance.conversion
    )


def test_conversion_notes_describe_the_files_in_the_bundle(pruned_aware, source, tiny, tmp_path):
    """Also for a pruned network: conversion starts from the trained one, and earlier conversions leave nothing in its files."""
    again, once = (
        convert(one, tiny, Plan(), tmp_path / name, SILENT).bundle
        for one, name in ((pruned_aware, "again"), (source, "once"))
    )
    notes = again.card.provenance.conversion
    assert notes == once.card.provenance.conversion and again.card.provenance.steps == ()
    assert [note.split()[0] for note in notes] == ["int8", "temperature", "limits"]
    assert again.read("int8") == once.read("int8")


def test_impossible_slimming_is_refused(source):
    from edgefer.convert.slim import slim, why_not

    model = load_keras(source, "keras")
    with pytest.raises(
        InputError, match=r"--slim 0.95: .* can lose at most \d\d% of its multiply-adds, .* choose a smaller share"
    ) as refused:
        slim(model, recipe_of(source.card), 0.95)
    most = re.search(r"at most (\d\d)%", str(refused.value))
    assert most and not why_not(recipe_of(source.card), int(most[1]) / 100)  # rounded down
    with pytest.raises(InputError, match=r"\(C8/2\) has no more than 8 filters per layer, the minimum: leave --slim"):
        slim(model, load_recipe("demo", ('model.layers="C8/2"',)), 0.1)
    with pytest.raises(InputError, match=r"this one is four-block: leave --slim out, or use --prune"):
        slim(model, load_recipe("four-block"), 0.5)
    with pytest.raises(InputError, match="frozen layers"):
        slim(model, load_recipe("pets-small"), 0.5)


# Accuracy control


def test_forms_that_a_network_cannot_have_are_left_out_of_a_comparison(source):
    from edgefer.convert.compare import plans

    def forms(recipe):
        return list(plans(recipe, prune=0.5, slim=0.5, epochs=1))

    every = forms(recipe_of(source.card))
    assert every == ["int8", "qat", "pruned-int8", "pruned-qat", "slim-int8"]
    for name in ("four-block", "pets-small"):  # of another family; frozen
        assert forms(load_recipe(name)) == every[:-1]
    assert forms(load_recipe("demo", ('model.layers="C8/2"',))) == every[:-1]
    assert list(plans(recipe_of(source.card), prune=0, slim=0, epochs=1)) == ["int8", "qat"]


def test_an_impossible_slimming_is_refused_before_the_data_is_read(source, tmp_path):
    from edgefer.convert.start import ConvertRequest, start

    request = ConvertRequest(bundle=source, plan=Plan(slim=0.95), data="no such data", out=tmp_path / "out")
    with pytest.raises(InputError, match=r"--slim 0.95: .* choose a smaller share"):
        start(request)


def test_a_comparison_prints_what_it_writes(source, tiny, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from edgefer.cli import app
    from edgefer.convert import compare

    monkeypatch.setattr("edgefer.commands.compare.training_data", lambda *_: tiny)
    monkeypatch.setattr(compare, "plans", lambda *_, **__: {"int8": Plan()})
    out = tmp_path / "forms"
    done = CliRunner().invoke(app, ["compare", str(source.path), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["bundle"] == source.hash and shown["out"] == str(out) and shown["split"] == "valid"
    assert shown["networks"] == json.loads((out / "profiles.json").read_text())
    assert [(one["variant"], one["count"]) for one in shown["networks"]] == [("float32", 56), ("int8", 56)]


def test_cheapest_quantization_within_max_drop_is_chosen(source, tiny, tmp_path):
    converted = convert(source, tiny, Plan(max_drop=100.0), tmp_path / "out", SILENT)
    assert converted.quantized.holds and len(converted.quantized.attempts) == 1
    assert not converted.quantized.layers


def test_int8_that_no_method_keeps_accurate_names_the_layers_responsible(source, tiny, tmp_path, monkeypatch):
    """A drop below -100 points is impossible: every method is tried, and the best is kept."""
    from edgefer.convert import search
    from edgefer.convert.aware import Aware
    from edgefer.convert.quantize import to_int8

    def train_on(model, *_, **__):  # what it really does has its own tests
        return Aware(int8=to_int8(model, tiny.split("valid").images), network=model)

    monkeypatch.setattr(search, "quantization_aware", train_on)
    plan = Plan(max_drop=0, epochs=1)
    object.__setattr__(plan, "max_drop", -101.0)  # which Plan itself would refuse
    converted = convert(source, tiny, plan, tmp_path / "out", SILENT)
    result = converted.quantized
    assert not result.holds and [attempt.way.split()[1] for attempt in result.attempts] == ["calibrated", "by"]
    assert result.best.comparison.drop == min(attempt.comparison.drop for attempt in result.attempts)
    images = tiny.split("valid").images
    kept = Network(result.best.int8, source.card.input, 7).logits(images)
    assert np.array_equal(logits(converted.bundle, "int8", images), kept)
    report = json.loads((converted.bundle.path / "report" / "quantization.json").read_text())
    assert not report["holds"] and len(report["attempts"]) == 2
    errors = [layer["error"] for layer in report["worst_layers"]]
    assert len(errors) >= 4 and errors == sorted(errors, reverse=True)
    assert {layer["operator"] for layer in report["worst_layers"]} >= {"CONV_2D", "ADD", "FULLY_CONNECTED"}


def test_profiles_are_made_once_and_measured_side_by_side(interrupted, source, tiny, tmp_path):
    from edgefer.convert.compare import make_profiles, measure_profiles, write_profiles

    shutil.copytree(interrupted[1].path, tmp_path / "slim-int8")
    wanted = {"int8": Plan(float16=True), "slim-int8": Plan(slim=0.5)}
    assert make_profiles(source, tiny, wanted, tmp_path, SILENT) == ["int8"]
    assert make_profiles(source, tiny, wanted, tmp_path, SILENT) == []
    with pytest.raises(InputError, match="with other data, shares or epochs"):
        make_profiles(source, tiny, wanted | {"slim-int8": Plan(slim=0.3)}, tmp_path, SILENT)
    with pytest.raises(InputError, match="with other data, shares or epochs"):
        make_profiles(
            source, replace(tiny, splits=tiny.splits | {"valid": tiny.split("train")}), wanted, tmp_path, SILENT
        )
    provenance = source.card.provenance.model_copy(update={"folds": 5})
    crossed = Bundle(source.path, source.card.model_copy(update={"provenance": provenance}))
    with pytest.raises(InputError, match="was cross-validated"):
        make_profiles(crossed, tiny, wanted, tmp_path / "crossed", SILENT)
    measured = measure_profiles(tmp_path, wanted, tiny)
    assert [profile.name for profile in measured] == ["float32", "float16", "int8", "slim float32", "slim int8"]
    first = measured[0].comparison
    assert first.drop == 0 and first.agreement == 1
    assert all(profile.ms > 0 and profile.comparison.reference.name == "the trained network" for profile in measured)
    rows = json.loads(write_profiles(tmp_path, measured).read_text())
    assert [row["gzip_bytes"] for row in rows] == [profile.gzip_bytes for profile in measured]


def test_networks_that_cannot_be_trained_quantization_aware_keep_the_calibrated_int8(
    source, tiny, tmp_path, monkeypatch
):
    """After hours of calibration and pruning a refusal by tfmot must not be the end of it."""
    from edgefer.convert import aware, search
    from edgefer.convert.compare import make_profiles, measure_profiles

    def refuse(*_, **__):
        raise ValueError(
            "Layer p_re_lu:<class 'a.b.PReLU'> is not supported. You can quantize this layer by passing a config."
        )

    monkeypatch.setattr(aware, "copy_of", refuse)
    monkeypatch.setattr(search, "OTHER_CALIBRATIONS", ())
    plan = Plan(max_drop=0, epochs=1)
    object.__setattr__(plan, "max_drop", -101.0)
    converted = convert(source, tiny, plan, tmp_path / "out", SILENT)
    assert not converted.holds and len(converted.quantized.attempts) == 1
    with pytest.raises(RuntimeFault, match=r"\(Layer p_re_lu \(PReLU\) is not supported\): convert it by calibration"):
        convert(source, tiny, Plan(qat=True, epochs=1), tmp_path / "aware", SILENT)

    wanted = {"int8": Plan(), "qat": Plan(qat=True, epochs=1)}
    assert make_profiles(source, tiny, wanted, tmp_path / "all") == ["int8"]
    assert [one.name for one in measure_profiles(tmp_path / "all", wanted, tiny)] == ["float32", "int8"]


def test_comparison_without_the_trained_network_is_refused_before_the_work(interrupted, tiny, tmp_path):
    from edgefer.convert.compare import make_profiles

    slim = interrupted[1]
    files = {name: slim.read(name) for name in slim.card.variants if name != "origin"}
    without = write_bundle(tmp_path / "without", slim.card, files)
    with pytest.raises(InputError, match="does not hold its trained network"):
        make_profiles(without, tiny, {"int8": Plan()}, tmp_path / "all")
    assert not (tmp_path / "all").exists()
