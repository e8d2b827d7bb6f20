"""A run's results from its CSV: how often and when each label appeared, and the most notable moments."""

import csv
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from edgefer.devices.outputs.csvfile import COLUMNS, label_column
from edgefer.devices.outputs.rows import MAX_LANES, Lane, Row, near
from edgefer.errors import InputError
from edgefer.files import is_regular
from edgefer.records import UNSURE
from edgefer.text import own_word, printable

BINS = 240  # of a timeline, at most
MAX_RUNS = 50  # the last ones of a file; each has a timeline
MAX_SPANS = 20_000  # sources and their starts; each image of a folder is one
MAX_MOMENTS = 15
MAX_FACES = 10_000  # faces followed at a time; an untrusted file may have any number
MAX_LABELS = 200
MAX_TIME_S = 1e10
# A tracker never gives an id again after so long, in so many frames: its counting has restarted.
ABSENT_S, ABSENT_FRAMES = 10.0, 10
# Nor after so long, but a slow disk may have cost the rows in between. It is a restart if the clock went on for longer.
LOST_S, LOST_FRAMES, RESTART_S = 1.5, 3, 1.0
FIRST_IDS = 100  # remembered to see that

Span = tuple[str, int]  # a source, and how often it had restarted


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
    """A moment that has not ended yet."""

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
class _Source:
    """A source's last row, how often it had restarted, and the last row of each of its first faces."""

    last: Row
    starts: int = 0
    seen: dict[int, Row] = field(default_factory=dict)  # by id

    def add(self, row: Row) -> None:
        """The next row. The clock alone does not tell a restart from a pause, or from a video that is read slowly; ids do."""
        back = row.frame < self.last.frame or row.time_s < self.last.time_s
        if back or _given_again(self.seen.get(row.id, row), row):
            self.starts += 1
            self.seen.clear()
        if 0 < row.id <= FIRST_IDS:
            self.seen[row.id] = row
        self.last = row


def _given_again(seen: Row, row: Row) -> bool:
    """Whether the id of `seen` has been given to another face, in `row`: the tracker's counting has restarted."""
    absent_s, frames = row.time_s - seen.time_s, row.frame - seen.frame
    if absent_s > ABSENT_S and frames > ABSENT_FRAMES:
        return True
    if absent_s <= LOST_S or frames <= LOST_FRAMES:
        return False
    try:
        passed = datetime.fromisoformat(row.clock) - datetime.fromisoformat(seen.clock)
    except (ValueError, TypeError):  # edited, or with and without a time zone
        return False
    return passed.total_seconds() - absent_s > RESTART_S


@dataclass
class Run:
    """The rows of one source from one start of `edgefer run` to the next, or of consecutive images, each a source.

    unsure: the label of faces that could not be read. images: how many, or 0 for a video or camera. faces: the rows of
    each id, of MAX_FACES at most. lanes: those of the MAX_LANES with most rows, by id.
    """

    first: Row
    last: Row
    unsure: str
    images: int = 0
    rows: int = 0
    labels: Counter = field(default_factory=Counter)
    scores: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))  # sums, by label
    faces: Counter = field(default_factory=Counter)
    lanes: dict[int, Lane] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)  # a heap: the shortest first

    @property
    def bins(self) -> int:
        """The number of bins of its timeline; a short run has no more than frames."""
        return max(1, min(BINS, self.last.frame - self.first.frame + 1))

    def known(self, label: str) -> str:
        """The label if it was counted, else that of unsure faces: an untrusted file may have any number."""
        return label if label in self.labels else self.unsure

    def bin_of(self, row: Row) -> int:
        length_s = self.last.time_s - self.first.time_s
        place = int((row.time_s - self.first.time_s) / length_s * self.bins) if length_s > 0 else 0
        return min(self.bins - 1, max(0, place))


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole file. bad: rows that could not be read, and the first one's reason. earlier: runs before the ones in `runs`."""

    labels: tuple[str, ...]
    runs: tuple[Run, ...]
    bad: int
    bad_reason: str
    earlier: int


def read_report(path: Path) -> Report:
    """Read a CSV of `edgefer run --csv`. InputError for any other file, or without a row."""
    labels = _labels(path)
    spans: dict[Span, tuple[Row, Row]] = {}
    reasons: list[str] = []
    bad = earlier = 0
    for span, row in _spans(path):
        if isinstance(row, str):
            bad += 1
            reasons = reasons or [row]
            continue
        spans[span] = spans.get(span, (row, row))[0], row
        if len(spans) > MAX_SPANS:
            del spans[next(iter(spans))]
            earlier += 1
    if not spans:
        raise InputError(
            f"{printable(str(path))} has no row that can be read ({reasons[0] if reasons else 'no face was found'})."
        )
    runs = _runs(spans, own_word(UNSURE, labels))
    found = list({id(run): run for run in runs.values()}.values())
    earlier += len(found[:-MAX_RUNS])
    shown = found[-MAX_RUNS:]
    drawn = {id(run) for run in shown}
    _fill(path, {span: run for span, run in runs.items() if id(run) in drawn})
    return Report(labels=labels, runs=tuple(shown), bad=bad, bad_reason=reasons[0] if reasons else "", earlier=earlier)


