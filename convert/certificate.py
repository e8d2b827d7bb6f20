"""The parity certificate: what was checked, on which machine and images, and the results, as HTML and as JSON.

It contains the bundle's hash, so that `edgefer verify BUNDLE --certificate FILE` can check later, on another machine,
that this is the bundle that was certified.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache, partial

import numpy as np

from edgefer import __version__, checks
from edgefer.bundle import TFLITE_VARIANTS, Bundle
from edgefer.c.prove import check_in_c
from edgefer.checks import Check, Status
from edgefer.convert.aware import int8_fix
from edgefer.convert.comparison import Budget, Comparison, Figures, Flip, judge
from edgefer.convert.portable import check_targets, unchecked_targets
from edgefer.convert.prove import REFERENCE_IMAGES, Proof, check_comparable, prove
from edgefer.convert.web.site import Device
from edgefer.html import Picture, contact_sheet, escape, heading, page, paragraph, table
from edgefer.options import RuntimeName
from edgefer.parity import check_bundle
from edgefer.progress import SILENT, Progress
from edgefer.runtimes import installed_runtimes, machine
from edgefer.train.data.dataset import Dataset
from edgefer.train.data.matching import absent, absent_note

NOT_ASKED = "emulators and browsers run only for a report"
SHOWN = 64  # flips on the page; all of them are in the JSON
EXPLAINED = (
    "A comparison fails if even the favourable end of its 95% interval exceeds the budget, since chance does not explain "
    "that. If only the estimate exceeds it, the result is doubtful, and more images are needed. What is not checked was "
    "not run, and counts neither as a pass nor as a failure."
)
COST_EXPLAINED = (
    "Drop: points of accuracy lost; negative if the converted network is more accurate. Lost and gained: images that only the reference, or "
    "only the converted network, got right. McNemar's p: how often a fair coin would split them as unevenly. Quanta: steps of the int8 output."
)


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The checks and their results; `data` and `split` name the images of question 2. made: when, in UTC."""

    bundle: Bundle
    checks: tuple[Check, ...]
    proof: Proof
    budget: Budget
    data: str
    split: str
    runtimes: tuple[str, ...]
    made: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return checks.exit_code(self.checks) == 0

    @property
    def networks(self) -> list[Figures]:
        """Each compared network once, in the order of the comparisons."""
        figures = [one for comparison in self.proof.cost for one in (comparison.reference, comparison.candidate)]
        return list({one.name: one for one in figures}.values())

    def to_json(self) -> dict:
        """The certificate as plain values, including every flip."""
        images, card = self.proof.images, self.bundle.card
        content = hashlib.sha256(np.ascontiguousarray(images.images).tobytes() + images.labels.tobytes())
        return {
            "edgefer": __version__,
            "made": self.made,
            "passed": self.passed,
            "bundle": {
                "name": card.name,
                "sha256": self.bundle.hash,
                "files": {v.file: v.sha256 for v in card.variants.values()},
                "lineage": card.lineage.model_dump(mode="json") if card.lineage else None,
            },
            "machine": machine(self.runtimes),
            "data": {
                "name": self.data,
                "split": self.split,
                "images": len(images),
                "sha256": content.hexdigest(),
                "labels": card.labels,
                "without_images": absent(images.labels, card.labels),
            },
            "budget": asdict(self.budget),
            "checks": [check.to_json() for check in self.checks],
            "comparisons": [_plain(one) for one in self.proof.cost],
            "runtimes": [_plain(one) for one in self.proof.spread],
        }

    def to_html(self) -> str:
        """The page, self-contained."""
        parts = [*self._summary(), *self._figures(), *self._elsewhere(), *self._flips(), *self._files()]
        return page(f"Parity of {self.bundle.card.name}", parts)

    def figures_html(self) -> str:
        """The tables of each network's accuracy and of what conversion cost, for notebooks."""
        worth = table(WORTH_COLUMNS, [worth_row(one) for one in self.networks])
        return worth + table(COST_COLUMNS, [cost_row(one) for one in self.proof.cost])

    def _summary(self) -> list[str]:
        facts, verdict = self.to_json(), "pass" if self.passed else "FAIL"
        origin = f" · came from {self.bundle.card.lineage.name}" if self.bundle.card.lineage else ""
        about = (
            f"{facts['data']['images']:,} images of the {self.split} split of {self.data} · "
            f"{' · '.join(facts['machine'].values())} · edgefer {__version__} · {facts['made']}{origin}"
        )
        return [
            heading(f"Parity certificate: {self.bundle.card.name}", 1),
            f'<p><span class="{verdict}">{verdict}</span> · bundle <code>{escape(self.bundle.hash)}</code></p>',
            paragraph(about, "faint"),
            heading("Is it still the same network?"),
            table(*checks.table(self.checks)),
            paragraph(EXPLAINED, "faint"),
        ]

    def _figures(self) -> list[str]:
        labels, networks = self.bundle.card.labels, self.networks
        by_class = [(label, *(_f1(one.f1[i]) for one in networks)) for i, label in enumerate(labels)]
        return [
            heading("What conversion cost"),
            interval_plot(self.proof.cost, self.budget.max_drop),
            table(COST_COLUMNS, [cost_row(one) for one in self.proof.cost]),
            paragraph(COST_EXPLAINED, "faint"),
            heading("Accuracy of each network"),
            table(WORTH_COLUMNS, [worth_row(one) for one in networks]),
            heading("F1 of each class"),
            table(("class", *(one.name for one in networks)), by_class),
        ]

    def _elsewhere(self) -> list[str]:
        if not self.proof.spread:
            return []
        explained = (
            "Reference kernels are TFLite's plain C++, 10 to 30 times slower: they are compared on a stratified sample of "
            f"at most {REFERENCE_IMAGES} images. These rows do not affect the verdict."
        )
        rows = [cost_row(one) for one in self.proof.spread]
        return [heading("The same file elsewhere"), table(COST_COLUMNS, rows), paragraph(explained, "faint")]

    def _files(self) -> list[str]:
        files = [(v.file, f"{v.bytes:,}", v.sha256) for v in self.bundle.card.variants.values()]
        return [heading("The bundle's files"), table(("file", "bytes", "sha256"), files)]

    def _flips(self) -> list[str]:
        """The flips of the deployed variant against the trained network, lost answers first."""
        order = {form: number for number, form in enumerate(TFLITE_VARIANTS)}
        # The last comparison of a variant is the one with the trained network.
        shown = min(reversed(self.proof.cost), key=lambda one: order.get(one.candidate.form, len(order)))
        title = heading(f"Flips: {shown.candidate.name} against {shown.reference.name}")
        if not shown.flips:
            return [title, paragraph("None: every decision is the same.")]
        flips = sorted(shown.flips, key=lambda f: (_kind(f) != "bad", _kind(f) != "good", -f.candidate_score))
        pictures = [
            Picture(
                image=self.proof.images.images[f.row],
                lines=(
                    f"is {f.true}",
                    f"{f.reference} {f.reference_score:.0%} →",
                    f"{f.candidate} {f.candidate_score:.0%}",
                ),
                kind=_kind(f),
                file=f.id,
            )
            for f in flips[:SHOWN]
        ]
        sheet = contact_sheet(pictures, self.bundle.card.input.color)
        both_wrong = len(flips) - shown.lost - shown.gained
        text = (
            f"{len(flips)} images get another label: {shown.lost} lost (red), {shown.gained} gained (green), "
            f"{both_wrong} wrong in both."
        )
        if len(flips) > SHOWN:
            text += f" The first {SHOWN} are shown; all are in the JSON."
        return [title, paragraph(text), sheet]


