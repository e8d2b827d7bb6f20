"""Animated photographs of faces: the jaw opens and closes as in speech, and the simulated camera sways, adds noise and compresses.
Closer to a real talking face than drawn ones: skin, light and ambiguity are real, and the face is detected and cut out as in
`edgefer run`. Not simulated: lips that form sounds, movement of cheeks and eyes, heads that turn.

The first half of each clip shows one person and the second half another in the same place, so the time of the change is known.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edgefer import drawn
from edgefer.bundle import Bundle, shipped_networks
from edgefer.devices.faces.canvas import MapNetwork
from edgefer.devices.faces.own import OwnDetector, Refiner
from edgefer.records import Frame

SIZE = 240, 180  # of the camera's image
EYES_AT, EYES_APART = (120.0, 78.0), 30.0  # in the image: a face is about 70 pixels wide
GAP = 0.38  # share of the mouth's width by which the loudest syllable opens it
NOISE, QUALITY = 4.0, 80  # standard deviation on the scale of 255; JPEG quality


@dataclass(frozen=True)
class Photo:
    """A face moved to EYES_AT: uint8 BGR of SIZE; the centre of its mouth, and the vector from there to its right corner."""

    image_bgr: np.ndarray
    mouth_xy: np.ndarray
    corner_xy: np.ndarray


def photos(archive: Path, count: int, seed: int) -> Iterator[Photo]:
    """`count` of the archive's images in random order, only those in which exactly one face is detected with a high score."""
    detector = OwnDetector.shipped()
    refiner = Refiner(MapNetwork.open(Bundle.open(shipped_networks()["face-refiner"])))
    with zipfile.ZipFile(archive) as files:
        names = sorted(name for name in files.namelist() if name.endswith(".jpg"))
        for index in np.random.default_rng(seed).permutation(len(names)):
            if not count:
                return
            image = cv2.imdecode(np.frombuffer(files.read(names[index]), np.uint8), cv2.IMREAD_COLOR)
            found = detector.find(image)
            if len(found) == 1 and found[0].score > 0.9:
                points = refiner.refine(image, np.array([found[0].box_xyxy], np.float32)).points[0]
                count -= 1
                yield _placed(image, points)


def _placed(image: np.ndarray, points: np.ndarray) -> Photo:
    """points: of edgefer.faces.Refined, [5, 2]."""
    across = points[1] - points[0]
    angle_deg, scale = float(np.degrees(np.arctan2(across[1], across[0]))), EYES_APART / float(np.hypot(*across))
    centre = (points[0] + points[1]) / 2
    matrix = cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), angle_deg, scale)
    matrix[:, 2] += np.array(EYES_AT) - centre
    left, right = points[3:] @ matrix[:, :2].T + matrix[:, 2]
    moved = cv2.warpAffine(image, matrix, SIZE, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    return Photo(moved, (left + right) / 2, (right - left) / 2)


def talking(photo: Photo, jaw: float) -> np.ndarray:
    """The photo with its mouth opened by `jaw`, 0..1: the part below the line between the lips moves down, less with greater
    distance, over a dark mouth."""
    half = float(np.hypot(*photo.corner_xy))
    x_axis = photo.corner_xy / half
    y, x = np.mgrid[: SIZE[1], : SIZE[0]].astype(np.float32)
    along = ((x - photo.mouth_xy[0]) * x_axis[0] + (y - photo.mouth_xy[1]) * x_axis[1]) / half
    below = (-(x - photo.mouth_xy[0]) * x_axis[1] + (y - photo.mouth_xy[1]) * x_axis[0]) / half
    widest = 2 * GAP * jaw
    gap = widest * np.sqrt(np.clip(1 - along**2, 0, 1))
    fades = np.clip(1 - below / 3.2, 0, 1) ** 1.5  # the chin follows, the neck does not
    jaw_drop = 0.6 * widest * np.exp(-((along / 1.5) ** 2)) * np.clip(below / 0.6, 0, 1)
    moved = np.where(below > 0, np.maximum(gap, jaw_drop) * fades, 0.0).astype(np.float32) * half
    opened = cv2.remap(
        photo.image_bgr,
        (x + moved * x_axis[1]).astype(np.float32),
        (y - moved * x_axis[0]).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    inside = np.clip((gap - below) * half, 0, 1) * np.clip(below * half + 0.5, 0, 1) * (gap > 0)
    teeth = np.clip(1 - below / 0.22, 0, 1) * (np.abs(along) < 0.7) * min(1.0, widest / 0.4)
    color = np.array([32, 26, 48]) + teeth[..., None] * np.array([95, 105, 110])
    return (opened * (1 - inside[..., None]) + color * inside[..., None]).astype(np.uint8)


def clip(pair: tuple[Photo, Photo], seconds: float, fps: float, seed: int, speaks: bool = True) -> Iterator[Frame]:
    """Frames of the first person for half of `seconds`, then of the second, both already talking, from one swaying camera."""
    rng = np.random.default_rng(seed)
    jaw = drawn.speech(seconds, rng)
    phase, rate = rng.uniform(0, 2 * np.pi, 4), rng.uniform(0.1, 0.35, 4)
    jitter = np.zeros(2)
    for index in range(round(seconds * fps)):
        time_s = index / fps
        image = talking(pair[time_s >= seconds / 2], jaw(time_s) if speaks else 0.0)
        sway = np.sin(2 * np.pi * rate * time_s + phase)
        jitter = 0.7 * jitter + rng.normal(0, 0.3, 2)
        matrix = cv2.getRotationMatrix2D(EYES_AT, 3 * float(sway[2]), 1 + 0.04 * float(sway[3]))
        matrix[:, 2] += np.array([6, 3]) * sway[:2] + jitter
        image = cv2.warpAffine(image, matrix, SIZE, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        noisy = np.clip(image + rng.normal(0, NOISE, image.shape), 0, 255).astype(np.uint8)
        coded = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        assert decoded is not None
        yield Frame(index=index, time_s=time_s, image_bgr=decoded)
