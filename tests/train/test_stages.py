"""Recipes of several stages: trained in order, each from earlier ones, and resumed where they stopped."""

from pathlib import Path

import numpy as np
import pytest

from edgefer.bundle import Bundle, shipped_bundles
from edgefer.errors import DataError, InputError, RecipeError
from edgefer.images import write_image
from edgefer.progress import Progress
from edgefer.train.config import TrainConfig
from edgefer.train.data.load import load_dataset
from edgefer.train.recipe_fields import Recipe
from edgefer.train.recipes import load_recipe
from edgefer.train.run import RunFolder
from edgefer.train.stages import stage_config, train_in_stages

CAMERA = ("camera", "tilt_deg", "framing", "dark", "flat", "blur", "motion", "pixels", "noise", "jpeg")
STAGED = """
name = "staged"
base = "demo"
[model]
layers = "C8/2 C8/2"
[fit]
epochs = 1
[[stages]]
name = "first"
[[stages]]
name = "second"
begin = "scratch"
teachers = ["first"]
[[stages]]
name = "last"
begin = "first"
teachers = ["first", "second"]
change.fit.epochs = 2
"""


def noise(folder: Path) -> Path:
    """A folder of images of two classes."""
    rng = np.random.default_rng(0)
    for label in ("happy", "sad"):
        for number in range(10):
            write_image(folder / label / f"{number}.png", rng.integers(0, 256, (48, 48), np.uint8))
    return folder


@pytest.fixture
def staged(tmp_path):
    file = tmp_path / "staged.toml"
    file.write_text(STAGED)
    return file


class Recorded(Progress):
    """Keeps what is logged, counts the epochs, and interrupts the training after some."""

    def __init__(self, stop_after: int = 99):
        self.logged, self.epochs, self.stop_after = [], 0, stop_after

    def log(self, text):
        if text.startswith("Stage"):
            self.logged.append(text)

    def epoch(self, row, best):
        self.epochs += 1
        if self.epochs == self.stop_after:
            raise KeyboardInterrupt


def test_stages_are_trained_in_order_and_resumed_where_they_stopped(staged, tmp_path):
    run = tmp_path / "run"
    plan = TrainConfig(recipe=load_recipe(str(staged)), data=str(noise(tmp_path / "data")))
    first = Recorded(stop_after=3)  # in the first of the last stage's two epochs
    with pytest.raises(KeyboardInterrupt):
        train_in_stages(plan, run, progress=first)
    assert first.logged == ["Stage 1 of 3: first", "Stage 2 of 3: second", "Stage 3 of 3: last"]
    assert RunFolder(run).resumable and TrainConfig.load(RunFolder(run)) == plan
    rest = Recorded()
    train_in_stages(TrainConfig.load(RunFolder(run)), run, progress=rest)
    assert rest.logged == ["Stage 3 of 3: last"] and rest.epochs == 1
    card = Bundle.open(run).card
    assert card.name == "staged" and card.provenance.recipe["fit"]["epochs"] == 2
    assert card.provenance.steps == ("begin with the weights of first", "train, learning from first, second too")
    second = Bundle.open(run / "training" / "stages" / "second").card
    assert second.provenance.steps == ("train, learning from first too",)


def test_all_stages_hold_out_the_same_images_whatever_their_seeds(tmp_path):
    """Otherwise a stage with another seed would be trained on images that the next stage holds out."""
    (tmp_path / "own.toml").write_text(STAGED.replace('name = "second"', 'name = "second"\nchange.fit.seed = 1'))
    plan = TrainConfig(
        recipe=load_recipe(str(tmp_path / "own.toml"), ("input.height=48",)), data=str(noise(tmp_path / "data"))
    )
    folders = dict.fromkeys(("first", "second"), tmp_path)
    configs = [stage_config(plan, stage, folders) for stage in plan.recipe.stages]
    assert [config.recipe.fit.seed for config in configs] == [0, 1, 0]
    hashes = {load_dataset(config.data, config.recipe.input, config.data_options).holdout_hash for config in configs}
    assert len(hashes) == 1
    for config in configs:
        config.save(RunFolder(tmp_path / "run"))
        assert TrainConfig.load(RunFolder(tmp_path / "run")) == config


def test_a_damaged_plan_is_read_from_its_copy(staged, tmp_path):
    run, plan = RunFolder(tmp_path / "run"), TrainConfig(recipe=load_recipe(str(staged)), data="builtin")
    plan.save(run)
    run.plan.write_bytes(b"{")
    assert TrainConfig.load(run) == plan
    run.plan.unlink()
    assert run.resumable and TrainConfig.load(run) == plan


def test_options_without_meaning_for_stages_are_refused(edgefer, staged, tmp_path):
    for option, value in (("--teacher", "fer-nano"), ("--init-from", "fer-nano"), ("--folds", "3")):
        done = edgefer(
            "train", "--data", "builtin", "--recipe", staged, option, value, "--out", tmp_path / "run", expect=2
        )
        assert "is 3 trainings, which name their own" in done.stderr
    assert not (tmp_path / "run").exists()


def test_stages_in_a_stage_are_refused(tmp_path):
    nested = tmp_path / "nested.toml"
    nested.write_text(STAGED.replace("change.fit.epochs = 2", "change.stages = [{ name = 'inner' }]"))
    with pytest.raises(RecipeError, match="a stage has no stages of its own"):
        load_recipe(str(nested))


def test_missing_votes_are_reported_before_the_first_stage(tmp_path):
    plan = TrainConfig(recipe=load_recipe("fer-small"), data="builtin")
    with pytest.raises(DataError, match="belong to a FER2013 CSV"):
        train_in_stages(plan, tmp_path / "run")
    with pytest.raises(InputError, match="leave those options out"):
        train_in_stages(TrainConfig(recipe=load_recipe("fer-small"), data="builtin", folds=3), tmp_path / "run")
    assert not RunFolder(tmp_path / "run").resumable


@pytest.mark.parametrize("name", ["fer-nano", "fer-small", "ferplus-small"])
def test_a_shipped_network_was_trained_by_the_last_stage_of_its_recipe(name):
    """The recipe matches the card, except for strengths of augmentations that are switched off."""
    card = Bundle.open(shipped_bundles()[name]).card
    stored = Recipe.model_validate(card.provenance.recipe).model_dump(mode="json")  # with fields that are newer than it
    recipe = load_recipe(name)
    last = recipe.of_stage(recipe.stages[-1]).model_dump(mode="json")
    if last["augment"]["camera"] == 0:
        for one in (stored, last):
            one["augment"] = {field: value for field, value in one["augment"].items() if field not in CAMERA}
    for section in ("input", "model", "augment", "optimizer", "schedule", "distill", "fit"):
        assert stored[section] == last[section], section
