"""Measures the loss of accuracy from wrong framing, and how each detector frames faces. Not a test: it needs FER2013, takes a
minute or two, and prints two tables.

    python tests/benchmarks/measure_framing.py --data fer2013.csv --yunet FILE.onnx [--bundle DIR] [--tilt 30]
    python tests/benchmarks/measure_framing.py --data fer2013.csv --yunet FILE.onnx --write DIR DIR ...

With --write the crop of every detector is measured on training images and written into the card of each bundle, trained or
converted, with the pixels to check it; nothing else in a bundle changes, and a conversion of a trained one keeps its crops.
--tilt first rotates every image by that many degrees. --labels ferplus reads the images' FER+ labels.

The scenes are validation images, enlarged with their borders mirrored (edgefer.train.framing.scene_of), so the frame that
the authors of the data set chose is known. Outside it is a mirror image, not the hair and background of a camera's
image: crops that are too wide or shifted look less natural than real ones in some places, and plainer in others.
"""

import argparse
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from edgefer.bundle import Bundle, shipped_bundles, write_bundle
from edgefer.card import CropSpec, InputSpec
from edgefer.devices.faces.choice import yunet
from edgefer.devices.faces.detectors import HaarDetector
from edgefer.devices.faces.own import OwnDetector
from edgefer.interpreter import Classifier
from edgefer.options import DetectorFiles
from edgefer.preprocess import face_pixels
from edgefer.records import Box, Detection
from edgefer.train.data.cache import cache_folder
from edgefer.train.data.dataset import Split, stratified_rows
from edgefer.train.data.load import DataOptions, load_dataset
from edgefer.train.framing import centre_in, measure_crop, relation, scene_of
from edgefer.vectors import ROLLS_DEG, cut_crops, first_crop, stored_crops

AS_FOUND = CropSpec()
SCALES = (0.8, 0.9, 1.0, 1.1, 1.2, 1.3)
MOVES = {
    "not moved": (0.0, 0.0),
    "15% left": (-0.15, 0.0),
    "15% right": (0.15, 0.0),
    "15% up": (0.0, -0.15),
    "15% down": (0.0, 0.15),
}

Judge = Callable[[list[np.ndarray], np.ndarray], np.ndarray]  # pixels, labels -> bool: which answers are right


def judge_of(classifier: Classifier) -> Judge:
    return lambda pixels, labels: classifier.network.logits(np.stack(pixels)).argmax(axis=1) == labels


def sensitivity(scenes: list, labels: np.ndarray, spec: InputSpec, judge: Judge) -> Iterator[str]:
    """A table of accuracy when the true frame is scaled by `scale` and moved by a share of its side."""
    yield "| cut | " + " | ".join(f"{scale:.1f}" for scale in SCALES) + " |"
    yield "|---|" + "---|" * len(SCALES)
    for name, (dx, dy) in MOVES.items():
        cells = []
        for scale in SCALES:
            crop = CropSpec(scale=scale, dx=dx, dy=dy)
            right = judge([face_pixels(scene, frame, crop, spec) for scene, frame in scenes], labels)
            cells.append(f"{right.mean():.1%}")
        yield f"| {name} | " + " | ".join(cells) + " |"


