"""Merges the teacher's and people's annotations of each picture's faces, and splits pictures by photograph."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edgefer.faces import overlaps
from edgefer.train.faces.scenes import Source

MIN_MATCH_IOU = 0.35  # of a teacher's box with a person's, mapped to where the teacher would draw it
# Teacher scores from which its faces are positives, in sources with and without marks; below, their targets are unknown.
SURE, SURE_UNMARKED = 0.75, 0.8
# Teacher scores below which its faces are dropped: unmatched ones in sources with marks, and those in sources without faces.
DOUBTFUL, DOUBTFUL_NEGATIVE = 0.45, 0.6
MAX_FACE_SHARE = 0.25  # of the pictures of an unmarked source: with sure faces in fewer, it is a source without faces
MARKED_TARGET = 0.85  # target of a face that people marked and the teacher missed; the least of one that it found
MIN_SIDE = 9.0  # pixels; smaller faces, in a picture or in a training image, have an unknown target
SAME_PHOTOGRAPH = 0.9  # correlation of two faces' thumbnails
THUMB_SIDE = 24


@dataclass(frozen=True)
class Faces:
    """The faces of one picture, in its pixels, float32; NaN is unknown.

    boxes: [n, 4], x0, y0, x1, y1. points: [n, 5, 2], as in TaughtFace. roll_deg: [n], clockwise. target: [n], the score
    to learn; an unknown one is neither a positive nor a negative.
    """

    boxes: np.ndarray
    points: np.ndarray
    roll_deg: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class Picture:
    """A gray image uint8 [h, w] with its faces. name: of its file in the source; has_marks: whether people marked the
    source's faces."""

    source: str
    name: str
    gray: np.ndarray
    faces: Faces
    has_marks: bool = False


def gallery(sources: Sequence[Source]) -> list[Picture]:
    """The pictures of all sources, with their faces."""
    return [picture for source in sources for picture in _pictures(source)]


def _pictures(source: Source) -> list[Picture]:
    fit = _box_fit(source) if source.has_marks else None
    taught = np.split(source.taught, np.searchsorted(source.taught[:, 0], np.arange(1, len(source.images))))
    marked = np.split(source.marked, np.searchsorted(source.marked[:, 0], np.arange(1, len(source.images))))
    with_faces = np.unique(source.taught[source.taught[:, 15] >= SURE_UNMARKED, 0])
    faceless = not source.has_marks and len(with_faces) < MAX_FACE_SHARE * len(source.images)
    pictures = []
    for name, image, rows, marks in zip(source.names, source.images, taught, marked, strict=True):
        faces = _false_positives(rows[:, 1:]) if faceless else _faces(rows[:, 1:], marks[:, 1:], fit)
        pictures.append(Picture(source.name, name, image, faces, source.has_marks))
    return pictures


def _box_fit(source: Source) -> np.ndarray:
    """The median centre and size of the teacher's boxes relative to people's: float [4], in units of the latter."""
    relative = []
    for picture in np.unique(source.marked[:, 0]):
        marks = source.marked[source.marked[:, 0] == picture, 1:]
        boxes = source.taught[source.taught[:, 0] == picture, 1:5]
        for mark in marks if len(boxes) else ():
            iou = overlaps(mark, boxes)
            if iou.max() > MIN_MATCH_IOU:
                relative.append(_relative(boxes[iou.argmax()], mark))
    return np.median(relative, axis=0) if relative else np.array([0.0, 0.0, 1.0, 1.0])


def _relative(box: np.ndarray, mark: np.ndarray) -> np.ndarray:
    size = np.maximum(mark[2:] - mark[:2], 1e-6)
    return np.concatenate([((box[:2] + box[2:]) - (mark[:2] + mark[2:])) / 2 / size, (box[2:] - box[:2]) / size])


