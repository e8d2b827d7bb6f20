"""A run's results as one HTML page: shares, a timeline of each face and the longest moments."""

from edgefer import html
from edgefer.devices.outputs.overlay import web_color
from edgefer.devices.outputs.recorded import MAX_FACES, Report, Run
from edgefer.html import escape
from edgefer.records import UNSURE
from edgefer.text import counted, own_word

NO_LABEL = "#7d868e"
WIDTH, NAMES, LANE = 960, 80, 24  # of a timeline, the names at its left, and the height of a face's lane


def to_html(report: Report, name: str) -> str:
    """The page."""
    colors = _colors(report)
    rows = sum(run.rows for run in report.runs)
    parts = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="faint">{rows:,} faces read, counting each frame. '
        "Shares are of these; frames without a face are not in the file.</p>",
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
    if run.images:  # images have no duration
        return [f"<h2>{escape(_title(run))}</h2>", shared]
    moments = [
        (
            _clock(one.start_s),
            _date(one.clock),
            one.label,
            str(one.id or ""),
            f"{one.seconds:.1f}",
            f"{one.mean_score:.0%}",
        )
        for one in sorted(run.moments, key=lambda one: (-one.seconds, one.start_s))
    ]
    listed = html.table(("at", "read at (UTC)", "label", "face", "seconds", "mean score"), moments)
    return [
        f"<h2>{escape(_title(run))}, {_clock(round(length_s))} long</h2>",
        _timeline(run, colors),
        _legend(run, colors),
        shared,
        "<h3>Longest moments</h3>",
        listed if moments else "<p>none: no face had one label, other than unsure, in successive frames</p>",
    ]


def _title(run: Run) -> str:
    """The source and the time of the run."""
    what = f"{run.images:,} images" if run.images > 1 else run.first.source
    return ", ".join([*filter(None, [what, "one image" * (run.images == 1)]), f"read at {_date(run.first.clock)} UTC"])


def _date(clock: str) -> str:
    """2026-11-27T04:52:42.863Z as 2026-11-27 04:52:42."""
    return clock[:19].replace("T", " ")


def _timeline(run: Run, colors: dict[str, str]) -> str:
    """A lane per face with its labels over the run, as SVG, and how many faces have none."""
    wide, height = WIDTH - NAMES, LANE * len(run.lanes)
    lanes = "".join(_lane(run, face, number * LANE, colors) for number, face in enumerate(run.lanes))
    length_s = run.last.time_s - run.first.time_s
    ticks = "".join(
        f'<text x="{NAMES + wide * share:.0f}" y="{height + 14}" text-anchor="{anchor}">{_clock(round(run.first.time_s + length_s * share))}</text>'
        for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
    )
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {height + 20}" style="width:100%" role="img" aria-label="The label of each face over time" '
        f'font-size="12" fill="#667" shape-rendering="crispEdges">{lanes}{ticks}</svg>'
    )
    if not (rest := len(run.faces) - len(run.lanes)):
        return svg
    least = "at least " * (len(run.faces) >= MAX_FACES)
    return f'{svg}<p class="faint">{least}{counted(rest, "face")} seen in fewer frames {"is" if rest == 1 else "are"} not drawn.</p>'


def _lane(run: Run, face: int, top: int, colors: dict[str, str]) -> str:
    step, tall = (WIDTH - NAMES) / run.bins, LANE - 6
    parts = [
        f'<text x="0" y="{top + tall - 4}">{f"face {face}"[:12] if face else "not tracked"}</text>'
        f'<rect x="{NAMES}" y="{top}" width="{WIDTH - NAMES}" height="{tall}" fill="#888" fill-opacity=".15"/>'
    ]
    for begin, end, label in run.lanes[face].stretches():
        left, right = (NAMES + round(place * step) for place in (begin, end))  # whole, so that no seam is between two
        place = f'x="{left}" y="{top}" width="{max(1, right - left)}" height="{tall}"'
        parts.append(f'<rect {place} fill="{colors.get(label, NO_LABEL)}"><title>{escape(label)}</title></rect>')
    return "".join(parts)


def _legend(run: Run, colors: dict[str, str]) -> str:
    swatch = '<span style="display:inline-block;width:.8em;height:.8em;border-radius:2px;background:{}"></span> {}'
    seen = [swatch.format(color, escape(label)) for label, color in colors.items() if run.labels[label]]
    return f"<p>{' &nbsp; '.join(seen)}</p>"


def _colors(report: Report) -> dict[str, str]:
    """A colour for each label, as on the page and the overlay; gray for unsure and unknown labels."""
    own = {label: web_color(label, report.labels) for label in report.labels}
    others = sorted({label for run in report.runs for label in run.labels} - set(own))
    return own | dict.fromkeys((*others, own_word(UNSURE, report.labels)), NO_LABEL)


def _clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    whole = max(0, int(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
