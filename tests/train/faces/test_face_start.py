"""Starting trainings of face networks: their options, configurations and recipes."""

import json
from pathlib import Path

import numpy as np
import pytest

import edgefer
from edgefer.api import start_training
from edgefer.bundle import Form, write_bundle
from edgefer.errors import InputError
from edgefer.train.faces.holdout import FaceData
from edgefer.train.faces.networks import build_finder, build_refiner
from edgefer.train.faces.recipe import is_face_recipe, load_face_recipe
from edgefer.train.faces.run import FaceConfig, initialized, make_card
from edgefer.train.faces.start import is_face_run, new_config
from edgefer.train.networks import keras_bytes, load_keras
from edgefer.train.run import RunFolder
from edgefer.train.start import TrainRequest


@pytest.fixture
def scenes(tmp_path):
    """A folder that contains a folder of scenes and a placeholder for YuNet's file."""
    (tmp_path / "scenes").mkdir()
    (tmp_path / "yunet.onnx").write_bytes(b"")
    return tmp_path


def request(scenes, recipe="face-refiner", **options):
    return TrainRequest(data=str(scenes / "scenes"), recipe=recipe, **options)


@pytest.mark.parametrize(
    "option",
    [{"labels": "ferplus"}, {"folds": 5}, {"soft_labels": "votes.npz"}, {"skip_bad": True}, {"valid_fraction": 0.1}],
)
def test_options_without_a_meaning_for_face_networks_are_refused(scenes, option):
    with pytest.raises(InputError, match=next(iter(option)).replace("_", "-")):
        new_config(request(scenes, **option), scenes / "yunet.onnx", scenes / "run")


def test_teacher_option_is_refused_for_a_finder(scenes):
    with pytest.raises(InputError, match="leave it out for a finder"):
        new_config(request(scenes, "face-finder", teacher="mine"), scenes / "yunet.onnx", scenes / "run")


def test_resumed_refiner_trains_with_its_original_finder(scenes):
    run, config = new_config(request(scenes, teacher="face-finder", seed=3), scenes / "yunet.onnx", scenes / "run")
    config.save(run)
    assert is_face_run(run)
    assert FaceConfig.load(run) == config and config.finder.endswith("/face-finder") and config.recipe.fit.seed == 3


@pytest.mark.parametrize("option", ["init_from", "teacher"])
def test_network_for_another_task_is_refused(scenes, option):
    with pytest.raises(InputError, match="a network of task 'read': name one of '"):
        new_config(request(scenes, **{option: "fer-nano"}), scenes / "yunet.onnx", scenes / "run")


@pytest.mark.parametrize("recipe", ["face-finder", "face-refiner"])
def test_missing_weights_of_a_shipped_network_are_reported(scenes, recipe):
    with pytest.raises(
        InputError, match=f"{recipe} holds no Keras .* it ships converted, so name one that you trained"
    ) as refused:
        new_config(request(scenes, recipe, init_from=recipe), scenes / "yunet.onnx", scenes / "run")
    assert f"be a --{recipe.removeprefix('face-')}" in str(refused.value)


def trained_bundle(config, folder, model):
    card = make_card(config, FaceData([], []))
    return write_bundle(folder, card, {Form.KERAS: keras_bytes(model)})


def test_training_begins_with_the_weights_of_init_from(scenes):
    _, config = new_config(request(scenes), scenes / "yunet.onnx", scenes / "run")
    bundle = trained_bundle(config, scenes / "before", build_refiner())
    _, config = new_config(request(scenes, init_from=str(bundle.path)), scenes / "yunet.onnx", scenes / "run")
    weights = initialized(build_refiner, config.init_from)().get_weights()
    for initial, stored in zip(weights, load_keras(bundle, "keras").get_weights(), strict=True):
        np.testing.assert_array_equal(initial, stored)
    assert make_card(config, FaceData([], [])).provenance.steps == ("begin with the weights of before", "train")
    with pytest.raises(InputError, match="has other layers"):
        initialized(lambda: build_finder(None), config.init_from)()


def test_older_configuration_without_finder_and_initial_weights_is_read(scenes):
    run, config = new_config(request(scenes), scenes / "yunet.onnx", scenes / "run")
    config.save(run)
    fields = json.loads(RunFolder(run).face_config.read_text())
    del fields["finder"], fields["init_from"]
    RunFolder(run).face_config.write_text(json.dumps(fields))
    assert FaceConfig.load(run) == config
    RunFolder(run).face_config.write_text(json.dumps(fields | {"begin": "a"}))
    assert FaceConfig.load(run).init_from == "a"


def test_invalid_configuration_is_an_error_of_one_sentence(scenes):
    run, config = new_config(request(scenes), scenes / "yunet.onnx", scenes / "run")
    config.save(run)
    for file in (RunFolder(run).face_config, RunFolder(run).spare_face_config):
        fields = json.loads(file.read_text())
        fields["recipe"]["fit"]["steps"] = 0
        file.write_text(json.dumps(fields))
    with pytest.raises(
        InputError, match=r"not the configuration of a face training: fit\.steps: .* \(got 0\)\.$"
    ) as refused:
        FaceConfig.load(run)
    assert "\n" not in str(refused.value)


def test_custom_face_recipe_changes_only_the_given_fields_of_its_base(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('base = "face-finder"\nname = "mine"\n[fit]\nsteps = 50\n')
    mine, base = load_face_recipe(str(file), ("fit.seed=7",)), load_face_recipe("face-finder")
    assert is_face_recipe(str(file)) and mine.name == "mine" and mine.task == base.task
    assert mine.fit == base.fit.model_copy(update={"steps": 50, "seed": 7})
    for other in ('base = "small"', "base = [1]"):
        file.write_text(other)
        assert not is_face_recipe(str(file))


def test_library_accepts_face_recipes_and_refuses_other_data(scenes):
    with pytest.raises(InputError, match="name a folder that holds archives"):
        edgefer.train("builtin", recipe="face-finder", out=scenes / "run")
    assert not (scenes / "run").exists()


def test_resume_without_a_folder_finds_a_face_training(scenes, monkeypatch):
    monkeypatch.chdir(scenes)
    _, config = new_config(request(scenes), scenes / "yunet.onnx", None)
    config.save(scenes / "runs" / "face-refiner-1")
    monkeypatch.setattr("edgefer.train.faces.start.start", lambda config, folder, miner, *, progress: RunFolder(folder))
    folder, result = start_training(None, None)
    assert (folder, result) == (Path("runs/face-refiner-1"), None)
