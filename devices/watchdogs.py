"""The detector and the network with watchdogs: when a call hangs in a driver, its worker is replaced."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from edgefer.devices.faces.detectors import Detector, WrappingDetector
from edgefer.devices.threads import Rules, Watchdog
from edgefer.errors import RuntimeFault
from edgefer.interpreter import Classifier, Images
from edgefer.records import Box, Detection

Question = tuple[np.ndarray, Sequence[Box] | None]  # an image uint8 BGR [h, w, 3], and boxes to search near


class WatchedDetector(WrappingDetector):
    """A detector that repeats a hung call with a new detector."""

    def __init__(self, make: Callable[[], Detector], rules: Rules | None = None):
        detector = make()
        super().__init__(detector)
        self._watchdog: Watchdog[Question, list[Detection]] = Watchdog(
            _search(detector), lambda: _search(make()), replace(rules or Rules(), name="The face detector")
        )

    def find(self, image_bgr: np.ndarray, near: Sequence[Box] | None = None) -> list[Detection]:
        return self._watchdog((image_bgr, near))


def _search(detector: Detector) -> Callable[[Question], list[Detection]]:
    return lambda question: detector.find(*question)


class WatchedClassifier(Classifier):
    """A classifier that repeats a hung call with a replacement.

    spare: loads the replacement; None: there is none, and a hung call is an EdgeferError. on_fault: replace it after a
    runtime error too, not only when it hangs.
    """

    def __init__(
        self,
        classifier: Classifier,
        spare: Callable[[], Classifier] | None,
        rules: Rules | None = None,
        *,
        on_fault: bool = False,
    ):
        super().__init__(classifier.network, classifier.card, classifier.variant)
        rules = rules or Rules(name="The network")
        self._watchdog: Watchdog[Images, np.ndarray] = Watchdog(
            classifier.predict,
            (lambda: spare().predict) if spare else None,
            replace(rules, faults=(RuntimeFault,) if on_fault else ()),
        )

    def predict(self, pixels: Images) -> np.ndarray:
        return self._watchdog(pixels)
