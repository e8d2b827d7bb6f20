"""What a smaller --min-face costs: `python tests/benchmarks/measure_min_face.py [YUNET.onnx]`. Not a test: it takes half a minute.

Searches of one frame of 1920x1080 with one face in it, for each size in turn and again, in processor time on one core: the ratios say
something on a busy machine too. The sizes are 1/20 (96 pixels) to 1/80 (24 pixels) of the frame's longer side. More candidates in a
picture make a search longer: the frame is one photograph, no average.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
from skimage import data

from edgefer.devices.faces.choice import yunet
from edgefer.devices.faces.detectors import Detector, described
from edgefer.devices.faces.own import OwnDetector
from edgefer.options import DetectorFiles

SIZES = (0, 96, 60, 48, 30, 24)  # pixels; 0: --min-face is not given
WIDTH, HEIGHT = 1920, 1080


def full_hd() -> np.ndarray:
    """The astronaut's photograph (public domain), as high as the frame, its borders drawn out: uint8 BGR [1080, 1920, 3]."""
    photo = cv2.resize(cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2BGR), (HEIGHT, HEIGHT))
    left = (WIDTH - HEIGHT) // 2
    return cv2.copyMakeBorder(photo, 0, 0, left, WIDTH - HEIGHT - left, cv2.BORDER_REPLICATE)


def milliseconds(detectors: list[Detector], frame: np.ndarray, rounds: int) -> np.ndarray:
    """Processor time of a search: the least of the rounds, which other programs have changed least; float64 [detectors]."""
    taken = np.empty((rounds, len(detectors)))
    for row in taken:
        for place, detector in enumerate(detectors):
            began = time.process_time()
            detector.find(frame)
            row[place] = 1000 * (time.process_time() - began)
    return taken.min(axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("yunet", type=Path, nargs="?", help="YuNet's .onnx, to measure it too")
    parser.add_argument("--finder", type=Path)
    parser.add_argument("--refiner", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    files = DetectorFiles(yunet=asked.yunet, finder=asked.finder, refiner=asked.refiner)
    frame = full_hd()
    print("| times the search without --min-face | " + " | ".join(map(str, SIZES[1:])) + " | ms without |")
    print("|---|" + "--:|" * len(SIZES))
    makers = [lambda size: OwnDetector.of(files, min_face=size)]
    makers += [lambda size: yunet(files, min_face=size).detector] if asked.yunet else []
    for make in makers:
        detectors = [make(size) for size in SIZES]
        assert all(len(detector.find(frame)) >= 1 for detector in detectors), "the face is found at every size"
        taken = milliseconds(detectors, frame, asked.rounds)
        cells = " | ".join(f"{one:.1f}" for one in taken[1:] / taken[0])
        print(f"| {described(detectors[0])} | {cells} | {taken[0]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
