"""edgefer's own detector: a finder proposes candidates in the whole frame, and a refiner verifies each of them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from edgefer.bundle import Bundle
from edgefer.devices.faces.canvas import (
    MAX_SHAPES,
    Layout,
    MapNetwork,
    Maps,
    logit,
    non_max_suppression,
    shrunk,
    thinned_gray,
)
from edgefer.devices.faces.detectors import Detector, WrappingDetector
from edgefer.devices.faces.pair import DEFAULT_OPTIONS, PairOptions, open_finder, open_refiner
from edgefer.errors import RuntimeFault
from edgefer.faces import (
    ANCHORS,
    FINDER_SIDE,
    REFINER_MARGIN,
    REFINER_SIDE,
    STRIDES,
    Refined,
    decode_map,
    decode_refined,
    map_shapes,
)
from edgefer.options import AS_SHIPPED, DetectorFiles
from edgefer.preprocess import clipped_range, to_float, to_int8
from edgefer.records import Box, Detection

MIN_CANDIDATE_SCORE = 0.2  # the finder's, for a refiner's training
MIN_SCORE = 0.55  # of a face
# The score that a new face in a video must reach once to be shown: it hides 55% of the frames with a false detection, and
# 2.8% of the faces' frames (tests/benchmarks/measure_ghosts.py).
MIN_NEW_SCORE = 0.7
MAX_ROLL_DEG = 15.0  # a face with a larger roll is refined once more: the finder's box of it is less exact
MAX_MOVE = 0.05  # of a known face's side: after a larger move it is refined once more at its new position
MIN_REFINED_SCORE = 0.3  # another detector's faces are dropped below this
SIDE = 160  # pixels of the canvas's longer side
MIN_CANVAS_FACE = 16.0  # pixels of a face on the canvas: of real faces, 90% were found at 16, half at 12
MAX_CANDIDATES = 100  # to be refined, those with the highest scores: a group of 50 has that many on two canvases
MAX_MINED = 24  # of an image for a refiner's training, those with the highest scores
MAX_CANDIDATE_IOU = 0.5  # for the NMS of candidates
MAX_IOU = 0.4  # for the NMS of faces


class Candidate(NamedTuple):
    """A possible face. box: left, top, right, bottom in pixels of the frame. logit: of its score."""

    box: tuple[float, float, float, float]
    logit: float


class Finder:
    """Finds candidates in a frame, with a low threshold."""

    def __init__(self, network: Maps):
        self._network = network

    def find(self, image_bgr: np.ndarray, side: int, min_score: float = MIN_CANDIDATE_SCORE) -> list[Candidate]:
        """The highest score first. side: the canvas's longer side."""
        layout = Layout.of(image_bgr.shape, side)
        width, height = layout.size
        canvas = np.zeros(layout.canvas, np.uint8)
        canvas[:height, :width] = shrunk(thinned_gray(image_bgr, layout.size), layout.size)
        boxes, logits = self._candidates(canvas, logit(min_score))
        kept = non_max_suppression(boxes, logits, MAX_CANDIDATE_IOU, nested=2.0)[:MAX_CANDIDATES]
        x, y = width / image_bgr.shape[1], height / image_bgr.shape[0]
        found = []
        for row in kept:
            left, top, right, bottom = boxes[row]
            found.append(Candidate((left / x, top / y, right / x, bottom / y), logits[row]))
        return found

    def _candidates(self, gray: np.ndarray, min_logit: float) -> tuple[list[list[float]], list[float]]:
        """On a canvas uint8 [h, w]: boxes in its pixels, and logits."""
        network = self._network.sized(*gray.shape)
        maps = network.run(as_input(gray[..., None], network.quantized))
        steps = tuple(network.step(index) for index in range(len(maps)))
        shapes = tuple(one.shape for one in maps)
        if shapes != map_shapes(*gray.shape):
            raise RuntimeFault(
                f"{network.name} does not give a map per stride on this frame: train it with edgefer's recipe."
            )
        cells = _cells(shapes, steps, min_logit)
        answers = np.concatenate([one.reshape(-1, one.shape[2]) for one in maps])
        likely = np.flatnonzero(answers[:, 0] > cells[:, 6])
        cells = cells[likely]
        picked = (answers[likely] - cells[:, 5:6]) * cells[:, 4:5]
        boxes = decode_map(cells[:, :2], picked, cells[:, 2:3], cells[:, 3:4])
        return boxes.tolist(), picked[:, 0].tolist()


@lru_cache(maxsize=MAX_SHAPES)
def _cells(shapes: tuple[tuple[int, ...], ...], steps: tuple[tuple[float, int], ...], min_logit: float) -> np.ndarray:
    """Every cell of a canvas's maps of these shapes (rows, columns, answers), in order: float64 [n, 7] of its column and row,
    the map's stride and anchor, the scale and zero point of its answers, and the quantized `min_logit`."""
    maps = zip(shapes, STRIDES, ANCHORS, steps, strict=True)
    return np.array(
        [
            (column, row, stride, anchor, scale, zero, min_logit / scale + zero)
            for (rows, columns, _), stride, anchor, (scale, zero) in maps
            for row in range(rows)
            for column in range(columns)
        ]
    )


