"""HTML reports: untrusted text is escaped, nothing is cut off, file names do not overlap."""

import base64
import re
import subprocess

import cv2
import numpy as np
import pytest
from conftest import CHROMIUM

from edgefer.html import Picture, contact_sheet, escape, heading, page, paragraph, table

NAME = "a folder/with a long name/subject-0011_session-02_camera-07_frame-000011.png"


def test_untrusted_text_is_shown_as_plain_text():
    evil = '<script>alert(1)</script>" onerror=x \x1b[31m \u202e'
    picture = Picture(image=np.zeros((8, 8, 1), np.uint8), lines=(evil,), kind="bad", file=evil)
    made = page(evil, [heading(evil), paragraph(evil), table((evil,), [(evil,)]), contact_sheet([picture])])
    assert "<script" not in made and '" onerror' not in made and "\x1b" not in made and "\u202e" not in made
    assert made.count(escape(evil)) >= 6 and "default-src 'none'" in made


def test_file_name_is_shown_with_its_whole_path_as_title():
    sheet = contact_sheet([Picture(image=np.zeros((8, 8, 3), np.uint8), lines=("is sad",), file=NAME)])
    assert f'title="{NAME}">subject-0011_session-02_camera-07_frame-000011.png<' in sheet


@pytest.mark.parametrize(("color", "pixel"), [("rgb", (255, 0, 0)), ("bgr", (0, 0, 255)), ("gray", (90,))])
def test_images_are_shown_in_their_own_colours(color, pixel):
    image = np.full((8, 8, len(pixel)), pixel, np.uint8)
    sheet = contact_sheet([Picture(image=image, lines=("is red",))], color)
    png = base64.b64decode(re.search('base64,([^"]+)', sheet)[1])
    shown = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert (shown == ((90, 90, 90) if color == "gray" else (0, 0, 255))).all()


def test_statuses_and_figures_have_their_own_css_classes():
    made = table(("check", "", "figure"), [("a", "not checked", "+1.0"), ("b", "FAIL", "-20.5")])
    assert 'class="status not-checked">not checked<' in made and 'class="status FAIL">FAIL<' in made
    assert made.count('<td class="n">') == 2


@pytest.mark.chromium
@pytest.mark.parametrize("width", [1200, 500])
def test_a_page_is_never_wider_than_its_window(tmp_path, width):
    """Only a table in its own box may scroll; names below images stay in their column. Chromium's narrowest window is 500."""
    rows = [
        (f"int8 on tflite-runtime {n}", "origin", "+12.14 [+3.36, +20.59]", "x" * 90, "sentence " * 9) for n in range(3)
    ]
    pictures = [Picture(image=np.zeros((8, 8, 1), np.uint8), lines=("is sad",), file=NAME) for _ in range(9)]
    figures = table(("network", *(f"column {n}" for n in range(14))), [("a", *["+12.14"] * 14)])
    parts = [heading("x" * 300, 1), table(("a", "b", "c", "d", "e"), rows), figures, contact_sheet(pictures)]
    made = page("report", parts)
    measure = """<script>
      const inside = [...document.querySelectorAll('figcaption span')].every(
        one => one.getBoundingClientRect().right <= one.closest('figure').getBoundingClientRect().right + 1);
      document.title = 'measured ' + document.documentElement.scrollWidth + ' ' + innerWidth + ' ' + inside;
    </script>"""
    made = made.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'").replace(
        "</body>", f"{measure}</body>"
    )
    (tmp_path / "page.html").write_text(made)
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"]
    done = subprocess.run(
        [CHROMIUM, *options, f"file://{tmp_path}/page.html"], capture_output=True, text=True, timeout=120
    )
    scroll, inner, inside = done.stdout.split("<title>measured ")[1].split("</title>")[0].split()
    assert int(scroll) <= int(inner) == width and inside == "true"
