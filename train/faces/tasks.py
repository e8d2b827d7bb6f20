"""What each face network learns from: batches of a finder's mosaics and of a refiner's crops."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from edgefer.faces import REFINER_MARGIN, REFINER_SIDE, encode_refined
from edgefer.train.faces import compose
from edgefer.train.faces.compose import Pool
from edgefer.train.faces.gallery import Faces, Picture
from edgefer.train.faces.targets import finder_targets
from edgefer.train.faces.teacher import overlaps

FRESH_SHARE = 3  # one sample of so many in a batch is new; the others are seen again, mirrored at random
BANK = 6000  # samples kept to be seen again
FACE_IOU, NO_FACE_IOU = 0.45, 0.25  # a candidate overlapping a face by more is that face; by less, it is none
HARD_SHARE = 0.55  # of a refiner's samples, where a finder's candidates are there
MAX_TILT_DEG = 40.0  # of a refiner's crops, every angle alike: from few large ones it learned to answer with less
MAX_KNOWN_IOU = 0.1  # of a random window with a face


def pool_of(pictures: Sequence[Picture], hard: Sequence[Picture] = ()) -> Pool:
    """Half of the draws from pictures with faces that people marked, and as many without faces as with the teacher's only."""
    marked = {p.source for p in pictures if np.isclose(p.faces.target, 0.85).any()}
    groups: dict[str, list[Picture]] = {}
    for picture in pictures:
        if (picture.faces.target > 0).any():
            groups.setdefault(picture.source, []).append(picture)
        elif picture.source not in marked and not len(picture.faces):
            groups.setdefault("", []).append(picture)
    kinds = [(0.2 if name == "" else 0.3 if name in marked else 0.2, tuple(group)) for name, group in groups.items()]
    return Pool(tuple(kinds + ([(0.15, tuple(hard))] if hard else [])))


