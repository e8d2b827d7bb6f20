"""What is known of each picture's faces, of the teacher's boxes and of people's, in one form; and its splits."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edgefer.train.faces.scenes import Source
from edgefer.train.faces.teacher import overlaps

MIN_MATCH = 0.35  # overlap of a person's box, moved to where the teacher would draw it, with the teacher's
# Scores from which the teacher's faces count, where people have marked faces and where not.
SURE, SURE_UNMARKED = 0.75, 0.8
# Scores below which its other faces are none: beside marked ones, and on other things.
DOUBTFUL, DOUBTFUL_THING = 0.45, 0.6
FEW = 0.25  # a source nobody marked, with sure faces in fewer of its pictures, is one of other things
MARKED_TARGET = 0.85  # the score to give a face that people marked and the teacher missed
ALIKE = 0.9  # correlation of two faces' pixels from which they are of the same photograph
ALIKE_SIDE = 24


@dataclass(frozen=True)
class Faces:
    """Faces of one picture in its pixels. boxes: float32 [n, 4] x0, y0, x1, y1; points: float32 [n, 5, 2], NaN where
    unknown; roll_deg: float32 [n], NaN where unknown; target: float32 [n], how sure a network should be of each; NaN where that
    is not known, so that it teaches neither a face nor its absence."""

    boxes: np.ndarray
    points: np.ndarray
    roll_deg: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class Picture:
    source: str
    name: str
    gray: np.ndarray
    faces: Faces


def gallery(sources: Sequence[Source]) -> list[Picture]:
    """Every picture with its faces."""
    return [picture for source in sources for picture in _pictures(source)]


def _pictures(source: Source) -> list[Picture]:
    fit = _box_fit(source) if source.has_marks else None
    taught = np.split(source.taught, np.searchsorted(source.taught[:, 0], np.arange(1, len(source.images))))
    marked = np.split(source.marked, np.searchsorted(source.marked[:, 0], np.arange(1, len(source.images))))
    sure = np.unique(source.taught[source.taught[:, 15] >= SURE_UNMARKED, 0])
    of_things = not source.has_marks and len(sure) < FEW * len(source.images)
    return [
        Picture(
            source.name, name, image, _mistaken(rows[:, 1:]) if of_things else _faces(rows[:, 1:], marks[:, 1:], fit)
        )
        for name, image, rows, marks in zip(source.names, source.images, taught, marked, strict=True)
    ]


def _box_fit(source: Source) -> np.ndarray:
    """How the teacher's boxes lie in people's: the median centre and size of theirs, in units of people's boxes."""
    relative = []
    for picture in np.unique(source.marked[:, 0]):
        marks = source.marked[source.marked[:, 0] == picture, 1:]
        boxes = source.taught[source.taught[:, 0] == picture, 1:5]
        for mark in marks if len(boxes) else ():
            shared = overlaps(mark, boxes)
            if shared.max() > MIN_MATCH:
                relative.append(_relative(boxes[shared.argmax()], mark))
    return np.median(relative, axis=0) if relative else np.array([0.0, 0.0, 1.0, 1.0])


def _relative(box: np.ndarray, mark: np.ndarray) -> np.ndarray:
    size = np.maximum(mark[2:] - mark[:2], 1e-6)
    return np.concatenate([((box[:2] + box[2:]) - (mark[:2] + mark[2:])) / 2 / size, (box[2:] - box[:2]) / size])


