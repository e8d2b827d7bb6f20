"""The loss of accuracy on tilted heads: faces rotated both ways, cut as detected and levelled by the own detector's roll, compared
with the same faces upright. Not a test: it needs FER2013 and takes a minute or two.

    python tests/benchmarks/measure_tilt.py --data fer2013.csv --bundle edgefer/models/ferplus-small --labels ferplus

The faces are validation images as in measure_framing: enlarged, with mirrored borders. Each is searched for upright and rotated
about its centre by --tilt degrees, once each way, and is cut by the card's crop, as in `run`; upright faces are levelled too.
Only faces found both upright and rotated are compared; the interval is that of the paired difference (95%, normal).
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from measure_framing import face_in, judge_of, rotated, rows_of

from edgefer.bundle import Bundle, shipped_bundles
from edgefer.devices.faces.own import OwnDetector
from edgefer.interpreter import Classifier
from edgefer.options import DetectorFiles
from edgefer.preprocess import face_pixels
from edgefer.records import Detection
from edgefer.train.data.cache import cache_folder
from edgefer.train.data.load import DataOptions, load_dataset
from edgefer.train.framing import scene_of


class Views:
    """Whether a network classifies a face correctly, view by view."""

    def __init__(self, classifier: Classifier):
        self._spec, self._judge = classifier.card.input, judge_of(classifier)
        self._crop = classifier.card.crop_for(OwnDetector.name)

    def right(self, scene: np.ndarray, face: Detection, label: int, *, level: bool) -> bool:
        roll = face.roll_deg if level else None
        pixels = face_pixels(scene, face.box_xyxy, self._crop, self._spec, roll)
        return bool(self._judge([pixels], np.array([label]))[0])


def measure(views: Views, detector: OwnDetector, images: np.ndarray, labels: np.ndarray, tilt: float) -> dict:
    """found: shares of the upright and of the rotated images. Of the faces found in both: right [n, 3] upright, rotated as
    detected, rotated and levelled; off: the absolute error of the roll in degrees [n]."""
    upright, tilted, right, off = 0, 0, [], []
    for image, label in zip(images, labels.tolist(), strict=True):
        scene, frame = scene_of(image)
        before = face_in(detector.find(scene), frame)
        upright += before is not None
        for angle in (-tilt, tilt):
            view = rotated(scene, angle)
            face = face_in(detector.find(view), frame)
            tilted += face is not None
            if before is None or face is None:
                continue
            right.append(
                (
                    views.right(scene, before, label, level=True),
                    views.right(view, face, label, level=False),
                    views.right(view, face, label, level=True),
                )
            )
            assert face.roll_deg is not None and before.roll_deg is not None
            off.append(abs(face.roll_deg - before.roll_deg - angle))
    found = upright / len(images), tilted / (2 * len(images))
    return {"found": found, "right": np.array(right, float), "off": np.array(off)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--labels", default="", help="ferplus: the votes beside the CSV")
    parser.add_argument("--bundle", type=Path, default=shipped_bundles()["ferplus-small"])
    parser.add_argument("--finder", type=Path)
    parser.add_argument("--refiner", type=Path)
    parser.add_argument("--tilt", type=float, default=30.0, help="degrees")
    parser.add_argument("--pictures", type=int, default=1_000_000)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    classifier = Classifier.load(Bundle.open(args.bundle))
    dataset = load_dataset(args.data, classifier.card.input, DataOptions(labels=args.labels), cache=cache_folder())
    sample = rows_of(dataset.with_labels(classifier.card.labels).split("valid"), args.pictures)
    detector = OwnDetector.of(DetectorFiles(finder=args.finder, refiner=args.refiner))
    seen = measure(Views(classifier), detector, sample.images, sample.labels, args.tilt)

    upright, bare, level = 100 * seen["right"].mean(axis=0)
    difference = 100 * (seen["right"][:, 2] - seen["right"][:, 0])
    half = 1.96 * difference.std() / np.sqrt(len(difference))
    print(f"{classifier.card.name}, {', '.join(detector.networks)}; {len(sample)} pictures, {args.tilt:g} degrees")
    print(
        "| found upright | found turned | upright | turned, as found | turned, levelled | levelled - upright | roll off: mean, median |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|")
    print(
        f"| {seen['found'][0]:.1%} | {seen['found'][1]:.1%} | {upright:.2f}% | {bare:.2f}% | {level:.2f}% | {difference.mean():+.2f} ± {half:.2f} "
        f"| {seen['off'].mean():.1f}, {np.median(seen['off']):.1f} |"
    )


if __name__ == "__main__":
    main()
