"""Recall, false detections, roll and speed of every face detector, on images with marked heads that are held out of training.

    python tests/benchmarks/compare_detectors.py SCENES YUNET.onnx --out report/

SCENES: the folder of archives that the face networks were trained on; the images of one of them that training holds out are used.
A detection matches a head if its centre lies in the head's box and its side is 0.4 to 1.5 times the box's; each head and each
detection is matched at most once. Outside: detections whose centre lies in no head's box; doubtful: those of them in which YuNet,
run several times on the enlarged image, finds no face either (score below 0.5). Heads below 30 pixels are left out.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edgefer.train.faces.geometry import warp_affine

MIN_RATIO, MAX_RATIO = 0.4, 1.5
TILT_DEG = 25.0


@dataclass
class Tally:
    hits: list[tuple[float, float, int]]  # head's side, score or -1, image
    outside: list[tuple[float, int, tuple]]  # score, image, box

    def recall(self, low: float, high: float, min_score: float = 0.0) -> float:
        found = [score >= min_score and score >= 0 for side, score, _ in self.hits if low <= side < high]
        return float(np.mean(found)) if found else math.nan


def tally(detector, images, heads) -> Tally:
    out = Tally([], [])
    for index, (image, boxes) in enumerate(zip(images, heads, strict=True)):
        found = detector.find(image)
        matched: set[int] = set()
        sides = (boxes[:, 2:] - boxes[:, :2]).mean(axis=1)
        for box, side in sorted(zip(boxes, sides, strict=True), key=lambda pair: -pair[1]):
            fits = [
                (face.score, number)
                for number, face in enumerate(found)
                if number not in matched and inside(face, box) and MIN_RATIO < face.side / side < MAX_RATIO
            ]
            score, number = max(fits, default=(-1.0, -1))
            matched.add(number)
            out.hits.append((float(side), float(score), index))
        for number, face in enumerate(found):
            if number not in matched and not any(inside(face, box) for box in boxes):
                out.outside.append((face.score, index, face.box_xyxy))
    return out


def inside(face, box) -> bool:
    x, y = (face.box_xyxy[0] + face.box_xyxy[2]) / 2, (face.box_xyxy[1] + face.box_xyxy[3]) / 2
    return bool(box[0] <= x <= box[2] and box[1] <= y <= box[3])


def tilted(image: np.ndarray, boxes: np.ndarray, angle_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """The image rotated clockwise about its centre on a canvas that contains all of it; boxes keep their size."""
    height, width = image.shape[:2]
    cos, sin = abs(math.cos(math.radians(angle_deg))), abs(math.sin(math.radians(angle_deg)))
    size = math.ceil(width * cos + height * sin), math.ceil(width * sin + height * cos)
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -angle_deg, 1.0)
    matrix[:, 2] += np.array(size) / 2 - [width / 2, height / 2]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    return warp_affine(image, matrix, size), np.concatenate([centre - half, centre + half], axis=1)


def roll_errors(detector, images, heads, seed: int = 0) -> list[float]:
    """Absolute errors of the detected roll in degrees. The true roll is the tilt plus the roll that the teacher, averaged over
    rotations, measured in the upright image (NaN if it could not)."""
    errors = []
    for image, boxes, rolls in heads_with_roll(images, heads):
        for box, roll in zip(boxes, rolls, strict=True):
            for angle in (-TILT_DEG, TILT_DEG):
                rotated, moved = tilted(image, box[None], angle)
                near = [face for face in detector.find(rotated) if inside(face, moved[0]) and face.roll_deg is not None]
                if near:
                    best = max(near, key=lambda face: face.score)
                    errors.append(abs(best.roll_deg - roll - angle))
    return errors


def heads_with_roll(images, heads):
    for image, faces in zip(images, heads, strict=True):
        sides = (faces.boxes[:, 2:] - faces.boxes[:, :2]).mean(axis=1)
        good = (sides >= 45) & np.isfinite(faces.roll_deg) & (faces.target > 0.8)
        if good.any():
            yield image, faces.boxes[good], faces.roll_deg[good]


def seconds(detector, images) -> float:
    """The median time to search an image."""
    times = []
    for image in images:
        began = time.perf_counter()
        detector.find(image)
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def main() -> None:
    from held_faces import held_out_images

    from edgefer.devices.faces.detectors import HaarDetector
    from edgefer.devices.faces.own import OwnDetector, RefinedDetector, Refiner
    from edgefer.devices.faces.yunet import YuNetDetector
    from edgefer.devices.faces.yunet_lite import YuNetLite
    from edgefer.options import DetectorFiles

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", type=Path)
    parser.add_argument("yunet", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="detectors whose name begins so")
    parser.add_argument("--finder", type=Path, help="instead of the one that ships")
    parser.add_argument("--refiner", type=Path)
    args = parser.parse_args()
    files = DetectorFiles(finder=args.finder, refiner=args.refiner)
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    held = held_out_images(args.scenes, args.cache, args.yunet)
    images = [one.image_bgr for one in held]
    heads = [one.heads for one in held]
    tilts = [
        tilted(image, boxes, TILT_DEG if index % 2 else -TILT_DEG)
        for index, (image, boxes) in enumerate(zip(images, heads, strict=True))
    ]

    makers = {
        "haar": HaarDetector,
        "yunet opencv": lambda: YuNetDetector(args.yunet),
        "yunet litert float32": lambda: YuNetLite(args.yunet, args.cache, dtype="float32"),
        "yunet litert int8": lambda: YuNetLite(args.yunet, args.cache),
        "yunet litert int8, refined": lambda: RefinedDetector(YuNetLite(args.yunet, args.cache), Refiner.of(files)),
        "own": lambda: OwnDetector.of(files),
        "own, min-face 12": lambda: OwnDetector.of(files, min_face=12),
    }
    table, curves = {}, {}
    for name, make in makers.items():
        if not name.startswith(args.only):
            continue
        detector = make()
        plain, rotated = tally(detector, images, heads), tally(detector, *map(list, zip(*tilts, strict=True)))
        ghosts = [one for one in plain.outside if not held[one[1]].is_face(one[2])]
        errors = roll_errors(detector, images[::2], [one.faces for one in held][::2])
        table[name] = {
            "recall_60": plain.recall(60, 1e9), "recall_30_60": plain.recall(30, 60), "recall_tilted_60": rotated.recall(60, 1e9),
            "outside_per_100": 100 * len(plain.outside) / len(images), "doubtful_per_100": 100 * len(ghosts) / len(images),
            "roll_error_deg": float(np.mean(errors)) if errors else math.nan,
            "roll_error_median_deg": float(np.median(errors)) if errors else math.nan, "ms": 1000 * seconds(detector, images[:150]),
        }  # fmt: skip
        low = make()
        for part in (low, getattr(low, "_detector", None)):
            if hasattr(part, "min_score"):
                part.min_score = 0.05
        curves[name] = curve(tally(low, images, heads))
        print(name, {key: round(value, 3) for key, value in table[name].items()}, flush=True)
        sheet(
            args.out / f"missed-{name.replace(' ', '-')}.jpg",
            [(images[i], heads[i], []) for i in sorted({p for s, c, p in plain.hits if c < 0 and s >= 60})],
        )
        sheet(
            args.out / f"ghosts-{name.replace(' ', '-')}.jpg",
            [(images[i], np.empty((0, 4)), [box]) for _, i, box in ghosts],
        )
    print(
        f"{len(images)} pictures, {sum(s >= 60 for s, _, _ in plain.hits)} heads of 60 px and more, {sum(30 <= s < 60 for s, _, _ in plain.hits)} of 30 to 60"
    )
    (args.out / "detectors.json").write_text(json.dumps(table, indent=2))
    plot(args.out / "precision-recall.png", curves)


def curve(result: Tally) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall at every score, for heads of 30 pixels and more. Detections outside the marked boxes count as wrong,
    although some are unmarked faces."""
    hits = np.array([score for side, score, _ in result.hits if side >= 30])
    wrong = np.array([score for score, _, _ in result.outside])
    scores = np.unique(hits[hits >= 0])
    right = np.array([(hits >= score).sum() for score in scores])
    return right / np.maximum(1, right + np.array([(wrong >= score).sum() for score in scores])), right / len(hits)


