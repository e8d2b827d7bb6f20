"""Measures how steady labels are, and their delay: `python tests/benchmarks/measure_steadiness.py BUNDLE`. Not a test: it takes
minutes and prints a table.

Two kinds of faces, both with known labels. Drawn ones, for a bundle trained on them (`edgefer train --data builtin --recipe demo`,
then convert): they move, talk, and change their expression every two seconds, and are small, dark and noisy enough that the
network's answers vary. With `--photos lfw150.zip`: animated photographs (see talking_photos), for a network of real faces; the
truth is the network's label of the same face with its mouth at rest, averaged over noise: this measures the effect of talking,
noise and swaying, not accuracy.

Every preset gets the same answers. A label may change within SETTLING_S of a change of the truth, and not after that.
"""

import argparse
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from talking_photos import Photo, clip, photos

from edgefer import drawn
from edgefer.bundle import Bundle
from edgefer.devices.faces.detectors import Detector, HaarDetector
from edgefer.devices.faces.own import OwnDetector
from edgefer.devices.faces.quality import quality_fault
from edgefer.devices.faces.smoothing import PRESETS, LabelSmoother, Preset
from edgefer.devices.faces.tracking import Tracker
from edgefer.interpreter import Classifier
from edgefer.preprocess import face_pixels
from edgefer.records import UNSURE, Detection, Frame

SETTLING_S = 0.8
SPELL_S = 0.3  # a label shown for less is a flash
CLIP_S = 8.0
DOUBTFUL = 0.8  # a score below which talking often leads to another label


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A network's answer for one face in one frame of the clip `clip`; truth: its label, which began `since_s` ago."""

    clip: int
    track: int
    time_s: float
    scores: dict[str, float]
    fault: str
    truth: str
    since_s: float


@dataclass(frozen=True, kw_only=True)
class Steadiness:
    """changes_per_s, flashes_per_s: of the labels shown while the truth does not change. late_s: from each change of the truth
    to the first correct label, infinite if none. Shares of frames: right, unsure."""

    changes_per_s: float
    flashes_per_s: float
    late_s: np.ndarray
    right: float
    unsure: float


def read(classifier: Classifier, detector: str, image_bgr: np.ndarray, face: Detection) -> tuple[dict[str, float], str]:
    """The scores of a face, and its quality fault, if any."""
    card = classifier.card
    pixels = face_pixels(image_bgr, face.box_xyxy, card.crop_for(detector), card.input, face.roll_deg)
    scores = classifier.predict(pixels[None])[0].tolist()
    return dict(zip(card.labels, scores, strict=True)), quality_fault(face, pixels, card.input.color, card.limits)


def drawn_answers(
    classifier: Classifier, seconds: float, fps: float, *, gain: float, noise: float, talking: bool
) -> Iterator[Answer]:
    """Answers for two drawn people. Faces are detected before the noise is added, since a face that the detector loses cannot
    be measured."""
    rng, tracker = np.random.default_rng(0), Tracker(HaarDetector())
    began: dict[int, tuple[str, float]] = {}
    for frame, truths in drawn.scene(seconds, fps, (240, 180), talking=talking):
        image = frame.image_bgr * gain + rng.normal(0, noise, frame.image_bgr.shape)
        for truth in truths:
            if began.get(truth.person, ("",))[0] != truth.label:
                began[truth.person] = truth.label, frame.time_s
        for face in tracker.follow(frame):
            centre_x = (face.box_xyxy[0] + face.box_xyxy[2]) / 2
            matching = [truth for truth in truths if truth.box_xyxy[0] < centre_x < truth.box_xyxy[2]]
            if matching:
                label, since_s = began[matching[0].person]
                scores, fault = read(classifier, "haar", np.clip(image, 0, 255).astype(np.uint8), face)
                yield Answer(
                    clip=0, track=face.id, time_s=frame.time_s, scores=scores, fault=fault, truth=label,
                    since_s=frame.time_s - since_s,
                )  # fmt: skip


