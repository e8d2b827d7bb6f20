"""The records that flow from a source to a sink: a Detection becomes a Face, and a Frame holds its faces.

source -> Frame -> detector -> [Detection] -> tracker -> [Detection] -> network, smoother -> Frame with faces -> sinks
"""

import base64
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any, Self, TypeVar

import numpy as np

from edgefer.text import own_word, printable

T = TypeVar("T")
Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels; right and bottom are exclusive
Point = tuple[float, float]  # x, y, in pixels

UNSURE = "unsure"  # the label of a face that cannot be read reliably, written by own_word


@dataclass(frozen=True, kw_only=True)
class Detection:
    """A detected face, before classification.

    box_xyxy: in pixels of the frame. score: the detector's confidence, 0..1; 1.0 if it gives none.
    eyes_xy: the eye further left in the image, then the other. nose_xy: the tip of the nose.
    roll_deg: the head's roll, clockwise in the image; by default that of the line through the eyes, None if unknown.
    id: given by the tracker, the same from frame to frame; 0 before that.

    >>> face = Detection(box_xyxy=(10, 20, 50, 80), eyes_xy=((20, 40), (40, 60)))
    >>> face.side, face.roll_deg
    (50.0, 45.0)
    """

    box_xyxy: Box
    score: float = 1.0
    eyes_xy: tuple[Point, Point] | None = None
    nose_xy: Point | None = None
    roll_deg: float | None = None
    id: int = 0

    def __post_init__(self) -> None:
        if self.roll_deg is None and self.eyes_xy is not None:
            (x0, y0), (x1, y1) = self.eyes_xy
            object.__setattr__(self, "roll_deg", math.degrees(math.atan2(y1 - y0, x1 - x0)))

    @property
    def side(self) -> float:
        """The mean of the box's width and height, in pixels."""
        x0, y0, x1, y1 = self.box_xyxy
        return ((x1 - x0) + (y1 - y0)) / 2

    @property
    def turn(self) -> float | None:
        """A measure of yaw: the nose's distance from the midpoint of the eyes, along the line through them, in units of the
        distance between the eyes. 0 faces the camera; a nose protruding by 0.45 of that distance gives 0.45 * tan(yaw)."""
        if self.eyes_xy is None or self.nose_xy is None:
            return None
        (x0, y0), (x1, y1) = self.eyes_xy
        x, y = self.nose_xy
        across, down = x1 - x0, y1 - y0
        square = across * across + down * down
        return abs((x - (x0 + x1) / 2) * across + (y - (y0 + y1) / 2) * down) / square if square else 0.0

    def moved(self, dx: float, dy: float) -> "Detection":
        """The same face moved by `dx`, `dy` pixels."""
        x0, y0, x1, y1 = self.box_xyxy
        left, top = round(x0 + dx), round(y0 + dy)  # rounded once, so that the box keeps its size

        def shifted(point: Point) -> Point:
            return point[0] + dx, point[1] + dy

        return replace(
            self,
            box_xyxy=(left, top, left + x1 - x0, top + y1 - y0),
            eyes_xy=self.eyes_xy and (shifted(self.eyes_xy[0]), shifted(self.eyes_xy[1])),
            nose_xy=self.nose_xy and shifted(self.nose_xy),
        )


@dataclass(frozen=True, kw_only=True)
class Face:
    """A face in a frame and the decision about it.

    The label and its score are derived from the scores, so they can never contradict them.

    box_xyxy: in pixels of the frame. scores: the probability of each label, after smoothing, on which the decision is
    based. unsure: why the network's answer is unreliable, such as "dark" or "low score"; "" if it is reliable.
    id: the same from frame to frame; 0 if faces are not tracked.
    detection: the detector's record, if it was detected.

    >>> face = Face(box_xyxy=(8, 8, 40, 40), scores={"happy": 0.25, "sad": 0.5, "neutral": 0.25}, unsure="low score")
    >>> face.label, face.top, face.score
    ('unsure', 'sad', 0.5)
    """

    box_xyxy: Box
    scores: dict[str, float]
    unsure: str = ""
    id: int = 0
    detection: Detection | None = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> str:
        """The most likely label, or "unsure": "(unsure)" if the network has a label of that name."""
        return own_word(UNSURE, self.scores) if self.unsure else self.top

    @property
    def top(self) -> str:
        """The most likely label, also for an unsure face."""
        return max(self.scores, key=self.scores.__getitem__)

    @property
    def score(self) -> float:
        """The probability of the most likely label, 0..1, also for an unsure face."""
        return max(self.scores.values())

    def to_dict(self) -> dict[str, Any]:
        """As in JSON lines: id, box_xyxy, label, score and scores with four decimals, and the reason if it is unsure."""
        scores = {label: round(score, 4) for label, score in self.scores.items()}
        return {
            "id": self.id,
            "box_xyxy": self.box_xyxy,
            "label": self.label,
            "score": max(scores.values()),
            "scores": scores,
        } | ({"unsure": self.unsure} if self.unsure else {})


