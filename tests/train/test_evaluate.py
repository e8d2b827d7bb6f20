"""Evaluation: figures against independent calculations, and the report for the user."""

import json
import re

import cv2
import numpy as np
import pytest
from conftest import GRAY48

from edgefer import drawn, metrics
from edgefer.bundle import Bundle, shipped_bundles
from edgefer.commands import evaluate as command
from edgefer.errors import EdgeferError, MissingDependency
from edgefer.preprocess import prepare
from edgefer.train import shift
from edgefer.train.data.dataset import Split


def test_scores_match_their_definitions():
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


def test_accuracy_by_coverage_ranks_by_score():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.0, 0.1, 0.9], [0.6, 0.3, 0.1]])
    scores, accuracy = metrics.accuracy_by_coverage(probabilities, np.array([0, 0, 2, 1]))
    assert scores.tolist() == [0.9, 0.8, 0.6, 0.5]
    assert accuracy == pytest.approx([1, 1 / 2, 1 / 3, 2 / 4])


def test_equal_scores_count_as_their_mean_in_any_order_of_the_data():
    rng = np.random.default_rng(4)
    top = rng.choice([0.5, 0.6, 0.8], 200)
    probabilities, labels = np.column_stack([top, 1 - top - 0.01, np.full(200, 0.01)]), rng.integers(0, 2, 200)
    scores, accuracy = metrics.accuracy_by_coverage(probabilities, labels)
    order = rng.permutation(200)
    again = metrics.accuracy_by_coverage(probabilities[order], labels[order])
    np.testing.assert_allclose(again, (scores, accuracy))
    for score in (0.5, 0.6, 0.8):
        assert accuracy[scores >= score][-1] == pytest.approx(np.mean(labels[top >= score] == 0))


def test_aurc_of_perfect_constant_and_reversed_scores():
    right = np.arange(10) < 7  # 7 of 10, and the scores know which
    score = np.linspace(0.95, 0.55, 10)
    probabilities = np.column_stack([score, 1 - score])
    best = (1 / 8 + 2 / 9 + 3 / 10) / 10
    assert metrics.aurc(probabilities, np.where(right, 0, 1)) == pytest.approx(best)
    assert metrics.aurc(np.full((10, 2), 0.5), np.where(right, 0, 1)) == pytest.approx(0.3)
    assert metrics.aurc(probabilities, np.where(right[::-1], 0, 1)) > 0.5


def test_a_target_accuracy_holds_for_predictions_at_or_above_its_threshold():
    rng = np.random.default_rng(5)
    score = rng.integers(35, 100, 4000) / 100  # with ties, as int8 gives
    probabilities = np.column_stack([score, np.full(4000, 0.34), 0.66 - score])
    labels = np.where(rng.random(4000) < score, 0, 1)
    for promise in metrics.PROMISES:
        found = metrics.answered_with(probabilities, labels, promise)
        same = metrics.answered_from(probabilities, labels, found.score)
        assert (found.answered, found.accuracy) == pytest.approx((same.answered, same.accuracy))
        assert found.accuracy >= promise
        lower = np.unique(score[score < found.score])
        assert all(metrics.answered_from(probabilities, labels, one).accuracy < promise for one in lower)
    assert metrics.answered_with(probabilities, np.full(4000, 2), 0.9) is None
    few = metrics.MIN_ANSWERS - 1  # with higher scores than all others, and right
    sure, right = np.tile([0.9, 0.1], (few, 1)), np.zeros(few, int)
    wrong = np.tile([0.6, 0.4], (200, 1)), np.ones(200, int)
    assert metrics.answered_with(np.vstack([sure, wrong[0]]), np.append(right, wrong[1]), 0.9) is None
    more = np.vstack([sure, sure[:1], wrong[0]]), np.append(np.append(right, 0), wrong[1])
    assert metrics.answered_with(*more, 0.9).score == pytest.approx(0.9)
    assert metrics.answered_from(probabilities, labels, 1.5).accuracy is None


def test_wilson_interval_against_published_values():
    # Newcombe 1998, Statistics in Medicine 17:857, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for hits, count, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert metrics.wilson_interval(hits / count, count) == pytest.approx((low, high), abs=5e-4)