@dataclass
class Bank:
    """Samples by number, each a pure function of it, kept for a while to be seen again."""

    make: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    seed: int
    _kept: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def batch(self, step: int, size: int) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.random.Generator]:
        """The samples of a batch, and the generator for what is drawn for them there."""
        rng = np.random.default_rng((self.seed, 1, step))
        fresh = -(-size // FRESH_SHARE)
        newest = (step + 1) * fresh
        numbers = [*range(newest - fresh, newest), *rng.integers(max(0, newest - BANK), newest, size - fresh).tolist()]
        for number in [number for number in self._kept if number < newest - BANK]:
            del self._kept[number]
        return [self._sample(number) for number in numbers], rng

    def _sample(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        if number not in self._kept:
            self._kept[number] = self.make(np.random.default_rng((self.seed, 0, number)))
        return self._kept[number]


def finder_batches(pool: Pool, *, size: int, count: int, seed: int) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """step -> uint8 images [count, size, size, 1] and targets [count, cells, 6]."""

    def make(rng):
        image, faces = compose.compose(pool, rng, size)
        return image, pack(faces)

    bank = Bank(make, seed)

    def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
        samples, rng = bank.batch(step, count)
        images, targets = np.empty((count, size, size, 1), np.uint8), []
        for row, (image, packed) in enumerate(samples):
            faces = unpack(packed)
            if rng.random() < 0.5:
                image, faces = image[:, ::-1], compose.mirrored(faces, size)
            images[row, ..., 0] = image
            targets.append(finder_targets(faces, size))
        return images, np.stack(targets)

    return batch


def pack(faces: Faces) -> np.ndarray:
    return np.concatenate(
        [faces.boxes, faces.points.reshape(-1, 10), faces.roll_deg[:, None], faces.target[:, None]], 1
    )


def unpack(rows: np.ndarray) -> Faces:
    return Faces(rows[:, :4], rows[:, 4:14].reshape(-1, 5, 2), rows[:, 14], rows[:, 15])


def refiner_batches(
    pool: Pool, hard: Sequence[tuple[Picture, np.ndarray]], *, count: int, seed: int
) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """step -> uint8 crops [count, 48, 48, 1] and targets [count, 19] as `refiner_loss` takes them.

    hard: pictures with a box in each that a finder took for a face, rightly or not: what a refiner will be shown.
    """

    def make(rng):
        if hard and rng.random() < HARD_SHARE:
            picture, box = hard[rng.integers(len(hard))]
            return refiner_sample(picture, box, rng)
        picture = pool.draw(rng)
        known = np.flatnonzero(picture.faces.target > 0)
        if len(known) and rng.random() < 0.75:
            return refiner_sample(picture, picture.faces.boxes[rng.choice(known)], rng)
        return refiner_sample(picture, _window(picture, rng), rng)

    bank = Bank(make, seed)

    def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
        samples, _ = bank.batch(step, count)
        return np.stack([image for image, _ in samples])[..., None], np.stack([target for _, target in samples])

    return batch


def refiner_sample(picture: Picture, box: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A crop around about `box`, tilted, mirrored and spoilt, and its target float32 [19]."""
    h, w = picture.gray.shape
    faces, gray = picture.faces, picture.gray
    if rng.random() < 0.5:
        faces, gray = compose.mirrored(faces, w), np.ascontiguousarray(gray[:, ::-1])
        box = np.array([w - box[2], box[1], w - box[0], box[3]])
    side = float(np.mean(box[2:] - box[:2]))
    far = rng.random() < 0.12  # now and then so far off that it is the face no more
    centre = (box[:2] + box[2:]) / 2 + rng.normal(0, 0.35 if far else 0.08, 2) * side
    square = side * REFINER_MARGIN * float(np.exp(rng.normal(0, 0.4 if far else 0.13)))
    tilt = float(rng.uniform(-MAX_TILT_DEG, MAX_TILT_DEG)) if rng.random() < 0.7 else 0.0
    scale = REFINER_SIDE / square
    matrix = cv2.getRotationMatrix2D(centre.tolist(), -tilt, scale)
    matrix[:, 2] += REFINER_SIDE / 2 - centre
    if rng.random() < 0.3:  # as if it had been smaller: a far face has few pixels
        small = float(np.exp(rng.uniform(np.log(9), np.log(30)))) / max(side, 1.0)
        if small < 1:
            size = max(2, round(w * small)), max(2, round(h * small))
            gray = cv2.resize(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), (w, h))
    crop = compose.warp(gray, matrix.astype(np.float32), (REFINER_SIDE, REFINER_SIDE), rng)
    faces = compose.moved(faces, matrix.astype(np.float32), tilt)
    if rng.random() < 0.15 and len(faces):
        compose.cover(crop, faces.boxes[0], rng)
    crop = compose.spoil(compose.light(crop, rng), rng)
    return crop, refiner_target(faces)


def refiner_target(faces: Faces) -> np.ndarray:
    """Of faces in pixels of the crop, as `refiner_loss` takes it."""
    target = np.zeros(19, np.float32)
    target[1] = 1
    middle = np.array([REFINER_SIDE / 2, REFINER_SIDE / 2, REFINER_SIDE])
    half = REFINER_SIDE / REFINER_MARGIN / 2
    box = np.concatenate([middle[:2] - half, middle[:2] + half])
    shared = overlaps(box, faces.boxes) if len(faces) else np.zeros(1)
    if shared.max() < NO_FACE_IOU:
        return target
    face = shared.argmax()
    sure = faces.target[face]
    target[0] = 0.0 if np.isnan(sure) else sure
    target[1] = 0.0 if np.isnan(sure) or shared[face] < FACE_IOU else 1.0
    target[18] = 0.0 if np.isnan(sure) else 1.0
    target[2:18] = encode_refined(middle, faces.boxes[face], faces.points[face], float(faces.roll_deg[face]))
    return target


def _window(picture: Picture, rng: np.random.Generator) -> np.ndarray:
    """A box at random in the picture that overlaps no face."""
    h, w = picture.gray.shape
    for _ in range(8):
        side = float(np.exp(rng.uniform(np.log(12), np.log(0.9 * min(h, w)))))
        x, y = rng.uniform(0, w - side), rng.uniform(0, h - side)
        box = np.array([x, y, x + side, y + side])
        if not len(picture.faces) or overlaps(box, picture.faces.boxes).max() < MAX_KNOWN_IOU:
            break
    return box
