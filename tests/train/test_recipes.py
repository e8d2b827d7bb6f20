"""Recipes: every field validated, every field open to override; and the networks they build."""

import pytest

from edgefer.errors import RecipeError
from edgefer.train.recipes import load_recipe, recipe_names


def test_every_built_in_recipe_loads_under_its_own_name():
    assert {"small", "fer-small", "four-block", "demo"} <= set(recipe_names())
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


def test_user_recipe_file_is_loaded(tmp_path):
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
        ("model.layers=C0", "not 'C0'"),
        ("model.layers=C9999999999", "not 'C9999999999'"),
        ("model.widths=[0]", "model.widths"),
        ("model.widths=[99999999999]", "model.widths"),
        ("model.dense=99999999999999999999", "model.dense"),
        ("schedule.name=sometimes", "schedule.name"),
        ("schedule.warmup_epochs=inf", "schedule.warmup_epochs"),
        ("schedule.every_epochs=1e99", "schedule.every_epochs"),
        ("schedule.final_rate=inf", "schedule.final_rate"),
        ("name=../escape", "name"),
        ("rate", "section.field=value"),
        ("name.first=x", "is a value, not a section"),
    ],
)
def test_a_bad_field_is_named(override, complaint):
    with pytest.raises(RecipeError) as error:
        load_recipe("fer-small", (override,))
    assert complaint in str(error.value)


def test_a_training_that_is_all_warm_up_is_noted():
    from edgefer.train.faces.recipe import load_face_recipe

    assert "warmup_epochs=3" in load_recipe("small", ("fit.epochs=3",)).warmup_note
    assert not load_recipe("small", ("fit.epochs=4",)).warmup_note
    assert "only schedule.name=cosine" in load_recipe("small", ("schedule.name=step",)).warmup_note
    assert not load_recipe("four-block").warmup_note
    assert "fit.warmup=200" in load_face_recipe("face-finder", ("fit.steps=200",)).fit.warmup_note
    assert not load_face_recipe("face-finder", ("fit.steps=201",)).fit.warmup_note


def test_a_missing_or_broken_recipe_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"choose .*fer-small"):
        load_recipe("fer-huge")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(RecipeError, match=r"bad\.toml cannot be read"):
        load_recipe(str(tmp_path / "bad.toml"))


STAGED = """
name = "staged"
base = "demo"
[fit]
epochs = 3
[[stages]]
name = "first"
change.optimizer.rate = 0.02
[[stages]]
name = "second"
begin = "scratch"
teachers = ["first"]
change.fit.epochs = 5
[[stages]]
name = "last"
begin = "first"
teachers = ["first", "second"]
"""


def test_missing_fields_come_from_the_base_recipe(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('base = "demo"\nname = "mine"\n[augment]\nrotate_deg = 3\n')
    mine, demo = load_recipe(str(file)), load_recipe("demo")
    assert (mine.name, mine.augment.rotate_deg, mine.augment.zoom) == ("mine", 3, demo.augment.zoom)
    assert mine.model == demo.model and mine.fit == demo.fit


def test_stages_change_the_recipe_and_overrides_change_every_stage(tmp_path):
    file = tmp_path / "staged.toml"
    file.write_text(STAGED)
    recipe = load_recipe(str(file), ("fit.seed=7", "optimizer.momentum=0.5"))
    first, second, last = map(recipe.of_stage, recipe.stages)
    assert (first.optimizer.rate, first.fit.epochs, second.fit.epochs, last.fit.epochs) == (0.02, 3, 5, 3)
    assert {(one.fit.seed, one.optimizer.momentum, one.stages) for one in (first, second, last)} == {(7, 0.5, ())}
    assert load_recipe(str(file), ("fit.epochs=1",)).of_stage(recipe.stages[1]).fit.epochs == 5
    one_epoch = load_recipe(str(file), ("fit.epochs=1",))
    assert [one_epoch.of_stage(stage).fit.epochs for stage in one_epoch.stages] == [1, 1, 1]


def test_nested_recipe_is_trained_as_if_alone(tmp_path):
    """Fields missing in the inner recipe take their defaults, not the outer one's values; its stages keep their order."""
    (tmp_path / "inner.toml").write_text(STAGED)
    outer = f'''name = "outer"\nbase = "demo"\n[fit]\nclean_statistics = true\n[distill]\nweight = 0.1\n
[[stages]]\nname = "in"\nrecipe = "{tmp_path}/inner.toml"\n
[[stages]]\nname = "end"\nteachers = ["in", "in-second"]\n'''
    (tmp_path / "outer.toml").write_text(outer)
    inner, whole = load_recipe(str(tmp_path / "inner.toml")), load_recipe(str(tmp_path / "outer.toml"))
    assert [stage.name for stage in whole.stages] == ["in-first", "in-second", "in", "end"]
    assert [stage.init_from for stage in whole.stages] == ["scratch", "scratch", "in-first", ""]
    assert whole.stages[2].teachers == ("in-first", "in-second")
    for own, same in zip(inner.stages, whole.stages, strict=False):
        assert whole.of_stage(same) == inner.of_stage(own)
    assert whole.of_stage(whole.stages[3]).fit.clean_statistics


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[[stages]]\nname = "a"\n[[stages]]\nname = "a"\n', "two stages cannot both be called 'a'"),
        ('[[stages]]\nname = "scratch"\n', "nor any 'scratch'"),
        ('[[stages]]\nname = "a"\nteachers = ["b"]\n', "stage 'a' names 'b', which is not an earlier stage"),
        ('[[stages]]\nname = "a"\nbegin = "a"\n', "stage 'a' names 'a'"),
        ('[[stages]]\nname = "a"\nchange.fit.epochs = 0\n', "stage 'a': fit.epochs"),
        ('[[stages]]\nname = "a"\nchange.fit.speed = 1\n', "fit.speed"),
        ('[[stages]]\nname = "a"\nrecipe = "demo"\nlabels = "ferplus"\n', "has a name and nothing else"),
        ('[[stages]]\nname = "a"\nrecipe = 3\n', "recipe must name a recipe, not be 3"),
        ("stages = 3\n", "stages are [[stages]] sections"),
        ('[[stages]]\nname = "a"\nrecipe = "{file}"\n', "refers to itself"),
    ],
)
def test_bad_stages_are_named(text, complaint, tmp_path):
    file = tmp_path / "bad.toml"
    head, body = ("", text) if "[[" in text else (text, "")
    file.write_text(f'{head}name = "bad"\nbase = "demo"\n' + body.replace("{file}", str(file)))
    with pytest.raises(RecipeError) as error:
        load_recipe(str(file))
    assert complaint in str(error.value)


