"""Chooses the default detector for human faces, and explains the choice."""

import os
from dataclasses import dataclass, replace

from edgefer.devices.faces.detectors import Detector, HaarDetector
from edgefer.devices.faces.own import OwnDetector, RefinedDetector, Refiner
from edgefer.devices.faces.pair import DEFAULT_OPTIONS, PairOptions, has_shipped_pair
from edgefer.devices.faces.yunet import cached_yunet, fetch_yunet
from edgefer.devices.faces.yunet_lite import YuNetLite
from edgefer.errors import EdgeferError
from edgefer.options import AS_SHIPPED, DetectorFiles


@dataclass(frozen=True)
class Choice:
    """A detector, and a sentence on why it was chosen, for a terminal: `described` has the hashes of its networks."""

    detector: Detector
    reason: str


def automatic(
    files: DetectorFiles = AS_SHIPPED, options: PairOptions = DEFAULT_OPTIONS, *, min_face: int = 0
) -> Choice:
    """edgefer's own if a finder is named; else YuNet, which measured best, if its file is on this machine; else edgefer's
    own. Nothing is downloaded.

    EdgeferError if a named file cannot be used; an unusable YuNet in the cache is ignored.
    """
    if files.finder:
        return own(files, options, min_face=min_face)
    found = files.yunet or cached_yunet()
    why = "; --detector yunet, a download, finds more small ones"
    if files.yunet or os.path.isfile(found):  # False for a folder that may not be read, too
        refiner = _refiner(files, options)
        try:
            return _yunet(replace(files, yunet=found), refiner, options, min_face)
        except EdgeferError as error:
            if files.yunet:  # named by the user
                raise
            why = f": YuNet cannot be used: {str(error).removesuffix('.')}"
    if not has_shipped_pair():
        return Choice(
            HaarDetector(min_face=min_face),
            "Faces are found by OpenCV's Haar cascade: this installation lacks edgefer's own detector.",
        )
    return own(files, options, min_face=min_face, why=why)


def own(files: DetectorFiles, options: PairOptions = DEFAULT_OPTIONS, *, min_face: int = 0, why: str = "") -> Choice:
    """edgefer's own detector, with the named networks or the shipped ones."""
    detector = OwnDetector.of(files, options, min_face=min_face)
    named = f" ({', '.join(detector.networks)})" if files.finder or files.refiner else ""
    return Choice(detector, f"Faces are found by edgefer's own detector{named}{why}.")


def yunet(files: DetectorFiles = AS_SHIPPED, options: PairOptions = DEFAULT_OPTIONS, *, min_face: int = 0) -> Choice:
    """YuNet on the TFLite runtime, refined; its file is downloaded unless it is named or cached."""
    refiner = _refiner(files, options)
    named = files if files.yunet else replace(files, yunet=fetch_yunet(cached_yunet()))
    return _yunet(named, refiner, options, min_face)


def _refiner(files: DetectorFiles, options: PairOptions) -> Refiner | None:
    return Refiner.of(files, options) if files.refiner or has_shipped_pair() else None


def _yunet(files: DetectorFiles, refiner: Refiner | None, options: PairOptions, min_face: int) -> Choice:
    assert files.yunet is not None
    lite: Detector = YuNetLite(files.yunet, cached_yunet().parent, min_face=min_face, options=options.runtime)
    detector = RefinedDetector(lite, refiner) if refiner else lite
    found_by = detector.described if files.refiner else "YuNet"
    return Choice(detector, f"Faces are found by {found_by}, as int8 .tflite made of {files.yunet}.")
