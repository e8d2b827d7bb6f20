"""What a run saw, from the CSV it wrote, as one HTML page: shares, a timeline and the moments that stand out."""

import csv
import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from edgefer import html
from edgefer.devices.outputs.csvfile import COLUMNS
from edgefer.devices.outputs.overlay import COLORS
from edgefer.errors import InputError
from edgefer.records import UNSURE
from edgefer.text import printable

BINS = 240  # of a timeline, at most
MAX_RUNS = 50  # the last ones of a file; each has a timeline
MAX_MOMENTS = 15
MAX_FACES = 10_000  # faces whose stretches are followed at a time; numbers of a stranger's file need not end
MAX_LABELS = 200
GAP_S = 1.0  # a face that is away for longer begins another stretch
NO_LABEL = "#7d868e"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One face of one frame. clock: the time of day in UTC, as the file has it."""

    clock: str
    frame: int
    time_s: float
    id: int
    label: str
    score: float


@dataclass(frozen=True, kw_only=True, order=True)
class Moment:
    """A stretch of time in which one face kept its label."""

    seconds: float
    start_s: float
    label: str
    id: int
    mean_score: float
    clock: str


@dataclass
class Stretch:
    """A moment that is not over yet."""

    first: Row
    last: Row
    score_sum: float
    rows: int = 1

    def moment(self) -> Moment:
        return Moment(
            seconds=self.last.time_s - self.first.time_s,
            start_s=self.first.time_s,
            label=self.first.label,
            id=self.first.id,
            mean_score=self.score_sum / self.rows,
            clock=self.first.clock,
        )


@dataclass
class Run:
    """The rows from one start of `edgefer run` to the next."""

    first: Row
    last: Row
    rows: int = 0
    labels: Counter = field(default_factory=Counter)
    scores: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # sums, by label
    bins: list[Counter] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)  # a heap: the shortest first

    def __post_init__(self) -> None:
        frames = self.last.frame - self.first.frame + 1  # a short run has no more steps than frames
        self.bins = [Counter() for _ in range(max(1, min(BINS, frames)))]


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole file. bad: rows that could not be read, and the first one's reason. earlier: runs before the ones in `runs`."""

    labels: tuple[str, ...]
    runs: tuple[Run, ...]
    bad: int
    bad_reason: str
    earlier: int


def read_report(path: Path) -> Report:
    """What is in a CSV of `edgefer run --csv`. InputError when it is no such file, or holds no row."""
    labels = _labels(path)
    spans: list[tuple[Row, Row]] = []
    reasons: list[str] = []
    bad = earlier = 0
    for row in _rows(path):
        if isinstance(row, str):
            bad += 1
            reasons = reasons or [row]
        elif spans and not _starts_again(spans[-1][1], row):
            spans[-1] = spans[-1][0], row
        else:
            spans.append((row, row))
            if len(spans) > MAX_RUNS:
                spans.pop(0)
                earlier += 1
    if not spans:
        raise InputError(
            f"{printable(str(path))} has no row that can be read ({reasons[0] if reasons else 'no face was seen'})."
        )
    runs = tuple(Run(first=first, last=last) for first, last in spans)
    _fill(path, runs, skip=earlier)
    return Report(labels=labels, runs=runs, bad=bad, bad_reason=reasons[0] if reasons else "", earlier=earlier)


def to_html(report: Report, name: str) -> str:
    """The page."""
    colors = _colors(report)
    rows = sum(run.rows for run in report.runs)
    parts = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="faint">{rows:,} faces read in {len(report.runs)} run{"s" * (len(report.runs) > 1)}. '
        "Shares are of the faces in it; frames without a face are not in the file.</p>",
    ]
    if report.earlier:
        parts.append(f"<p>{report.earlier:,} earlier runs are in the file and not shown here.</p>")
    if report.bad:
        parts.append(f'<p class="FAIL">{report.bad:,} rows could not be read: {escape(report.bad_reason)}.</p>')
    for run in report.runs:
        parts += _run_parts(run, colors)
    return html.page(name, parts)


