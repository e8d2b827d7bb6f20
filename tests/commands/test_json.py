"""What a script reads: --json prints one object on stdout and nothing else, whose figures are the bundle's."""

import json

import pytest
from typer.testing import CliRunner

from edgefer.bundle import Bundle
from edgefer.checks import Check, Status
from edgefer.cli import app
from edgefer.commands import service as service_commands
from edgefer.convert.extras import Added
from edgefer.convert.start import Outcome
from edgefer.errors import EdgeferError

STATE = {
    "ActiveState": "active", "SubState": "running", "StatusText": "15 frames/s", "NRestarts": "2",
    "MemoryCurrent": "73400320", "ActiveEnterTimestamp": "Thu 2026-11-26 20:00:00 UTC",
}  # fmt: skip


def describes(shown: dict, bundle: Bundle) -> bool:
    """Whether the object describes that bundle: its hash, the hash of each file, its labels and figures."""
    assert shown["variants"] and all(len(one["sha256"]) == 64 for one in shown["variants"].values())
    card = bundle.to_dict()["card"]
    return shown["bundle"] == bundle.hash and all(
        shown[name] == card[name] for name in ("labels", "variants", "metrics")
    )


def test_a_training_reports_its_output_files(edgefer, tmp_path):
    out = tmp_path / "run"
    done = edgefer(
        "train", "--data", "builtin", "--recipe", "demo", "--epochs", 1, "--set", "model.layers=C8/2", "--out", out, "--json"
    )  # fmt: skip
    shown = json.loads(done.stdout)
    assert describes(shown, Bundle.open(out)) and shown["out"] == str(out) and shown["skipped"] == []
    assert "epoch" in done.stderr
    again = edgefer("train", "--resume", "--out", out, "--json", expect=2)
    assert again.stdout == "" and "nothing to resume" in again.stderr


def test_conversion_reports_its_output_its_cost_and_its_checks(edgefer, trained, tmp_path):
    out = tmp_path / "int8"
    done = edgefer("convert", trained, "--max-drop", 100, "--out", out, "--json")
    shown, bundle = json.loads(done.stdout), Bundle.open(out)
    assert describes(shown, bundle) and shown["passed"] and shown["counts"]["fail"] == 0
    assert shown["lineage"]["cost"]["drop"] == bundle.card.lineage.cost.drop
    (budget,) = (check for check in shown["checks"] if check.get("question") == 2)
    assert budget["status"] == "pass" and "allowed 100" in budget["detail"]
    assert any("calibrated" in step for step in shown["steps"])


def test_failed_conversion_is_reported_on_stdout_and_by_the_exit_code(converted, monkeypatch):
    row = Check(subject="int8 in C", status=Status.FAIL, detail="3 of 336 answers differ")
    outcome = Outcome(bundle=converted, added=(Added(failure="It gives other answers there.", checks=(row,)),))
    monkeypatch.setattr("edgefer.convert.start.start", lambda *_: outcome)
    done = CliRunner().invoke(app, ["convert", str(converted.path), "--json"])
    assert isinstance(done.exception, EdgeferError) and done.exception.exit_code == 1
    shown = json.loads(done.stdout)
    assert not shown["passed"] and shown["checks"] == [row.to_json()]


def test_import_reports_its_contract_and_its_checks(edgefer, converted, tmp_path):
    out, labels = tmp_path / "imported", ",".join(converted.card.labels)
    file = converted.file("int8")
    done = edgefer("import", file, "--labels", labels, "--outputs", "logits", "--out", out, "--json")
    shown = json.loads(done.stdout)
    assert describes(shown, Bundle.open(out)) and shown["passed"] and shown["checks"]
    assert shown["contract"]["color"] == "gray" and shown["contract"]["output"] == "logits"
    assert shown["contract"]["labels"] == list(converted.card.labels)


@pytest.mark.parametrize(("state", "code"), [("active", 0), ("failed", 1)])
def test_service_state_is_available_as_json(monkeypatch, state, code):
    lines = "\n".join(f"{name}={value}" for name, value in (STATE | {"ActiveState": state}).items())
    monkeypatch.setattr(service_commands, "_systemctl", lambda *_: lines)
    done = CliRunner().invoke(app, ["service", "status", "--json"])
    assert done.exit_code == code
    shown = json.loads(done.stdout)
    assert shown["passed"] == (state == "active") and shown["state"] == state
    assert shown["restarts"] == 2 and shown["memory_bytes"] == 73400320