class CandidateMiner:
    """Mines candidates for a refiner's training: a finder's true and false detections in gray images."""

    def __init__(self, finder: Finder):
        self._finder = finder

    @classmethod
    def of(cls, bundle: Bundle) -> "CandidateMiner":
        return cls(Finder(MapNetwork.open(bundle)))

    def __call__(self, pictures: Iterable) -> list[tuple]:
        """pictures: with `gray` uint8 [h, w] each -> an image and a box float64 [4], for each candidate."""
        return [
            (one, np.array(found.box))
            for one in pictures
            for found in self._finder.find(one.gray, FINDER_SIDE)[:MAX_MINED]
        ]


class Refiner:
    """Refines candidates: face or not, box, five points, roll. name: the network's, with its hash."""

    def __init__(self, network: Maps, name: str = ""):
        self._network, self.name = network, name

    @classmethod
    def of(cls, files: DetectorFiles = AS_SHIPPED, options: PairOptions = DEFAULT_OPTIONS) -> "Refiner":
        """The named one, else the shipped one."""
        opened = open_refiner(files.refiner, options)
        return cls(opened.network, opened.name)

    def refine(self, image_bgr: np.ndarray, box: Sequence[float]) -> Refined:
        """box: four edges in pixels of the frame."""
        square = square_around(box)
        (answers,) = self._network.run(as_input(cut(image_bgr, square), self._network.quantized))
        scale, zero = self._network.step(0)
        return decode_refined([(answer - zero) * scale for answer in answers.tolist()], square.edges)

    def follow(self, image_bgr: np.ndarray, box: Box) -> Refined:
        """A known face, from its position in the previous frame."""
        seen = self.refine(image_bgr, box)
        (x0, y0, x1, y1), (left, top, right, bottom) = seen.box, box
        moved = max(abs(x0 + x1 - left - right), abs(y0 + y1 - top - bottom)) / 2
        if moved > MAX_MOVE * ((right - left) + (bottom - top)) / 2:
            return self.refine(image_bgr, seen.box)
        return seen


@dataclass(frozen=True)
class Square:
    """The refiner's input area, in whole pixels of the frame. step: a large one is subsampled by this; `side` is a multiple
    of it."""

    left: int
    top: int
    side: int
    step: int

    @property
    def edges(self) -> tuple[int, int, int]:
        return self.left, self.top, self.side


def square_around(box: Sequence[float]) -> Square:
    """The refiner's square for a candidate's box, four edges."""
    side = max(((box[2] - box[0]) + (box[3] - box[1])) / 2, 2.0) * REFINER_MARGIN
    step = max(1, int(side / (2 * REFINER_SIDE)))
    whole = step * round(side / step)
    return Square(round((box[0] + box[2] - whole) / 2), round((box[1] + box[3] - whole) / 2), whole, step)


def cut(image_bgr: np.ndarray, square: Square) -> np.ndarray:
    """A square of a frame as gray uint8 [48, 48, 1]; beyond the frame the border is replicated."""
    height, width = image_bgr.shape[:2]
    first, end, step = square.step // 2, square.side, square.step
    left, top = square.left, square.top
    if left >= 0 and top >= 0 and left + end <= width and top + end <= height:
        gray = _gray(image_bgr[top + first : top + end : step, left : left + end])[:, first::step]
    else:
        rows = clipped_range(top + first, top + end, step, height)
        columns = clipped_range(left + first, left + end, step, width)
        start = columns[0]
        gray = _gray(image_bgr[rows, start : columns[-1] + 1]).take(columns - start, axis=1)
    return shrunk(np.ascontiguousarray(gray), (REFINER_SIDE, REFINER_SIDE))[..., None]


