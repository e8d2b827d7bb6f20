"""Keeps each face's id from frame to frame, and moves its box in frames without detection."""

import math
import statistics
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import cv2
import numpy as np

from edgefer.devices.faces.canvas import sampled
from edgefer.devices.faces.detectors import Detector
from edgefer.records import Box, Detection, Frame

MIN_IOU = 0.3  # minimum IoU of a detection with a known face
MAX_SHIFT = 1.0  # of a face's side: how far away a lost face may reappear
MIN_HITS = 2  # consecutive detections before a new face is shown: a cascade's false positives last one frame
MAX_MISSES = 3  # consecutive detections without a face before it is lost
FOLLOW_S = 0.6  # how long a face is tracked without being detected
# A lost face that is found again sooner keeps its id; after a longer gap between frames, tracking restarts. Of a source
# whose frames are far apart, as of a time-lapse camera, the longer of this and FORGET_FRAMES counts.
FORGET_S = 1.0
FORGET_FRAMES = 2.5  # times the median of the latest gaps
GAPS = 5  # as many: a single pause does not make a source slow
PATCH = 32  # pixels of a face's side while it is tracked
REACH = 0.5  # of a face's side: search margin around its last box
MIN_CORRELATION = 0.5  # minimum correlation with the patch of the last detection
MIN_CONTRAST = 2.0  # standard deviation of a patch, of 255
LEVEL_S = 0.2  # time constant of the roll's smoothing: landmarks jitter, and a jittering crop makes labels flicker


class Pace:
    """How many frames may pass between detections, to keep a frame rate on average.

    It adapts to reported times. Without `target_fps` every frame is searched, or every `follow`th one.
    """

    def __init__(self, target_fps: float | None = None, follow: int = 1):
        self.target_fps, self.follow = target_fps, follow
        self._detect_s = self._follow_s = self._rest_s = 0.0

    def detected(self, seconds: float) -> None:
        """Report the time of a frame with detection."""
        self._detect_s = _mean(self._detect_s, seconds)

    def followed(self, seconds: float) -> None:
        """Report the time of a frame with tracking only."""
        self._follow_s = _mean(self._follow_s, seconds)

    def rest(self, seconds: float) -> None:
        """Report the loop's remaining time for a frame; 0 if that runs in parallel on another core."""
        self._rest_s = _mean(self._rest_s, seconds)

    @property
    def apart(self) -> int:
        """1 searches every frame, 3 every third; limited by how long faces may be tracked, or by `follow` if that is more."""
        return max(self.follow, self._needed())

    def _needed(self) -> int:
        if self.target_fps is None:
            return 1
        budget_s = 1 / self.target_fps - self._rest_s
        if self._detect_s <= budget_s:
            return 1
        most = max(2, int(FOLLOW_S / 2 * self.target_fps))
        spare_s = budget_s - self._follow_s
        return min(most, math.ceil((self._detect_s - self._follow_s) / spare_s)) if spare_s > 0 else most


def _mean(old: float, new: float) -> float:
    return old + 0.2 * (new - old) if old else new


class _Patch(NamedTuple):
    """The part of a face's box inside the frame. gray: uint8. left, top: where it begins in the box, in pixels of the frame."""

    gray: np.ndarray
    left: int
    top: int


@dataclass(eq=False)
class _Track:
    """A face over time."""

    number: int
    face: Detection
    best: float = 0.0  # the highest score of a detection
    hits: int = 1
    misses: int = 0
    lost: bool = False
    seen_s: float = 0.0
    _seen: tuple[np.ndarray, Box] | None = field(default=None, repr=False)
    _patch: _Patch | None = field(default=None, repr=False)

    def see(self, frame: Frame, box: Box) -> None:
        """Record a detection."""
        self.best = max(self.best, self.face.score)
        self.seen_s, self._seen, self._patch = frame.time_s, (frame.image_bgr, box), None

    @property
    def patch(self) -> _Patch:
        """Its gray image at the last detection, at most PATCH pixels a side. Computed lazily, since it is rarely needed with
        a detection in every frame."""
        if self._patch is None:
            assert self._seen is not None
            left, top = self._seen[1][:2]
            self._patch = _Patch(_patch(*self._seen), max(0, -left), max(0, -top))
            self._seen = None  # release the frame
        return self._patch


