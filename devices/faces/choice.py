"""Which detector finds people's faces where none is named, and why."""

from dataclasses import dataclass
from pathlib import Path

from edgefer.devices.faces.detectors import Detector, HaarDetector, described
from edgefer.devices.faces.own import OwnDetector, RefinedDetector, Refiner
from edgefer.devices.faces.pair import AS_USUAL, Running, has_shipped_pair
from edgefer.devices.faces.yunet import cached_yunet, fetch_yunet
from edgefer.devices.faces.yunet_lite import YuNetLite
from edgefer.errors import EdgeferError
from edgefer.options import AS_SHIPPED, DetectorFiles


@dataclass(frozen=True)
class Choice:
    """A detector, and why it was chosen, in a sentence."""

    detector: Detector
    reason: str


def automatic(files: DetectorFiles = AS_SHIPPED, running: Running = AS_USUAL, *, min_face: int = 0) -> Choice:
    """edgefer's own where a finder is named; else YuNet where its file is at hand, which measured best; else edgefer's own, which
    needs none. Nothing is fetched.

    EdgeferError where a file that is named cannot be used; a YuNet that was fetched and cannot is left aside.
    """
    if files.finder:
        return own(files, running, min_face=min_face)
    at_hand = files.yunet or cached_yunet()
    why = "YuNet, which finds more small faces, is not on this machine (--detector yunet fetches it)"
    if files.yunet or at_hand.is_file():
        refiner = _refiner(files, running)
        try:
            return _yunet(at_hand, refiner, running, min_face)
        except EdgeferError as error:
            if files.yunet:  # it was asked for
                raise
            why = f"YuNet cannot be used: {str(error).removesuffix('.')}"
    if not has_shipped_pair():
        return Choice(
            HaarDetector(), "Faces are found by OpenCV's Haar cascade: this install has no detector of edgefer's own."
        )
    return own(files, running, min_face=min_face, why=f": {why}")


def own(files: DetectorFiles, running: Running = AS_USUAL, *, min_face: int = 0, why: str = "") -> Choice:
    """edgefer's own detector, with the networks that are named or with those that ship."""
    detector = OwnDetector.of(files, running, min_face=min_face)
    return Choice(detector, f"Faces are found by edgefer's own detector ({', '.join(detector.networks)}){why}.")


def yunet(files: DetectorFiles = AS_SHIPPED, running: Running = AS_USUAL, *, min_face: int = 0) -> Choice:
    """YuNet on the TFLite runtime, refined; its file is fetched unless it is named or was fetched before."""
    refiner = _refiner(files, running)
    return _yunet(files.yunet or fetch_yunet(cached_yunet()), refiner, running, min_face)


def _refiner(files: DetectorFiles, running: Running) -> Refiner | None:
    return Refiner.of(files, running) if files.refiner or has_shipped_pair() else None


def _yunet(file: Path, refiner: Refiner | None, running: Running, min_face: int) -> Choice:
    lite: Detector = YuNetLite(file, cached_yunet().parent, min_face=min_face, options=running.options)
    detector = RefinedDetector(lite, refiner) if refiner else lite
    return Choice(detector, f"Faces are found by {described(detector)}, as int8 .tflite made of {file}.")