def rotated(scene: np.ndarray, angle_deg: float) -> np.ndarray:
    """A scene rotated clockwise about its centre."""
    height, width = scene.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -angle_deg, 1)
    return cv2.warpAffine(scene, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def put_crops(bundle: Bundle, crops: dict[str, CropSpec]) -> None:
    """Write the crops into a bundle's card, and their cut-outs of its stored frames into its vectors."""
    card = bundle.card.model_copy(update={"crops": bundle.card.crops | crops})
    files = {name: bundle.read(name) for name in card.variants}
    if "parity" in files:
        with np.load(io.BytesIO(files["parity"]), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored if not name.startswith("crops")}
        cut = [cut_crops(arrays["frames"], arrays["boxes"], crop, card) for crop in stored_crops(card).values()]
        arrays |= {f"crops_{name}" if place else "crops": cut[place] for place, name in enumerate(stored_crops(card))}
        arrays["levelled"] = cut_crops(arrays["frames"], arrays["boxes"], first_crop(card), card, ROLLS_DEG)
        out = io.BytesIO()
        np.savez_compressed(out, **arrays)
        files["parity"] = out.getvalue()
    write_bundle(bundle.path, card, files)


def face_in(found: list[Detection], frame_xyxy: Box) -> Detection | None:
    """The largest face whose centre lies in the frame."""
    return next((face for face in found if centre_in(face.box_xyxy, frame_xyxy)), None)


def live(detector, crop: CropSpec, scenes: list, labels: np.ndarray, spec: InputSpec, judge: Judge) -> Iterator[str]:
    """Rows for the faces that one detector finds: cut by the data set's frame, by the detected box, and by `crop`."""
    faces = [face_in(detector.find(scene), frame) for scene, frame in scenes]
    seen = [(*scene, face) for scene, face in zip(scenes, faces, strict=True) if face]
    known = labels[[face is not None for face in faces]]
    needed = np.array([relation(face.box_xyxy, frame) for _, frame, face in seen])

    reference = judge([face_pixels(scene, frame, AS_FOUND, spec) for scene, frame, _ in seen], known)

    def row(name: str, used: CropSpec | None, right: np.ndarray) -> str:
        error = "0 | 0"
        if used:
            scale = np.abs(used.scale / needed[:, 0] - 1)
            moved = np.hypot(used.dx - needed[:, 1], used.dy - needed[:, 2]) / needed[:, 0]
            error = " | ".join(f"{np.median(part):.1%}, {np.quantile(part, 0.9):.1%}" for part in (scale, moved))
        lost, won = (reference & ~right).sum(), (right & ~reference).sum()
        found = f"{len(seen)} of {len(scenes)}"
        return f"| {detector.name} | {found} | {name} | {error} | {right.mean():.2%} | {lost} | {won} |"

    yield row("as the data set's makers", None, reference)
    for name, used in (("the bare box", AS_FOUND), (f"scale {crop.scale}, {crop.dx:+}, {crop.dy:+}", crop)):
        pixels = [face_pixels(scene, face.box_xyxy, used, spec) for scene, _, face in seen]
        yield row(name, used, judge(pixels, known))
    if any(face.roll_deg for _, _, face in seen):
        level = [face_pixels(scene, face.box_xyxy, crop, spec, face.roll_deg) for scene, _, face in seen]
        yield row("the same, levelled", crop, judge(level, known))


def rows_of(split: Split, count: int) -> Split:
    return split.take(stratified_rows(split.labels, count, seed=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--bundle", type=Path, default=shipped_bundles()["fer-small"])
    parser.add_argument("--yunet", type=Path, required=True, help="YuNet's .onnx")
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--searches", type=int, default=100, help="training pictures that a crop is measured on")
    parser.add_argument("--tilt", type=float, default=0.0, help="degrees by which pictures are rotated clockwise")
    parser.add_argument("--labels", default="")
    parser.add_argument("--write", type=Path, nargs="*", default=[], help="bundles whose crops to measure and write")
    args = parser.parse_args()
    classifier = Classifier.load(Bundle.open(args.bundle))
    card, judge = classifier.card, judge_of(classifier)
    options = DataOptions(labels=args.labels)
    dataset = load_dataset(args.data, card.input, options, cache=cache_folder())
    taught = rows_of(dataset.split("train"), args.searches).images
    detectors = (HaarDetector(), yunet(DetectorFiles(yunet=args.yunet)).detector, OwnDetector.shipped())
    if args.write:
        crops = {one.name: measure_crop(taught, one.detect) for one in detectors}
        for name, crop in crops.items():
            print(name, crop)
        for path in args.write:
            put_crops(Bundle.open(path), crops)
        return
    dataset = dataset.with_labels(card.labels)
    sample = rows_of(dataset.split("valid"), args.pictures)
    scenes = [(rotated(scene, args.tilt), frame) for scene, frame in map(scene_of, sample.images)]

    print("| detector | faces found | cut by | scale off: median, p90 | moved: median, p90 | accuracy | lost | won |")
    print("|---|---|---|---|---|---|---|---|")
    for detector in detectors:
        crop = card.crops.get(detector.name) or measure_crop(taught, detector.detect)
        for line in live(detector, crop, scenes, sample.labels, card.input, judge):
            print(line, flush=True)
    print(f"\nThe true frame of {len(sample)} pictures, cut larger or smaller (columns: its side times) and moved:\n")
    for line in sensitivity(scenes, sample.labels, card.input, judge):
        print(line, flush=True)


if __name__ == "__main__":
    main()