def silent_label(classifier: Classifier, detector: Detector, photo: Photo, below: float) -> str:
    """The network's label of the silent face; "" if its mean score is under 0.5 or not under `below`, or the face is not
    found."""
    frames = list(clip((photo, photo), 1.0, 4, seed=0, speaks=False))
    rows = [
        list(read(classifier, detector.name, frame.image_bgr, face)[0].values())
        for frame in frames
        for face in main_face(detector.find(frame.image_bgr))
    ]
    if len(rows) < len(frames):
        return ""
    mean = np.mean(rows, axis=0)
    return classifier.card.labels[mean.argmax()] if 0.5 <= mean.max() < below else ""


def main_face(found: list[Detection]) -> list[Detection]:
    """A list of the largest face, or an empty list."""
    return sorted(found, key=lambda face: -face.side)[:1]


@dataclass(frozen=True, kw_only=True)
class Cast:
    """The photographs to animate: `pairs` clips of two people each, from `archive` in the order of `seed`; only faces whose
    mean score while silent is under `below`."""

    archive: Path
    pairs: int
    seed: int
    below: float


def photo_answers(classifier: Classifier, cast: Cast, fps: float) -> Iterator[Answer]:
    """Answers for clips of two people each, whose silent faces have different labels."""
    detector = OwnDetector.shipped()
    waiting: list[tuple[Photo, str]] = []
    number = 0
    for photo in photos(cast.archive, 100 * cast.pairs, cast.seed):
        label = silent_label(classifier, detector, photo, cast.below)
        other = next((one for one in waiting if label and one[1] != label), None)
        if other is None:
            if label and len(waiting) < 4:
                waiting.append((photo, label))
            continue
        waiting.remove(other)
        yield from _clip_answers(
            classifier, detector, clip((other[0], photo), CLIP_S, fps, number), (other[1], label), number
        )
        number += 1
        if number == cast.pairs:
            return


def _clip_answers(
    classifier: Classifier, detector: Detector, frames: Iterable[Frame], labels: tuple[str, str], number: int
) -> Iterator[Answer]:
    tracker = Tracker(detector)
    for frame in frames:
        second = frame.time_s >= CLIP_S / 2
        for face in main_face(tracker.follow(frame)):
            scores, fault = read(classifier, detector.name, frame.image_bgr, face)
            yield Answer(
                clip=number, track=face.id, time_s=frame.time_s, scores=scores, fault=fault, truth=labels[second],
                since_s=frame.time_s - second * CLIP_S / 2,
            )  # fmt: skip


def shown_labels(
    answers: list[Answer], preset: Preset, reject: float
) -> dict[tuple[int, int], list[tuple[Answer, str]]]:
    """By clip and track: each answer with the label shown for it."""
    shown = defaultdict(list)
    smoother, playing = LabelSmoother(preset, reject=reject), 0
    for one in answers:
        if one.clip != playing:
            smoother, playing = LabelSmoother(preset, reject=reject), one.clip
        scores, unsure = smoother.settle(one.track, one.time_s, one.scores, one.fault)
        shown[one.clip, one.track].append((one, UNSURE if unsure else max(scores, key=scores.__getitem__)))
    return shown


def steadiness(answers: list[Answer], preset: Preset, reject: float) -> Steadiness:
    shown = shown_labels(answers, preset, reject)
    changes = flashes = 0
    steady_s = 0.0
    late = []
    for line in shown.values():
        changed_s = -np.inf
        for (before, old), (now, new) in itertools.pairwise(line):
            if now.truth == before.truth and before.since_s >= SETTLING_S:
                steady_s += now.time_s - before.time_s
                if new != old:
                    changes += 1
                    flashes += now.time_s - changed_s < SPELL_S
                    changed_s = now.time_s
        spans = [
            list(span) for _, span in itertools.groupby(line, key=lambda row: round(row[0].time_s - row[0].since_s, 3))
        ]
        for span in spans[1:]:
            late.append(next((one.since_s for one, label in span if label == one.truth), np.inf))
    rows = [row for line in shown.values() for row in line]
    return Steadiness(
        changes_per_s=changes / steady_s,
        flashes_per_s=flashes / steady_s,
        late_s=np.array(late),
        right=float(np.mean([label == one.truth for one, label in rows])),
        unsure=float(np.mean([label == UNSURE for _, label in rows])),
    )