def test_scores_that_are_not_numbers_are_reported():
    """A ValueError of numpy's bins says nothing about the network."""
    probabilities = np.full((30, 3), 1 / 3)
    probabilities[7] = np.nan
    with pytest.raises(EdgeferError, match="1 of 30 images are not numbers"):
        metrics.ece(probabilities, np.zeros(30, np.int64))


def test_every_domain_shift_does_something_and_keeps_the_shape():
    for spec in (GRAY48, GRAY48.model_copy(update={"color": "rgb"})):
        images = np.stack([prepare(face, spec) for face in drawn.face_set(1, seed=1)[0]])
        for strength in (one for strengths in shift.KINDS.values() for one in strengths):
            for change in strength.variants:
                result = shift.apply_change(images, change, spec.color)
                assert result.shape == images.shape and result.dtype == np.uint8
                assert not np.array_equal(result, images), strength.name
                np.testing.assert_array_equal(result, shift.apply_change(images, change, spec.color))


def test_jpeg_codes_an_rgb_image_as_what_it_is():
    """Coded as BGR, its blue would keep the detail of its red."""
    rgb = np.random.default_rng(0).integers(0, 256, (1, 48, 48, 3), np.uint8)
    (coarse, *_) = shift.KINDS["JPEG"][-1].variants
    bgr = coarse(np.ascontiguousarray(rgb[0, ..., ::-1]))
    assert np.array_equal(shift.apply_change(rgb, coarse, "rgb")[0], bgr[..., ::-1])
    assert np.array_equal(shift.apply_change(rgb[..., ::-1], coarse, "bgr")[0], bgr)


def test_domain_shift_figure_averages_variants_then_strengths_then_kinds(monkeypatch):
    """A network that takes its answer from the first pixel, where each change sets how many of ten images stay right."""

    def leaves(right: int):
        return lambda image: np.full_like(image, 1 if image[0, 0, 0] < right else 2)

    def strength(name: str, *rights: int) -> shift.Strength:
        return shift.Strength(name=name, variants=tuple(map(leaves, rights)))

    kinds = {"one": (strength("a", 10, 8), strength("b", 3)), "two": (strength("c", 5),)}
    monkeypatch.setattr(shift, "KINDS", kinds)
    images = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8)
    answers = {"net": lambda seen: np.eye(3, dtype=np.float32)[np.minimum(2, seen[:, 0, 0, 0])]}
    split = Split(images=images, labels=np.ones(10, np.int64), ids=np.arange(10))
    card = Bundle.open(shipped_bundles()["fer-nano"]).card.model_copy(update={"temperature": 1.0})
    found = shift.domain_shift(split, answers, card, lambda items, total, what: items)["net"]
    assert found.clean.accuracy == pytest.approx(0.1)
    assert found.strengths == {"one": {"a": pytest.approx(0.9), "b": pytest.approx(0.3)}, "two": {"c": 0.5}}
    assert {kind: one.accuracy for kind, one in found.kinds.items()} == {"one": pytest.approx(0.6), "two": 0.5}
    score = np.exp(1) / (np.exp(1) + 2)  # of every answer; 21 of 30 are right, then 5 of 10
    assert found.kinds["one"].ece == pytest.approx(0.7 - score, abs=1e-6)
    assert found.kinds["two"].ece == pytest.approx(abs(0.5 - score), abs=1e-6)
    assert found.mean_of_kinds == pytest.approx(0.55) and found.worst_kind == ("two", 0.5)


