"""One drawn face: a person, an expression, and the shapes that make them on a canvas."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

CANVAS = 192  # a face is drawn at this size, in coordinates -1..1 from its centre, and then downscaled
JAW = 0.13  # how far talking opens a mouth, in these coordinates: half of a resting mouth's width

ANGLES = np.linspace(0, 2 * np.pi, 48)
CIRCLE = np.column_stack([np.cos(ANGLES), np.sin(ANGLES)])

Color = Sequence[float] | np.ndarray  # BGR, 0..255
Points = Sequence[tuple[float, float]] | np.ndarray  # [n, 2], x and y in -1..1


@dataclass(frozen=True)
class _Look:
    """An expression: offsets in face units (half a canvas), y downwards; a resting face is all defaults."""

    brow_y: float = 0.0  # negative: raised
    brow_tilt: float = 0.0  # positive: inner ends down
    eye_open: float = 1.0
    mouth_curve: float = 0.0  # positive: corners up
    mouth_open: float = 0.0
    mouth_width: float = 0.27
    teeth: float = 0.0
    wrinkle: float = 0.0  # of the nose
    skew: float = 0.0  # one corner of the mouth raised


_LOOKS = {
    "angry": _Look(brow_y=0.05, brow_tilt=0.10, eye_open=0.75, mouth_curve=-0.05, mouth_open=0.05, teeth=0.6),
    "disgust": _Look(
        brow_y=0.04, brow_tilt=0.05, eye_open=0.55, mouth_curve=-0.05, mouth_width=0.22, wrinkle=1, skew=0.07
    ),
    "fear": _Look(
        brow_y=-0.04, brow_tilt=-0.06, eye_open=1.35, mouth_open=0.09, mouth_width=0.3, mouth_curve=-0.04, teeth=0.5
    ),
    "happy": _Look(brow_y=-0.02, eye_open=0.8, mouth_curve=0.13, mouth_open=0.08, mouth_width=0.34, teeth=1),
    "sad": _Look(brow_y=0.02, brow_tilt=-0.08, eye_open=0.65, mouth_curve=-0.11, mouth_width=0.24),
    "surprise": _Look(brow_y=-0.06, eye_open=1.4, mouth_open=0.15, mouth_width=0.15),
    "neutral": _Look(),
}


@dataclass(frozen=True)
class Person:
    """What stays the same while a face moves and its expression changes."""

    skin: tuple[float, float, float]  # BGR, 0..255
    hair: tuple[float, float, float]
    lips: tuple[float, float, float]
    width: float
    eye_gap: float
    brow_thickness: float
    fringe: float
    long_hair: bool
    glasses: bool
    beard: float
    light: tuple[float, float]  # its direction, -1..1

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Person":
        tone = rng.uniform(0, 1)
        skin = np.array([195, 215, 242]) * (1 - tone) + np.array([62, 88, 130]) * tone + rng.normal(0, 6, 3)
        hair = np.array([(28, 30, 36), (35, 52, 82), (70, 118, 168), (120, 122, 125)][rng.integers(4)]) * rng.uniform(
            0.7, 1.1
        )
        return cls(
            skin=tuple(skin),
            hair=tuple(hair),
            lips=tuple(skin * np.array([0.7, 0.62, 0.85])),
            width=rng.uniform(0.63, 0.72),
            eye_gap=rng.uniform(0.26, 0.3),
            brow_thickness=rng.uniform(0.03, 0.055),
            fringe=rng.uniform(-0.76, -0.58),
            long_hair=bool(rng.random() < 0.45),
            glasses=bool(rng.random() < 0.15),
            beard=float(rng.uniform(0.15, 0.4)) if rng.random() < 0.2 else 0.0,
            light=(rng.uniform(-0.6, 0.6), rng.uniform(-0.5, 0.1)),
        )


@dataclass(frozen=True)
class _Canvas:
    """Shapes, feathered by `softness` (face units), blended into float32 planes of blue, green and red [3, CANVAS, CANVAS].

    Planes, since numpy is slow at a last axis of 3.
    """

    planes: np.ndarray

    def blob(
        self, centre: tuple[float, float], radii: tuple[float, float], color: Color, softness=0.0, strength=1.0
    ) -> None:
        """A filled ellipse."""
        self.polygon(CIRCLE * radii + centre, color, softness, strength)

    def polygon(self, points: Points, color: Color, softness=0.012, strength=1.0) -> None:
        def fill(mask: np.ndarray, path: np.ndarray) -> None:
            cv2.fillPoly(mask, [path], 255, cv2.LINE_AA, 4)

        self._paint(points, 0, softness, fill, np.asarray(color, np.float32), strength)

    def line(self, points: Points, color: Color, thickness: float, softness=0.012) -> None:
        width = max(1, round(thickness * CANVAS / 2))

        def stroke(mask: np.ndarray, path: np.ndarray) -> None:
            cv2.polylines(mask, [path], False, 255, width, cv2.LINE_AA, 4)

        self._paint(points, thickness, softness, stroke, np.asarray(color, np.float32), 1.0)

    def _paint(
        self,
        points: Points,
        reach: float,
        softness: float,
        draw: Callable[[np.ndarray, np.ndarray], None],
        color: np.ndarray,
        strength: float,
    ) -> None:
        """Blend in `color` where `draw` marks the path, working only on the affected part of the canvas."""
        path = np.round((np.asarray(points) + 1) * (CANVAS * 8)).astype(np.int32)  # in sixteenths of a pixel
        margin = round((reach + 3 * softness) * CANVAS / 2) + 2
        left, top = np.maximum(path.min(axis=0) // 16 - margin, 0)
        right, bottom = np.minimum(path.max(axis=0) // 16 + margin + 1, CANVAS)
        if left >= right or top >= bottom:
            return
        mask = np.zeros((bottom - top, right - left), np.uint8)
        draw(mask, path - np.array([left, top], np.int32) * 16)
        if softness:
            width = (max(1, round(softness * CANVAS)),) * 2
            mask = cv2.blur(cv2.blur(mask, width), width)  # nearly Gaussian, and fast at any width
        share = mask * np.float32(strength / 255)
        region = self.planes[:, top:bottom, left:right]
        region += (color[:, None, None] - region) * share


def draw_face(
    person: Person, expression: str, rng: np.random.Generator, *, yaw: float = 0.0, pitch: float = 0.0, jaw: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """One upright face: uint8 BGR [192, 192, 3] and its coverage, float32 [192, 192] in 0..1.

    yaw and pitch, about -1..1, turn it right and down; `rng` varies the expression a little. jaw, 0..1, opens the mouth as
    in talking.
    """
    look = _varied(_LOOKS[expression], rng)
    look = replace(look, mouth_open=look.mouth_open + JAW * jaw)
    turn_x, turn_y = 0.07 * yaw, 0.05 * pitch
    head, cover = _hair_and_head(person, turn_x)
    canvas = _Canvas(np.stack(cv2.split(head)))
    face = _Portrait(canvas=canvas, person=person, skin=np.array(person.skin), look=look, turn_x=turn_x, turn_y=turn_y)
    face.shading()
    face.nose()
    face.eyes()
    face.mouth()
    face.fringe()
    image = cv2.merge(np.clip(canvas.planes, 0, 255).astype(np.uint8))
    return image, np.clip(cover, 0, 1)


def _hair_and_head(person: Person, turn_x: float) -> tuple[np.ndarray, np.ndarray]:
    """Both, solid: float32 BGR [CANVAS, CANVAS, 3], and the coverage of the face, float32 [CANVAS, CANVAS]."""
    image = np.zeros((CANVAS, CANVAS, 3), np.float32)
    cover = np.zeros((CANVAS, CANVAS), np.float32)
    hair_height = 0.95 if person.long_hair else 0.62
    hair_width, hair_y = person.width + 0.1, 0.08 if person.long_hair else -0.12
    for x, y, width, height, color in (
        (-turn_x / 2, hair_y, hair_width, hair_height, person.hair),
        (0, 0.02, person.width, 0.86, person.skin),
    ):
        middle = round((x + 1) * CANVAS * 8), round((y + 1) * CANVAS * 8)
        axes = round(width * CANVAS * 8), round(height * CANVAS * 8)
        cv2.ellipse(image, middle, axes, 0, 0, 360, color, -1, cv2.LINE_AA, 4)
        cv2.ellipse(cover, middle, axes, 0, 0, 360, 1.0, -1, cv2.LINE_AA, 4)
    return image, cover


def _varied(look: _Look, rng: np.random.Generator) -> _Look:
    """A random variation of the expression."""
    moved = {
        name: value + rng.normal(0, 0.012)
        for name, value in vars(look).items()
        if name not in ("eye_open", "wrinkle", "teeth")
    }
    return replace(look, **moved, eye_open=look.eye_open * rng.uniform(0.9, 1.1))


@dataclass(frozen=True, kw_only=True)
class _Portrait:
    """A face being drawn; its parts are drawn from back to front."""

    canvas: _Canvas
    person: Person
    skin: np.ndarray
    look: _Look
    turn_x: float
    turn_y: float

    def shading(self) -> None:
        """Darken the rim, the eye sockets and the side away from the light; lighten forehead and cheeks."""
        person, blob, turn_x = self.person, self.canvas.blob, self.turn_x
        y, x = np.linspace(-1, 1, CANVAS, dtype=np.float32)[:, None], np.linspace(-1, 1, CANVAS, dtype=np.float32)
        rim = np.clip(((x / person.width) ** 2 + ((y - 0.02) / 0.86) ** 2), 0, 1.3)
        shade = 1.04 - 0.30 * rim**2 + 0.16 * (x * person.light[0] + y * person.light[1])
        self.canvas.planes[:] *= shade
        blob((turn_x, -0.52), (0.34, 0.16), self.skin * 1.12, 0.12, 0.55)
        for side in (-1, 1):
            blob((side * 0.32 + turn_x, 0.2), (0.15, 0.13), self.skin * 1.14, 0.09, 0.6)
            blob((side * person.eye_gap + turn_x, -0.21 + self.turn_y), (0.21, 0.17), self.skin * 0.38, 0.055, 0.9)
        if person.beard:
            blob((turn_x, 0.62), (0.42, 0.32), person.hair, 0.14, person.beard)

    def nose(self) -> None:
        blob, line, skin, turn_x = self.canvas.blob, self.canvas.line, self.skin, self.turn_x
        bridge = ((-0.045 + turn_x, -0.3), (0.045 + turn_x, -0.3))
        tip = ((0.09 + 1.4 * turn_x, 0.16), (-0.09 + 1.4 * turn_x, 0.16))
        self.canvas.polygon((*bridge, *tip), skin * 1.22, 0.035)
        nose_y = 0.17 - 0.03 * self.look.wrinkle + self.turn_y
        blob((1.5 * turn_x, nose_y), (0.12, 0.05), skin * 0.72, 0.035, 0.7)
        for side in (-1, 1):
            blob((side * 0.055 + 1.5 * turn_x, nose_y + 0.02), (0.025, 0.016), skin * 0.35, 0.012, 0.9)
            if self.look.wrinkle:
                line([(side * 0.07 + turn_x, -0.03), (side * 0.13 + turn_x, 0.05)], skin * 0.5, 0.02)
                line([(side * 0.13 + turn_x, 0.12), (side * 0.26 + turn_x, 0.3)], skin * 0.55, 0.022)

    def eyes(self) -> None:
        """Eyes, brows and glasses, and the frown between them."""
        for side in (-1, 1):
            self._eye(side)
        if self.look.brow_tilt > 0.06:
            for side in (-1, 1):
                frown = [(side * 0.04 + self.turn_x, -0.37), (side * 0.05 + self.turn_x, -0.27)]
                self.canvas.line(frown, self.skin * 0.5, 0.018)

    def _eye(self, side: int) -> None:
        """side: -1 left, 1 right."""
        person, look, blob, line = self.person, self.look, self.canvas.blob, self.canvas.line
        x, y = side * person.eye_gap + self.turn_x, -0.15 + self.turn_y
        opening = 0.062 * max(0.25, look.eye_open)
        blob((x, y), (0.125, opening), 0.45 * self.skin + 60, 0.008)
        iris = min(0.068, opening * 1.15), min(0.068, opening)
        blob((x + 0.5 * self.turn_x, y), iris, (26, 26, 30), 0.008)
        line(_arc(x, y, 0.14, -opening * 1.5), (18, 18, 22), 0.03)
        line(_arc(x, y + 0.01, 0.12, opening), self.skin * 0.5, 0.015)
        inner, outer, brow_y = x - side * 0.13, x + side * 0.16, -0.32 + look.brow_y + self.turn_y
        brow = [(inner, brow_y + look.brow_tilt), (x, brow_y - 0.035), (outer, brow_y + 0.02 - 0.5 * look.brow_tilt)]
        line(brow, np.minimum(np.array(person.hair) * 0.6, self.skin * 0.3), 2 * person.brow_thickness)
        if person.glasses:
            line(_ring(x, y, 0.19, 0.15), (30, 30, 30), 0.022)

    def mouth(self) -> None:
        look, canvas, lips = self.look, self.canvas, self.person.lips
        mouth_x, mouth_y = 1.2 * self.turn_x, 0.44 + self.turn_y
        t = np.linspace(-1, 1, 25)
        x = mouth_x + look.mouth_width * t
        bend = look.mouth_curve * (1 - t**2) - look.skew * t * (t > 0)
        upper = np.column_stack([x, mouth_y + bend - look.mouth_open * (1 - t**2) * 0.7 - look.mouth_curve / 2])
        lower = np.column_stack([x, mouth_y + bend + look.mouth_open * (1 - t**2) - look.mouth_curve / 2])
        if look.mouth_open > 0.02:
            canvas.polygon(np.vstack([upper, lower[::-1]]), (38, 30, 62))
            if look.teeth > 0:
                gum = upper + np.column_stack([np.zeros(25), (lower - upper)[:, 1] * 0.55 * look.teeth])
                canvas.polygon(np.vstack([upper, gum[::-1]]), (222, 228, 232))
        canvas.line(upper, lips, 0.05)
        canvas.line(lower + np.array([0, 0.02]), lips, 0.06)
        if look.mouth_open <= 0.02:
            canvas.line(upper, np.array(lips) * 0.45, 0.022)
        canvas.blob((mouth_x, 0.62 + look.mouth_open), (0.16, 0.04), self.skin * 0.72, 0.04, 0.5)

    def fringe(self) -> None:
        width, low = self.person.width, self.person.fringe
        crown = ((-width, -0.4), (-width * 0.8, -0.85), (0, -1.0), (width * 0.8, -0.85), (width, -0.4))
        self.canvas.polygon((*crown, (width * 0.7, low), (0, low - 0.08), (-width * 0.7, low)), self.person.hair, 0.02)


def _arc(x: float, y: float, half: float, height: float) -> np.ndarray:
    t = np.linspace(-1, 1, 13)
    return np.column_stack([x + half * t, y + height * (1 - t**2) * 0.8])


def _ring(x: float, y: float, width: float, height: float) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 33)
    return np.column_stack([x + width * np.cos(t), y + height * np.sin(t)])
