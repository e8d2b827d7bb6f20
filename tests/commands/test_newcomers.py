"""After a fresh install, errors for shipped networks and data are accurate and name the next step."""

import json
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import cv2
import pytest
from forks import Fork
from typer.testing import CliRunner

from edgefer import drawn, load
from edgefer.bundle import Bundle, shipped_bundles
from edgefer.cli import app
from edgefer.commands.convert import _next
from edgefer.convert import start
from edgefer.errors import BundleError, InputError

NO_DATA = r"fer-small does not say where the images lie that it was trained on \(fer2013\S*\): name them, or .* with --data PATH"
NEEDS_DATA = "is about decisions on labelled images: name some, similar to those it was trained on, with --data PATH"
NOT_A_CLASSIFIER = "finds faces, and images labelled by class say nothing of that: `edgefer verify "
NO_KERAS = "which this needs: it ships converted, so name "


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "fer-small"], NO_DATA),
        (["compare", "fer-small"], NO_DATA),
        (["evaluate", "fer-small"], NO_DATA),
        (["parity", "fer-small"], NO_DATA),
        (["verify", "fer-small", "--report", "out"], f"^--report {NEEDS_DATA}"),
        (["verify", "fer-small", "--split", "test"], f"^--split {NEEDS_DATA}"),
        (["verify", "fer-small", "--skip-bad"], f"^--skip-bad {NEEDS_DATA}"),
        (["verify", "fer-small", "--max-drop", "0.5"], f"^--max-drop {NEEDS_DATA}"),
        (["verify", "fer-small", "--min-agreement", "0.9"], f"^--min-agreement {NEEDS_DATA}"),
        (["convert", "pets-small"], f"{NO_KERAS}fer-nano, fer-small, ferplus-small, or one that you trained"),
        (["compare", "pets-small"], f"{NO_KERAS}fer-nano, fer-small, ferplus-small, or one that you trained"),
        (["convert", "face-finder"], f"{NO_KERAS}one that you trained, by `edgefer train --recipe face-finder`"),
        (["convert", "face-refiner"], f"{NO_KERAS}one that you trained, by `edgefer train --recipe face-refiner`"),
        (["evaluate", "ferplus-small", "--data", "none/"], "^There is no data at none/: name a fer2013.csv"),
        (["evaluate", "face-finder", "--data", "builtin"], f"face-finder {NOT_A_CLASSIFIER}"),
        (["verify", "face-refiner", "--data", "builtin"], f"face-refiner {NOT_A_CLASSIFIER}"),
        (
            ["convert"],
            r"no trained bundle under runs/: name one \(fer-nano, fer-small, ferplus-small ship\), or train one with `edgefer train",
        ),
    ],
)
def test_error_for_a_network_shipped_without_data_or_weights_says_what_to_do(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, InputError), done.output
    with pytest.raises(InputError, match=message):
        raise done.exception
    assert list(tmp_path.iterdir()) == []


