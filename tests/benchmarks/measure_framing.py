"""Measures what framing a face wrongly costs: `python tests/measure_framing.py --data fer2013.csv --yunet FILE.onnx`.
Not a test: it needs FER2013 and takes a minute or two, and prints two tables.

The scenes are validation pictures, enlarged with their borders mirrored (edgefer.train.framing.scene_of), so the frame that
the data set's makers chose is known. What lies outside it is a mirror image, not the hair and background of a camera's
picture: crops that are too wide or shifted look stranger than life in places, and plainer in others.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from edgefer.bundle import Bundle, shipped_bundles
from edgefer.card import CropSpec, InputSpec
from edgefer.devices.faces.detectors import HaarDetector
from edgefer.devices.faces.yunet import YuNetDetector
from edgefer.interpreter import Classifier
from edgefer.preprocess import face_pixels
from edgefer.records import Detection
from edgefer.train.data.cache import cache_folder
from edgefer.train.data.dataset import Split, stratified_rows
from edgefer.train.data.load import load_dataset
from edgefer.train.framing import Box, measure_crop, relation, scene_of

AS_FOUND = CropSpec()
SCALES = (0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
MOVES = {
    "not moved": (0.0, 0.0),
    "15% left": (-0.15, 0.0),
    "15% right": (0.15, 0.0),
    "15% up": (0.0, -0.15),
    "15% down": (0.0, 0.15),
}

Judge = Callable[[list[np.ndarray], np.ndarray], np.ndarray]  # pixels, labels -> bool: which are told right


def judge_of(classifier: Classifier) -> Judge:
    return lambda pixels, labels: classifier.network.logits(np.stack(pixels)).argmax(axis=1) == labels


def sensitivity(scenes: list, labels: np.ndarray, spec: InputSpec, judge: Judge) -> Iterator[str]:
    """A table of accuracy where the true frame is cut `scale` times as large and moved by a share of its side."""
    yield "| cut | " + " | ".join(f"{scale:.1f}" for scale in SCALES) + " |"
    yield "|---|" + "---|" * len(SCALES)
    for name, (dx, dy) in MOVES.items():
        cells = []
        for scale in SCALES:
            crop = CropSpec(scale=scale, dx=dx, dy=dy)
            right = judge([face_pixels(scene, frame, crop, spec) for scene, frame in scenes], labels)
            cells.append(f"{right.mean():.1%}")
        yield f"| {name} | " + " | ".join(cells) + " |"


def face_in(found: list[Detection], frame_xyxy: Box) -> Detection | None:
    """The largest face whose centre lies in the frame."""
    left, top, right, bottom = frame_xyxy

    def inside(face: Detection) -> bool:
        x0, y0, x1, y1 = face.box_xyxy
        return left < (x0 + x1) / 2 < right and top < (y0 + y1) / 2 < bottom

    return next(filter(inside, found), None)


def live(detector, crop: CropSpec, scenes: list, labels: np.ndarray, spec: InputSpec, judge: Judge) -> Iterator[str]:
    """Rows of the faces one detector finds: cut as the data set cut them, by the bare box, and by `crop`."""
    faces = [face_in(detector.find(scene), frame) for scene, frame in scenes]
    seen = [(*scene, face) for scene, face in zip(scenes, faces, strict=True) if face]
    known = labels[[face is not None for face in faces]]
    needed = np.array([relation(face.box_xyxy, frame) for _, frame, face in seen])

    makers = judge([face_pixels(scene, frame, AS_FOUND, spec) for scene, frame, _ in seen], known)

    def row(what: str, used: CropSpec | None, right: np.ndarray) -> str:
        error = "0 | 0"
        if used:
            scale = np.abs(used.scale / needed[:, 0] - 1)
            moved = np.hypot(used.dx - needed[:, 1], used.dy - needed[:, 2]) / needed[:, 0]
            error = " | ".join(f"{np.median(part):.1%}, {np.quantile(part, 0.9):.1%}" for part in (scale, moved))
        lost, won = (makers & ~right).sum(), (right & ~makers).sum()
        found = f"{len(seen)} of {len(scenes)}"
        return f"| {detector.name} | {found} | {what} | {error} | {right.mean():.2%} | {lost} | {won} |"

    yield row("as the data set's makers", None, makers)
    for what, used in (("the bare box", AS_FOUND), (f"scale {crop.scale}, {crop.dx:+}, {crop.dy:+}", crop)):
        pixels = [face_pixels(scene, face.box_xyxy, used, spec) for scene, _, face in seen]
        yield row(what, used, judge(pixels, known))
    if any(face.roll_deg for _, _, face in seen):
        turned = [face_pixels(scene, face.box_xyxy, crop, spec, face.roll_deg) for scene, _, face in seen]
        yield row("the same, eyes levelled", crop, judge(turned, known))


def rows_of(split: Split, count: int) -> Split:
    return split.take(stratified_rows(split.labels, count, seed=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--bundle", type=Path, default=shipped_bundles()["fer-small"])
    parser.add_argument("--yunet", type=Path, required=True, help="YuNet's .onnx")
    parser.add_argument("--pictures", type=int, default=600)
    asked = parser.parse_args()
    classifier = Classifier.load(Bundle.open(asked.bundle))
    card, judge = classifier.card, judge_of(classifier)
    dataset = load_dataset(asked.data, card.input, cache=cache_folder()).with_labels(card.labels)
    sample = rows_of(dataset.split("valid"), asked.pictures)
    scenes = [scene_of(image) for image in sample.images]

    print("| detector | faces found | cut by | scale off: median, p90 | moved: median, p90 | accuracy | lost | won |")
    print("|---|---|---|---|---|---|---|---|")
    for detector in (HaarDetector(), YuNetDetector(asked.yunet)):
        crop = card.crops.get(detector.name) or measure_crop(
            rows_of(dataset.split("train"), 400).images, detector.detect
        )
        for line in live(detector, crop, scenes, sample.labels, card.input, judge):
            print(line, flush=True)
    print(f"\nThe true frame of {len(sample)} pictures, cut larger or smaller (columns: its side times) and moved:\n")
    for line in sensitivity(scenes, sample.labels, card.input, judge):
        print(line, flush=True)


if __name__ == "__main__":
    main()