WORTH_COLUMNS = ("network", "images", "accuracy", "95% interval", "macro recall", "macro F1", "ms an image")
COST_COLUMNS = (
    "network", "against", "drop, points [95%]", "lost / gained", "McNemar's p", "agreement [95%]", "mean |dp|",
    "quanta, mean / worst",
)  # fmt: skip


def worth_row(one: Figures) -> tuple[str, ...]:
    """A network's figures, under WORTH_COLUMNS."""
    s = one.scores
    interval = f"{one.interval[0]:.1%} to {one.interval[1]:.1%}"
    ms = f"{one.ms:.2f}" if one.ms is not None else ""
    return one.name, f"{s.count:,}", f"{s.accuracy:.2%}", interval, f"{s.macro_recall:.3f}", f"{s.macro_f1:.3f}", ms


def cost_row(one: Comparison) -> tuple[str, ...]:
    """A comparison's figures, under COST_COLUMNS."""
    (low, high), (least, most) = one.drop_interval, one.agreement_interval
    quanta = "" if one.mean_quanta is None else f"{one.mean_quanta:.2f} / {one.worst_quanta:.1f}"
    return (
        one.candidate.name, one.reference.name, f"{one.drop:+.2f} [{low:+.2f}, {high:+.2f}]",
        f"{one.lost} / {one.gained}", f"{one.p:.3f}", f"{one.agreement:.2%} [{least:.1%}, {most:.1%}]",
        f"{one.mean_dp:.1e}", quanta,
    )  # fmt: skip


def _f1(value: float | None) -> str:
    return "no images" if value is None else f"{value:.3f}"


