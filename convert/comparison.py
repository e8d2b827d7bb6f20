"""Question 2 of parity, does the converted network decide as the one it came from: figures, and their judgement."""

from dataclasses import dataclass, field

import numpy as np

from edgefer.card import Scores
from edgefer.checks import Check, Status
from edgefer.interpreter import softmax
from edgefer.metrics import confusion_matrix, mcnemar_p, paired_interval, per_class, scores, wilson_interval
from edgefer.train.data.dataset import Split


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What conversion may cost: points of accuracy (percent), and the least share of equal decisions."""

    max_drop: float = 1.0
    min_agreement: float = 0.97


@dataclass(frozen=True, kw_only=True)
class Flip:
    """A picture that two networks call by different labels: its row and id in the split, labels, and their scores."""

    row: int
    id: str
    true: str
    reference: str
    reference_score: float
    candidate: str
    candidate_score: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one network is worth: its name, scores, 95% interval of accuracy, F1 of each class, and its median
    milliseconds a picture on one thread where it was timed."""

    name: str
    scores: Scores
    interval: tuple[float, float]
    f1: tuple[float, ...]
    ms: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A candidate network against its reference on the same labelled pictures.

    drop: accuracy of the reference minus the candidate's, in points; lost and gained: pictures that only the reference,
    or only the candidate, got right; p: McNemar's, exact. mean_dp: mean absolute difference of probability.
    mean_quanta, worst_quanta: difference of a logit, in steps of the candidate's output; None where it is float.
    Intervals are 95%.
    """

    reference: Figures
    candidate: Figures
    drop: float
    drop_interval: tuple[float, float]
    lost: int
    gained: int
    p: float
    agreement: float
    agreement_interval: tuple[float, float]
    mean_dp: float
    mean_quanta: float | None
    worst_quanta: float | None
    flips: tuple[Flip, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a network said: float32 logits [n, classes] for pictures `rows` [n], ascending, of the split (None: all), the
    median milliseconds a picture, the step of its output (None for float), and the temperature its scores want."""

    name: str
    logits: np.ndarray
    rows: np.ndarray | None = None
    ms: float | None = None
    quantum: float | None = None
    temperature: float = 1.0


def compare(reference: Answers, candidate: Answers, pictures: Split, names: tuple[str, ...]) -> Comparison:
    """The candidate's answers against the reference's, on the pictures that the candidate answered; the reference must
    have answered them too."""
    every = np.arange(len(pictures))
    rows = every if candidate.rows is None else candidate.rows
    labels, seen = pictures.labels[rows], np.searchsorted(every if reference.rows is None else reference.rows, rows)
    ref, cand = reference.logits[seen], candidate.logits
    ref_scores, cand_scores = softmax(ref, reference.temperature), softmax(cand, candidate.temperature)
    ref_choice, cand_choice = ref.argmax(axis=1), cand.argmax(axis=1)
    ref_right, cand_right = ref_choice == labels, cand_choice == labels
    lost, gained = int((ref_right & ~cand_right).sum()), int((cand_right & ~ref_right).sum())
    low, high = paired_interval(lost, gained, len(rows))
    flips = np.flatnonzero(ref_choice != cand_choice)
    agreement = 1 - len(flips) / len(rows)
    off = np.abs(ref - cand)
    return Comparison(
        reference=_figures(reference.name, labels, ref_choice, len(names), reference.ms),
        candidate=_figures(candidate.name, labels, cand_choice, len(names), candidate.ms),
        drop=100 * (lost - gained) / len(rows),
        drop_interval=(100 * low, 100 * high),
        lost=lost,
        gained=gained,
        p=mcnemar_p(lost, gained),
        agreement=agreement,
        agreement_interval=wilson_interval(agreement, len(rows)),
        mean_dp=float(np.abs(ref_scores - cand_scores).mean()),
        mean_quanta=float(off.mean() / candidate.quantum) if candidate.quantum else None,
        worst_quanta=float(off.max() / candidate.quantum) if candidate.quantum else None,
        flips=tuple(
            Flip(
                row=int(rows[i]),
                id=str(pictures.ids[rows[i]]),
                true=names[labels[i]],
                reference=names[ref_choice[i]],
                reference_score=float(ref_scores[i].max()),
                candidate=names[cand_choice[i]],
                candidate_score=float(cand_scores[i].max()),
            )
            for i in flips
        ),
    )


def _figures(name: str, labels: np.ndarray, choice: np.ndarray, classes: int, ms: float | None) -> Figures:
    result = scores(labels, choice, classes)
    f1 = per_class(confusion_matrix(labels, choice, classes))[2]
    interval = wilson_interval(result.accuracy, result.count)
    return Figures(name=name, scores=result, interval=interval, f1=tuple(f1.tolist()), ms=ms)


def judge(comparison: Comparison, budget: Budget) -> Check:
    """A comparison against the budget. A tuned network was trained on, so it may decide otherwise, only not worse.

    It fails when even the end of the 95% interval that speaks for the network is over the budget, for then chance does
    not explain it; over the budget but within chance is doubtful, and more pictures decide.
    """
    low, high = comparison.drop_interval
    least, most = comparison.agreement_interval
    retrained = comparison.candidate.name == "tuned"
    passed = low <= budget.max_drop and (retrained or most >= budget.min_agreement)
    within = comparison.drop <= budget.max_drop and (retrained or comparison.agreement >= budget.min_agreement)
    wanted = "not judged: it was trained on" if retrained else f"least {budget.min_agreement:.0%}"
    return Check(
        question=2,
        subject=f"{comparison.candidate.name} against {comparison.reference.name}",
        status=Status.PASS if within else Status.DOUBTFUL if passed else Status.FAIL,
        detail=f"drop {comparison.drop:+.2f} points [{low:+.2f}, {high:+.2f}] (allowed {budget.max_drop:g}), "
        f"agreement {comparison.agreement:.2%} [{least:.1%}, {most:.1%}] ({wanted})",
    )