def test_small_has_its_documented_size():
    from edgefer.train.backend import tensorflow

    tensorflow()
    from edgefer.train.networks import build

    recipe = load_recipe("small")
    network = build(recipe.model, recipe.input, 7)
    assert network.output_shape == (None, 7)
    convs = [layer for layer in network.layers if type(layer).__name__ == "Conv2D"]
    macs = sum(
        int(layer.kernel.shape.num_elements()) * layer.output_shape[1] * layer.output_shape[2] for layer in convs
    )
    assert 0.47e6 < network.count_params() < 0.49e6
    assert 38e6 < macs < 42e6


@pytest.mark.parametrize("wrong", ["change = 3", "teachers = 3", "teachers = [[1]]", "init_from = [1]", "name = [1]"])
@pytest.mark.parametrize("overrides", [(), ("fit.epochs=3",)])
def test_a_stage_of_wrong_types_is_named_also_in_another_recipe_s_stage(tmp_path, monkeypatch, wrong, overrides):
    monkeypatch.chdir(tmp_path)
    name = "" if wrong.startswith("name") else 'name = "a"\n'
    (tmp_path / "inner.toml").write_text(f'base = "demo"\nname = "inner"\n[[stages]]\n{name}{wrong}\n')
    (tmp_path / "outer.toml").write_text('base = "demo"\nname = "o"\n[[stages]]\nname = "i"\nrecipe = "inner.toml"\n')
    for file in ("inner.toml", "outer.toml"):
        with pytest.raises(RecipeError, match=f"stage's {wrong.split()[0]}"):
            load_recipe(file, overrides)


def test_numbers_of_thousands_of_digits_and_byte_order_marks(tmp_path):
    """tomllib raises a plain ValueError for the first; Windows' Notepad writes the second."""
    from edgefer.train.faces.recipe import is_face_recipe, load_face_recipe

    file, digits = tmp_path / "mine.toml", "9" * 5000
    for base, load, field in (("demo", load_recipe, "epochs"), ("face-finder", load_face_recipe, "steps")):
        with pytest.raises(RecipeError, match=f"fit.{field}"):
            load(base, (f"fit.{field}={digits}",))
        file.write_text(f'base = "{base}"\n[fit]\n{field} = {digits}\n')
        assert not is_face_recipe(str(file))
        with pytest.raises(RecipeError, match=r"mine\.toml cannot be read"):
            load(str(file))
        file.write_text(f'base = "{base}"\n[fit]\n{field} = 7\n', encoding="utf-8-sig")
        assert getattr(load(str(file)).fit, field) == 7


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        (
            "optimizer.rte=0.1",
            r"optimizer\.rte: there is no such field: do you mean rate\? There are name, rate, momentum",
        ),
        ("optimiser.rate=0.1", r"optimiser: there is no such field: do you mean optimizer\?"),
        ("fit.zzz=1", r"fit\.zzz: there is no such field: choose epochs, batch_size"),
        ("fit.epochs=many", r"fit\.epochs: it should be a whole number \(got 'many'\)"),
        ("optimizer.rate=fast", r"optimizer\.rate: it should be a number \(got 'fast'\)"),
        ("augment.flip=maybe", r"augment\.flip: it should be true or false \(got 'maybe'\)"),
        ("fit=3", r"fit: it should be a section with fields \(got 3\)"),
    ],
)
def test_a_wrong_field_or_value_is_explained_in_plain_words(override, complaint):
    with pytest.raises(RecipeError, match=complaint):
        load_recipe("small", (override,))


def test_fields_of_face_recipes_and_stages_are_listed_too(tmp_path):
    from edgefer.train.faces.recipe import load_face_recipe

    with pytest.raises(RecipeError, match=r"fit\.stps: there is no such field: do you mean steps\?"):
        load_face_recipe("face-finder", ("fit.stps=3",))
    file = tmp_path / "staged.toml"
    file.write_text(STAGED.replace("change.optimizer.rate", "change.optimizer.rte"))
    with pytest.raises(RecipeError, match=r"stage 'first': optimizer\.rte: there is no such field: do you mean rate\?"):
        load_recipe(str(file))
    file.write_text(STAGED.replace("teachers", "techers"))
    with pytest.raises(RecipeError, match=r"techers: there is no such field: do you mean teachers\?"):
        load_recipe(str(file))
