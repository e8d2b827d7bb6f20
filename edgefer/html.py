"""What edgefer's reports are built of: one HTML file with its pictures inside, to look at or send on."""

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import cv2
import numpy as np

STYLE = """
:root { color-scheme: light; --ink: #1f2328; --faint: #667; --line: #dde1e6; --good: #1a7f37; --bad: #c62828; --doubt: #9a6700 }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink) }
h1 { font-size: 1.7rem; margin: 0 0 .3rem } h2 { font-size: 1.2rem; margin: 2.2rem 0 .3rem }
p { margin: .4rem 0; max-width: 50rem } .faint { color: var(--faint) } code { font-size: .85em; overflow-wrap: anywhere }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
th { font-weight: 600 } th.n, td.n { text-align: right } td.n, td:first-child { white-space: nowrap } .scroll { overflow-x: auto }
.pass { color: var(--good); font-weight: 600 } .FAIL { color: var(--bad); font-weight: 600 }
.doubtful { color: var(--doubt); font-weight: 600 }
img { max-width: 100% } .row { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem; align-items: start }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr)); gap: .9rem .6rem; margin: .8rem 0 }
figure { margin: 0; font-size: .78rem; line-height: 1.35 } figure img { width: 7.5rem; display: block; margin-bottom: .2rem; border-radius: 3px }
figure.good img { outline: 3px solid var(--good) } figure.bad img { outline: 3px solid var(--bad) }
"""
FIGURE = re.compile(r"([+-]?\d[-+\d.,%e/ \[\]]*( to [\d.%]+)?)?")
WORDS = {"pass", "FAIL", "doubtful"}  # set in their colour


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of a contact sheet: uint8 [h, w, 1] gray or [h, w, 3] RGB, lines below it, "good", "bad" or neither."""

    image: np.ndarray
    lines: tuple[str, ...]
    kind: str = ""


def page(title: str, parts: Iterable[str]) -> str:
    """The whole file: its parts are HTML."""
    head = f'<meta charset=utf-8><meta name=viewport content="width=device-width"><title>{escape(title)}</title>'
    return (
        f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; columns of figures are set to the right."""
    figures = [all(FIGURE.fullmatch(row[number]) for row in rows) for number in range(len(columns))]

    def line(tag: str, cells: Sequence[str]) -> str:
        classes = ["n" if right else cell if cell in WORDS else "" for cell, right in zip(cells, figures, strict=True)]
        marked = (f' class="{name}"' if name else "" for name in classes)
        return "<tr>" + "".join(f"<{tag}{m}>{escape(c)}</{tag}>" for c, m in zip(cells, marked, strict=True)) + "</tr>"

    return f'<div class="scroll"><table>{line("th", columns)}{"".join(line("td", row) for row in rows)}</table></div>'


def image(png: bytes, what: str) -> str:
    """A picture, inside the page."""
    return f'<img alt="{escape(what)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def contact_sheet(pictures: Iterable[Picture]) -> str:
    """Pictures in rows, each with its lines below it."""
    cells = []
    for one in pictures:
        bgr = cv2.cvtColor(one.image, cv2.COLOR_GRAY2BGR if one.image.shape[2] == 1 else cv2.COLOR_RGB2BGR)
        png = cv2.imencode(".png", cv2.resize(bgr, (120, 120), interpolation=cv2.INTER_CUBIC))[1].tobytes()
        caption = "<br>".join(escape(text) for text in one.lines)
        cells.append(
            f'<figure class="{one.kind}">{image(png, one.lines[0])}<figcaption>{caption}</figcaption></figure>'
        )
    return f'<div class="sheet">{"".join(cells)}</div>'
