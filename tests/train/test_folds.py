"""Small colour images through the whole pipeline: z-score, cross-validation, conversion, parity, the device."""

import json

import cv2
import numpy as np
import pytest

from edgefer.bundle import Bundle
from edgefer.card import InputSpec
from edgefer.errors import InputError, RecipeError
from edgefer.parity import verify
from edgefer.train.data.dataset import Dataset
from edgefer.train.recipe_fields import Model
from edgefer.train.recipes import load_recipe

RULE = r"([^/]+)/(?P<copy>aug-\d+-)?([^/]+)$"
SHORT = (
    "--set",
    "model.widths=[8, 16]",
    "--set",
    "model.dense=16",
    "--set",
    "input.height=32",
    "--set",
    "input.width=32",
)


@pytest.fixture(scope="module")
def animals(tmp_path_factory):
    """Red and blue images, 12 of each class, with a copy of each."""
    root, rng = tmp_path_factory.mktemp("animals"), np.random.default_rng(0)
    for channel, name in enumerate(("angry", "happy")):
        (root / name).mkdir()
        for number in range(12):
            image = rng.integers(0, 120, (36, 36, 3), dtype=np.uint8)
            image[..., 2 * channel] += 100
            for prefix in ("", "aug-7-"):
                cv2.imwrite(str(root / name / f"{prefix}{number:02}.png"), image)
    return root


@pytest.fixture(scope="module")
def crossed(edgefer, animals, tmp_path_factory):
    """A cnn-mlp network, cross-validated in two folds and trained on everything, and its int8 form."""
    out = tmp_path_factory.mktemp("runs") / "pets"
    few = ("--folds", 2, "--epochs", 6, "--set", "fit.keep=last", "--set", "schedule.name=constant")
    done = edgefer(
        "train", "--data", animals, "--recipe", "cnn-mlp", "--group-by", RULE, *few, *SHORT, "--set", "optimizer.rate=0.01",
        "--batch-size", 8, "--out", out,
    )  # fmt: skip
    assert "Over 2 folds" in done.stdout
    edgefer("convert", out, "--out", out.with_name("int8"))
    return Bundle.open(out), Bundle.open(out.with_name("int8"))


@pytest.mark.parametrize("rule", [(), ("--group-by", RULE)])
def test_too_few_images_are_refused_before_anything_is_logged_or_written(edgefer, animals, tmp_path, rule):
    out = tmp_path / "out"
    asked = ("--data", animals, "--recipe", "cnn-mlp", "--folds", 25, "--out", out, *rule, *SHORT)
    done = edgefer("train", *asked, expect=2)
    assert "too few for --folds 25" in done.stderr and "Training" not in done.stderr + done.stdout
    assert not out.exists()


def test_each_image_is_measured_once_and_copies_never(crossed):
    trained, _ = crossed
    report = json.loads((trained.path / "report" / "cross-validation.json").read_text())
    ids = [image["id"] for image in report["images"]]
    assert len(ids) == len(set(ids)) == 24 and not any("aug" in one for one in ids)
    assert [fold["count"] for fold in report["folds"]] == [12, 12]
    assert report["pooled"]["accuracy"] == np.mean([fold["accuracy"] for fold in report["folds"]]) > 0.9
    card = trained.card
    assert card.measured_on == "2-fold" and card.metrics["2-fold"]["keras"].count == 24
    assert card.provenance.split_sizes == {"train": 48} and "valid" not in card.metrics


def test_zscore_is_folded_into_the_weights_and_int8_is_measured_on_the_folds(crossed):
    from edgefer.interpreter import Network
    from edgefer.train.evaluate import keras_logits
    from edgefer.train.networks import load_keras

    trained, converted = crossed
    model = load_keras(trained, "keras")
    zscore = model.get_layer("zscore")
    assert np.allclose(np.ravel(zscore.mean), [109.5 / 255, 59.5 / 255, 109.5 / 255], atol=0.02)  # red, green, blue
    pixels = np.random.default_rng(3).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    network = Network(converted.read("float32"), converted.card.input, 2)
    assert np.abs(network.logits(pixels) - keras_logits(model, pixels)).max() < 1e-3
    operators = {detail["op_name"] for detail in network._interpreter._get_ops_details()}
    assert not operators & {"SUB", "MUL", "ADD", "PAD", "PADV2"}
    figures = converted.card.metrics["2-fold"]
    assert set(figures) == {"keras", "float32", "int8"} and figures["int8"].count == 24
    assert abs(figures["int8"].accuracy - figures["keras"].accuracy) <= 0.05
    assert "fitted on 2-fold" in converted.card.provenance.conversion[-2]
    assert all(check.passed for check in verify(converted))