def _gray(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image


def as_input(pixels: np.ndarray, quantized: bool) -> np.ndarray:
    """uint8 pixels as the input of one of the two networks: int8 if it is quantized, else float32 in 0..1."""
    return to_int8(pixels) if quantized else to_float(pixels)


class OwnDetector(Detector):
    """The finder on the frame, scaled so that the smallest wanted face has 16 pixels; then the refiner on its candidates.

    min_face: pixels of the frame; 0 uses a canvas of 160 pixels. networks: their names and hashes.
    """

    name = "own"
    looks_near = True
    min_new_score = MIN_NEW_SCORE

    def __init__(
        self,
        finder: Maps,
        refiner: Maps,
        *,
        min_face: int = 0,
        min_score: float = MIN_SCORE,
        networks: tuple[str, ...] = (),
    ):
        self._finder, self._refiner = Finder(finder), Refiner(refiner)
        self.min_face, self.min_score, self.networks = min_face, min_score, networks

    @classmethod
    def of(
        cls, files: DetectorFiles = AS_SHIPPED, options: PairOptions = DEFAULT_OPTIONS, *, min_face: int = 0
    ) -> "OwnDetector":
        """With the named networks, else the shipped ones."""
        finder, refiner = open_finder(files.finder, options), open_refiner(files.refiner, options)
        return cls(finder.network, refiner.network, min_face=min_face, networks=(finder.name, refiner.name))

    @classmethod
    def shipped(cls, *, min_face: int = 0) -> "OwnDetector":
        """With the shipped networks."""
        return cls.of(min_face=min_face)

    def sides(self, frame_shape: tuple[int, ...]) -> list[int]:
        """The canvases' longer sides for a frame: one for the smallest wanted face and, if that canvas is large, a coarse
        one for faces that are too large for it."""
        if not self.min_face:
            return [SIDE]
        wanted = 32 * round(max(frame_shape[:2]) * MIN_CANVAS_FACE / self.min_face / 32)
        return [max(SIDE, wanted)] if wanted <= FINDER_SIDE else [SIDE, wanted]

    def find(self, image_bgr: np.ndarray, near: Sequence[Box] | None = None) -> list[Detection]:
        """near: boxes of known faces, for which only the refiner runs."""
        if near is not None:
            seen = [self._refiner.follow(image_bgr, box) for box in near]
            return sure_faces(seen, [one.score for one in seen], self.min_score)
        sides, least = self.sides(image_bgr.shape), min_candidate_score(self.min_score)
        found = [one for side in sides for one in self._finder.find(image_bgr, side, least)]
        if len(sides) > 1:
            boxes, logits = [one.box for one in found], [one.logit for one in found]
            kept = non_max_suppression(boxes, logits, MAX_CANDIDATE_IOU, nested=2.0)[: 2 * MAX_CANDIDATES]
            found = [found[row] for row in kept]
        seen = [self._refiner.refine(image_bgr, one.box) for one in found]
        scores = [
            math.sqrt(close.score * (1 / (1 + math.exp(-one.logit)))) for close, one in zip(seen, found, strict=True)
        ]
        tilted = [
            row for row, one in enumerate(seen) if scores[row] >= self.min_score and abs(one.roll_deg) > MAX_ROLL_DEG
        ]
        for row in tilted:
            seen[row] = self._refiner.refine(image_bgr, seen[row].box)
        return sure_faces(seen, scores, self.min_score)


class RefinedDetector(WrappingDetector):
    """Another detector's faces and boxes, with the refiner's roll and points; those with a low score are dropped.

    min_score: for the geometric mean of both scores.
    """

    def __init__(self, detector: Detector, refiner: Refiner, *, min_score: float = MIN_REFINED_SCORE):
        super().__init__(detector)
        self._refiner, self.min_score = refiner, min_score
        self.networks = (*detector.networks, *filter(None, (refiner.name,)))

    def find(self, image_bgr: np.ndarray, near: Sequence[Box] | None = None) -> list[Detection]:
        faces = []
        for face in self.inner.find(image_bgr, near):
            seen = self._refiner.refine(image_bgr, face.box_xyxy)
            score = math.sqrt(face.score * seen.score)
            if score >= self.min_score:
                faces.append(replace(face, score=score, **_looks(seen)))
        return faces


def min_candidate_score(min_score: float) -> float:
    """The minimum finder score of a candidate that can still be a face: its geometric mean with the refiner's score, at most
    1, must reach `min_score`. On news photographs this halves the number of candidates to refine."""
    return max(MIN_CANDIDATE_SCORE, min_score**2)


def sure_faces(seen: Sequence[Refined], scores: Sequence[float], min_score: float) -> list[Detection]:
    """The candidates with the score of a face, after NMS, the largest first.

    In a full search the score is the geometric mean of the finder's and the refiner's. It and its threshold were chosen on
    the same images as the shipped pair's figures (models/face-finder/README.md).
    """
    sure = [row for row, score in enumerate(scores) if score >= min_score]
    kept = non_max_suppression([seen[row].box for row in sure], [scores[row] for row in sure], MAX_IOU)
    faces = [_detection(seen[row], scores[row]) for row in (sure[at] for at in kept)]
    return sorted(faces, key=lambda face: -face.side)


def _detection(seen: Refined, score: float) -> Detection:
    left, top, right, bottom = map(round, seen.box)
    return Detection(box_xyxy=(left, top, right, bottom), score=score, **_looks(seen))


def _looks(seen: Refined) -> dict:
    """A Detection's roll and points."""
    return {"roll_deg": seen.roll_deg, "eyes_xy": seen.points[:2], "nose_xy": seen.points[2]}