def _faces(taught: np.ndarray, marks: np.ndarray, fit: np.ndarray | None) -> Faces:
    """taught: [n, 16] box, points, score, roll; marks: [m, 4]; fit: as from `_box_fit`, None where nobody marked."""
    target = taught[:, 14].copy()
    target[target < (SURE_UNMARKED if fit is None else SURE)] = np.nan
    matched = np.zeros(len(taught), bool)
    added = []
    if fit is not None:
        size = marks[:, 2:] - marks[:, :2]
        centre = (marks[:, :2] + marks[:, 2:]) / 2 + fit[:2] * size
        moved = np.concatenate([centre - fit[2:] * size / 2, centre + fit[2:] * size / 2], axis=1)
        for box in moved:
            shared = overlaps(box, taught[:, :4]) if len(taught) else np.zeros(1)
            if shared.max() >= MIN_MATCH:
                row = shared.argmax()
                target[row], matched[row] = max(MARKED_TARGET, taught[row, 14]), True
            else:
                added.append(box)
    extra = len(added)
    boxes = np.concatenate([taught[:, :4], np.array(added).reshape(-1, 4)])
    points = np.concatenate([taught[:, 4:14].reshape(-1, 5, 2), np.full((extra, 5, 2), np.nan)])
    # Not levelled: the teacher's points lack a part of the roll.
    points[: len(taught)][np.isnan(taught[:, 15])] = np.nan
    roll = np.concatenate([taught[:, 15], np.full(extra, np.nan)])
    target = np.concatenate([target, np.full(extra, MARKED_TARGET)])
    kept = np.ones(len(boxes), bool)
    if fit is not None:
        kept[: len(taught)] = matched | (taught[:, 14] >= DOUBTFUL)
    return Faces(*(one[kept].astype(np.float32) for one in (boxes, points, roll, target)))


def _mistaken(taught: np.ndarray) -> Faces:
    """Of a picture of something else: what the teacher takes for a face is none, or where it is surer, teaches nothing."""
    kept = taught[taught[:, 14] >= DOUBTFUL_THING]
    unknown = np.full(len(kept), np.nan, np.float32)
    return Faces(kept[:, :4], np.full((len(kept), 5, 2), np.nan, np.float32), unknown, unknown)


def same_photographs(pictures: Sequence[Picture]) -> np.ndarray:
    """int64 [n]: pictures of one number share a face's very pixels, so that they belong on one side of a split.

    Two prints of a photograph have the same faces however they were cut; whole pictures that look alike (a correlation of
    their thumbnails) count too.
    """
    thumbs, owners = [], []
    for index, picture in enumerate(pictures):
        views = [(0, 0, *picture.gray.shape[1::-1])]
        views += [tuple(box) for box in picture.faces.boxes if (box[2:] - box[:2]).min() >= ALIKE_SIDE]
        for view in views:
            thumbs.append(_thumb(picture.gray, view))
            owners.append(index)
    stack, owner = np.stack(thumbs), np.array(owners)
    group = np.arange(len(pictures))
    for start in range(0, len(stack), 512):
        rows, columns = np.nonzero(stack[start : start + 512] @ stack.T > ALIKE)
        for one, other in zip(owner[rows + start], owner[columns], strict=True):
            if group[one] != group[other]:
                group[group == max(group[one], group[other])] = min(group[one], group[other])
    return group


def _thumb(gray: np.ndarray, box) -> np.ndarray:
    """A part of a picture as float32 [ALIKE_SIDE ** 2] of mean 0 and length 1."""
    x0, y0, x1, y1 = (round(float(edge)) for edge in box)
    top, left = min(max(0, y0), gray.shape[0] - 1), min(max(0, x0), gray.shape[1] - 1)
    part = gray[top : max(top + 1, y1), left : max(left + 1, x1)]  # a pixel at least of a box at the border
    small = cv2.resize(part, (ALIKE_SIDE, ALIKE_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def split(pictures: Sequence[Picture], group: np.ndarray, *, source: str, share: float, seed: int) -> np.ndarray:
    """int64 [n]: 0 for training, 1 for the test part, 2 for what belongs to neither.

    The test part is about `share` of the pictures of one source, in whole groups; pictures of other sources in those groups
    are used for nothing.
    """
    own = np.array([picture.source == source for picture in pictures])
    groups = np.unique(group[own])
    chosen = np.random.default_rng(seed).permutation(groups)[: round(share * len(groups))]
    tested = np.isin(group, chosen)
    return np.where(tested, np.where(own, 1, 2), 0)