def plot(answers: list[Answer], labels: tuple[str, ...], reject: float, file: Path, clips: int = 4) -> None:
    """The first clips: the labels shown over time, with the truth behind them."""
    from matplotlib.figure import Figure

    names = [*labels, UNSURE]
    figure = Figure(figsize=(13, 2.6 * clips), layout="constrained")
    for number, axes in enumerate(figure.subplots(clips, 1, squeeze=False)[:, 0]):
        shown_clip = [one for one in answers if one.clip == number]
        times = [one.time_s for one in shown_clip]
        axes.plot(times, [names.index(one.truth) for one in shown_clip], color="0.85", linewidth=11, label="truth")
        for place, (name, preset) in enumerate(PRESETS.items()):
            shown = [row for line in shown_labels(shown_clip, preset, reject).values() for row in line]
            ys = [names.index(label) + 0.14 * (place - 1) for _, label in shown]
            axes.step([one.time_s for one, _ in shown], ys, where="post", label=name, linewidth=1.2)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set_xlabel("s")
        axes.legend(fontsize=7, loc="upper right")
    figure.savefig(file, dpi=90)


COLUMNS = "| faces | preset | changes/s | flashes/s | delay s, median | p95 | never | right | unsure | wrong |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "--photos", type=Path, help="an archive of photographs, each with one face; drawn faces without"
    )
    parser.add_argument("--pairs", type=int, default=24, help="clips of two photographs")
    parser.add_argument("--seconds", type=float, default=28, help="of drawn faces")
    parser.add_argument("--seed", type=int, default=0, help="of the photographs")
    parser.add_argument("--fps", type=float, default=15)
    parser.add_argument("--gain", type=float, default=0.5, help="the light on drawn faces")
    parser.add_argument("--noise", type=float, default=15, help="of drawn faces: standard deviation, of 255")
    parser.add_argument("--reject", type=float, default=0.45)
    parser.add_argument("--plot", type=Path, metavar="PNG", help="labels over time")
    args = parser.parse_args()
    classifier = Classifier.load(Bundle.open(args.bundle))
    seen: dict[str, list[Answer]] = {}
    if args.photos:
        for name, below in (("photographs that talk", 2.0), ("those it is not sure of", DOUBTFUL)):
            cast = Cast(archive=args.photos, pairs=args.pairs, seed=args.seed, below=below)
            seen[name] = list(photo_answers(classifier, cast, args.fps))
    else:
        for talking in (False, True):
            for gain, noise in ((1.0, 0.0), (args.gain, args.noise)):
                name = f"drawn{', talking' * talking}{f', light x{gain}, noise {noise}' * (noise > 0)}"
                seen[name] = list(
                    drawn_answers(classifier, args.seconds, args.fps, gain=gain, noise=noise, talking=talking)
                )
    print(COLUMNS, "|---|---|" + "--:|" * 8, sep="\n")
    for name, answers in seen.items():
        for preset_name, preset in PRESETS.items():
            found = steadiness(answers, preset, args.reject)
            median, p95 = np.percentile(found.late_s, (50, 95), method="lower")
            print(
                f"| {name} | {preset_name} | {found.changes_per_s:.2f} | {found.flashes_per_s:.2f} | {median:.2f} | {p95:.2f} "
                f"| {np.isinf(found.late_s).sum()}/{len(found.late_s)} | {found.right:.1%} | {found.unsure:.1%} "
                f"| {1 - found.right - found.unsure:.1%} |"
            )
    if args.plot:
        answers = next(reversed(seen.values()))
        plot(answers, classifier.card.labels, args.reject, args.plot, clips=min(4, 1 + answers[-1].clip))


if __name__ == "__main__":
    main()
