"""Searches frames by each detector between two calls of getppid(), at which count.c writes how many instructions were executed.

    searches.py YUNET.onnx CACHE FRAMES.npz SEARCHES

Prints a JSON line for each frame and detector, in the order of the calls: its name, faces found, searches counted.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from edgefer.devices.faces.canvas import Layout
from edgefer.devices.faces.own import OwnDetector, RefinedDetector
from edgefer.devices.faces.yunet_lite import MIN_SCORE, SIDE, YuNetLite

Find = Callable[[np.ndarray], object]
WARM = 1  # searches before the counted ones: networks for the frame's shape are opened, caches filled


class OpenCVYuNet:
    """As OpenCV's own sample runs it, on a canvas of `height` x 320 pixels into whose corner the frame is shrunk."""

    def __init__(self, file: Path, height: int):
        self._canvas = np.zeros((height, SIDE, 3), np.uint8)
        self._net = cv2.FaceDetectorYN.create(str(file), "", (SIDE, height), MIN_SCORE)

    def find(self, image_bgr: np.ndarray) -> np.ndarray:
        width, height = Layout.of(image_bgr.shape, SIDE).size
        self._canvas[:height, :width] = cv2.resize(image_bgr, (width, height))
        _, rows = self._net.detect(self._canvas)
        return np.empty((0, 15)) if rows is None else rows


def networks_of(find: Find, image_bgr: np.ndarray, kind: type) -> Callable[[], None]:
    """A function that only invokes the runtime's interpreters (of `kind`) again, in the same order as a search did."""
    asked: list = []
    invoke = kind.invoke
    kind.invoke = lambda interpreter: (asked.append(interpreter), invoke(interpreter))[1]
    find(image_bgr)
    kind.invoke = invoke

    def again() -> None:
        for interpreter in asked:
            interpreter.invoke()

    return again


def main() -> None:
    file, cache, frames, searches = Path(sys.argv[1]), Path(sys.argv[2]), np.load(sys.argv[3]), int(sys.argv[4])
    cv2.setNumThreads(1)
    own, lite, floats = OwnDetector.shipped(), YuNetLite(file, cache), YuNetLite(file, cache, dtype="float32")
    refined = RefinedDetector(lite, own._refiner)
    kind = type(own._finder._network._interpreter)
    square = OpenCVYuNet(file, SIDE)

    def count(frame: str, detector: str, work: Callable[[], object]) -> None:
        for _ in range(WARM):
            found = work()
        os.getppid()
        for _ in range(searches):
            work()
        os.getppid()
        faces = len(found) if found is not None else None
        print(json.dumps({"frame": frame, "detector": detector, "faces": faces, "searches": searches}), flush=True)

    for name, image in frames.items():
        shaped = OpenCVYuNet(file, Layout.of(image.shape, SIDE).canvas[0])
        for detector, find in {
            "OpenCV's YuNet, 320x320": square.find,
            "OpenCV's YuNet, 320 of the frame's shape": shaped.find,
            "own": own.find,
            "YuNet float32": floats.find,
            "YuNet int8": lite.find,
            "YuNet int8, refined": refined.find,
        }.items():
            count(name, detector, lambda find=find, image=image: find(image))
        for detector, find in {"own": own.find, "YuNet int8, refined": refined.find}.items():
            count(name, f"{detector}: networks alone", networks_of(find, image, kind))


if __name__ == "__main__":
    main()
