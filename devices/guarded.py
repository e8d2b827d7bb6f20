"""The detector and the network behind guards: a call that hangs in a driver is noticed and its worker replaced."""

from collections.abc import Callable
from typing import Any

import numpy as np

from edgefer.devices.faces.detectors import Detector
from edgefer.devices.threads import Guard
from edgefer.errors import RuntimeFault
from edgefer.interpreter import Classifier
from edgefer.records import Detection


class GuardedDetector:
    """A detector whose hung calls are asked again of a new one. how: the settings of a Guard."""

    def __init__(self, make: Callable[[], Detector], **how: Any):
        detector = make()
        self.name = detector.name
        self._guard: Guard[np.ndarray, list[Detection]] = Guard(
            detector.find, lambda: make().find, name="The face detector", **how
        )

    def find(self, image_bgr: np.ndarray) -> list[Detection]:
        return self._guard(image_bgr)


class GuardedClassifier(Classifier):
    """A classifier whose hung calls are asked again of another one.

    replace: loads the other one; None: there is none, and a hung call is an EdgeferError. on_fault: a runtime's error is
    answered by it too, and not only silence. how: the sentences and settings of a Guard.
    """

    def __init__(
        self,
        classifier: Classifier,
        replace: Callable[[], Classifier] | None,
        *,
        on_fault: bool = False,
        **how: Any,
    ):
        super().__init__(classifier.network, classifier.card, classifier.variant)
        self._guard: Guard[np.ndarray, np.ndarray] = Guard(
            classifier.predict,
            (lambda: replace().predict) if replace else None,
            faults=(RuntimeFault,) if on_fault else (),
            **{"name": "The network"} | how,
        )

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        return self._guard(pixels)
