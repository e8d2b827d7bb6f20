"""How often a false detection is shown in a video, and what prevents it. Not a test: it needs the face networks' images.

    python tests/benchmarks/measure_ghosts.py SCENES YUNET.onnx --cache CACHE [--finder BUNDLE] [--refiner BUNDLE]

Every second image that is held out of training (SCENES: the folder of archives that the networks were trained on) appears in an
empty video for 14 frames at 15 per second: moved, rotated, zoomed and with noise; every frame is searched and tracked as in `run`.
One row per score that a new face must reach once (MIN_NEW_SCORE in devices/faces/own.py; 0: no such rule).

A false detection is one whose centre lies in no head marked by people, and in which YuNet, run several times on the enlarged image,
finds no face either. So only detections that another detector rejects as well are counted.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from held_faces import Held, held_out_images

from edgefer.devices.faces.choice import yunet
from edgefer.devices.faces.detectors import Detector
from edgefer.devices.faces.own import OwnDetector
from edgefer.devices.faces.tracking import Tracker
from edgefer.options import DetectorFiles
from edgefer.records import Box, Detection, Frame

FRAMES, FPS = 14, 15
SCORES = (0.0, 0.65, 0.7, 0.75, 0.8)


@dataclass
class Shown:
    """frames: how many showed a false detection. faces: how many times a true face was shown."""

    frames: int = 0
    faces: int = 0


class Replay(Detector):
    """Returns the detections in `found`, with another rule for new faces."""

    def __init__(self, name: str, min_new_score: float):
        self.name, self.min_new_score, self.found = name, min_new_score, list[Detection]()

    def find(self, image_bgr: np.ndarray, near: Sequence[Box] | None = None) -> list[Detection]:
        return self.found


def clip(image_bgr: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames uint8 BGR of the image's size, and for each the matrix [2, 3] from the image to it."""
    height, width = image_bgr.shape[:2]
    side = max(height, width)
    ends = rng.uniform(-1, 1, (2, 4)) * (0.08 * side, 0.08 * side, 10, 0.1)  # pixels right and down, degrees, zoom
    for share in np.linspace(0, 1, FRAMES):
        dx, dy, angle, zoom = ends[0] + share * (ends[1] - ends[0])
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1 + zoom)
        matrix[:, 2] += dx, dy
        moved = cv2.warpAffine(image_bgr, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        noisy = moved + rng.normal(0, 6, moved.shape).astype(np.float32)
        yield np.clip(noisy, 0, 255).astype(np.uint8), matrix


def in_image(face: Detection, matrix: np.ndarray) -> np.ndarray:
    """The face's box in the image that the frame was made of: float64 [4], upright."""
    back = cv2.invertAffineTransform(matrix)
    x0, y0, x1, y1 = face.box_xyxy
    centre = back[:, :2] @ ((x0 + x1) / 2, (y0 + y1) / 2) + back[:, 2]
    half = np.array((x1 - x0, y1 - y0)) / 2 * np.sqrt(abs(np.linalg.det(back[:, :2])))
    return np.concatenate([centre - half, centre + half])


def is_face(box: np.ndarray, held: Held) -> bool:
    x, y = (box[:2] + box[2:]) / 2
    in_head = (held.heads[:, :2] <= (x, y)).all(axis=1) & (held.heads[:, 2:] >= (x, y)).all(axis=1)
    return bool(in_head.any()) or held.is_face(box)


def watch(detector: Detector, held: Held, scores: tuple[float, ...], rng: np.random.Generator) -> list[Shown]:
    """What is shown of one image's clip, with each rule."""
    replays = [Replay(detector.name, score) for score in scores]
    trackers, seen = [Tracker(one) for one in replays], [Shown() for _ in scores]
    empty = Frame(index=0, time_s=0.0, image_bgr=np.full_like(held.image_bgr, 110))
    for tracker in trackers:
        tracker.follow(empty)
    for number, (image, matrix) in enumerate(clip(held.image_bgr, rng), 1):
        found = detector.find(image)
        for one, tracker, shown in zip(replays, trackers, seen, strict=True):
            one.found = found
            faces = tracker.follow(Frame(index=number, time_s=number / FPS, image_bgr=image))
            true = [is_face(in_image(face, matrix), held) for face in faces]
            shown.faces += sum(true)
            shown.frames += not all(true)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("scenes", type=Path)
    parser.add_argument("yunet", type=Path)
    parser.add_argument(
        "--cache", type=Path, required=True, help="where the pictures are kept once YuNet has seen them"
    )
    parser.add_argument("--finder", type=Path)
    parser.add_argument("--refiner", type=Path)
    parser.add_argument("--only", default="", help="detectors whose name begins so: own, yunet")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    held = held_out_images(args.scenes, args.cache, args.yunet)[::2]
    files = DetectorFiles(yunet=args.yunet, finder=args.finder, refiner=args.refiner)
    makers = {"own": lambda: OwnDetector.of(files), "yunet": lambda: yunet(files).detector}
    print(f"{len(held)} clips of {FRAMES} frames")
    print(
        "| detector | score that a new face must reach | frames with what is no face | of them gone | faces' frames gone |"
    )
    print("|---|--:|--:|--:|--:|")
    for name, make in makers.items():
        if not name.startswith(args.only):
            continue
        detector, rng = make(), np.random.default_rng(0)
        scores = SCORES if detector.min_new_score else SCORES[:1]
        every = [watch(detector, one, scores, rng) for one in held]
        for score, *by_clip in zip(scores, *every, strict=True):
            frames, faces = sum(one.frames for one in by_clip), sum(one.faces for one in by_clip)
            if not score:
                baseline = frames, faces
            gone = [1 - part / max(1, whole) for part, whole in zip((frames, faces), baseline, strict=True)]
            share = frames / (FRAMES * len(held))
            print(f"| {detector.described} | {score:g} | {share:.2%} | {gone[0]:.0%} | {gone[1]:.1%} |", flush=True)


if __name__ == "__main__":
    main()