def _run_parts(run: Run, colors: dict[str, str]) -> list[str]:
    length_s = run.last.time_s - run.first.time_s
    shares = [
        (label, f"{count / run.rows:.1%}", f"{count:,}", f"{run.scores[label] / count:.0%}")
        for label, count in run.labels.most_common()
    ]
    shared = html.table(("label", "share", "faces", "mean score"), shares)
    if (run.first.frame, run.first.time_s) == (run.last.frame, run.last.time_s):  # one image: nothing in it takes time
        return [f"<h2>{escape(run.first.clock)}, one image</h2>", shared]
    moments = [
        (_clock(one.start_s), one.clock, one.label, str(one.id or ""), f"{one.seconds:.1f}", f"{one.mean_score:.0%}")
        for one in sorted(run.moments, key=lambda one: one.start_s)
    ]
    return [
        f"<h2>{escape(run.first.clock)}, {_clock(length_s)} long</h2>",
        _timeline(run, colors),
        _legend(run, colors),
        shared,
        f"<h2>Longest moments of {escape(run.first.clock)}</h2>",
        html.table(("at", "time (UTC)", "label", "face", "seconds", "mean score"), moments),
    ]


def _timeline(run: Run, colors: dict[str, str]) -> str:
    """The share of each label over the run, stacked, as SVG."""
    width, height = 960, 120
    step, parts = width / len(run.bins), []
    for number, seen in enumerate(run.bins):
        total, floor = sum(seen.values()), float(height)
        for label in colors:
            if seen[label]:
                tall = height * seen[label] / total
                floor -= tall
                place = f'x="{number * step:.2f}" y="{floor:.2f}" width="{step + 0.1:.2f}" height="{tall:.2f}"'
                parts.append(f'<rect {place} fill="{colors[label]}"/>')
    length_s = run.last.time_s - run.first.time_s
    ticks = "".join(
        f'<text x="{width * share:.0f}" y="{height + 16}" text-anchor="{anchor}">{_clock(length_s * share)}</text>'
        for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
    )
    return (
        f'<svg viewBox="0 0 {width} {height + 20}" style="width:100%" role="img" aria-label="Share of each label over time" '
        f'font-size="12" fill="#667"><rect width="{width}" height="{height}" fill="#f1f3f5"/>{"".join(parts)}{ticks}</svg>'
    )


def _legend(run: Run, colors: dict[str, str]) -> str:
    swatch = '<span style="display:inline-block;width:.8em;height:.8em;border-radius:2px;background:{}"></span> {}'
    seen = [swatch.format(color, escape(label)) for label, color in colors.items() if run.labels[label]]
    return f"<p>{' &nbsp; '.join(seen)}</p>"


def _colors(report: Report) -> dict[str, str]:
    """A colour for each label there is, the page's and the overlay's own; gray for unsure and for strangers."""
    own = {label: "#{2:02x}{1:02x}{0:02x}".format(*COLORS[n % len(COLORS)]) for n, label in enumerate(report.labels)}
    others = sorted({label for run in report.runs for label in run.labels} - set(own))
    return own | dict.fromkeys((*others, UNSURE), NO_LABEL)