def test_parity_and_evaluate_state_what_they_measure(edgefer, crossed, animals):
    _, converted = crossed
    done = edgefer("parity", converted.path, "--data", animals, "--min-agreement", 0.9)
    assert "was trained on these images" in done.stderr
    edgefer("evaluate", converted.path, "--data", animals, "--flip")
    assert "int8, two views" in (converted.path / "report" / "evaluation-train.json").read_text()


def test_run_reads_the_part_of_the_frame_that_the_card_states(edgefer, crossed, animals):
    _, converted = crossed
    assert converted.card.faces == "frame"
    image = animals / "angry" / "00.png"
    done = edgefer("run", converted.path, "--source", image, "--headless", "--json", "--reject", 0)
    (face,) = json.loads(done.stdout)["faces"]
    assert face["box_xyxy"] == [0, 0, 36, 36] and face["label"] == "angry"


def test_folding_zscore_into_a_strided_convolution_keeps_its_output():
    from edgefer.train.networks import build
    from edgefer.train.zscore import fold_zscore, pixel_statistics

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 31, 24, 3), dtype=np.uint8)
    model = Model(family="plain", layers="C8/2 R8 C16/2", zscore=True)
    network = build(model, InputSpec(height=31, width=24, color="rgb"), 3, pixel_statistics(images))
    folded = fold_zscore(network)
    pixels = images.astype(np.float32) / 255
    assert "zscore" not in [layer.name for layer in folded.layers]
    assert np.abs(network(pixels).numpy() - folded(pixels).numpy()).max() < 1e-4
    plain = build(Model(family="plain", layers="C8"), InputSpec(height=31, width=24), 3)
    assert fold_zscore(plain) is plain


def test_zscore_is_folded_for_quantization_aware_training_mediapipe_and_slimming(tmp_path):
    import tf_keras

    from edgefer.convert.aware import quantization_aware
    from edgefer.convert.mediapipe import to_mediapipe
    from edgefer.convert.slim import slim
    from edgefer.convert.tune import FineTuning
    from edgefer.interpreter import Network
    from edgefer.progress import SILENT
    from edgefer.tflite.flatbuffer import read_model
    from edgefer.train.data.dataset import Split
    from edgefer.train.evaluate import keras_logits
    from edgefer.train.networks import build_for

    tf_keras.utils.set_random_seed(0)
    noise = np.random.default_rng(0).integers(0, 16, (16, 16, 16, 3))
    images = (noise + np.linspace(0, 240, 16, dtype=int)[:, None, None, None]).astype(np.uint8)  # from dark to light
    split = Split(images=images, labels=np.arange(16) % 2, ids=np.arange(16).astype(str))
    dataset = Dataset(name="noise", labels=("a", "b"), splits={"train": split, "valid": split})
    fields = ("model.layers=C16/2 R16", "model.zscore=true", "input.color=rgb", "input.height=16", "input.width=16")
    recipe = load_recipe("demo", (*fields, "fit.batch_size=8"))
    model = build_for(recipe, dataset)
    task = FineTuning(
        recipe=recipe, dataset=dataset, teacher=model, epochs=1, rate=0.01 * recipe.optimizer.rate, folder=tmp_path,
        progress=SILENT,
    )  # fmt: skip
    aware = quantization_aware(model, images, task, keep_zeros=False)
    learned = keras_logits(aware.network, images)
    off = Network(aware.int8, recipe.input, 2).logits(images) - learned
    assert np.abs(off).max() < 0.15 * np.ptp(learned)
    for content in (aware.int8, to_mediapipe(model, recipe.input, 1.0, images)):
        assert not {op.name for op in read_model(content, "").operators} & {"SUB", "MUL", "PAD"}
    before, after = (one.get_layer("zscore") for one in (model, slim(model, recipe, 0.5).network))
    assert np.array_equal(before.mean, after.mean) and np.array_equal(before.variance, after.variance)


def test_conversion_uses_the_same_folds_as_training(animals, tmp_path, monkeypatch):
    """Without copies if the recipe leaves them out: a fold's z-score is computed from its own images; float16 too."""
    from edgefer.bundle import write_bundle
    from edgefer.card import ModelCard, Provenance, Scores
    from edgefer.convert import pipeline
    from edgefer.progress import SILENT
    from edgefer.train.data.load import DataOptions, load_dataset
    from edgefer.train.networks import build_for, keras_bytes

    recipe = load_recipe("cnn-mlp", ("augment.copies=false", "fit.keep=last", "schedule.name=constant", *SHORT[1::2]))
    dataset = load_dataset(animals, recipe.input, DataOptions(group_by=RULE, pooled=True))
    provenance = Provenance(
        data="animals", split_sizes={}, folds=2, group_by=RULE, recipe=recipe.model_dump(mode="json"), seed=0, epoch=1,
        versions={},
    )  # fmt: skip
    scores = {"2-fold": {"keras": Scores(count=24, accuracy=0.5, macro_recall=0.5, macro_f1=0.5)}}
    card = ModelCard(name="pets", labels=dataset.labels, input=recipe.input, metrics=scores, provenance=provenance)
    bundle = write_bundle(tmp_path / "pets", card, {"keras": keras_bytes(build_for(recipe, dataset))})
    sizes = []

    def untrained(bundle, fold, recipe):
        sizes.append(len(fold.dataset.split("train")))
        return build_for(recipe, fold.dataset)

    monkeypatch.setattr(pipeline, "fold_network", untrained)
    made = pipeline.convert(bundle, dataset, pipeline.Plan(int8=False, float16=True), tmp_path / "out", SILENT)
    assert sizes == [12, 12]
    assert set(made.bundle.card.metrics["2-fold"]) == {"keras", "float16", "float32"}


