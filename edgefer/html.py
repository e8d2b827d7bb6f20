"""Builds edgefer's reports: self-contained HTML files with embedded images.

A page works offline, in light and dark mode, on a phone and in print. Parts are HTML; the functions here escape every text
argument, control characters included.
"""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape as escape_html
from pathlib import Path

import cv2
import numpy as np

from edgefer.errors import InputError
from edgefer.text import printable

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --faint: #5b6472; --line: #dde1e6; --paper: #fff; --good: #1a7f37; --bad: #c62828; --doubt: #9a6700; --plate: #fff }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --faint: #9aa4b2; --line: #333b47; --paper: #14171c; --good: #4cc26a; --bad: #ff7b72; --doubt: #e0a93b } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1.6rem clamp(.8rem, 3vw, 2rem) 3rem; color: var(--ink); background: var(--paper) }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; overflow-wrap: anywhere } h2 { font-size: 1.2rem; margin: 2.2rem 0 .3rem } h3 { font-size: 1rem; margin: 1.2rem 0 .2rem }
p { margin: .4rem 0; max-width: 50rem; overflow-wrap: anywhere } .faint { color: var(--faint) } code { font-size: .85em; overflow-wrap: anywhere }
.scroll { overflow-x: auto; max-width: 100%; margin: .6rem 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
td { overflow-wrap: break-word } td.n, th.n { text-align: right } td.n { white-space: nowrap } td.short { white-space: nowrap }
td.wide { min-width: min(16rem, 60vw) } th { font-weight: 600 } td.status { white-space: nowrap; font-weight: 600 }
.pass { color: var(--good); font-weight: 600 } .FAIL { color: var(--bad); font-weight: 600 }
.doubtful, .warn, .not-checked { color: var(--doubt); font-weight: 600 }
img, svg { max-width: 100%; height: auto } .plot img { background: var(--plate); border-radius: 4px }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem; align-items: start }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr)); gap: 1rem .7rem; margin: .8rem 0 }
figure { margin: 0; min-width: 0; font-size: .78rem; line-height: 1.35 } figcaption span { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.sheet img { width: 100%; aspect-ratio: 1; display: block; margin-bottom: .25rem; border-radius: 3px } figcaption span.file { color: var(--faint) }
figure.good img { outline: 3px solid var(--good) } figure.bad img { outline: 3px solid var(--bad) }
svg text { fill: var(--ink) } svg text.faint { fill: var(--faint) } svg .good { stroke: var(--good); fill: var(--good) } svg .bad { stroke: var(--bad); fill: var(--bad) }
svg .doubtful { stroke: var(--doubt); fill: var(--doubt) } svg .zero { stroke: var(--faint) } svg .limit { stroke: var(--bad); stroke-dasharray: 4 3 }
@media (max-width: 40rem) {
  body { font-size: 14px } h1 { font-size: 1.35rem } th, td { padding-right: .7rem }
  .stack thead, .stack td:empty { display: none } .stack tr { display: block; padding: .45rem 0; border-bottom: 1px solid var(--line) }
  .stack td { display: block; padding: 0; border: 0; text-align: left; overflow-wrap: anywhere }
}
@media print { .scroll { overflow: visible } figure { break-inside: avoid } }
"""
START = (  # of every page, by which it is recognized
    '<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
)
FIGURE = re.compile(r"([+-]?\d[-+\d.,%e/ \[\]]*( to [\d.%]+)?)?")
STATUSES = {"pass", "FAIL", "doubtful", "warn", "not checked"}  # shown in their colour
SHORT, WIDE = 24, 48  # characters: a column up to SHORT is not wrapped, one from WIDE on gets a minimum width


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image of a contact sheet: uint8 [h, w, 1] gray or [h, w, 3], lines below it, "good", "bad" or neither.

    file: its name, below the lines; truncated if it is long, with the full name as a tooltip.
    """

    image: np.ndarray
    lines: tuple[str, ...]
    kind: str = ""
    file: str = ""


def escape(text: str) -> str:
    """Text as HTML, safe as content and in a quoted attribute: no markup, control or bidirectional characters."""
    return escape_html(printable(text))


def page(title: str, parts: Iterable[str]) -> str:
    """The whole file: its parts are HTML."""
    head = f"<title>{escape(title)}</title><style>{STYLE}</style>"
    return f"{START}{head}</head><body>{''.join(parts)}</body></html>\n"


def check_replaceable(path: Path, option: str, *, start: str = START, kind: str = "page") -> None:
    """InputError for a file that is not one of edgefer, by its start: it would be lost."""
    if not path.is_file():
        return
    try:
        with path.open("rb") as opened:
            ours = opened.read(len(start)) == start.encode()
    except OSError:  # not readable
        ours = False
    if not ours:
        raise InputError(
            f"{printable(str(path))} is there already and is not a {kind} of edgefer: name another one with {option}, or remove it first."
        )


def heading(text: str, level: int = 2) -> str:
    """A heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; kind: "faint" for explanations."""
    return f'<p class="{escape(kind)}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; columns of figures are right-aligned. On a narrow screen it scrolls in its own box or, with sentences in it,
    stacks the cells of each row."""
    figures = [all(FIGURE.fullmatch(row[number]) for row in rows) for number in range(len(columns))]
    widest = [max((len(row[number]) for row in rows), default=0) for number in range(len(columns))]

    def classes(number: int, cell: str) -> str:
        if figures[number]:
            return "n"
        if cell in STATUSES:
            return f"status {cell.replace(' ', '-')}"
        return "wide" if widest[number] >= WIDE else "short" if widest[number] <= SHORT else ""

    def line(tag: str, cells: Sequence[str]) -> str:
        marks = [classes(number, cell) for number, cell in enumerate(cells)]
        return (
            "<tr>"
            + "".join(
                f'<{tag} class="{mark}">{escape(cell)}</{tag}>' if mark else f"<{tag}>{escape(cell)}</{tag}>"
                for cell, mark in zip(cells, marks, strict=True)
            )
            + "</tr>"
        )

    body = "".join(line("td", row) for row in rows)
    kind = ' class="stack"' if max(widest, default=0) >= WIDE else ""
    return f'<div class="scroll"><table{kind}><thead>{line("th", columns)}</thead><tbody>{body}</tbody></table></div>'


def image(png: bytes, description: str) -> str:
    """An image, embedded in the page."""
    return f'<img alt="{escape(description)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def plot(png: bytes, description: str) -> str:
    """A plot, drawn on white, embedded in the page."""
    return f'<div class="plot">{image(png, description)}</div>'


def contact_sheet(pictures: Iterable[Picture], color: str = "rgb") -> str:
    """A grid of images, each with its lines and its file's name below it. color: "bgr" if blue comes first."""
    cells = []
    for one in pictures:
        image_bgr = np.ascontiguousarray(one.image[..., ::-1] if color == "rgb" else one.image)
        png = cv2.imencode(".png", cv2.resize(image_bgr, (120, 120), interpolation=cv2.INTER_CUBIC))[1].tobytes()
        lines = [_caption(text) for text in one.lines]
        if one.file:
            lines.append(_caption(one.file, short=one.file.replace("\\", "/").rpartition("/")[2]))
        cells.append(
            f'<figure class="{escape(one.kind)}">{image(png, " ".join(one.lines))}<figcaption>{"".join(lines)}</figcaption></figure>'
        )
    return f'<div class="sheet">{"".join(cells)}</div>'


def _caption(text: str, short: str = "") -> str:
    """A line below an image; short: the visible part of a file's name."""
    kind = ' class="file"' if short else ""
    return f'<span{kind} title="{escape(text)}">{escape(short or text)}</span>'