def _faces(taught: np.ndarray, marks: np.ndarray, fit: np.ndarray | None) -> Faces:
    """taught: [n, 16], box, points, score, roll; marks: [m, 4]; fit: of `_box_fit`, None for a source without marks."""
    target = taught[:, 14].copy()
    target[target < (SURE_UNMARKED if fit is None else SURE)] = np.nan
    matched = np.zeros(len(taught), bool)
    added = []
    if fit is not None:
        size = marks[:, 2:] - marks[:, :2]
        centre = (marks[:, :2] + marks[:, 2:]) / 2 + fit[:2] * size
        mapped = np.concatenate([centre - fit[2:] * size / 2, centre + fit[2:] * size / 2], axis=1)
        for box in mapped:
            iou = overlaps(box, taught[:, :4]) if len(taught) else np.zeros(1)
            if iou.max() >= MIN_MATCH_IOU:
                row = iou.argmax()
                target[row], matched[row] = max(MARKED_TARGET, taught[row, 14]), True
            else:
                added.append(box)
    extra = len(added)
    boxes = np.concatenate([taught[:, :4], np.array(added).reshape(-1, 4)])
    points = np.concatenate([taught[:, 4:14].reshape(-1, 5, 2), np.full((extra, 5, 2), np.nan)])
    # Where the roll was not measured, the points underestimate it.
    points[: len(taught)][np.isnan(taught[:, 15])] = np.nan
    roll = np.concatenate([taught[:, 15], np.full(extra, np.nan)])
    target = np.concatenate([target, np.full(extra, MARKED_TARGET)])
    target[np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)) < MIN_SIDE] = np.nan
    kept = np.ones(len(boxes), bool)
    if fit is not None:
        kept[: len(taught)] = matched | (taught[:, 14] >= DOUBTFUL)
    return Faces(*(one[kept].astype(np.float32) for one in (boxes, points, roll, target)))


def _false_positives(taught: np.ndarray) -> Faces:
    """The faces of a picture without faces: the teacher's surer ones with an unknown target, the others dropped."""
    kept = taught[taught[:, 14] >= DOUBTFUL_NEGATIVE]
    unknown = np.full(len(kept), np.nan, np.float32)
    return Faces(kept[:, :4], np.full((len(kept), 5, 2), np.nan, np.float32), unknown, unknown)


def same_photographs(pictures: Sequence[Picture]) -> np.ndarray:
    """The group of each picture, int64 [n]: pictures of one group show the same photograph, and must be in one split.

    They have a face, or the whole picture, in common by the correlation of thumbnails: crops of a photograph have the
    same faces.
    """
    thumbs, owners = [], []
    for index, picture in enumerate(pictures):
        views = [(0, 0, *picture.gray.shape[1::-1])]
        views += [tuple(box) for box in picture.faces.boxes if (box[2:] - box[:2]).min() >= THUMB_SIDE]
        for view in views:
            thumbs.append(_thumb(picture.gray, view))
            owners.append(index)
    stack, owner = np.stack(thumbs), np.array(owners)
    group = np.arange(len(pictures))
    for start in range(0, len(stack), 512):
        rows, columns = np.nonzero(stack[start : start + 512] @ stack.T > SAME_PHOTOGRAPH)
        for one, other in zip(owner[rows + start], owner[columns], strict=True):
            if group[one] != group[other]:
                group[group == max(group[one], group[other])] = min(group[one], group[other])
    return group


def _thumb(gray: np.ndarray, box) -> np.ndarray:
    """A part of a picture as float32 [THUMB_SIDE ** 2] of mean 0 and norm 1."""
    x0, y0, x1, y1 = (round(float(edge)) for edge in box)
    top, left = min(max(0, y0), gray.shape[0] - 1), min(max(0, x0), gray.shape[1] - 1)
    part = gray[top : max(top + 1, y1), left : max(left + 1, x1)]  # at least one pixel of a box at the border
    small = cv2.resize(part, (THUMB_SIDE, THUMB_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-6)


def split(pictures: Sequence[Picture], group: np.ndarray, *, source: str, share: float, seed: int) -> np.ndarray:
    """The split of each picture, int64 [n]: 0 training, 1 holdout, 2 neither.

    The holdout is about `share` of the pictures of one source, in whole groups; pictures of other sources in these
    groups are not used.
    """
    own = np.array([picture.source == source for picture in pictures])
    groups = np.unique(group[own])
    chosen = np.random.default_rng(seed).permutation(groups)[: round(share * len(groups))]
    held_out = np.isin(group, chosen)
    return np.where(held_out, np.where(own, 1, 2), 0)