def test_conversion_measures_the_networks_of_the_folds(animals, tmp_path):
    """Clean statistics are taken after a fold's weights are written, and again when they are read."""
    from types import SimpleNamespace

    from edgefer.progress import SILENT
    from edgefer.train.data.load import DataOptions, load_dataset
    from edgefer.train.evaluate import keras_logits
    from edgefer.train.folds import cross_validate, divide_folds, fold_network
    from edgefer.train.run import RunFolder

    small = ("model.layers=C4/2 C8/2", "input.height=32", "input.width=32", "fit.epochs=1", "fit.batch_size=8")
    recipe = load_recipe(
        "nano", (*small, "fit.clean_statistics=true", "augment.brightness=0.9", "schedule.warmup_epochs=0")
    )
    assert recipe.fit.clean_statistics
    dataset = load_dataset(animals, recipe.input, DataOptions(pooled=True))
    folds = divide_folds(dataset, recipe, folds=2, group_by="", valid_fraction=0.2)
    crossed = cross_validate(folds, recipe, RunFolder(tmp_path), SILENT)
    networks = [fold_network(SimpleNamespace(path=tmp_path), fold, recipe) for fold in folds]
    again = [keras_logits(model, fold.holdout.images) for model, fold in zip(networks, folds, strict=True)]
    assert np.allclose(np.concatenate(again), crossed.logits, atol=1e-4)


def test_backbone_weights_can_come_from_a_local_file(tmp_path, monkeypatch):
    import tf_keras

    from edgefer.train.networks import build, build_for

    spec = InputSpec(height=48, width=48, color="rgb")
    trunk = tf_keras.applications.MobileNetV2((48, 48, 3), alpha=0.35, include_top=False, weights=None)
    trunk.save_weights(tmp_path / "own.h5")
    fields = {"family": "keras-applications", "backbone": "mobilenet_v2", "alpha": 0.35, "freeze": True}
    network = build(Model(**fields, weights=str(tmp_path / "own.h5")), spec, 4)
    assert np.array_equal(network.get_layer("Conv1").get_weights()[0], trunk.get_layer("Conv1").get_weights()[0])
    assert [layer.name for layer in network.layers if layer.trainable and layer.weights] == ["logits"]
    with pytest.raises(InputError, match=r"alpha 0\.5"):
        build(Model(**fields | {"alpha": 0.5}, weights=str(tmp_path / "own.h5")), spec, 4)
    with pytest.raises(InputError, match="does not fit"):
        build(Model(**fields, weights=str(tmp_path / "none.h5")), spec, 4)
    dataset = Dataset(name="", labels=("a", "b"), splits={})
    recipe = load_recipe("cnn-mlp", ("input.height=48", "input.width=48")).model_copy(
        update={"model": Model(**fields, weights=str(tmp_path / "none.h5"))}
    )
    network = build_for(recipe, dataset, pretrained=False)  # as before the weights kept by training are loaded
    assert network.output_shape == (None, 2)

    def offline(*_, **__):
        raise Exception("URL fetch failure: [Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr("tf_keras.src.applications.mobilenet_v2.data_utils.get_file", offline)
    with pytest.raises(InputError, match=r"Offline, fetch Keras's file.*model\.weights=FILE"):
        build(Model(**fields, weights="imagenet"), spec, 4)


def test_impossible_recipes_are_refused():
    with pytest.raises(RecipeError, match="needs a backbone"):
        load_recipe("pets-small", ("model.family=keras-applications",))
    with pytest.raises(RecipeError, match="needs widths"):
        load_recipe("cnn-mlp", ("model.widths=[]",))
    from edgefer.train.networks import build

    recipe = load_recipe("four-block", ("input.width=16", "input.height=16", "model.widths=[8,8,8,8,8]"))
    with pytest.raises(RecipeError, match=r"16x16 pixels.*larger input"):
        build(recipe.model, recipe.input, 2)


def test_frozen_without_weights_is_refused(edgefer, animals, tmp_path):
    done = edgefer("train", "--data", animals, "--recipe", "pets-small", "--out", tmp_path / "run", expect=2)
    assert "--init-from BUNDLE" in done.stderr
