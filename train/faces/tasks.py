"""Training batches of the face networks: mosaics for a finder, crops for a refiner."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from edgefer.faces import REFINER_MARGIN, REFINER_SIDE, encode_refined, overlaps
from edgefer.train.faces import compose
from edgefer.train.faces.compose import Pool
from edgefer.train.faces.gallery import Faces, Picture
from edgefer.train.faces.targets import finder_targets

SAMPLES_PER_NEW = 3  # one sample of so many in a batch is new; the others are reused
BUFFER_SIZE = 6000  # samples kept for reuse
FACE_IOU, NO_FACE_IOU = 0.45, 0.25  # of a crop with a face: a positive above, a negative below, ignored between
CANDIDATE_SHARE = 0.55  # of a refiner's samples, where there are candidates of a finder
MAX_TILT_DEG = 40.0  # of a refiner's crops, uniform: with fewer large angles it learned to underestimate them
MAX_NEGATIVE_IOU = 0.1  # of a random window with a face
MIN_WINDOW = 12.0  # pixels
# A crop of a candidate: its middle and side, and the candidate's box in it.
CROP = np.array([REFINER_SIDE / 2, REFINER_SIDE / 2, REFINER_SIDE])
CANDIDATE = CROP[[0, 1, 0, 1]] + np.array([-0.5, -0.5, 0.5, 0.5]) * REFINER_SIDE / REFINER_MARGIN


def pool_of(pictures: Sequence[Picture]) -> Pool:
    """The pictures by kind: those with faces of each source, more often where people marked them, and those without of
    sources that nobody marked.

    Left out are pictures whose faces are all of unknown target, and what is without faces in a marked source: people may
    have missed some.
    """
    groups: dict[str, list[Picture]] = {}
    weights: dict[str, float] = {}
    for picture in pictures:
        if (picture.faces.target > 0).any():
            groups.setdefault(picture.source, []).append(picture)
            weights[picture.source] = 0.3 if picture.has_marks else 0.2
        elif not picture.has_marks and not len(picture.faces):
            groups.setdefault("", []).append(picture)
            weights[""] = 0.2
    return Pool(tuple((weights[name], tuple(group)) for name, group in groups.items()))


@dataclass
class ReplayBuffer:
    """The last BUFFER_SIZE samples, which are costly to make, for reuse. Each is a pure function of seed and number."""

    make: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    seed: int
    _samples: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def batch(self, step: int, size: int) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.random.Generator]:
        """The samples of a batch, a third of them new, and the generator for their further augmentation."""
        rng = np.random.default_rng((self.seed, 1, step))
        new = -(-size // SAMPLES_PER_NEW)
        end = (step + 1) * new
        first = max(0, end - BUFFER_SIZE)
        numbers = [*range(end - new, end), *rng.integers(first, end, size - new).tolist()]
        for number in [number for number in self._samples if number < first]:
            del self._samples[number]
        return [self._sample(number) for number in numbers], rng

    def _sample(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        if number not in self._samples:
            self._samples[number] = self.make(np.random.default_rng((self.seed, 0, number)))
        return self._samples[number]


def finder_batches(pool: Pool, *, size: int, count: int, seed: int) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """step -> uint8 images [count, size, size, 1] and targets [count, cells, 6]."""

    def make(rng):
        image, faces = compose.compose(pool, rng, size)
        return image, pack(faces)

    buffer = ReplayBuffer(make, seed)

    def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
        samples, rng = buffer.batch(step, count)
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
    """Faces as one array, [n, 16]."""
    return np.concatenate(
        [faces.boxes, faces.points.reshape(-1, 10), faces.roll_deg[:, None], faces.target[:, None]], 1
    )


def unpack(rows: np.ndarray) -> Faces:
    """The faces of `pack`."""
    return Faces(rows[:, :4], rows[:, 4:14].reshape(-1, 5, 2), rows[:, 14], rows[:, 15])


def refiner_batches(
    pool: Pool, candidates: Sequence[tuple[Picture, np.ndarray]], *, count: int, seed: int
) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """step -> uint8 crops [count, 48, 48, 1] and targets [count, 19] for `refiner_loss`.

    candidates: boxes that a finder proposed, true and false positives: what a refiner is used on.
    """

    def make(rng):
        if candidates and rng.random() < CANDIDATE_SHARE:
            picture, box = candidates[rng.integers(len(candidates))]
            return refiner_sample(picture, box, rng)
        picture = pool.sample(rng)
        known = np.flatnonzero(picture.faces.target > 0)
        if len(known) and rng.random() < 0.75:
            return refiner_sample(picture, picture.faces.boxes[rng.choice(known)], rng)
        return refiner_sample(picture, _window(picture, rng), rng)

    buffer = ReplayBuffer(make, seed)

    def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
        samples, _ = buffer.batch(step, count)
        return np.stack([image for image, _ in samples])[..., None], np.stack([target for _, target in samples])

    return batch


def refiner_sample(picture: Picture, box: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """An augmented crop around a jittered `box`, uint8 [48, 48], and its target, float32 [19]."""
    h, w = picture.gray.shape
    faces, gray = picture.faces, picture.gray
    if rng.random() < 0.5:
        faces, gray = compose.mirrored(faces, w), np.ascontiguousarray(gray[:, ::-1])
        box = np.array([w - box[2], box[1], w - box[0], box[3]])
    side = float(np.mean(box[2:] - box[:2]))
    far = rng.random() < 0.12  # so far off that it is mostly a negative
    centre = (box[:2] + box[2:]) / 2 + rng.normal(0, 0.35 if far else 0.08, 2) * side
    square = side * REFINER_MARGIN * float(np.exp(rng.normal(0, 0.4 if far else 0.13)))
    tilt = float(rng.uniform(-MAX_TILT_DEG, MAX_TILT_DEG)) if rng.random() < 0.7 else 0.0
    scale = REFINER_SIDE / square
    matrix = cv2.getRotationMatrix2D(centre.tolist(), -tilt, scale)
    matrix[:, 2] += REFINER_SIDE / 2 - centre
    if rng.random() < 0.3:  # low resolution, as of a distant face
        small = float(np.exp(rng.uniform(np.log(9), np.log(30)))) / max(side, 1.0)
        if small < 1:
            size = max(2, round(w * small)), max(2, round(h * small))
            gray = cv2.resize(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), (w, h))
    crop = compose.warp(gray, matrix.astype(np.float32), (REFINER_SIDE, REFINER_SIDE), rng)
    faces = compose.transformed(faces, matrix.astype(np.float32), tilt)
    if rng.random() < 0.15 and len(faces):
        compose.occlude(crop, faces.boxes[overlaps(CANDIDATE, faces.boxes).argmax()], rng)
    crop = compose.degrade(compose.relight(crop, rng), rng)
    return crop, refiner_target(faces)


def refiner_target(faces: Faces) -> np.ndarray:
    """The target for `refiner_loss`, float32 [19], of a crop. faces: in pixels of the crop."""
    target = np.zeros(19, np.float32)
    target[1] = 1
    iou = overlaps(CANDIDATE, faces.boxes) if len(faces) else np.zeros(1)
    if iou.max() < NO_FACE_IOU:
        return target
    face = iou.argmax()
    score = faces.target[face]
    target[0] = 0.0 if np.isnan(score) else score
    target[1] = 0.0 if np.isnan(score) or iou[face] < FACE_IOU else 1.0
    target[18] = 0.0 if np.isnan(score) else 1.0
    target[2:18] = encode_refined(CROP, faces.boxes[face], faces.points[face], float(faces.roll_deg[face]))
    return target


def _window(picture: Picture, rng: np.random.Generator) -> np.ndarray:
    """A random square box [4] that hardly overlaps a face; after eight tries, any."""
    h, w = picture.gray.shape
    largest = 0.9 * min(h, w)
    for _ in range(8):
        side = float(np.exp(rng.uniform(np.log(min(MIN_WINDOW, largest)), np.log(largest))))
        x, y = rng.uniform(0, w - side), rng.uniform(0, h - side)
        box = np.array([x, y, x + side, y + side])
        if not len(picture.faces) or overlaps(box, picture.faces.boxes).max() < MAX_NEGATIVE_IOU:
            break
    return box
