"""Built-in data: faces drawn by program, so that tests, the demo and a board without a camera need no pictures.

Seven expressions by brows, eyes, nose and mouth, over varied people, light, pose and noise. They are good enough for a
Haar cascade to find and for a network to learn; a network trained on them knows nothing of real faces.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from edgefer.records import Frame

EXPRESSIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
CANVAS = 192  # a face is drawn this large, in coordinates -1..1 from its centre, and then shrunk


@dataclass(frozen=True)
class _Look:
    """An expression: offsets in face units (half a canvas), y downwards; a rested face is all defaults."""

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
    light: tuple[float, float]  # where it comes from, -1..1

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


def draw_face(
    person: Person, expression: str, rng: np.random.Generator, *, yaw: float = 0.0, pitch: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """One upright face: uint8 BGR [192, 192, 3] and its coverage, float32 [192, 192] in 0..1.

    yaw and pitch, about -1..1, turn it right and down; `rng` varies the expression a little.
    """
    look = _LOOKS[expression]
    look = replace(
        look,
        **{
            name: value + rng.normal(0, 0.012)
            for name, value in vars(look).items()
            if name not in ("eye_open", "wrinkle", "teeth")
        },
        eye_open=look.eye_open * rng.uniform(0.9, 1.1),
    )
    skin = np.array(person.skin)
    image = np.zeros((CANVAS, CANVAS, 3), np.float32)
    cover = np.zeros((CANVAS, CANVAS), np.float32)
    turn_x, turn_y = 0.07 * yaw, 0.05 * pitch

    def blob(x, y, width, height, color, softness=0.0, strength=1.0):
        """A filled ellipse, feathered by `softness` (face units)."""
        t = np.linspace(0, 2 * np.pi, 48)
        polygon(np.column_stack([x + width * np.cos(t), y + height * np.sin(t)]), color, softness, strength)

    def polygon(points, color, softness=0.012, strength=1.0):
        paint(points, 0, color, softness, strength, lambda mask, path: cv2.fillPoly(mask, [path], 255, cv2.LINE_AA, 4))

    def line(points, color, thickness, softness=0.012):
        width = max(1, round(thickness * CANVAS / 2))
        paint(points, thickness, color, softness, 1.0,
              lambda mask, path: cv2.polylines(mask, [path], False, 255, width, cv2.LINE_AA, 4))  # fmt: skip

    def paint(points, reach, color, softness, strength, draw):
        """Blend `color` in where `draw` marks the path, working only on the part of the canvas it can touch."""
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
            mask = cv2.blur(cv2.blur(mask, width), width)  # nearly Gaussian, and quick at any width
        share = (mask * np.float32(strength / 255))[..., None]
        region = image[top:bottom, left:right]
        region += (np.asarray(color, np.float32) - region) * share

    # Hair behind, neck, head
    hair_height = 0.95 if person.long_hair else 0.62
    hair_width, hair_y = person.width + 0.1, 0.08 if person.long_hair else -0.12
    for x, y, width, height, color in (
        (-turn_x / 2, hair_y, hair_width, hair_height, person.hair),
        (0, 0.02, person.width, 0.86, person.skin),
    ):
        middle = round((x + 1) * CANVAS * 8), round((y + 1) * CANVAS * 8)
        axes = round(width * CANVAS * 8), round(height * CANVAS * 8)
        for canvas, value in ((image, color), (cover, 1.0)):
            cv2.ellipse(canvas, middle, axes, 0, 0, 360, value, -1, cv2.LINE_AA, 4)
    # Form: darker to the rim and away from the light, lighter on forehead, nose and cheeks
    y, x = np.mgrid[-1 : 1 : CANVAS * 1j, -1 : 1 : CANVAS * 1j].astype(np.float32)
    rim = np.clip(((x / person.width) ** 2 + ((y - 0.02) / 0.86) ** 2), 0, 1.3)
    shade = 1.04 - 0.30 * rim**2 + 0.16 * (x * person.light[0] + y * person.light[1])
    image *= shade[..., None]
    blob(turn_x, -0.52, 0.34, 0.16, skin * 1.12, 0.12, 0.55)
    for side in (-1, 1):
        blob(side * 0.32 + turn_x, 0.2, 0.15, 0.13, skin * 1.14, 0.09, 0.6)
        blob(side * person.eye_gap + turn_x, -0.21 + turn_y, 0.21, 0.17, skin * 0.38, 0.055, 0.9)  # eye socket
    if person.beard:
        blob(turn_x, 0.62, 0.42, 0.32, person.hair, 0.14, person.beard)
    polygon([(-0.045 + turn_x, -0.3), (0.045 + turn_x, -0.3), (0.09 + 1.4 * turn_x, 0.16), (-0.09 + 1.4 * turn_x, 0.16)],
            skin * 1.22, 0.035)  # fmt: skip
    nose_y = 0.17 - 0.03 * look.wrinkle + turn_y
    blob(1.5 * turn_x, nose_y, 0.12, 0.05, skin * 0.72, 0.035, 0.7)
    for side in (-1, 1):
        blob(side * 0.055 + 1.5 * turn_x, nose_y + 0.02, 0.025, 0.016, skin * 0.35, 0.012, 0.9)
        if look.wrinkle:
            line([(side * 0.07 + turn_x, -0.03), (side * 0.13 + turn_x, 0.05)], skin * 0.5, 0.02)
            line([(side * 0.13 + turn_x, 0.12), (side * 0.26 + turn_x, 0.3)], skin * 0.55, 0.022)

    # Eyes and brows
    for side in (-1, 1):
        eye_x, eye_y = side * person.eye_gap + turn_x, -0.15 + turn_y
        opening = 0.062 * max(0.25, look.eye_open)
        blob(eye_x, eye_y, 0.125, opening, 0.45 * skin + 60, 0.008)
        blob(eye_x + 0.5 * turn_x, eye_y, min(0.068, opening * 1.15), min(0.068, opening), (26, 26, 30), 0.008)
        line(_arc(eye_x, eye_y, 0.14, -opening * 1.5), (18, 18, 22), 0.03)
        line(_arc(eye_x, eye_y + 0.01, 0.12, opening), skin * 0.5, 0.015)
        inner, outer = eye_x - side * 0.13, eye_x + side * 0.16
        brow_y = -0.32 + look.brow_y + turn_y
        line([(inner, brow_y + look.brow_tilt), (eye_x, brow_y - 0.035), (outer, brow_y + 0.02 - 0.5 * look.brow_tilt)],
             np.minimum(np.array(person.hair) * 0.6, skin * 0.3), 2 * person.brow_thickness)  # fmt: skip
        if person.glasses:
            line(_ring(eye_x, eye_y, 0.19, 0.15), (30, 30, 30), 0.022)
    if look.brow_tilt > 0.06:
        for side in (-1, 1):
            line([(side * 0.04 + turn_x, -0.37), (side * 0.05 + turn_x, -0.27)], skin * 0.5, 0.018)

    # Mouth
    mouth_x, mouth_y = 1.2 * turn_x, 0.44 + turn_y
    half = look.mouth_width
    t = np.linspace(-1, 1, 25)
    bend = look.mouth_curve * (1 - t**2) - look.skew * t * (t > 0)
    upper = np.column_stack(
        [mouth_x + half * t, mouth_y + bend - look.mouth_open * (1 - t**2) * 0.7 - look.mouth_curve / 2]
    )
    lower = np.column_stack([mouth_x + half * t, mouth_y + bend + look.mouth_open * (1 - t**2) - look.mouth_curve / 2])
    if look.mouth_open > 0.02:
        polygon(np.vstack([upper, lower[::-1]]), (38, 30, 62))
        if look.teeth > 0:
            gum = upper + np.column_stack([np.zeros(25), (lower - upper)[:, 1] * 0.55 * look.teeth])
            polygon(np.vstack([upper, gum[::-1]]), (222, 228, 232))
    line(upper, person.lips, 0.05)
    line(lower + np.array([0, 0.02]), person.lips, 0.06)
    if look.mouth_open <= 0.02:
        line(upper, np.array(person.lips) * 0.45, 0.022)
    blob(mouth_x, 0.62 + look.mouth_open, 0.16, 0.04, skin * 0.72, 0.04, 0.5)

    # Fringe
    polygon([(-person.width, -0.4), (-person.width * 0.8, -0.85), (0, -1.0), (person.width * 0.8, -0.85), (person.width, -0.4),
             (person.width * 0.7, person.fringe), (0, person.fringe - 0.08), (-person.width * 0.7, person.fringe)],
            person.hair, 0.02)  # fmt: skip
    return np.clip(image, 0, 255).astype(np.uint8), np.clip(cover, 0, 1)


def _arc(x: float, y: float, half: float, height: float) -> np.ndarray:
    t = np.linspace(-1, 1, 13)
    return np.column_stack([x + half * t, y + height * (1 - t**2) * 0.8])


def _ring(x: float, y: float, width: float, height: float) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 33)
    return np.column_stack([x + width * np.cos(t), y + height * np.sin(t)])


def _place(
    picture: np.ndarray, face: np.ndarray, cover: np.ndarray, x: float, y: float, size: float, roll_deg: float
) -> None:
    """Paste a face of `size` pixels, centred at (x, y) and rolled, into `picture` in place."""
    shrink = size / CANVAS
    matrix = cv2.getRotationMatrix2D((CANVAS / 2, CANVAS / 2), roll_deg, shrink)
    matrix[:, 2] += np.array([x - CANVAS / 2, y - CANVAS / 2])
    to = picture.shape[1], picture.shape[0]
    if shrink < 1:  # warpAffine does not average when it shrinks
        face, cover = (cv2.GaussianBlur(part, (0, 0), 0.45 / shrink) for part in (face, cover))
    face = cv2.warpAffine(face, matrix, to, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpAffine(cover, matrix, to, flags=cv2.INTER_LINEAR)[..., None]
    picture[:] = (picture * (1 - mask) + face * mask).astype(np.uint8)


def shaken(frames: Iterable[Frame], sigma: float = 6.0, seed: int = 0) -> Iterator[Frame]:
    """The frames as from an unsteady hand: shifted at random by about `sigma` pixels, with a jerk of 25 every twenty frames."""
    rng, shift = np.random.default_rng(seed), np.zeros(2)
    for frame in frames:
        shift = 0.6 * shift + rng.normal(0, 25 if frame.index % 20 == 19 else sigma, 2)
        matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
        size = frame.image_bgr.shape[1], frame.image_bgr.shape[0]
        image = cv2.warpAffine(frame.image_bgr, matrix, size, borderMode=cv2.BORDER_REFLECT)
        yield replace(frame, image_bgr=image)


def _background(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    coarse = rng.uniform(50, 205, (4, 5, 1)) + rng.normal(0, 14, (4, 5, 3))
    smooth = cv2.resize(np.clip(coarse, 0, 255).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth, 0, 255).astype(np.uint8)


def _film(picture: np.ndarray, rng: np.random.Generator, gain: float, noise: float) -> np.ndarray:
    """What a camera adds: exposure and noise."""
    return np.clip(picture * gain + rng.normal(0, noise, picture.shape), 0, 255).astype(np.uint8)


def face_set(per_class: int, seed: int, size: int = 96) -> tuple[Iterator[np.ndarray], np.ndarray]:
    """Labelled pictures, each filled by one face: uint8 BGR [size, size, 3], drawn as they are taken, and their int64
    labels into EXPRESSIONS."""
    labels = np.tile(np.arange(len(EXPRESSIONS), dtype=np.int64), per_class)
    return _faces(labels, np.random.default_rng(seed), size), labels


def _faces(labels: np.ndarray, rng: np.random.Generator, size: int) -> Iterator[np.ndarray]:
    for label in labels:
        face, cover = draw_face(
            Person.random(rng), EXPRESSIONS[label], rng, yaw=rng.uniform(-1, 1), pitch=rng.uniform(-1, 1)
        )
        picture = _background(size, size, rng)
        middle = size / 2 + rng.normal(0, 0.02, 2) * size
        _place(
            picture, face, cover, middle[0], middle[1] - 0.06 * size, size * rng.uniform(1.18, 1.36), rng.normal(0, 5)
        )
        yield _film(picture, rng, rng.uniform(0.65, 1.2), rng.uniform(1, 6))


@dataclass(frozen=True)
class Truth:
    """A drawn face in a scene: its number, its label, and the square its picture would fill in `face_set`."""

    person: int
    label: str
    box_xyxy: tuple[int, int, int, int]


def scene(
    seconds: float = 8, fps: float = 15, size: tuple[int, int] = (480, 360), people: int = 2, seed: int = 7
) -> Iterator[tuple[Frame, list[Truth]]]:
    """A video of `people` faces moving about, each changing its expression every two seconds, with the truth.

    size is (width, height) in pixels. The same arguments give the same pixels.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    background = _background(height, width, rng)
    cast = [Person.random(rng) for _ in range(people)]
    phases = rng.uniform(0, 2 * np.pi, (people, 3))
    plays = [rng.permutation(len(EXPRESSIONS)) for _ in range(people)]
    lane = width / people
    for index in range(round(seconds * fps)):
        time_s = index / fps
        picture = background.copy()
        truths = []
        for number, (person, phase, play) in enumerate(zip(cast, phases, plays, strict=True)):
            label = EXPRESSIONS[play[int(time_s / 2 + number / 2) % len(play)]]
            sway = np.sin(2 * np.pi * np.array([0.11, 0.16, 0.09]) * time_s + phase)
            side = min(lane * 0.6, height * 0.45) * (1 + 0.12 * sway[2])
            x = lane * (number + 0.5) + sway[0] * (lane - side) * 0.4
            y = height / 2 + sway[1] * (height - side * 1.2) * 0.3
            # One generator per face and expression: a held expression does not tremble from frame to frame.
            held = np.random.default_rng([seed, number, EXPRESSIONS.index(label)])
            face, cover = draw_face(person, label, held, yaw=sway[1], pitch=0.5 * sway[2])
            _place(picture, face, cover, x, y, side * 1.27, 6 * sway[1])
            top = y + 0.06 * side
            box = (round(x - side / 2), round(top - side / 2), round(x + side / 2), round(top + side / 2))
            truths.append(Truth(number, label, box))
        yield Frame(index=index, time_s=time_s, image_bgr=_film(picture, rng, 1.0, 2.5)), truths