def test_motion_and_noise_have_the_stated_strength():
    point = np.zeros((49, 49, 1), np.uint8)
    point[24, 24] = 210
    across, down = (change(point).reshape(49, 49) for change in shift.KINDS["motion blur"][1].variants)
    np.testing.assert_array_equal(np.argwhere(across), [[24, x] for x in range(21, 28)])
    np.testing.assert_array_equal(across, down.T)
    assert across.max() == 30
    gray = np.full((48, 48, 1), 128, np.uint8)
    for strength, share in zip(shift.KINDS["noise"], (0.04, 0.08, 0.12), strict=True):
        assert strength.variants[0](gray).std() / 255 == pytest.approx(share, rel=0.05)


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
        shifted = written["domain_shift"][name]
        assert shifted["clean"]["accuracy"] == pytest.approx(stored.accuracy)
        assert shifted["clean"]["ece"] == pytest.approx(figures["ece"])
        assert figures["coverage"][0] == {"score": 0, "answered": 1, "accuracy": pytest.approx(stored.accuracy)}
        assert 0 <= figures["aurc"] < 1 - stored.accuracy and f"{figures['aurc']:.3f}" in done.stdout
        assert [one["promise"] for one in figures["promises"]] == [0.9, 0.95]
        assert all(one["reached"]["accuracy"] >= one["promise"] for one in figures["promises"])
        assert {row["score"]: row for row in figures["coverage"]}[0.45] == shifted["clean"]["answered"]
        worst = max(kind["ece"] for kind in shifted["kinds"].values())
        assert f"{worst:.3f}" in done.stdout
        assert shifted["strengths"]["tilt"]["30 degrees"] < stored.accuracy
        kinds = [kind["accuracy"] for kind in shifted["kinds"].values()]
        assert shifted["worst_kind"]["accuracy"] == min(kinds) < shifted["mean_of_kinds"]
        assert f"{shifted['mean_of_kinds']:.1%}" in done.stdout
    result = edgefer("evaluate", converted.path, "--data", "builtin", "--json")
    figures = json.loads(result.stdout)
    assert figures.pop("report").endswith("evaluation-valid-2.html")
    assert figures["networks"] == written["networks"] and figures["domain_shift"] == {}
    page = (report / "evaluation-valid.html").read_text()
    assert (
        len(re.findall(r'<img alt="[^"]+" src="data:image/png;base64,iVBOR', page)) >= 5
    )  # two plots per network, and the mistakes
    assert "http://" not in page and "https://" not in page  # opens anywhere, offline
    missing = edgefer("evaluate", converted.path, "--data", "builtin", "--split", "test", expect=2)
    assert "has no test split" in missing.stderr


def test_a_missing_matplotlib_is_reported_before_the_work(monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install matplotlib"):
        command.evaluate()


def test_a_report_replaces_neither_a_page_nor_its_json(tmp_path):
    (tmp_path / "all.html").touch()
    (tmp_path / "all-2.json").touch()
    assert command._new_page(tmp_path, "all") == tmp_path / "all-3.html"


def test_evaluating_a_shipped_network_writes_to_the_current_folder_only(edgefer, tmp_path):
    """It was trained on FER2013's votes, which other data does not have; edgefer's installed files are not written to."""
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
    assert "8 of 24 images are measured, the valid split: --split all" in again.stderr
    every = edgefer("evaluate", "ferplus-small", "--data", "mine", "--split", "all", cwd=tmp_path)
    assert "on all, 24 images" in every.stdout
    edgefer("evaluate", "ferplus-small", "--data", "mine", "--split", "all", cwd=tmp_path)
    assert {page.name for page in (tmp_path / "report" / "ferplus-small").glob("*.html")} == {
        "evaluation-train.html", "evaluation-valid.html", "evaluation-all.html", "evaluation-all-2.html"
    }  # fmt: skip


def test_a_blur_is_as_strong_on_a_large_input_as_on_a_small_one():
    """Camera effects are stated in pixels of a 48-pixel face, so that a 224-pixel input does not make a network look robust."""
    large = cv2.resize(next(iter(drawn.face_set(1, 3)[0])), (224, 224), interpolation=cv2.INTER_CUBIC).reshape(
        224, 224, -1
    )
    small = cv2.resize(large, (48, 48), interpolation=cv2.INTER_AREA).reshape(48, 48, -1)
    for kind in ("blur", "motion blur"):
        for strength in shift.KINDS[kind]:
            for way in strength.variants:
                shrunk = cv2.resize(way(large), (48, 48), interpolation=cv2.INTER_AREA).reshape(small.shape)
                gap = np.abs(shrunk.astype(int) - way(small).reshape(small.shape)).mean()
                assert gap < 0.25 * np.abs(small.astype(int) - way(small).reshape(small.shape)).mean(), strength.name


def test_a_blur_follows_each_side_of_an_input_that_is_not_square():
    face = next(iter(drawn.face_set(1, 3)[0]))
    square, wide = (cv2.resize(face, (width, 48), interpolation=cv2.INTER_AREA) for width in (48, 144))
    for way in (way for kind in ("blur", "motion blur") for strength in shift.KINDS[kind] for way in strength.variants):
        shrunk = cv2.resize(way(wide), (48, 48), interpolation=cv2.INTER_AREA).astype(int)
        changed = way(square).astype(int)
        assert np.abs(shrunk - changed).mean() < 0.4 * np.abs(square.astype(int) - changed).mean()
