"""What flows from a camera to a sink: frames, faces, and what the network says of them."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture of a source: `image_bgr` uint8 [h, w, 3], its number from 0 and its time since the source began."""

    index: int
    time_s: float
    image_bgr: np.ndarray = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the network says of one picture: the likeliest label, its probability, and every label's probability."""

    label: str
    score: float
    scores: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Face:
    """A face in a frame: its box in pixels (left, top, right, bottom) and what the network says of it."""

    box_xyxy: tuple[int, int, int, int]
    prediction: Prediction