def test_a_proof_without_data_names_the_machine_and_its_runtime(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = json.loads(CliRunner().invoke(app, ["verify", "fer-nano", "--json"]).stdout)
    assert list(shown["machine"]) == ["system", "python", "numpy", "litert"]
    text = CliRunner().invoke(app, ["verify", "fer-nano"]).stdout
    assert f"On {', '.join(shown['machine'].values())}, edgefer {shown['edgefer']}\n" in text


def test_next_command_after_a_conversion_names_the_data(trained, converted, tmp_path, monkeypatch):
    monkeypatch.setattr(start, "training_data", lambda *_, **__: SimpleNamespace(absent_note=""))
    monkeypatch.setattr(
        start, "convert", lambda *_: SimpleNamespace(bundle=converted, checks=(), complaint="", max_drop=None)
    )
    monkeypatch.setattr(start, "add_extras", lambda extras, bundle, progress: (bundle, []))
    request = start.ConvertRequest(bundle=Bundle.open(trained), out=tmp_path / "out")
    remembered, named = start.start(request), start.start(replace(request, data="my faces", skip_bad=True))
    assert _next(remembered, "out") == "edgefer verify out --data builtin; edgefer run out --camera 0"
    assert _next(named, "out") == "edgefer verify out --data 'my faces' --skip-bad; edgefer run out --camera 0"


@pytest.mark.parametrize(
    "name", ["my.keras", "my.h5", "my.HDF5", "my.tflite", "my.onnx", "my.pt", "my.pth", "my.pb", "saved"]
)
def test_run_refuses_the_file_of_a_network_and_reads_nothing_with_another_one(name, edgefer, tmp_path):
    inside = tmp_path / name / "saved_model.pb" if name == "saved" else tmp_path / name
    inside.parent.mkdir(exist_ok=True)
    inside.write_bytes(b"any")
    cv2.imwrite(str(tmp_path / "photo.png"), next(drawn.scene())[0].image_bgr)
    hint = f"{name} is a network, not something to find faces in: `edgefer import {name}` makes a bundle of it."
    for arguments in ([name, "photo.png"], ["photo.png", "--source", name]):
        done = edgefer("run", *arguments, "--headless", cwd=tmp_path, expect=2)
        assert done.stderr == f"edgefer: {hint}\n" and not done.stdout
    assert f"`edgefer import {name}` makes a bundle" in edgefer("verify", name, cwd=tmp_path, expect=2).stderr
    assert hint in edgefer("bench", "--source", name, cwd=tmp_path, expect=2).stderr
    assert hint in edgefer("service", "install", "--print", "--", name, cwd=tmp_path, expect=2).stderr
    frames = load("fer-nano").watch(tmp_path / name)
    with pytest.raises(InputError, match="is a network, not something to find faces in"):
        next(frames)


def test_a_command_that_takes_the_newest_bundle_says_which(edgefer, tmp_path):
    for age, name in enumerate(("my-2-int8", "my-1")):
        shutil.copytree(shipped_bundles()["fer-nano"], tmp_path / "runs" / name)
        os.utime(tmp_path / "runs" / name / "card.json", (1e9 - age, 1e9 - age))
    line = "Using runs/my-2-int8, the newest under runs/.\n"
    for command in (
        ["run", "builtin", "--frames", "1", "--json"],
        ["verify", "--json"],
        ["bench", "--minutes", "0.01", "--json"],
    ):
        done = edgefer(*command, cwd=tmp_path)
        assert done.stderr.count(line) == 1 and "Using" not in done.stdout, command
    assert line in edgefer("evaluate", "--data", "none", cwd=tmp_path, expect=2).stderr
    assert line in edgefer("service", "install", "--print", "--", "rtsp://camera/live", cwd=tmp_path).stderr
    assert "Using" not in edgefer("verify", "fer-nano", cwd=tmp_path).stderr


def test_a_shipped_bundle_opens_by_its_name_unless_a_folder_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Bundle.open("fer-nano").card.name == "fer-nano" and Bundle.open("face-finder").card.task == "find-faces"
    with pytest.raises(BundleError, match="There is no bundle at fer-nana: "):
        Bundle.open("fer-nana")
    (tmp_path / "fer-nano").mkdir()
    with pytest.raises(BundleError, match="fer-nano is not a bundle"):
        Bundle.open("fer-nano")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("train fer2013.csv", "Images to learn from or to measure on are given with --data PATH"),
        ("evaluate fer-nano fer2013.csv", "Images to learn from or to measure on are given with --data PATH"),
        ("--data fer2013.csv train", "Options come after the command: edgefer train --data"),
        ("--camera rtsp://me:secret@host run", "Options come after the command: edgefer run --camera"),
        ("data --names 0=a check", "Options come after the command: edgefer data check --names"),
        ("evaluate fer2013.csv", "fer2013.csv is no bundle, but data: give it with --data."),
        ("data check", "Name the data once: edgefer data check fer2013.csv"),
        ("data check fer2013.csv --data fer2013.csv", "Name the data once: edgefer data check fer2013.csv"),
    ],
)
def test_data_or_an_option_at_the_wrong_place_is_told_its_place(arguments, hint, edgefer, tmp_path):
    (tmp_path / "fer2013.csv").touch()
    shown = edgefer(*arguments.split(), cwd=tmp_path, expect=2, COLUMNS="200").stderr
    assert hint in shown and "secret" not in shown


def test_data_check_takes_data_as_every_other_command(edgefer):
    found = [edgefer("data", "check", *named, "--json").stdout for named in (["builtin"], ["--data", "builtin"])]
    assert found[0] == found[1] and json.loads(found[0])["path"] == "builtin"


@pytest.mark.parametrize(
    ("command", "module", "sentence"),
    [
        (("import", "my.tflite", "--labels", "a,b"), "edgefer.convert.importing", "Stopped; no bundle was written."),
        (("evaluate", "fer-nano", "--data", "builtin"), "edgefer.commands.evaluate", "Stopped; no report was written."),
        (("models",), "edgefer.bundle", "Stopped."),
    ],
)
def test_ctrl_c_ends_a_command_with_a_sentence(command, module, sentence, tmp_path):
    name = {"import": "import_network", "evaluate": "training_data", "models": "shipped_bundles"}[command[0]]
    (tmp_path / "my.tflite").write_bytes(b"any")
    (tmp_path / "ends.py").write_text(f"""
import os, signal, time
from importlib import import_module
from edgefer import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
import_module("{module}").{name} = lambda *args, **more: os.kill(os.getpid(), signal.SIGINT) or time.sleep(60)
cli.main()
""")
    done = Fork(command, dict(os.environ), tmp_path, tmp_path / "ends.py").done()
    assert (done.returncode, done.stderr, done.stdout) == (130, f"edgefer: {sentence}\n", "")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ends.py", "my.tflite"]


def test_an_empty_folder_s_list_of_image_types_names_only_those_that_are_read(edgefer, tmp_path):
    shown = edgefer("run", "fer-nano", tmp_path, "--headless", expect=2).stderr
    assert "holds no images (.jpg, " in shown and ".avif" in shown and ".hei" not in shown
    (tmp_path / "a.heic").write_bytes(
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0\0\0\x14ispe" + bytes(11) + b"\x28\0\0\0\x1e"
    )
    assert "convert it to JPEG" in edgefer("run", "fer-nano", tmp_path, "--headless", expect=2).stderr


def test_models_names_its_columns_as_other_tables_do(edgefer):
    shown = edgefer("models").stdout
    assert " macro recall " in shown and " macro F1 " in shown
