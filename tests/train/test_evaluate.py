"""What a network is worth: figures against independent ones, and the report a user looks at."""

import json
import re

import cv2
import numpy as np
import pytest
from conftest import GRAY48

from edgefer import drawn, metrics
from edgefer.bundle import Bundle, shipped_bundles
from edgefer.commands import evaluation
from edgefer.errors import MissingDependency
from edgefer.preprocess import prepare
from edgefer.train import shift


def test_scores_are_those_of_their_definitions():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 500)
    predicted = np.where(rng.random(500) < 0.6, labels, rng.integers(0, 5, 500))
    result = metrics.scores(labels, predicted, 5)
    recalls, f1s = [], []
    for k in range(5):
        hits = np.sum((labels == k) & (predicted == k))
        recall, precision = hits / np.sum(labels == k), hits / np.sum(predicted == k)
        recalls.append(recall)
        f1s.append(2 * precision * recall / (precision + recall))
    assert result.accuracy == pytest.approx(np.mean(labels == predicted))
    assert result.macro_recall == pytest.approx(np.mean(recalls))
    assert result.macro_f1 == pytest.approx(np.mean(f1s))
    assert metrics.scores(np.array([0, 0, 2]), np.array([0, 1, 2]), 3).macro_recall == pytest.approx(0.75)
    with pytest.raises(ValueError, match="labels against"):
        metrics.confusion_matrix(labels, predicted[:-1], 5)


def test_wilson_interval_against_published_values():
    # Newcombe 1998, Statistics in Medicine 17:857, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for hits, count, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert metrics.wilson_interval(hits / count, count) == pytest.approx((low, high), abs=5e-4)


def test_every_domain_shift_does_something_and_keeps_the_shape():
    for spec in (GRAY48, GRAY48.model_copy(update={"color": "rgb"})):
        images = np.stack([prepare(face, spec) for face in drawn.face_set(1, seed=1)[0]])
        for name, change in shift.CHANGES.items():
            result = shift.changed(images, change)
            assert result.shape == images.shape and result.dtype == np.uint8
            assert np.array_equal(result, images) == (name == "as it is")


def test_evaluate_reports_both_networks_side_by_side(edgefer, converted):
    done = edgefer("evaluate", converted.path, "--data", "builtin", "--domain-shift")
    report = converted.path / "report"
    written = json.loads((report / "evaluation-valid.json").read_text())
    assert list(written["networks"]) == ["float32", "int8"]
    for name, figures in written["networks"].items():
        stored = converted.card.metrics["valid"][name]
        assert figures["accuracy"] == pytest.approx(stored.accuracy) and f"{stored.accuracy:.2%}" in done.stdout
        assert figures["interval"][0] < stored.accuracy <= figures["interval"][1]
        assert np.trace(figures["confusion"]) == round(stored.accuracy * 280)
        assert figures["ece"] < 0.1
        assert written["domain_shift"]["as it is"][name] == pytest.approx(stored.accuracy)
        assert written["domain_shift"]["head tilted 30 degrees"][name] < stored.accuracy
    page = (report / "evaluation-valid.html").read_text()
    assert (
        len(re.findall(r'<img alt="[^"]+" src="data:image/png;base64,iVBOR', page)) >= 5
    )  # two plots a network, mistakes
    assert "http://" not in page and "https://" not in page  # opens anywhere, offline
    missing = edgefer("evaluate", converted.path, "--data", "builtin", "--split", "test", expect=2)
    assert "has no test split" in missing.stderr


def test_a_missing_matplotlib_is_said_before_the_work(monkeypatch):
    monkeypatch.setattr(evaluation, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install matplotlib"):
        evaluation.evaluate()


def test_a_shipped_network_is_measured_on_a_folder_and_its_own_folder_stays_as_it_is(edgefer, tmp_path):
    """The votes that it learnt from are FER2013's, and edgefer's own files are not the user's to write to."""
    shipped = Bundle.open(shipped_bundles()["ferplus-small"])
    before = sorted(shipped.path.rglob("*"))
    rng = np.random.default_rng(0)
    for label in shipped.card.labels:
        (tmp_path / "mine" / label).mkdir(parents=True)
        for number in range(3):
            cv2.imwrite(
                str(tmp_path / "mine" / label / f"{number}.png"), rng.integers(0, 256, (48, 48), dtype=np.uint8)
            )
    edgefer("evaluate", "ferplus-small", "--data", "mine", "--split", "train", cwd=tmp_path)
    written = json.loads((tmp_path / "report" / "ferplus-small" / "evaluation-train.json").read_text())
    assert written["data"] == "mine" and list(written["networks"]) == ["int8"]
    assert sorted(shipped.path.rglob("*")) == before
    again = edgefer("evaluate", "ferplus-small", "--data", "mine", cwd=tmp_path)
    assert "8 of 24 pictures are measured, the valid split: --split all" in again.stderr
    every = edgefer("evaluate", "ferplus-small", "--data", "mine", "--split", "all", cwd=tmp_path)
    assert "on all, 24 pictures" in every.stdout
    edgefer("evaluate", "ferplus-small", "--data", "mine", "--split", "all", cwd=tmp_path)
    assert {page.name for page in (tmp_path / "report" / "ferplus-small").glob("*.html")} == {
        "evaluation-train.html", "evaluation-valid.html", "evaluation-all.html", "evaluation-all-2.html"
    }  # fmt: skip