def _runs(spans: dict[Span, tuple[Row, Row]], unsure: str) -> dict[Span, Run]:
    """The run of each span: consecutive images are one run, anything else is its own."""
    runs: dict[Span, Run] = {}
    images = None
    for span, (first, last) in spans.items():
        if (first.frame, first.time_s) != (last.frame, last.time_s):
            runs[span], images = Run(first=first, last=last, unsure=unsure), None
            continue
        images = images or Run(first=first, last=last, unsure=unsure)
        images.images += 1
        runs[span] = images
    return runs


def _fill(path: Path, runs: dict[Span, Run]) -> None:
    """Count the rows of each run, in a second pass, and fill its lanes in a third: a long file is never held in memory."""
    stretches: dict[tuple[Span, int], Stretch] = {}
    for span, row in _spans(path):
        if span in runs and not isinstance(row, str):
            _count(runs[span], row)
            if not runs[span].images:
                _follow(runs, stretches, (span, row.id), row)
    for (span, _), stretch in stretches.items():
        _keep(runs[span], stretch)
    timed = {span: run for span, run in runs.items() if not run.images}
    for run in timed.values():
        run.lanes = {face: Lane() for face in sorted(face for face, _ in run.faces.most_common(MAX_LANES))}
    for span, row in _spans(path) if timed else ():
        if span in timed and not isinstance(row, str) and (lane := timed[span].lanes.get(row.id)):
            lane.add(timed[span].bin_of(row), timed[span].known(row.label), row)


def _count(run: Run, row: Row) -> None:
    label = row.label if len(run.labels) < MAX_LABELS else run.known(row.label)
    run.rows += 1
    run.labels[label] += 1
    run.scores[label] += row.score
    if row.id in run.faces or len(run.faces) < MAX_FACES:
        run.faces[row.id] += 1


def _follow(
    runs: dict[Span, Run], stretches: dict[tuple[Span, int], Stretch], face: tuple[Span, int], row: Row
) -> None:
    """Continue the face's stretch, or end it and begin another."""
    going = stretches.get(face)
    if going and near(going.last, row) and going.first.label == row.label:
        going.last = row
        going.score_sum += row.score
        going.rows += 1
        return
    if going:
        _keep(runs[face[0]], going)
    elif len(stretches) >= MAX_FACES:
        oldest = next(iter(stretches))
        _keep(runs[oldest[0]], stretches.pop(oldest))
    stretches[face] = Stretch(row, row, row.score)


def _keep(run: Run, stretch: Stretch) -> None:
    moment = stretch.moment()
    if moment.label != run.unsure and moment.seconds > 0:
        heapq.heappush(run.moments, moment)
        if len(run.moments) > MAX_MOMENTS:
            heapq.heappop(run.moments)


def _spans(path: Path) -> Iterator[tuple[Span, Row | str]]:
    """Each row with its span, or the reason why it cannot be read."""
    going: dict[str, _Source] = {}
    for row in _rows(path):
        if isinstance(row, str):
            yield ("", 0), row
            continue
        source = going.pop(row.source, None) or _Source(row)
        source.add(row)
        going[row.source] = source
        if len(going) > MAX_SPANS:
            del going[next(iter(going))]
        yield (row.source, source.starts), row


def _labels(path: Path) -> tuple[str, ...]:
    """The labels in the header. InputError unless it is one of `edgefer run --csv`."""
    header = next(_lines(path), [])
    if tuple(header[: len(COLUMNS)]) != COLUMNS:
        raise InputError(
            f"{printable(str(path))} is not a CSV that `edgefer run --csv` wrote: its first line should begin with {','.join(COLUMNS)}."
        )
    known = {label_column(name): name for name in COLUMNS}
    return tuple(known.get(label, label) for label in map(_plain, header[len(COLUMNS) :][:MAX_LABELS]))


def _rows(path: Path) -> Iterator[Row | str]:
    """Each row after the header, or the reason why it cannot be read."""
    lines = _lines(path)
    next(lines, None)
    for number, cells in enumerate(lines, 2):
        try:
            values = dict(zip(COLUMNS, cells, strict=False))
            row = Row(
                clock=printable(values["time"][:40]), source=_plain(values.get("source", "")), frame=int(values["frame"]),
                time_s=float(values["time_s"]), id=int(values["id"]), label=_plain(values["label"]),
                score=float(values["score"]),
            )  # fmt: skip
            if not 0 <= row.time_s <= MAX_TIME_S or not 0 <= row.score <= 1:
                raise ValueError(f"time_s {row.time_s:g}, score {row.score:g}")
        except (ValueError, KeyError) as error:
            missing = f"no column {error}" if isinstance(error, KeyError) else printable(str(error))[:100]
            yield f"line {number}: {missing}"
            continue
        yield row


def _lines(path: Path) -> Iterator[list[str]]:
    if not is_regular(path):
        raise InputError(f"There is no file {printable(str(path))}: name the CSV that `edgefer run --csv` wrote.")
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as opened:
            yield from csv.reader(line.replace("\0", "") for line in _bounded(opened))
    except csv.Error as error:
        raise InputError(f"{printable(str(path))} cannot be read as CSV: {error}.") from None
    except OSError as error:
        raise InputError(f"{printable(str(path))} cannot be read: {error.strerror}.") from None


def _bounded(opened) -> Iterator[str]:
    """The lines of a file, each at most 64 kB: an endless one would fill the memory."""
    while line := opened.readline(65536):
        yield line


def _plain(label: str) -> str:
    """The label in a cell, without the apostrophe that prevents a formula."""
    return printable(label[1:] if label.startswith("'") else label)[:80]
