"""The parity certificate: what was asked of a bundle, on what machine and pictures, and what came out, as a page and as JSON.

It names the bundle by its hash, so that `edgefer verify BUNDLE --certificate FILE` can tell later, on another machine,
whether this is the bundle that was proven.
"""

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from html import escape

import numpy as np

from edgefer import __version__, checks
from edgefer.bundle import Bundle
from edgefer.checks import Check
from edgefer.convert.comparison import Budget, Comparison, Figures, Flip
from edgefer.convert.prove import REFERENCE_PICTURES, Proof
from edgefer.html import Picture, contact_sheet, page, table
from edgefer.runtimes import runtime_version

SHOWN = 64  # flips on the page; all of them are in the JSON


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What was asked and what came out; `data` and `split` name the pictures of question 2."""

    bundle: Bundle
    checks: tuple[Check, ...]
    proof: Proof
    budget: Budget
    data: str
    split: str
    runtimes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict:
        """All of it as plain values, every flip included."""
        pictures = self.proof.pictures
        content = hashlib.sha256(np.ascontiguousarray(pictures.images).tobytes() + pictures.labels.tobytes())
        card = self.bundle.card
        return {
            "edgefer": __version__,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "passed": self.passed,
            "bundle": {
                "name": card.name,
                "sha256": self.bundle.hash,
                "files": {v.file: v.sha256 for v in card.variants.values()},
            },
            "machine": machine(self.runtimes),
            "data": {
                "name": self.data,
                "split": self.split,
                "pictures": len(pictures),
                "sha256": content.hexdigest(),
                "labels": card.labels,
            },
            "budget": asdict(self.budget),
            "checks": [check.to_json() for check in self.checks],
            "comparisons": [_plain(one) for one in self.proof.cost],
            "runtimes": [_plain(one) for one in self.proof.spread],
        }

    def to_html(self) -> str:
        """The page. It opens anywhere, offline."""
        told, card = self.to_json(), self.bundle.card
        verdict = "pass" if self.passed else "FAIL"
        source = self.proof.cost[0].reference
        networks = [source, *(one.candidate for one in self.proof.cost)]
        parts = [
            f"<h1>Parity certificate: {escape(card.name)}</h1>",
            f'<p><span class="{verdict}">{verdict}</span> · bundle <code>{told["bundle"]["sha256"]}</code></p>',
            f'<p class="faint">{told["data"]["pictures"]:,} pictures of the {escape(self.split)} split of '
            f"{escape(self.data)} · {escape(' · '.join(told['machine'].values()))} · edgefer {__version__} · {told['made']}</p>",
            "<h2>Is it still the same model?</h2>",
            table(*checks.table(self.checks)),
            "<p class=faint>A comparison fails when even the end of its 95% interval that speaks for the network is over the "
            "budget, for then chance does not explain it; over the budget but within chance is doubtful, and more "
            "pictures decide.</p>",
            "<h2>What conversion cost</h2>",
            interval_plot(self.proof.cost, self.budget.max_drop),
            table(COST_COLUMNS, [cost_row(one) for one in self.proof.cost]),
            "<p class=faint>Lost and gained: pictures that only the first, or only the second, got right. McNemar's p: how often "
            "a fair coin would split them as unevenly. Quanta: steps of the int8 output.</p>",
            "<h2>What each network is worth</h2>",
            table(WORTH_COLUMNS, [worth_row(one) for one in networks]),
            "<h2>F1 of each class</h2>",
            table(
                ("class", *(one.name for one in networks)),
                [(label, *(f"{one.f1[i]:.3f}" for one in networks)) for i, label in enumerate(card.labels)],
            ),
        ]
        if self.proof.spread:
            parts += [
                "<h2>The same file elsewhere</h2>",
                table(COST_COLUMNS, [cost_row(one) for one in self.proof.spread]),
                f"<p class=faint>Reference kernels are TFLite's plain C++, ten to thirty times slower: they saw a stratified "
                f"draw of {REFERENCE_PICTURES} pictures at most, and are compared on those. Not judged.</p>",
            ]
        parts += self._flips()
        files = [(v.file, f"{v.bytes:,}", v.sha256) for v in card.variants.values()]
        parts += ["<h2>The bundle's files</h2>", table(("file", "bytes", "sha256"), files)]
        return page(f"Parity of {card.name}", parts)

    def _flips(self) -> list[str]:
        """The flips of the network that devices run: those that cost a right answer first."""
        cost = self.proof.cost
        shown = next((one for one in cost if one.candidate.name.startswith("int8")), cost[-1])
        title = f"<h2>Flips: {escape(shown.candidate.name)} against {escape(shown.reference.name)}</h2>"
        if not shown.flips:
            return [title, "<p>None: every decision is the same.</p>"]
        flips = sorted(shown.flips, key=lambda f: (_kind(f) != "bad", _kind(f) != "good", -f.candidate_score))
        sheet = contact_sheet(
            Picture(
                image=self.proof.pictures.images[f.row],
                lines=(
                    f"is {f.true}",
                    f"{f.reference} {f.reference_score:.0%} →",
                    f"{f.candidate} {f.candidate_score:.0%}",
                    f.id,
                ),
                kind=_kind(f),
            )
            for f in flips[:SHOWN]
        )
        both_wrong = len(flips) - shown.lost - shown.gained
        said = f"{len(flips)} pictures are decided otherwise: {shown.lost} lost (red), {shown.gained} gained (green), {both_wrong} wrong either way."
        if len(flips) > SHOWN:
            said += f" The first {SHOWN} are shown; all are in the JSON."
        return [title, f"<p>{said}</p>", sheet]


def machine(runtimes: Sequence[str]) -> dict[str, str]:
    """What computed: system, Python, numpy and the runtimes with their versions."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": f"Python {platform.python_version()}",
        "numpy": f"numpy {np.__version__}",
        **{name: f"{name} {runtime_version(name)}" for name in runtimes},
    }


