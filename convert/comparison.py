"""Question 2 of parity, whether the converted network makes the same decisions: the figures and the verdict."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgefer.bundle import Form
from edgefer.card import Scores
from edgefer.checks import Check, Status
from edgefer.interpreter import softmax
from edgefer.lineage import MIN_RETRAINED_AGREEMENT
from edgefer.metrics import confusion_matrix, mcnemar_p, paired_interval, per_class, scores, wilson_interval
from edgefer.options import MAX_DROP, MIN_AGREEMENT
from edgefer.provenance import Cost
from edgefer.text import percent
from edgefer.train.data.dataset import Split

WITH_QAT = "convert it again with --qat"
AS_FLOAT = "run its float32 form, or import the network's .keras or .h5 file, which can be trained quantization-aware"
IN_FLOAT = "convert it in float, with --no-int8 --float16"
FROM_KERAS = "convert the bundle that was trained, or import the network's .keras or .h5 file and convert that"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What conversion may cost: points of accuracy (percent), and the minimum share of equal decisions.

    min_retrained_agreement: for a network that was slimmed, pruned or trained quantization-aware. Retraining changes more
    decisions than rounding does, but the network must still be recognisable: pruned and quantization-aware variants of
    fer-small agreed with it on 93.5 to 97.1%, one slimmed to half and hardly fine-tuned on 85.7%.
    """

    max_drop: float = MAX_DROP
    min_agreement: float = MIN_AGREEMENT
    min_retrained_agreement: float = MIN_RETRAINED_AGREEMENT

    @classmethod
    def of(cls, max_drop: float, min_agreement: float) -> "Budget":
        """The budget from the options: a retrained network need not agree more than a rounded one."""
        retrained = min(min_agreement, MIN_RETRAINED_AGREEMENT)
        return cls(max_drop=max_drop, min_agreement=min_agreement, min_retrained_agreement=retrained)


