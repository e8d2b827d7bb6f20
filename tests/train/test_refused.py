"""A refused training leaves nothing behind, and does not report that it started."""

import pytest
from typer.testing import CliRunner

from edgefer.cli import app
from edgefer.errors import DataError, EdgeferError, InputError, Interrupted, RecipeError
from edgefer.files import without_empty_folders
from edgefer.progress import Progress
from edgefer.train.config import TrainConfig
from edgefer.train.faces.recipe import load_face_recipe
from edgefer.train.faces.run import FaceConfig, train_faces
from edgefer.train.pipeline import train
from edgefer.train.recipes import load_recipe
from edgefer.train.stages import train_in_stages

STAGED = 'name = "staged"\nbase = "demo"\n[[stages]]\nname = "first"\n[[stages]]\nname = "last"\n'


class Log(Progress):
    def __init__(self):
        self.lines = []

    def log(self, text):
        self.lines.append(text)


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "staged.toml").write_text(STAGED)
    (tmp_path / "empty.csv").write_text("emotion,pixels,Usage\n")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize("recipe", ["demo", "../staged.toml"])
@pytest.mark.parametrize("data", ["absent", "../empty.csv"])
@pytest.mark.parametrize("out", ["runs/a-1", "x/y/z"])
def test_refused_training_leaves_no_folder(workdir, recipe, data, out):
    log = Log()
    config = TrainConfig(recipe=load_recipe(recipe), data=data)
    with pytest.raises(EdgeferError):
        (train_in_stages if config.recipe.stages else train)(config, workdir / out, progress=log)
    assert list(workdir.iterdir()) == [] and not [line for line in log.lines if line.startswith("Training")]


def test_a_refused_training_keeps_existing_folders(workdir):
    (workdir / "runs" / "other").mkdir(parents=True)
    with pytest.raises(EdgeferError):
        train(TrainConfig(recipe=load_recipe("demo"), data="absent"), workdir / "runs" / "a-1")
    assert [one.name for one in (workdir / "runs").iterdir()] == ["other"]


def test_refused_training_of_a_face_network_leaves_no_folder(workdir, tmp_path):
    (tmp_path / "scenes").mkdir()
    config = FaceConfig(recipe=load_face_recipe("face-finder", ()), data=str(tmp_path / "scenes"), teacher="absent")
    with pytest.raises(EdgeferError):
        train_faces(config, workdir / "runs" / "a-1", tmp_path / "cache")
    assert list(workdir.iterdir()) == []


def test_empty_folder_of_a_killed_training_is_reused(tmp_path):
    from edgefer.train.start import new_run

    config, run = TrainConfig(recipe=load_recipe("demo"), data="builtin"), tmp_path / "run"
    run.mkdir()
    assert new_run(run, config) == run  # as `mktemp -d` makes one
    (run / "training").mkdir()
    assert new_run(run, config) == run
    (run / "training" / "config.json").write_text("{}")
    (tmp_path / "file").write_bytes(b"")
    for taken in (run, tmp_path / "file"):
        with pytest.raises(EdgeferError, match="already holds something"):
            new_run(taken, config)


def test_folder_that_is_not_empty_is_kept(tmp_path):
    with without_empty_folders(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "a" / "file").write_text("")
    assert [one.name for one in (tmp_path / "a").iterdir()] == ["file"]


def test_an_interrupt_of_a_finished_training_says_that_it_is_finished(tmp_path, monkeypatch):
    from edgefer.train import start

    def finish(config, run, **_):
        run.mkdir()
        (run / "card.json").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(start, "train_once", finish)
    with pytest.raises(Interrupted, match="run is a finished bundle") as stopped:
        start.start(TrainConfig(recipe=load_recipe("demo"), data="builtin"), tmp_path / "run")
    assert stopped.value.exit_code == 130  # as wherever Ctrl-C ends a command


@pytest.mark.parametrize("recipe", ["demo", "../staged.toml"])
def test_training_interrupted_before_its_first_epoch_leaves_nothing_behind(recipe, workdir, monkeypatch):
    from edgefer.train import pipeline, start

    def interrupt(*arguments, **options):
        assert [file.name for file in workdir.glob("run/**/order.json")] == ["order.json"], "it could be resumed"
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "fit", interrupt)
    with pytest.raises(Interrupted, match=r"^Stopped before training began: nothing is left of it"):
        start.start(TrainConfig(recipe=load_recipe(recipe), data="builtin"), workdir / "run")
    assert list(workdir.iterdir()) == []


@pytest.mark.parametrize("kept", ["soft-labels.npz", "history.csv"])
def test_training_interrupted_after_long_work_is_kept(kept, workdir, monkeypatch):
    from edgefer.train import pipeline, start

    def interrupt(*arguments, **options):
        (workdir / "run" / "training" / kept).write_bytes(b"hours of work")
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "fit", interrupt)
    with pytest.raises(Interrupted, match=r"Continue with: edgefer train --resume --out "):
        start.start(TrainConfig(recipe=load_recipe("demo"), data="builtin"), workdir / "run")
    assert (workdir / "run" / "training" / kept).exists()


def test_a_frozen_recipe_without_initial_weights_is_refused_before_the_data_is_read(workdir):
    import edgefer

    with pytest.raises(InputError, match=r"pets-small trains only the last layers.*recipe animals.*init_from"):
        edgefer.train("../empty.csv", recipe="pets-small")
    assert list(workdir.iterdir()) == []


def test_a_list_of_names_as_labels_is_told_from_a_file_of_votes(workdir):
    import edgefer

    with pytest.raises(
        DataError, match=r"labels.*'angry,happy' names no FER\+ votes.*Leave it out.*names=\"0=angry,1=happy\""
    ):
        edgefer.train("../empty.csv", labels="angry,happy")


@pytest.mark.parametrize("option", ["--lr", "--learning-rate"])
def test_the_option_for_the_learning_rate_in_other_tools_names_the_field(option):
    done = CliRunner().invoke(app, ["train", "--data", "builtin", option, "0.1"])
    assert done.exit_code == 2 and "--set optimizer.rate=0.1" in " ".join(done.output.split())


def test_fields_of_the_recipe_are_set_by_a_dict_or_a_text_from_python(workdir):
    import edgefer

    for given in ({"optimizer.rate": 99, "augment.flip": True}, "optimizer.rate=99"):
        with pytest.raises(RecipeError, match=r"optimizer\.rate: it should be less than or equal to 10 \(got 99\)"):
            edgefer.train("builtin", recipe="demo", set=given)
    with pytest.raises(InputError, match=r"There is no option 'lr': .*set=\[\"optimizer\.rate=0\.1\"\]"):
        edgefer.train("builtin", lr=0.1)