def _clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    whole = max(0, int(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _fill(path: Path, runs: Sequence[Run], skip: int) -> None:
    """Count the rows of each run, in a second reading: a long file is never held."""
    number, last = -skip, None
    stretches: dict[int, Stretch] = {}
    for row in _rows(path):
        if isinstance(row, str):
            continue
        if last is not None and _starts_again(last, row):
            _end_all(runs, number, stretches)
            number += 1
        last = row
        if number >= 0:
            _count(runs[number], row)
            _follow(runs[number], stretches, row)
    _end_all(runs, number, stretches)


def _count(run: Run, row: Row) -> None:
    label = row.label if row.label in run.labels or len(run.labels) < MAX_LABELS else UNSURE
    run.rows += 1
    run.labels[label] += 1
    run.scores[label] += row.score
    length_s = run.last.time_s - run.first.time_s
    place = int((row.time_s - run.first.time_s) / length_s * len(run.bins)) if length_s > 0 else 0
    run.bins[min(len(run.bins) - 1, max(0, place))][label] += 1


def _follow(run: Run, stretches: dict[int, Stretch], row: Row) -> None:
    """Go on with the face's stretch, or end it and begin another."""
    going = stretches.get(row.id)
    if going and going.first.label == row.label and row.time_s - going.last.time_s <= GAP_S:
        going.last = row
        going.score_sum += row.score
        going.rows += 1
        return
    if going:
        _keep(run, going)
    elif len(stretches) >= MAX_FACES:
        _keep(run, stretches.pop(next(iter(stretches))))
    stretches[row.id] = Stretch(row, row, row.score)


def _end_all(runs: Sequence[Run], number: int, stretches: dict[int, Stretch]) -> None:
    if number >= 0:
        for stretch in stretches.values():
            _keep(runs[number], stretch)
    stretches.clear()


def _keep(run: Run, stretch: Stretch) -> None:
    moment = stretch.moment()
    if moment.label != UNSURE and moment.seconds > 0:
        heapq.heappush(run.moments, moment)
        if len(run.moments) > MAX_MOMENTS:
            heapq.heappop(run.moments)


def _starts_again(last: Row, row: Row) -> bool:
    return row.frame < last.frame or row.time_s < last.time_s


def _labels(path: Path) -> tuple[str, ...]:
    """The labels in the first line. InputError when it is not that of `edgefer run --csv`."""
    header = next(_lines(path), [])
    if tuple(header[: len(COLUMNS)]) != COLUMNS:
        raise InputError(
            f"{printable(str(path))} is no CSV of `edgefer run --csv`: its first line should begin with {','.join(COLUMNS)}."
        )
    return tuple(_plain(label) for label in header[len(COLUMNS) :][:MAX_LABELS])


def _rows(path: Path) -> Iterator[Row | str]:
    """Each row below the first line; the reason where one cannot be read."""
    lines = _lines(path)
    next(lines, None)
    for number, cells in enumerate(lines, 2):
        try:
            values = dict(zip(COLUMNS, cells, strict=False))
            row = Row(
                clock=printable(values["time"][:40]), frame=int(values["frame"]), time_s=float(values["time_s"]),
                id=int(values["id"]), label=_plain(values["label"]), score=float(values["score"]),
            )  # fmt: skip
            if not math.isfinite(row.time_s) or not 0 <= row.score <= 1:
                raise ValueError(f"time_s {row.time_s:g}, score {row.score:g}")
        except (ValueError, KeyError) as error:
            missing = f"no column {error}" if isinstance(error, KeyError) else printable(str(error))[:100]
            yield f"line {number}: {missing}"
            continue
        yield row


def _lines(path: Path) -> Iterator[list[str]]:
    if not path.is_file():
        raise InputError(f"There is no file {printable(str(path))}: name the CSV that `edgefer run --csv` wrote.")
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as opened:
            yield from csv.reader(line.replace("\0", "") for line in _bounded(opened))
    except csv.Error as error:
        raise InputError(f"{printable(str(path))} cannot be read as CSV: {error}.") from None
    except OSError as error:
        raise InputError(f"{printable(str(path))} cannot be read: {error.strerror}.") from None


def _bounded(opened) -> Iterator[str]:
    """The lines of a file, each at most 64 kB: one without an end would fill the memory."""
    while line := opened.readline(65536):
        yield line


def _plain(label: str) -> str:
    """A label as it was before it became a cell: without the apostrophe that keeps it from being a formula."""
    return printable(label[1:] if label.startswith("'") else label)[:80]