def _plain(one: Comparison) -> dict:
    plain = asdict(one)
    for side, figures in (("reference", one.reference), ("candidate", one.candidate)):
        plain[side]["scores"] = figures.scores.model_dump()
    return plain


def _kind(flip: Flip) -> str:
    return "bad" if flip.reference == flip.true else "good" if flip.candidate == flip.true else ""


def interval_plot(comparisons: Sequence[Comparison], max_drop: float) -> str:
    """The drops with their intervals, one line each, against zero and the budget: SVG."""
    ends = [end for one in comparisons for end in one.drop_interval]
    low, high = min([*ends, 0.0]), max([*ends, max_drop])
    width, row, margin, top = 620, 44, 10, 26
    right = 100  # room for the name of the budget, which may be at the end of the axis
    bottom = 14 + row * len(comparisons)

    def x(points: float) -> float:
        return margin + (width - margin - right) * (points - low) / (high - low)

    def rule(points: float, text: str, kind: str, anchor: str) -> str:
        """A vertical line in pieces, one beside each interval, leaving room for the row names."""
        at = f"{x(points):.1f}"
        pieces = "".join(
            f'<line x1="{at}" x2="{at}" y1="{top + row * number}" y2="{top + row * number + 24}" class="{kind}"/>'
            for number in range(len(comparisons))
        )
        gap = 4 if anchor == "start" else 0
        return f'{pieces}<text x="{at}" dx="{gap}" y="{bottom + 15}" text-anchor="{anchor}" class="faint">{escape(text)}</text>'

    # To the left and right of their lines, which coincide if nothing is allowed.
    marks = [rule(0, "0", "zero", "end"), rule(max_drop, f"allowed {max_drop:g}", "limit", "start")]
    for number, one in enumerate(comparisons):
        y = top + 12 + row * number
        kind = "bad" if one.drop_interval[0] > max_drop else "doubtful" if one.drop > max_drop else "good"
        begin, end = (x(points) for points in one.drop_interval)
        marks.append(
            f'<text x="{margin}" y="{y - 18}">{escape(f"{one.candidate.name} against {one.reference.name}")}</text>'
            f'<line x1="{begin:.1f}" x2="{end:.1f}" y1="{y}" y2="{y}" class="{kind}" stroke-width="3" stroke-linecap="round"/>'
            f'<circle cx="{x(one.drop):.1f}" cy="{y}" r="5" class="{kind}"/>'
        )
    return (
        f'<svg viewBox="0 0 {width} {bottom + 22}" width="{width}" font-size="13" role="img" '
        f'aria-label="accuracy lost, in points, with 95% intervals">{"".join(marks)}</svg>'
    )


def certify(
    bundle: Bundle,
    dataset: Dataset,
    split: str,
    *,
    runtimes: Sequence[str] = (),
    budget: Budget | None = None,
    reference_kernels: bool = False,
    device: Device | None = None,
    progress: Progress = SILENT,
) -> Certificate:
    """Check all three questions for a bundle, on each of `runtimes` (none or auto: all installed ones).

    dataset: labelled images in the card's input format; its `split` answers question 2. device: the settings of
    `edgefer run`, for exports that run on every installed emulator and browser, which takes minutes; None runs none.
    """
    names = list(dict.fromkeys(str(name) for name in runtimes if name != RuntimeName.AUTO)) or installed_runtimes()
    budget = budget or Budget()
    # These raise before the work starts.
    check_comparable(bundle, names)
    dataset.with_labels(bundle.card.labels).split(split)
    with progress.stage("Comparing pixels, weights and stored answers"):
        found = check_bundle(bundle, names) + check_in_c(bundle)
    if device:
        with progress.stage("Running every installed emulator and browser"):
            found += check_targets(bundle, device)
    else:
        found += unchecked_targets(bundle, NOT_ASKED, "verify it with --report")
    proof = prove(bundle, dataset, split, runtimes=names, reference_kernels=reference_kernels, progress=progress)
    fix = cache(partial(int8_fix, bundle))
    found += _unmeasured(proof, bundle.card.labels, split)
    found += [proof.origin, *(judge(comparison, budget, fix) for comparison in proof.cost)]
    return Certificate(
        bundle=bundle,
        checks=tuple(found),
        proof=proof,
        budget=budget,
        data=dataset.name,
        split=split,
        runtimes=tuple(names),
    )


def _unmeasured(proof: Proof, labels: tuple[str, ...], split: str) -> list[Check]:
    """A row for the classes of which there are no images, if there are any."""
    note = absent_note(absent(proof.images.labels, labels), len(labels), f"the {split} split")
    return [Check(question=2, subject="every class", status=Status.NOT_CHECKED, detail=note)] if note else []