def plot(file: Path, curves) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 5))
    for name, (precision, recall) in curves.items():
        axes.plot(recall, precision, marker="o" if len(recall) < 3 else "", label=name)
    axes.set(
        xlabel="recall of heads of 30 pixels and more",
        ylabel="precision (unmarked faces count as wrong)",
        xlim=(0.5, 1),
        ylim=(0.5, 1.01),
    )
    axes.legend(loc="lower left")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120, bbox_inches="tight")


def sheet(file: Path, rows) -> None:
    """A contact sheet: marked heads in yellow, detections in red."""
    cells = []
    for image, boxes, found in rows[:48]:
        cell = image.copy()
        for box in boxes:
            cv2.rectangle(cell, tuple(int(e) for e in box[:2]), tuple(int(e) for e in box[2:]), (0, 255, 255), 1)
        for box in found:
            cv2.rectangle(cell, box[:2], box[2:], (0, 0, 255), 2)
        cells.append(cv2.copyMakeBorder(cell, 0, 256 - cell.shape[0], 0, 256 - cell.shape[1], cv2.BORDER_CONSTANT))
    if cells:
        cells += [np.zeros_like(cells[0])] * (-len(cells) % 8)
        cv2.imwrite(str(file), np.vstack([np.hstack(cells[i : i + 8]) for i in range(0, len(cells), 8)]))


if __name__ == "__main__":
    main()
