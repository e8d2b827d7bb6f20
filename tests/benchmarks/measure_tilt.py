"""What a tilted head costs: accuracy on faces that are turned both ways, cut as they are found and levelled by the own detector's
roll, against the same faces upright. Not a test: it needs FER2013 and takes a minute or two.

    python tests/benchmarks/measure_tilt.py --data fer2013.csv --bundle edgefer/models/ferplus-small --labels ferplus

The faces are validation pictures as measure_framing has them: enlarged, their borders mirrored. Each is looked for upright and
turned about its middle by --tilt degrees, once each way, and is cut by the card's crop, as `run` does; upright faces are levelled too.
Compared are faces that were found both ways; the interval is of the paired difference (95%, normal).
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from measure_framing import face_in, judge_of, rows_of, turned

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
    """What a network says of faces, and how far their rolls are off, view by view."""

    def __init__(self, classifier: Classifier):
        self._spec, self._judge = classifier.card.input, judge_of(classifier)
        self._crop = classifier.card.crop_for(OwnDetector.name)

    def right(self, scene: np.ndarray, face: Detection, label: int, *, level: bool) -> bool:
        roll = face.roll_deg if level else None
        pixels = face_pixels(scene, face.box_xyxy, self._crop, self._spec, roll)
        return bool(self._judge([pixels], np.array([label]))[0])


def measure(views: Views, detector: OwnDetector, images: np.ndarray, labels: np.ndarray, tilt: float) -> dict:
    """found: of the pictures, upright and of the turned ones. Of the faces found both ways: right [n, 3] upright, turned as found,
    turned and levelled; and by how many degrees the roll misses the turn [n]."""
    upright, tilted, right, off = 0, 0, [], []
    for image, label in zip(images, labels.tolist(), strict=True):
        scene, frame = scene_of(image)
        before = face_in(detector.find(scene), frame)
        upright += before is not None
        for angle in (-tilt, tilt):
            view = turned(scene, angle)
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
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    classifier = Classifier.load(Bundle.open(asked.bundle))
    dataset = load_dataset(asked.data, classifier.card.input, DataOptions(labels=asked.labels), cache=cache_folder())
    sample = rows_of(dataset.with_labels(classifier.card.labels).split("valid"), asked.pictures)
    detector = OwnDetector.of(DetectorFiles(finder=asked.finder, refiner=asked.refiner))
    seen = measure(Views(classifier), detector, sample.images, sample.labels, asked.tilt)

    upright, bare, level = 100 * seen["right"].mean(axis=0)
    apart = 100 * (seen["right"][:, 2] - seen["right"][:, 0])
    half = 1.96 * apart.std() / np.sqrt(len(apart))
    print(f"{classifier.card.name}, {', '.join(detector.networks)}; {len(sample)} pictures, {asked.tilt:g} degrees")
    print(
        "| found upright | found turned | upright | turned, as found | turned, levelled | levelled - upright | roll off: mean, median |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|")
    print(
        f"| {seen['found'][0]:.1%} | {seen['found'][1]:.1%} | {upright:.2f}% | {bare:.2f}% | {level:.2f}% | {apart.mean():+.2f} ± {half:.2f} "
        f"| {seen['off'].mean():.1f}, {np.median(seen['off']):.1f} |"
    )


if __name__ == "__main__":
    main()
