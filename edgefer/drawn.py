"""Built-in data: procedurally drawn faces, so that tests, the demo and a board without a camera need no images.

Seven expressions of brows, eyes, nose and mouth, with varied people, light, pose and noise. They are good enough for a
Haar cascade to detect and for a network to learn; a network trained on them does not work on real faces.
"""

import bisect
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from edgefer.portrait import CANVAS, Person, draw_face
from edgefer.records import Frame

PAUSES = 0.12  # the probability of a pause after a syllable
EXPRESSIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def _place(
    image: np.ndarray, face: np.ndarray, cover: np.ndarray, x: float, y: float, size: float, roll_deg: float
) -> None:
    """Paste a face of `size` pixels, centred at (x, y) and rolled, into `image` in place."""
    shrink = size / CANVAS
    matrix = cv2.getRotationMatrix2D((CANVAS / 2, CANVAS / 2), roll_deg, shrink)
    matrix[:, 2] += np.array([x - CANVAS / 2, y - CANVAS / 2])
    to = image.shape[1], image.shape[0]
    if shrink < 1:  # warpAffine does not average when downscaling
        face, cover = (cv2.GaussianBlur(part, (0, 0), 0.45 / shrink) for part in (face, cover))
    face = cv2.warpAffine(face, matrix, to, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpAffine(cover, matrix, to, flags=cv2.INTER_LINEAR)
    left, top, width, height = cv2.boundingRect((mask > 0).astype(np.uint8))
    part = np.s_[top : top + height, left : left + width]
    mask = mask[part][..., None]
    image[part] = (image[part] * (1 - mask) + face[part] * mask).astype(np.uint8)


def shaken(frames: Iterable[Frame], sigma: float = 6.0, seed: int = 0) -> Iterator[Frame]:
    """The frames with camera shake: random shifts of about `sigma` pixels, with a jerk of 25 every 20 frames."""
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


def _film(image: np.ndarray, rng: np.random.Generator, gain: float, noise: float) -> np.ndarray:
    """Simulate a camera's exposure and noise."""
    noisy = rng.normal(0, noise, image.shape)
    noisy += image * gain
    return np.clip(noisy, 0, 255, out=noisy).astype(np.uint8)


def face_set(per_class: int, seed: int, size: int = 96) -> tuple[Iterator[np.ndarray], np.ndarray]:
    """Labelled images, each of one face: uint8 BGR [size, size, 3], drawn lazily, and their int64 labels into
    EXPRESSIONS."""
    labels = np.tile(np.arange(len(EXPRESSIONS), dtype=np.int64), per_class)
    return _faces(labels, np.random.default_rng(seed), size), labels


def _faces(labels: np.ndarray, rng: np.random.Generator, size: int) -> Iterator[np.ndarray]:
    for label in labels:
        face, cover = draw_face(
            Person.random(rng), EXPRESSIONS[label], rng, yaw=rng.uniform(-1, 1), pitch=rng.uniform(-1, 1)
        )
        image = _background(size, size, rng)
        middle = size / 2 + rng.normal(0, 0.02, 2) * size
        _place(image, face, cover, middle[0], middle[1] - 0.06 * size, size * rng.uniform(1.18, 1.36), rng.normal(0, 5))
        yield _film(image, rng, rng.uniform(0.65, 1.2), rng.uniform(1, 6))


@dataclass(frozen=True)
class Truth:
    """A drawn face in a scene: its number, its label, and the square its image would fill in `face_set`."""

    person: int
    label: str
    box_xyxy: tuple[int, int, int, int]


def speech(seconds: float, rng: np.random.Generator) -> Callable[[float], float]:
    """How far a talking mouth is open, 0..1, by the time in seconds: 3 to 6 syllables per second, of varied loudness, with
    pauses between some."""
    ends, heights = [0.0], [0.0]
    while ends[-1] <= seconds:
        paused = rng.random() < PAUSES
        heights.append(0.0 if paused else rng.uniform(0.25, 1))
        ends.append(ends[-1] + (rng.uniform(0.3, 0.8) if paused else 1 / rng.uniform(3, 6)))

    def opening(time_s: float) -> float:
        at = min(max(bisect.bisect_right(ends, time_s), 1), len(ends) - 1)
        share = (time_s - ends[at - 1]) / (ends[at] - ends[at - 1])
        return heights[at] * math.sin(math.pi * share) ** 2

    return opening


def scene(
    seconds: float = 8,
    fps: float = 15,
    size: tuple[int, int] = (480, 360),
    people: int = 2,
    seed: int = 7,
    *,
    talking: bool = False,
) -> Iterator[tuple[Frame, list[Truth]]]:
    """A video of `people` faces moving about, each changing its expression every two seconds, with the truth.

    size is (width, height) in pixels. talking: their mouths open and close as in `speech`, with every expression. The
    same arguments give the same pixels.
    """
    rng = np.random.default_rng(seed)
    background = _background(size[1], size[0], rng)
    cast = _Cast.random(people, size, rng)
    voices = [speech(seconds, np.random.default_rng([seed, number])) for number in range(people)]
    for index in range(round(seconds * fps)):
        time_s = index / fps
        image, poses = background.copy(), cast.poses(time_s)
        for pose, person, voice in zip(poses, cast.persons, voices, strict=True):
            number, label, sway = pose.truth.person, pose.truth.label, pose.sway
            # One generator per face and expression, so that an expression does not jitter from frame to frame.
            held = np.random.default_rng([seed, number, EXPRESSIONS.index(label)])
            jaw = voice(time_s) if talking else 0.0
            face, cover = draw_face(person, label, held, yaw=sway[1], pitch=0.5 * sway[2], jaw=jaw)
            _place(image, face, cover, pose.x, pose.y, pose.side * 1.27, 6 * sway[1])
        frame = Frame(index=index, time_s=time_s, image_bgr=_film(image, rng, 1.0, 2.5))
        yield frame, [pose.truth for pose in poses]


def scene_truths(
    seconds: float = 8, fps: float = 15, size: tuple[int, int] = (480, 360), people: int = 2, seed: int = 7
) -> list[list[Truth]]:
    """The truth of each frame of `scene` with these arguments, without drawing them."""
    rng = np.random.default_rng(seed)
    _background(size[1], size[0], rng)  # draws from the generator, as it does in `scene`
    cast = _Cast.random(people, size, rng)
    return [[pose.truth for pose in cast.poses(index / fps)] for index in range(round(seconds * fps))]


@dataclass(frozen=True)
class _Pose:
    """A face at one time: its centre and width in pixels, and its sway, float [3] in -1..1."""

    truth: Truth
    x: float
    y: float
    side: float
    sway: np.ndarray


@dataclass(frozen=True)
class _Cast:
    """The people of a scene, and how they move. phases: float [people, 3]; plays: the order of each one's expressions."""

    size: tuple[int, int]
    persons: list[Person]
    phases: np.ndarray
    plays: list[np.ndarray]

    @classmethod
    def random(cls, people: int, size: tuple[int, int], rng: np.random.Generator) -> "_Cast":
        return cls(
            size=size,
            persons=[Person.random(rng) for _ in range(people)],
            phases=rng.uniform(0, 2 * np.pi, (people, 3)),
            plays=[rng.permutation(len(EXPRESSIONS)) for _ in range(people)],
        )

    def poses(self, time_s: float) -> list[_Pose]:
        """One for each person."""
        (width, height), poses = self.size, []
        lane = width / len(self.persons)
        for number, (phase, play) in enumerate(zip(self.phases, self.plays, strict=True)):
            label = EXPRESSIONS[play[int(time_s / 2 + number / 2) % len(play)]]
            sway = np.sin(2 * np.pi * np.array([0.11, 0.16, 0.09]) * time_s + phase)
            side = min(lane * 0.6, height * 0.45) * (1 + 0.12 * sway[2])
            x = lane * (number + 0.5) + sway[0] * (lane - side) * 0.4
            y = height / 2 + sway[1] * (height - side * 1.2) * 0.3
            top = y + 0.06 * side
            box = (round(x - side / 2), round(top - side / 2), round(x + side / 2), round(top + side / 2))
            poses.append(_Pose(Truth(number, label, box), x, y, side, sway))
        return poses
