"""Recipes: every field validated, every field open to override; and the networks they build."""

import pytest

from edgefer.errors import RecipeError
from edgefer.train.recipes import load_recipe, recipe_names


def test_every_built_in_recipe_loads_under_its_own_name():
    assert {"fer-small", "four-block", "demo"} <= set(recipe_names())
    for name in recipe_names():
        assert load_recipe(name).name == name


def test_any_field_can_be_overridden_with_toml_values():
    recipe = load_recipe("fer-small", ("optimizer.rate=0.02", "augment.flip=false", "name=mine", "schedule.name=step"))
    assert (recipe.optimizer.rate, recipe.augment.flip, recipe.name, recipe.schedule.name) == (
        0.02,
        False,
        "mine",
        "step",
    )


def test_a_recipe_file_of_ones_own(tmp_path):
    file = tmp_path / "tiny.toml"
    file.write_text(
        'name = "tiny"\n[input]\nheight = 32\nwidth = 40\ncolor = "rgb"\n[model]\nfamily = "plain"\nlayers = "C8 R8"\n'
        '[optimizer]\nname = "adamw"\nrate = 0.001\n[fit]\nepochs = 1\nbatch_size = 8\n'
    )
    recipe = load_recipe(str(file))
    assert recipe.input.shape == (32, 40, 3)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("optimizer.rate=-1", "optimizer.rate"),
        ("optimizer.speed=1", "optimizer.speed"),
        ("fit.epochs=0", "fit.epochs"),
        ("fit=3", "fit"),
        ("model.layers=C16 X9", "not 'X9'"),
        ("model.layers=C16 R32", "R32 adds to its input"),
        ("model.family=four-block", "needs widths"),
        ("schedule.name=sometimes", "schedule.name"),
        ("name=../escape", "name"),
        ("rate", "section.field=value"),
        ("name.first=x", "is a value, not a section"),
    ],
)
def test_a_bad_field_is_named(override, complaint):
    with pytest.raises(RecipeError) as error:
        load_recipe("fer-small", (override,))
    assert complaint in str(error.value)


def test_a_missing_or_broken_recipe_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"choose .*fer-small"):
        load_recipe("fer-huge")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(RecipeError, match=r"bad\.toml cannot be read"):
        load_recipe(str(tmp_path / "bad.toml"))


def test_fer_small_is_the_size_it_says():
    from edgefer.train.backend import tensorflow

    tensorflow()
    from edgefer.train.networks import build

    recipe = load_recipe("fer-small")
    network = build(recipe.model, recipe.input, 7)
    assert network.output_shape == (None, 7)
    convs = [layer for layer in network.layers if type(layer).__name__ == "Conv2D"]
    macs = sum(
        int(layer.kernel.shape.num_elements()) * layer.output_shape[1] * layer.output_shape[2] for layer in convs
    )
    assert 0.47e6 < network.count_params() < 0.49e6
    assert 38e6 < macs < 42e6
