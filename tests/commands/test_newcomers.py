"""After a fresh install, errors for shipped networks and data are accurate and name the next step."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from edgefer.bundle import Bundle
from edgefer.cli import app
from edgefer.commands.convert import _next
from edgefer.convert import start
from edgefer.errors import InputError

LIES = r"fer-small does not say where the images lie that it was trained on \(fer2013\S*\): name them, or .* with --data PATH"
ABOUT = "is about decisions on labelled images: name some, similar to those it was trained on, with --data PATH"
FINDS = "finds faces, and images labelled by class say nothing of that: `edgefer verify "
CONVERTED = "which conversion and --init-from need: it ships converted, so name "


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["convert", "fer-small"], LIES),
        (["compare", "fer-small"], LIES),
        (["evaluate", "fer-small"], LIES),
        (["parity", "fer-small"], LIES),
        (["verify", "fer-small", "--report", "out"], f"^--report {ABOUT}"),
        (["verify", "fer-small", "--split", "test"], f"^--split {ABOUT}"),
        (["verify", "fer-small", "--skip-bad"], f"^--skip-bad {ABOUT}"),
        (["verify", "fer-small", "--max-drop", "0.5"], f"^--max-drop {ABOUT}"),
        (["verify", "fer-small", "--min-agreement", "0.9"], f"^--min-agreement {ABOUT}"),
        (["convert", "pets-small"], f"{CONVERTED}fer-nano, fer-small, ferplus-small, or one that you trained"),
        (["compare", "pets-small"], f"{CONVERTED}fer-nano, fer-small, ferplus-small, or one that you trained"),
        (["convert", "face-finder"], f"{CONVERTED}one that you trained, by `edgefer train --recipe face-finder`"),
        (["convert", "face-refiner"], f"{CONVERTED}one that you trained, by `edgefer train --recipe face-refiner`"),
        (["evaluate", "face-finder", "--data", "builtin"], f"face-finder {FINDS}"),
        (["verify", "face-refiner", "--data", "builtin"], f"face-refiner {FINDS}"),
        (
            ["convert"],
            r"no trained bundle under runs/: name one \(fer-nano, fer-small, ferplus-small ship\), or train one with `edgefer train",
        ),
    ],
)
def test_what_ships_without_data_or_weights_is_said_with_what_to_do(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, InputError), done.output
    with pytest.raises(InputError, match=said):
        raise done.exception
    assert list(tmp_path.iterdir()) == []


def test_a_proof_without_data_names_the_machine_and_its_runtime(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = json.loads(CliRunner().invoke(app, ["verify", "fer-nano", "--json"]).stdout)
    assert list(shown["machine"]) == ["system", "python", "numpy", "litert"]
    text = CliRunner().invoke(app, ["verify", "fer-nano"]).stdout
    assert f"On {', '.join(shown['machine'].values())}, edgefer {shown['edgefer']}\n" in text


def test_after_a_conversion_the_next_command_names_the_data_that_it_knows(trained, converted, tmp_path, monkeypatch):
    monkeypatch.setattr(start, "training_data", lambda *_, **__: None)
    monkeypatch.setattr(start, "convert", lambda *_: SimpleNamespace(bundle=converted, checks=(), complaint=""))
    monkeypatch.setattr(start, "add_extras", lambda extras, bundle, progress: (bundle, []))
    request = start.ConvertRequest(bundle=Bundle.open(trained), out=tmp_path / "out")
    remembered, named = start.start(request), start.start(replace(request, data="my faces", skip_bad=True))
    assert _next(remembered, "out") == "edgefer verify out --data builtin; edgefer run out --camera 0"
    assert _next(named, "out") == "edgefer verify out --data 'my faces' --skip-bad; edgefer run out --camera 0"
