"""What a page is given to do as `edgefer run` does: made by the command, which knows both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgefer.c.subject import Subject
from edgefer.records import Detection


@dataclass(frozen=True, kw_only=True)
class FaceNetworks:
    """edgefer's own detector: its two networks, and the numbers by which candidates become faces."""

    finder: Subject
    refiner: Subject
    numbers: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Device:
    """rules: the numbers by which faces are tracked, smoothed and judged. labels: as the page shows them, in the network's
    order. colors: of each label, "#rrggbb". detector: the key of the card's crop. networks: None where the page reads the middle of the frame. find: what finds the same faces here, uint8 BGR
    [h, w, 3] -> each face, the largest first."""

    rules: Mapping[str, object]
    labels: Sequence[str]
    colors: Mapping[str, str]
    detector: str
    networks: FaceNetworks | None
    find: Callable[[np.ndarray], Sequence[Detection]]
