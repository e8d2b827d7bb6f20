"""A run's results as one HTML page: shares, a timeline and the most notable moments."""

from edgefer import html
from edgefer.devices.outputs.overlay import web_color
from edgefer.devices.outputs.recorded import Report, Run
from edgefer.html import escape
from edgefer.records import UNSURE
from edgefer.text import own_word

NO_LABEL = "#7d868e"


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
        for one in sorted(run.moments, key=lambda one: one.start_s)
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
        f'<text x="{width * share:.0f}" y="{height + 16}" text-anchor="{anchor}">{_clock(round(length_s * share))}</text>'
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
    """A colour for each label, as on the page and the overlay; gray for unsure and unknown labels."""
    own = {label: web_color(label, report.labels) for label in report.labels}
    others = sorted({label for run in report.runs for label in run.labels} - set(own))
    return own | dict.fromkeys((*others, own_word(UNSURE, report.labels)), NO_LABEL)


def _clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    whole = max(0, int(seconds))
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