class _Shared:
    """Results that several threads share. Not fields of the dataclass: `asdict` cannot copy a lock."""

    _kept: dict[str, Any]
    _keeping: threading.Lock

    def __new__(cls, *args: Any, **settings: Any) -> Self:
        made = super().__new__(cls)
        made.__dict__.update(_kept={}, _keeping=threading.Lock())  # a frozen dataclass has no setattr
        return made

    def __getstate__(self) -> dict[str, Any]:
        """Without the lock, which cannot be copied or sent to another process."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_kept", "_keeping")}

    def once(self, key: str, make: Callable[[], T]) -> T:
        """The result of `make`, computed once per `key`, so that sinks in several threads share one annotated image."""
        with self._keeping:
            if key not in self._kept:
                self._kept[key] = make()
            return self._kept[key]


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame(_Shared):
    """One image of a source, and its faces once they have been read. Shared by the sinks, so it must not be modified.

    index: its number in its source, from 0. time_s: seconds since the source began, by the source's own time stamps.
    image_bgr: uint8 [h, w, 3], OpenCV's channel order. source: the source's name, such as a file's.
    faces: the largest first; empty before they are read. changed: whether the labels differ from those of the previous
    frame; of an image of a folder, whether it has faces. stream: the number of its source if a run has several, from 0. detector: the detector's name, with the name
    and hash of each of its networks; "" before detection.

    A frame is also the sequence of its faces: `for face in frame`, `len(frame)`, `frame[0]`.
    """

    index: int
    time_s: float
    image_bgr: np.ndarray = field(repr=False)
    source: str = ""
    faces: tuple[Face, ...] = ()
    changed: bool = False
    stream: int = 0
    detector: str = ""

    def __iter__(self) -> Iterator[Face]:
        return iter(self.faces)

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, place: int) -> Face:
        return self.faces[place]

    def to_dict(self) -> dict[str, Any]:
        """As in JSON lines: frame, time_s, source if it has a name, detector, and the faces as from Face.to_dict()."""
        named = {name: value for name in ("source", "detector") if (value := getattr(self, name))}
        head = {"frame": self.index, "time_s": round(self.time_s, 4)} | named
        return head | {"faces": [face.to_dict() for face in self.faces]}

    def rows(self) -> list[dict[str, Any]]:
        """One flat dict per face, for `pandas.DataFrame(row for frame in frames for row in frame.rows())`.

        source, frame, time_s, id, left, top, right, bottom, label, score, unsure, then `score_LABEL` for each label.

        >>> face = Face(box_xyxy=(8, 8, 40, 40), scores={"happy": 0.9, "sad": 0.1})
        >>> (row,) = Frame(index=3, time_s=0.1, image_bgr=np.zeros((48, 64, 3), np.uint8), faces=(face,)).rows()
        >>> row["frame"], row["label"], row["score_sad"], row["right"]
        (3, 'happy', 0.1, 40)
        """
        rows = []
        for face in self.faces:
            row = {"source": self.source, "frame": self.index, "time_s": self.time_s, "id": face.id}
            row |= dict(zip(("left", "top", "right", "bottom"), face.box_xyxy, strict=True))
            row |= {"label": face.label, "score": face.score, "unsure": face.unsure}
            rows.append(row | {f"score_{label}": score for label, score in face.scores.items()})
        return rows

    def _repr_html_(self) -> str:
        """The annotated image and a table of its faces, for notebooks."""
        import cv2

        import edgefer

        jpeg = base64.b64encode(cv2.imencode(".jpg", edgefer.draw(self))[1].tobytes()).decode()
        cells = "".join(
            f"<tr><td>{face.id}</td><td>{escape(face.label)}</td><td>{face.score:.0%}</td><td>{escape(face.unsure)}</td></tr>"
            for face in self.faces
        )
        table = (
            f"<table><tr><th>id</th><th>label</th><th>score</th><th>unsure</th></tr>{cells}</table>" if cells else ""
        )
        where = escape(printable(f"{self.source} {self.time_s:.2f} s".strip()))
        return f'<figure><img src="data:image/jpeg;base64,{jpeg}"><figcaption>{where}</figcaption></figure>{table}'
