"""Question 2's figures against independent ones, and its judgement: chance does not fail, and a fault does."""

import math
import time

import numpy as np
import pytest

from edgefer.bundle import Form
from edgefer.convert.comparison import Answers, Budget, Comparison, compare, judge
from edgefer.metrics import mcnemar_p, paired_interval
from edgefer.train.data.dataset import Split


def pair(reference: np.ndarray, candidate: np.ndarray, labels: np.ndarray, quantum=None, retrained=False) -> Comparison:
    """Decisions [n] compared as if they were logits of seven classes."""
    count = len(labels)
    split = Split(images=np.zeros((count, 2, 2, 1), np.uint8), labels=labels, ids=np.arange(count))
    answers = [
        Answers(name=name, form=Form.INT8, logits=np.eye(7)[choice], quantum=step)
        for name, choice, step in (("a", reference, None), ("b", candidate, quantum))
    ]
    return compare(*answers, split, tuple("abcdefg"), retrained=retrained)


def test_comparison_figures_match_independent_calculations():
    """The interval against a bootstrap over images (Efron 1979), on decisions with a known drop."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 2000)
    reference = np.where(rng.random(2000) < 0.7, labels, (labels + 1) % 7)
    flipped = rng.random(2000) < 0.05
    candidate = np.where(flipped, (reference + 2) % 7, reference)
    result = pair(reference, candidate, labels, quantum=0.5)
    loss = 100.0 * ((reference == labels).astype(float) - (candidate == labels))
    draws = loss[rng.integers(0, 2000, (4000, 2000))].mean(axis=1)
    assert result.drop == pytest.approx(loss.mean())
    assert result.drop_interval == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.15)
    assert result.agreement == pytest.approx(1 - flipped.mean()) and len(result.flips) == flipped.sum()
    assert result.lost == (loss > 0).sum() and result.gained == (loss < 0).sum() and result.p < 1e-9
    assert result.worst_quanta == 2.0 and result.mean_quanta == pytest.approx(2 * 2 * flipped.mean() / 7)
    flip = result.flips[0]
    assert flip.row == np.flatnonzero(flipped)[0] and flip.id == str(flip.row)
    assert (flip.reference, flip.candidate) == ("abcdefg"[reference[flip.row]], "abcdefg"[candidate[flip.row]])
    assert judge(result, Budget(max_drop=100, min_agreement=0.9)).passed
    assert not judge(result, Budget(max_drop=100, min_agreement=0.99)).passed
    assert not judge(result, Budget(max_drop=1, min_agreement=0.5)).passed


def test_candidate_run_on_some_images_is_compared_on_those_only():
    labels = np.arange(70) % 7
    split = Split(images=np.zeros((70, 2, 2, 1), np.uint8), labels=labels, ids=np.arange(70))
    rows = np.array([3, 10, 11, 40])
    whole = Answers(name="a", form=Form.KERAS, logits=np.eye(7)[labels])
    some = Answers(name="b", form=Form.INT8, logits=np.eye(7)[(labels[rows] + [0, 0, 1, 0]) % 7], rows=rows)
    result = compare(whole, some, split, tuple("abcdefg"))
    assert result.reference.scores.count == result.candidate.scores.count == 4
    assert [flip.row for flip in result.flips] == [11] and result.agreement == 0.75


def test_difference_within_chance_is_doubtful_and_a_significant_one_fails():
    labels = np.arange(84) % 7
    few = np.where(np.arange(84) < 4, (labels + 1) % 7, labels)  # 4 of 84: 95.2% agree
    check = judge(pair(labels, few, labels), Budget(max_drop=1.0, min_agreement=0.97))
    assert check.passed and check.doubtful
    many = np.arange(8400) % 7
    same_share = np.where(np.arange(8400) < 400, (many + 1) % 7, many)
    check = judge(pair(many, same_share, many), Budget(max_drop=1.0, min_agreement=0.97))
    assert not check.passed and not check.doubtful and "--qat" in check.fix
    assert judge(pair(many, same_share, many), Budget(), lambda: "").fix.startswith("accept more")
    check = judge(pair(many, many, many), Budget())
    assert check.passed and not check.doubtful


def test_retrained_network_needs_a_minimum_agreement():
    """Decisions that differ without being worse: 93% agreement, as after pruning, passes; 62% is another network."""
    labels = np.arange(7000) % 7
    wrong = (labels + 1) % 7  # of the reference, so that no decision is worth less than another
    for share, passes in ((0.93, True), (0.62, False)):
        other = np.where(np.arange(7000) < share * 7000, wrong, (labels + 2) % 7)
        check = judge(pair(wrong, other, labels, retrained=True), Budget())
        assert "drop +0.00" in check.detail and check.passed is passes, check
        assert ("--epochs" in check.fix) is not passes
        assert not judge(pair(wrong, other, labels), Budget()).passed


@pytest.mark.parametrize(("least", "shown"), [(0.97, "97%"), (0.999, "99.9%"), (0.99995, "99.995%"), (1.0, "100%")])
def test_the_minimum_agreement_is_printed_with_all_its_digits(least, shown):
    labels = np.arange(84) % 7
    assert f"(at least {shown})" in judge(pair(labels, labels, labels), Budget.of(1.0, least)).detail


def test_budget_from_user_units():
    assert Budget.of(2.0, 0.97) == Budget(max_drop=2.0)
    assert Budget.of(2.0, 0.5) == Budget(max_drop=2.0, min_agreement=0.5, min_retrained_agreement=0.5)


def test_mcnemar_against_the_binomial_distribution():
    # 2 of 10 by a fair coin: (1 + 10 + 45) / 1024, twice.
    assert mcnemar_p(8, 2) == mcnemar_p(2, 8) == pytest.approx(112 / 1024)
    assert mcnemar_p(0, 0) == mcnemar_p(5, 5) == 1.0
    assert 0 < mcnemar_p(900, 700) < 1e-5
    began = time.process_time()
    assert mcnemar_p(5000, 5100) == pytest.approx(math.erfc(99 / math.sqrt(2 * 10_100)), rel=1e-3)
    assert time.process_time() - began < 2  # it took 14 s


def test_the_paired_interval_has_its_nominal_coverage():
    """2000 draws of few images and few discordant pairs, where the plain interval covers far less."""
    rng = np.random.default_rng(1)
    count, lost, gained = 84, 0.03, 0.01
    draws = rng.multinomial(count, [lost, gained, 1 - lost - gained], 2000)
    covered = [low <= lost - gained <= high for low, high in (paired_interval(b, c, count) for b, c, _ in draws)]
    assert 0.94 <= np.mean(covered) <= 1.0
    low, high = paired_interval(0, 0, count)
    assert low == -high and 0.02 < high < 0.05


def test_a_network_with_constant_predictions_never_passes_without_a_warning():
    labels, always = np.arange(700) % 7, np.zeros(700, int)
    check = judge(pair(always, always, labels), Budget())
    assert check.doubtful and "every image the same label" in check.detail
    assert judge(
        pair(always[:6], always[:6], labels[:6]), Budget.of(1.0, 1.0)
    ).doubtful  # the interval ends at exactly 1
    assert not judge(pair(always, always, always), Budget()).doubtful  # images of one label
    assert "same label" not in judge(pair(labels, labels, labels), Budget()).detail
