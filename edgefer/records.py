"""What flows from a camera to a sink: frames, faces, and what the network says of them."""

from dataclasses import dataclass, field

import numpy as np

UNSURE = "unsure"  # the label of a face on which the network is not to be trusted


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture of a source: `image_bgr` uint8 [h, w, 3], its number from 0 and its time since the source began."""

    index: int
    time_s: float
    image_bgr: np.ndarray = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the network says of one picture: the likeliest label, its probability, and every label's probability.

    unsure: why the label is "unsure", such as "dark"; then `score` is the probability of the likeliest label.
    """

    label: str
    score: float
    scores: dict[str, float]
    unsure: str = ""


@dataclass(frozen=True, kw_only=True)
class Face:
    """A face in a frame: its box in pixels (left, top, right, bottom) and what the network says of it.

    track: a number that the same face keeps from frame to frame; 0 where faces are not tracked.
    """

    box_xyxy: tuple[int, int, int, int]
    prediction: Prediction
    track: int = 0
