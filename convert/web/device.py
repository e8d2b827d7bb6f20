"""The settings of a page, so that it works like `edgefer run`; made by the command, which has access to both."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgefer.c.subject import Subject
from edgefer.records import Detection


@dataclass(frozen=True, kw_only=True)
class FaceNetworks:
    """edgefer's own detector: its two networks, and the thresholds for candidates."""

    finder: Subject
    refiner: Subject
    numbers: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Device:
    """rules: the parameters of tracking, smoothing and rejection. labels: as the page shows them, in the network's order.
    colors: of each label, "#rrggbb". detector: the key of the card's crop. networks: None if the page classifies the
    centre of the frame. find: the same detector on this host, uint8 BGR [h, w, 3] -> faces, the largest first."""

    rules: Mapping[str, object]
    labels: Sequence[str]
    colors: Mapping[str, str]
    detector: str
    networks: FaceNetworks | None
    find: Callable[[np.ndarray], Sequence[Detection]]
