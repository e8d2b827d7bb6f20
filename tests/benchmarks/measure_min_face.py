"""The cost of a smaller --min-face: `python tests/benchmarks/measure_min_face.py [YUNET.onnx]`. Not a test: it takes half a minute.

Searches of one 1920x1080 frame with one face, for all sizes in every round, in CPU time on one core: the ratios are meaningful
on a busy machine too. The sizes are 1/20 (96 pixels) to 1/80 (24 pixels) of the frame's longer side. A search takes longer the
more candidates an image has: the frame is one photograph, not an average. Also a search near the known face, without --min-face.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from skimage import data

from edgefer.devices.faces.choice import yunet
from edgefer.devices.faces.own import OwnDetector
from edgefer.options import DetectorFiles

SIZES = (0, 96, 60, 48, 30, 24)  # pixels; 0: --min-face is not given
WIDTH, HEIGHT = 1920, 1080


def full_hd() -> np.ndarray:
    """The astronaut's photograph (public domain), as high as the frame, its borders replicated: uint8 BGR [1080, 1920, 3]."""
    photo = cv2.resize(cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR), (HEIGHT, HEIGHT))
    left = (WIDTH - HEIGHT) // 2
    return cv2.copyMakeBorder(photo, 0, 0, left, WIDTH - HEIGHT - left, cv2.BORDER_REPLICATE)


def milliseconds(searches: list[Callable[[], object]], rounds: int) -> np.ndarray:
    """CPU time of each search: the minimum of the rounds, on which other programs have the least influence; float64 [searches]."""
    times = np.empty((rounds, len(searches)))
    for row in times:
        for place, search in enumerate(searches):
            began = time.process_time()
            search()
            row[place] = 1000 * (time.process_time() - began)
    return times.min(axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("yunet", type=Path, nargs="?", help="YuNet's .onnx, to measure it too")
    parser.add_argument("--finder", type=Path)
    parser.add_argument("--refiner", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    files = DetectorFiles(yunet=args.yunet, finder=args.finder, refiner=args.refiner)
    frame = full_hd()
    print(
        "| times the search without --min-face | " + " | ".join(map(str, SIZES[1:])) + " | near the face | ms without |"
    )
    print("|---|" + "--:|" * (len(SIZES) + 1))
    makers = [lambda size: OwnDetector.of(files, min_face=size)]
    makers += [lambda size: yunet(files, min_face=size).detector] if args.yunet else []
    for make in makers:
        detectors = [make(size) for size in SIZES]
        found = [detector.find(frame) for detector in detectors]
        assert all(found), "the face is found at every size"
        searches: list[Callable[[], object]] = [partial(detector.find, frame) for detector in detectors]
        times = milliseconds([*searches, partial(detectors[0].find, frame, [found[0][0].box_xyxy])], args.rounds)
        cells = " | ".join(f"{one:.2g}" for one in times[1:] / times[0])
        print(f"| {detectors[0].described} | {cells} | {times[0]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
