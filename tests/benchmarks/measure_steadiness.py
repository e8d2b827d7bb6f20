"""Measures how steady labels are and how late: `python tests/measure_steadiness.py BUNDLE`, a bundle trained on drawn
faces (`edgefer train --data builtin --recipe demo`, then convert). Not a test: it takes minutes and prints a table.

The scenes are edgefer.drawn's, which tell the truth: faces that move and change their expression every two seconds.
The faces are small, darkened and given a camera's noise until the network wavers. Every preset then sees the same answers.
"""

import argparse
import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np

from edgefer import drawn
from edgefer.bundle import Bundle
from edgefer.devices.faces.detectors import HaarDetector
from edgefer.devices.faces.quality import quality_fault
from edgefer.devices.faces.smoothing import PRESETS, LabelSmoother
from edgefer.devices.faces.tracking import Tracker
from edgefer.interpreter import Classifier
from edgefer.preprocess import face_pixels
from edgefer.records import UNSURE

SETTLING_S = 0.8  # after a change of expression: a label may change in it; after it, it may not


def scenes(seconds: float, fps: float, size: tuple[int, int]) -> list[tuple]:
    """(frame, faces tracked in it, truths) of a drawn scene."""
    tracker = Tracker(HaarDetector())
    return [(frame, tracker.follow(frame), truths) for frame, truths in drawn.scene(seconds, fps, size)]


def answers(classifier: Classifier, drawn_scenes: list[tuple], gain: float, noise: float) -> list[tuple]:
    """(time, track, scores of this frame alone, what is wrong, true label, seconds since that began) of each face.

    Faces are found before the noise is added: a detector that loses them would leave nothing to be measured.
    """
    rng, spec, crop = np.random.default_rng(0), classifier.card.input, classifier.card.crop_for("haar")
    began: dict[int, tuple[str, float]] = {}
    rows = []
    for frame, found, truths in drawn_scenes:
        image = frame.image_bgr * gain + rng.normal(0, noise, frame.image_bgr.shape)
        image_bgr = np.clip(image, 0, 255).astype(np.uint8)
        for truth in truths:
            if began.get(truth.person, ("",))[0] != truth.label:
                began[truth.person] = truth.label, frame.time_s
        for face in found:
            middle = (face.box_xyxy[0] + face.box_xyxy[2]) / 2
            here = [truth for truth in truths if truth.box_xyxy[0] < middle < truth.box_xyxy[2]]
            if here:
                label, since_s = began[here[0].person]
                pixels = face_pixels(image_bgr, face.box_xyxy, crop, spec)
                scores = dict(zip(classifier.card.labels, classifier.predict(pixels[None])[0].tolist(), strict=True))
                rows.append((frame.time_s, face.id, scores, quality_fault(face, pixels), label, frame.time_s - since_s))
    return rows


def figures(rows: list[tuple], preset: str, reject: float, fps: float) -> tuple[float, np.ndarray, float, float, float]:
    """Label changes a second on a steady face; seconds to each true change's first right label (infinite if never);
    shares of frames: right, unsure, and wrong."""
    smoother = LabelSmoother(PRESETS[preset], reject=reject)
    shown = defaultdict(list)
    for time_s, track, scores, fault, truth, since_s in rows:
        shown_scores, unsure = smoother.settle(track, time_s, scores, fault)
        label = UNSURE if unsure else max(shown_scores, key=shown_scores.__getitem__)
        shown[track].append((time_s, label, truth, since_s))
    changes = steady = 0
    late = []
    for line in shown.values():
        for before, now in itertools.pairwise(line):
            if now[2] == before[2] and before[3] >= SETTLING_S:
                steady += 1
                changes += now[1] != before[1]
        spans = [list(span) for _, span in itertools.groupby(line, key=lambda row: round(row[0] - row[3], 3))]
        for span in spans[1:]:
            late.append(next((row[3] for row in span if row[1] == row[2]), np.inf))
    labels = [row for line in shown.values() for row in line]
    right = np.mean([row[1] == row[2] for row in labels])
    unsure = np.mean([row[1] == UNSURE for row in labels])
    return changes / steady * fps, np.array(late), float(right), float(unsure), float(1 - right - unsure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=28)
    parser.add_argument("--fps", type=float, default=15)
    parser.add_argument("--size", default="240x180", help="small, so that the noise is not averaged away")
    parser.add_argument("--gain", type=float, default=0.5)
    parser.add_argument("--noise", type=float, default=15, help="standard deviation, of 255")
    parser.add_argument("--reject", type=float, default=0.45)
    asked = parser.parse_args()
    classifier = Classifier.load(Bundle.open(asked.bundle))
    print("| picture | preset | changes/s, steady face | reaction s, median | p95 | never | right | unsure | wrong |")
    print("|---|---|---|---|---|---|---|---|---|")
    width, height = map(int, asked.size.split("x"))
    drawn_scenes = scenes(asked.seconds, asked.fps, (width, height))
    for picture, gain, noise in (
        ("as drawn", 1.0, 0.0),
        (f"x{asked.gain}, noise {asked.noise}", asked.gain, asked.noise),
    ):
        rows = answers(classifier, drawn_scenes, gain, noise)
        for preset in PRESETS:
            flicker, late, right, unsure, wrong = figures(rows, preset, asked.reject, asked.fps)
            median, p95 = np.percentile(late, (50, 95), method="lower")
            print(
                f"| {picture} | {preset} | {flicker:.2f} | {median:.2f} | {p95:.2f} | {np.isinf(late).sum()}/{len(late)} "
                f"| {right:.1%} | {unsure:.1%} | {wrong:.1%} |"
            )


if __name__ == "__main__":
    main()
