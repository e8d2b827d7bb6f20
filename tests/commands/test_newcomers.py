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
