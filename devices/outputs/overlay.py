"""Frames for display: annotated with the results, and optionally with blurred faces."""

import unicodedata
from dataclasses import dataclass

import cv2
import numpy as np

from edgefer.records import Face, Frame
from edgefer.text import printable

FONT = cv2.FONT_HERSHEY_SIMPLEX
# One colour per class (BGR), from the colour-blind-safe Okabe-Ito palette, and a brown.
COLORS = (
    (0, 94, 213),
    (167, 121, 204),
    (178, 114, 0),
    (66, 228, 240),
    (233, 180, 86),
    (0, 159, 230),
    (115, 158, 0),
    (42, 75, 124),
)
GRAY = (150, 150, 150)
MIN_TEXT_PX = 10  # height of capitals; smaller ones are illegible
TEXT_SHARE = 0.018  # of the image's shorter side: the same size for every image resolution
BLUR_CELLS = 6  # cells per side of a blurred face: too few for people and networks
BLUR_MARGIN = 0.25  # of the box's size, around it: hair and chin too


@dataclass(frozen=True, kw_only=True)
class View:
    """How all outputs draw frames. blur_faces: make faces unrecognizable."""

    blur_faces: bool = False

    def plain(self, frame: Frame) -> np.ndarray:
        """The frame without annotations, uint8 BGR [h, w, 3]; shared, so do not modify it."""
        if not self.blur_faces:
            return frame.image_bgr
        return frame.once("blurred", lambda: blurred(frame.image_bgr, frame.faces))

    def annotated(self, frame: Frame) -> np.ndarray:
        """The frame with its faces drawn on it, uint8 BGR [h, w, 3]; shared, so do not modify it."""
        key, image = ("annotated, blurred" if self.blur_faces else "annotated"), self.plain(frame)
        return frame.once(key, lambda: draw(image, frame.faces))


def draw(image_bgr: np.ndarray, faces: tuple[Face, ...]) -> np.ndarray:
    """A copy of the image (uint8 BGR [h, w, 3]) with a box, a label with its score, and a named bar per label for each face.

    Text and lines scale with the image, so they are legible at 320 pixels and at 4K.
    """
    image = image_bgr.copy()
    height = text_height(image)
    for face in faces:
        left, top, right, bottom = face.box_xyxy
        color = GRAY if face.unsure else color_of(face.label, tuple(face.scores))
        text = f"unsure: {face.unsure}" if face.unsure else f"{drawable(face.label)} {face.score:.0%}"
        cv2.rectangle(image, (left, top), (right, bottom), color, max(1, round(height / 6)), cv2.LINE_AA)
        _title(image, text, left, top, color, height)
        _bars(image, face, height)
    return image


def blurred(image_bgr: np.ndarray, faces: tuple[Face, ...]) -> np.ndarray:
    """A copy of the image with every face pixelated."""
    image = image_bgr.copy()
    rows, columns = image.shape[:2]
    for face in faces:
        left, top, right, bottom = face.box_xyxy
        dx, dy = round(BLUR_MARGIN * (right - left)), round(BLUR_MARGIN * (bottom - top))
        x0, x1 = max(0, left - dx), min(columns, right + dx)
        y0, y1 = max(0, top - dy), min(rows, bottom + dy)
        if x0 < x1 and y0 < y1:
            part = image[y0:y1, x0:x1]
            cells = cv2.resize(part, (BLUR_CELLS, BLUR_CELLS), interpolation=cv2.INTER_AREA)
            image[y0:y1, x0:x1] = cv2.resize(cells, (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST)
    return image


def color_of(label: str, labels: tuple[str, ...]) -> tuple[int, int, int]:
    """A label's colour (BGR), by its index in the network's labels; gray for an unknown label."""
    return COLORS[labels.index(label) % len(COLORS)] if label in labels else GRAY


def web_color(label: str, labels: tuple[str, ...]) -> str:
    """The same for CSS, "#rrggbb"."""
    return "#{2:02x}{1:02x}{0:02x}".format(*color_of(label, labels))


def text_height(image: np.ndarray) -> int:
    """The height of capitals on an image, in pixels."""
    return max(MIN_TEXT_PX, round(TEXT_SHARE * min(image.shape[:2])))


def drawable(text: str) -> str:
    """Text in the letters that OpenCV can draw: accents are removed, other characters become question marks."""
    letters = (one for one in unicodedata.normalize("NFKD", text) if not unicodedata.combining(one))
    return printable("".join(letters)).encode("ascii", "replace").decode()


def _size(text: str, height: int) -> tuple[float, int, int, int]:
    """(font scale, thickness, width, descent) of a text whose capitals are `height` pixels tall."""
    thickness = max(1, round(height / 9))
    scale = cv2.getFontScaleFromHeight(FONT, height, thickness)
    (width, _), descent = cv2.getTextSize(text, FONT, scale, thickness)
    return scale, thickness, width, descent


def _title(image: np.ndarray, text: str, left: int, top: int, color: tuple, height: int) -> None:
    scale, thickness, width, descent = _size(text, height)
    pad = max(3, height // 4)
    # Above the box, or inside it at the image's edge.
    base = top - descent - pad if top - height - descent - 2 * pad >= 0 else max(0, top) + height + pad
    left = max(0, min(left, image.shape[1] - width - 2 * pad))
    cv2.rectangle(image, (left, base - height - pad), (left + width + 2 * pad, base + descent), color, -1)
    bright = 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2] > 110
    ink = (0, 0, 0) if bright else (255, 255, 255)
    cv2.putText(image, text, (left + pad, base), FONT, scale, ink, thickness, cv2.LINE_AA)


def _bars(image: np.ndarray, face: Face, height: int) -> None:
    """A named bar per label on a dark background: below, beside or inside the box, depending on the room."""
    names = [drawable(label) for label in face.scores]
    small = max(MIN_TEXT_PX - 2, round(0.75 * height))
    sizes = [_size(name, small) for name in names]
    name_width, pad, step = max(size[2] for size in sizes), max(2, small // 3), round(1.6 * small)
    width = max(min(face.box_xyxy[2] - face.box_xyxy[0], name_width + 14 * small), name_width + 5 * small)
    total = step * len(names) + pad
    x, y = _place(image, face.box_xyxy, width, total)
    x1, y1 = min(image.shape[1], x + width), min(image.shape[0], y + total)
    ground = image[y:y1, x:x1]
    ground[:] = (ground * 0.35).astype(np.uint8)
    room = width - name_width - 3 * pad
    for row, (name, score) in enumerate(zip(names, face.scores.values(), strict=True)):
        base = y + pad + row * step + small
        if base >= image.shape[0]:
            return
        scale, thickness = sizes[row][:2]
        cv2.putText(image, name, (x + pad, base), FONT, scale, (255, 255, 255), thickness, cv2.LINE_AA)
        start = x + name_width + 2 * pad
        end = start + max(1, round(score * room))
        cv2.rectangle(image, (start, base - small), (end, base), COLORS[row % len(COLORS)], -1)


def _place(image: np.ndarray, box: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int]:
    """The upper left corner of a panel of this size near the box and inside the image."""
    rows, columns = image.shape[:2]
    left, top, right, bottom = box
    x, y = max(0, min(left, columns - width)), max(0, min(top, rows - height))
    if bottom + height <= rows:
        return x, max(0, bottom + 2)
    if right + width <= columns:
        return max(0, right + 2), y
    if left - width >= 0:
        return left - width - 2 if left - width >= 2 else 0, y
    return x, max(0, rows - height)
