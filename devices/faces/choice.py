"""Which detector finds people's faces where none is named, and why."""

from dataclasses import dataclass
from pathlib import Path

from edgefer.devices.faces.detectors import Detector, HaarDetector
from edgefer.devices.faces.own import OwnDetector, RefinedDetector, shipped_refiner
from edgefer.devices.faces.yunet import cached_yunet, fetch_yunet
from edgefer.devices.faces.yunet_lite import YuNetLite
from edgefer.errors import EdgeferError


@dataclass(frozen=True)
class Choice:
    """A detector, and why it was chosen, in a sentence."""

    detector: Detector
    reason: str


def automatic(file: Path | None, *, min_face: int = 0, runtime: str = "auto", threads: int = 1) -> Choice:
    """YuNet where its file is at hand, which measured best; else edgefer's own, which needs none. Nothing is fetched.

    file: as named by --detector-file, or None for the one that was fetched once. EdgeferError where a named one cannot be
    used; one that was fetched and cannot is left aside.
    """
    file = Path(file) if file else None  # from Python it may be a name
    at_hand = file or cached_yunet()
    why = "YuNet, which finds more small faces, is not on this machine (--detector yunet fetches it)."
    if file or at_hand.is_file():
        try:
            found = yunet(at_hand, min_face=min_face, runtime=runtime, threads=threads)
            refined = ", with roll from edgefer's refiner" if OwnDetector.is_shipped() else ""
            return Choice(found, f"Faces are found by YuNet, as int8 .tflite made of {at_hand}{refined}.")
        except EdgeferError as error:
            if file:  # it was asked for
                raise
            why = f"YuNet cannot be used: {error}"
    if not OwnDetector.is_shipped():
        return Choice(
            HaarDetector(), "Faces are found by OpenCV's Haar cascade: this install has no detector of edgefer's own."
        )
    own = OwnDetector.shipped(min_face=min_face, runtime=runtime, threads=threads)
    return Choice(own, f"Faces are found by edgefer's own detector: {why}")


def yunet(file: Path | None, *, min_face: int = 0, runtime: str = "auto", threads: int = 1) -> Detector:
    """YuNet on the TFLite runtime, refined; its file is fetched unless it is named or was fetched before."""
    found = Path(file) if file else fetch_yunet(cached_yunet())
    lite = YuNetLite(found, cached_yunet().parent, min_face=min_face, runtime=runtime, threads=threads)
    if not OwnDetector.is_shipped():
        return lite
    return RefinedDetector(lite, shipped_refiner(runtime=runtime, threads=threads))