@dataclass(frozen=True, kw_only=True)
class Flip:
    """An image that two networks label differently: its row and id in the split, labels, and their scores."""

    row: int
    id: str
    true: str
    reference: str
    reference_score: float
    candidate: str
    candidate_score: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A network's figures: its name and form, scores, 95% interval of accuracy, F1 per class, its median milliseconds
    per image on one thread if it was timed, and whether it gives images of several labels all the same one."""

    name: str
    form: Form
    scores: Scores
    interval: tuple[float, float]
    f1: tuple[float, ...]
    ms: float | None
    constant: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A candidate network against its reference on the same labelled images.

    retrained: whether weights were removed or trained between the two, not only rounded. drop: the reference's accuracy
    minus the candidate's, in points; lost and gained: images that only the reference, or only the candidate, got right;
    p: McNemar's, exact. mean_dp: mean absolute difference in probability. mean_quanta, worst_quanta: difference in a
    logit, in steps of the candidate's output; None if that is float or probabilities. Intervals are 95%.
    """

    reference: Figures
    candidate: Figures
    retrained: bool
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

    @property
    def summary(self) -> str:
        """The drop with its interval, and the agreement."""
        low, high = self.drop_interval
        return f"drop {self.drop:+.2f} points [{low:+.2f}, {high:+.2f}], agreement {self.agreement:.2%}"

    def cost(self, split: str) -> Cost:
        """The figures for the card."""
        return Cost(
            variant=self.candidate.form.value,
            split=split,
            count=self.candidate.scores.count,
            drop=self.drop,
            drop_interval=self.drop_interval,
            agreement=self.agreement,
        )


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A network's answers: float32 logits [n, classes] for images `rows` [n], ascending, of the split (None: all), the
    median milliseconds per image, the step of its logits (None for float and for probabilities), and the temperature of its
    scores."""

    name: str
    form: Form
    logits: np.ndarray
    rows: np.ndarray | None = None
    ms: float | None = None
    quantum: float | None = None
    temperature: float = 1.0


def compare(
    reference: Answers, candidate: Answers, images: Split, names: tuple[str, ...], *, retrained: bool = False
) -> Comparison:
    """Compare the candidate's answers with the reference's, on the images that the candidate answered; the reference
    must have answered them too. retrained: as in Comparison."""
    every = np.arange(len(images))
    rows = every if candidate.rows is None else candidate.rows
    labels, seen = images.labels[rows], np.searchsorted(every if reference.rows is None else reference.rows, rows)
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
        reference=_figures(reference, labels, ref_choice, len(names)),
        candidate=_figures(candidate, labels, cand_choice, len(names)),
        retrained=retrained,
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
                id=str(images.ids[rows[i]]),
                true=names[labels[i]],
                reference=names[ref_choice[i]],
                reference_score=float(ref_scores[i].max()),
                candidate=names[cand_choice[i]],
                candidate_score=float(cand_scores[i].max()),
            )
            for i in flips
        ),
    )


def pairs(keras: Sequence[Answers], forms: Sequence[Answers]) -> list[tuple[Answers, Answers, bool]]:
    """What question 2 compares: (reference, candidate, whether weights were removed or trained in between).

    keras: first the trained network, last the one that the TFLite forms were made from; it may be empty.
    """
    first = [*keras, *forms][0]
    made_of = keras[-1] if keras else first
    found = [(first, one, True) for one in keras[1:]]
    found += [(made_of, one, False) for one in forms if one is not made_of]
    if made_of is not first:
        found += [(first, one, True) for one in forms]
    return found


def _figures(answers: Answers, labels: np.ndarray, choice: np.ndarray, classes: int) -> Figures:
    result = scores(labels, choice, classes)
    f1 = per_class(confusion_matrix(labels, choice, classes))[2]
    interval = wilson_interval(result.accuracy, result.count)
    return Figures(
        name=answers.name, form=answers.form, scores=result, interval=interval, f1=tuple(f1.tolist()),
        ms=answers.ms, constant=len(np.unique(choice)) == 1 < len(np.unique(labels)),
    )  # fmt: skip


def judge(comparison: Comparison, budget: Budget, int8_fix: Callable[[], str] = lambda: WITH_QAT) -> Check:
    """Check a comparison against the budget. int8_fix: what makes this network's int8 form more accurate; called on failure.

    It fails if even the favourable end of the 95% interval exceeds the budget, since chance does not explain that. If
    only the estimate exceeds it, the result is doubtful, and more images are needed. A network that gives every image
    the same label is always doubtful: it agrees with any other that does the same.
    """
    low, high = comparison.drop_interval
    least, most = comparison.agreement_interval
    needed = budget.min_retrained_agreement if comparison.retrained else budget.min_agreement
    passed = low <= budget.max_drop and most >= needed
    within = comparison.drop <= budget.max_drop and comparison.agreement >= needed
    reason = ", since weights were trained in between" if comparison.retrained else ""
    constant = comparison.candidate.constant
    note = ". It gives every image the same label, so agreement says nothing: train it longer, or balance the classes"
    status = Status.PASS if within and not constant else Status.DOUBTFUL if passed else Status.FAIL
    return Check(
        question=2,
        subject=f"{comparison.candidate.name} against {comparison.reference.name}",
        status=status,
        detail=f"drop {comparison.drop:+.2f} points [{low:+.2f}, {high:+.2f}] (allowed {budget.max_drop:g}), "
        f"agreement {comparison.agreement:.2%} [{least:.1%}, {most:.1%}] (at least {percent(needed)}{reason}){note if constant else ''}",
        fix=_fix(comparison, int8_fix) if status is Status.FAIL else "",
    )


def _fix(comparison: Comparison, int8_fix: Callable[[], str]) -> str:
    """How a conversion costs less; "" if nothing was rounded or trained, which should cost nothing."""
    if comparison.retrained:
        return "convert it again with more --epochs, or remove less with --prune or --slim"
    if comparison.candidate.form is not Form.INT8:
        return ""
    return ", or ".join(filter(None, (int8_fix(), "accept more with --max-drop or --min-agreement")))