WORTH_COLUMNS = ("network", "pictures", "accuracy", "95% interval", "macro recall", "macro F1", "ms a picture")
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


def _plain(one: Comparison) -> dict:
    plain = asdict(one)
    for side, figures in (("reference", one.reference), ("candidate", one.candidate)):
        plain[side]["scores"] = figures.scores.model_dump()
    return plain


def _kind(flip: Flip) -> str:
    return "bad" if flip.reference == flip.true else "good" if flip.candidate == flip.true else ""


def interval_plot(comparisons: Sequence[Comparison], max_drop: float) -> str:
    """The drops with their intervals, a line each, against zero and the budget: SVG."""
    ends = [end for one in comparisons for end in one.drop_interval]
    low, high = min([*ends, 0.0]), max([*ends, max_drop])
    left, width, row = 270, 620, 24
    bottom = 14 + row * len(comparisons)

    def x(points: float) -> float:
        return left + 10 + (width - 60) * (points - low) / (high - low)

    def rule(points: float, text: str, look: str) -> str:
        line = f'<line x1="{x(points):.1f}" x2="{x(points):.1f}" y1="6" y2="{bottom}" {look}/>'
        return f'{line}<text x="{x(points):.1f}" y="{bottom + 15}" text-anchor="middle" fill="#667">{text}</text>'

    marks = [
        rule(0, "0", 'stroke="#99a"'),
        rule(max_drop, f"budget {max_drop:g}", 'stroke="#c62828" stroke-dasharray="4 3"'),
    ]
    for number, one in enumerate(comparisons):
        y = 18 + row * number
        color = "#c62828" if one.drop_interval[0] > max_drop else "#9a6700" if one.drop > max_drop else "#1a7f37"
        begin, end = (x(points) for points in one.drop_interval)
        marks.append(
            f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{escape(one.candidate.name)}</text>'
            f'<line x1="{begin:.1f}" x2="{end:.1f}" y1="{y}" y2="{y}" stroke="{color}" stroke-width="3" stroke-linecap="round"/>'
            f'<circle cx="{x(one.drop):.1f}" cy="{y}" r="5" fill="{color}"/>'
        )
    return (
        f'<svg viewBox="0 0 {left + width} {bottom + 22}" font-size="13" role="img" '
        f'aria-label="accuracy lost, in points, with 95% intervals" style="max-width:100%">{"".join(marks)}</svg>'
    )