class Tracker:
    """Gives a detector's faces stable ids from frame to frame of one source.

    Between searches of the whole frame, a detector that looks near searches near the known faces, and the whole frame
    while one is lost; another detector's faces are tracked by their pixels.

    A new face is shown after two consecutive detections, one of them with min_new_score, except in a first frame, or where
    frames are FORGET_S apart; a face missed by three detections is lost. So a single missed or false detection has no effect.
    """

    def __init__(self, detector: Detector, *, target_fps: float | None = None, follow: int = 1):
        self.detector, self.name = detector, detector.name
        self.pace = Pace(target_fps, follow)
        self._tracks: list[_Track] = []
        self._count = 0
        self._last: tuple[str, float] | None = None  # the last frame's source, by which images differ, and time
        self._gaps_s: deque[float] = deque(maxlen=GAPS)
        self._since = 0  # frames since faces were last detected

    def use(self, detector: Detector) -> None:
        """Detect with this one; if it is another, in the whole next frame: a crop is measured for its own boxes."""
        if detector is not self.detector:
            self.detector, self._since = detector, self.pace.apart

    def follow(self, frame: Frame) -> list[Detection]:
        """The faces of the next frame, the largest first, each with its `id`."""
        began = time.perf_counter()
        gap_s, forget_s = self._next(frame)
        if not 0 <= gap_s < forget_s:
            self._tracks.clear()
        fresh = not 0 <= gap_s < FORGET_S
        self._since += 1
        followed = [track for track in self._tracks if not track.lost]
        due = fresh or self._since >= self.pace.apart or any(track.hits < MIN_HITS for track in followed)
        due = due or (self.detector.looks_near and len(followed) < len(self._tracks))  # one was lost
        detected = due or not self._find_again(followed, frame)
        if detected:
            found = self.detector.find(frame.image_bgr)
            self._update(self._match(found, frame), found, frame, fresh)
            self._since = 0
        self._tracks = [
            track
            for track in self._tracks
            if frame.time_s - track.seen_s < forget_s and not (track.lost and track.hits < MIN_HITS)
        ]
        (self.pace.detected if detected else self.pace.followed)(time.perf_counter() - began)
        least = 0.0 if fresh else self.detector.min_new_score
        shown = [
            track.face for track in self._tracks if track.hits >= MIN_HITS and not track.lost and track.best >= least
        ]
        return sorted(shown, key=lambda face: -face.side)

    def _next(self, frame: Frame) -> tuple[float, float]:
        """The time since the last frame, infinite if there is none of this source; and the time to forget a face."""
        same = self._last is not None and self._last[0] == frame.source
        gap_s = frame.time_s - self._last[1] if self._last and same else math.inf
        usual_s = statistics.median_low(self._gaps_s) if self._gaps_s else 0.0
        if 0 < gap_s < math.inf:
            self._gaps_s.append(gap_s)
        self._last = frame.source, frame.time_s
        return gap_s, max(FORGET_S, FORGET_FRAMES * usual_s)

    def _move(self, track: _Track, frame: Frame) -> None:
        """Move a face to the best match of its patch, or lose it."""
        moved = _follow(frame.image_bgr, track.face.box_xyxy, track.patch)
        if moved is None or frame.time_s - track.seen_s > FOLLOW_S:
            track.lost = True
        else:
            track.face = track.face.moved(*moved)

    def _find_again(self, tracks: list[_Track], frame: Frame) -> bool:
        """Find known faces without searching the whole frame; whether all were found."""
        if tracks and self.detector.looks_near:
            found = self.detector.find(frame.image_bgr, [track.face.box_xyxy for track in tracks])
            pairs = _pairs(tracks, found)
            if len(pairs) < len(tracks):
                return False
            self._update(pairs, found, frame, fresh=False)
            return True
        for track in tracks:
            self._move(track, frame)
        return not any(track.lost for track in tracks)

    def _match(self, found: list[Detection], frame: Frame) -> dict[_Track, Detection]:
        """Match detections with known faces; count a miss for the unmatched ones."""
        # Boxes overlap from detection to detection unless a face is fast or missed: only those are tracked first.
        pairs = _pairs([track for track in self._tracks if not track.lost], found)
        if rest := [track for track in self._tracks if track not in pairs]:
            for track in rest:
                if not track.lost:
                    self._move(track, frame)
            pairs |= _pairs(rest, [face for face in found if not any(face is other for other in pairs.values())])
        for track in self._tracks:
            if track not in pairs:
                track.misses += 1
                track.lost = track.lost or track.misses >= MAX_MISSES or track.hits < MIN_HITS
        return pairs

    def _update(self, pairs: dict[_Track, Detection], found: list[Detection], frame: Frame, fresh: bool) -> None:
        """Move the known faces to their detections; add new faces for the others."""
        for track, face in pairs.items():
            before = None if track.lost else track.face.roll_deg
            roll_deg = _smoothed_roll(face.roll_deg, before, frame.time_s - track.seen_s)
            track.face = replace(face, roll_deg=roll_deg, id=track.number)
            track.hits, track.misses, track.lost = track.hits + 1, 0, False
            track.see(frame, face.box_xyxy)
        known = list(pairs.values())
        for face in found:
            if not any(face is other for other in known):
                self._count += 1
                face = replace(face, id=self._count)
                track = _Track(self._count, face, hits=MIN_HITS if fresh else 1)
                track.see(frame, face.box_xyxy)
                self._tracks.append(track)


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - both)


def _pairs(tracks: list[_Track], found: list[Detection]) -> dict[_Track, Detection]:
    """Match detections with known faces: the greatest overlap first, then nearby lost faces."""
    likely = []
    for track in tracks:
        for face in found:
            likeness = overlap(track.face.box_xyxy, face.box_xyxy)
            if likeness >= MIN_IOU or (track.lost and _near(track.face, face)):
                likely.append((likeness, track, face))
    pairs: dict[_Track, Detection] = {}
    for _, track, face in sorted(likely, key=lambda pair: (pair[1].lost, -pair[0])):
        if track not in pairs and not any(face is taken for taken in pairs.values()):
            pairs[track] = face
    return pairs


def _near(one: Detection, other: Detection) -> bool:
    (ax, ay), (bx, by) = _middle(one.box_xyxy), _middle(other.box_xyxy)
    alike = 0.5 < one.side / max(other.side, 1e-9) < 2
    return alike and math.hypot(ax - bx, ay - by) < MAX_SHIFT * max(one.side, other.side)


def _middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _smoothed_roll(roll_deg: float | None, before_deg: float | None, apart_s: float) -> float | None:
    """The exponential mean of a head's roll over time, in degrees, along the shorter arc."""
    if roll_deg is None or before_deg is None:
        return roll_deg
    step_deg = (roll_deg - before_deg + 180) % 360 - 180
    return before_deg + (1 - math.exp(-apart_s / LEVEL_S)) * step_deg


def _clipped(box: tuple[float, float, float, float], image_bgr: np.ndarray) -> Box:
    height, width = image_bgr.shape[:2]
    x0, y0, x1, y1 = (round(edge) for edge in box)
    return max(0, x0), max(0, y0), min(width, x1), min(height, y1)


def _patch(image_bgr: np.ndarray, box: Box, grow: float = 0.0) -> np.ndarray:
    """The part of a frame in `box`, enlarged by `grow` of its side each way, as gray uint8; the side becomes PATCH
    pixels. Empty if the box is outside the frame."""
    side = max(1.0, ((box[2] - box[0]) + (box[3] - box[1])) / 2)
    more = grow * side
    x0, y0, x1, y1 = _clipped((box[0] - more, box[1] - more, box[2] + more, box[3] + more), image_bgr)
    if x0 >= x1 or y0 >= y1:
        return np.empty((0, 0), np.uint8)
    size = max(1, round((x1 - x0) * PATCH / side)), max(1, round((y1 - y0) * PATCH / side))
    step = max(1, int(side / (2 * PATCH)))  # every pixel of a large face would cost ten times as much
    part = sampled(image_bgr[y0:y1:step, x0:x1:step])
    return cv2.cvtColor(cv2.resize(part, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)


def _follow(image_bgr: np.ndarray, box: Box, patch: _Patch) -> tuple[float, float] | None:
    """How far the face of `patch`, last at `box`, has moved, in pixels (x, y); None without a match."""
    window, gray = _patch(image_bgr, box, REACH), patch.gray
    if not gray.size or window.shape[0] < gray.shape[0] or window.shape[1] < gray.shape[1]:
        return None
    if gray.std() < MIN_CONTRAST:  # a patch without contrast matches everything
        return None
    likeness = cv2.matchTemplate(window, gray, cv2.TM_CCOEFF_NORMED)
    _, best, _, (column, row) = cv2.minMaxLoc(likeness)
    if best < MIN_CORRELATION:
        return None
    side = max(1.0, ((box[2] - box[0]) + (box[3] - box[1])) / 2)
    more, pixel = REACH * side, side / PATCH
    left, top, _, _ = _clipped((box[0] - more, box[1] - more, box[2], box[3]), image_bgr)
    x = left + pixel * (column + _peak(likeness[row], column))
    y = top + pixel * (row + _peak(likeness[:, column], row))
    return x - (box[0] + patch.left), y - (box[1] + patch.top)


def _peak(values: np.ndarray, at: int) -> float:
    """The sub-pixel offset of the maximum from its neighbours, -0.5..0.5, by a parabola through the three."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, here, after = (float(value) for value in values[at - 1 : at + 2])
    bend = before - 2 * here + after
    return 0.5 * (before - after) / bend if bend < 0 else 0.0
