"""A face detector for the page: OpenCV's Haar cascade, read out of the installed opencv-python, as words for edgefer_faces.c."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np

from edgefer.errors import MissingDependency

MAGIC = int.from_bytes(b"EFH1", "little")
HEADER_WORDS = 8
EPSILON = np.float32(1e-5)  # what OpenCV takes off a stage's threshold


def cascade_file(name: str) -> Path:
    """Where opencv-python keeps a cascade of this name; MissingDependency where it has none."""
    folder = getattr(getattr(cv2, "data", None), "haarcascades", None)
    file = Path(folder or "") / name
    if folder is None or not file.is_file():
        raise MissingDependency(f"OpenCV {cv2.__version__} brings no {file.name}: pip install 'opencv-python<5'.")
    return file


def read_cascade(file: Path) -> np.ndarray:
    """The cascade as uint32 words: a header, six words a feature, then stage after stage."""
    root = ElementTree.parse(file).getroot().find("cascade")
    if root is None or root.findtext("featureType") != "HAAR":
        raise MissingDependency(f"{file} is no cascade of Haar features: reinstall opencv-python.")
    features = [_feature(node) for node in root.findall("features/_")]
    stages = root.findall("stages/_")
    body = np.concatenate([np.array(features, np.uint32).ravel(), *(_stage(stage) for stage in stages)])
    header = np.zeros(HEADER_WORDS, np.uint32)
    width, height = int(root.findtext("width", "0")), int(root.findtext("height", "0"))
    header[:6] = MAGIC, width, height, len(stages), HEADER_WORDS, HEADER_WORDS + 6 * len(features)
    return np.concatenate([header, body])


def _feature(node: ElementTree.Element) -> list[int]:
    """Three rectangles: x, y, width, height in one word, and their weight; 0, 0 where there is none."""
    if node.findtext("tilted", "0").strip() not in ("", "0"):
        raise MissingDependency("The installed cascade has tilted features, which the page's detector does not know.")
    words: list[int] = []
    for rect in node.findall("rects/_"):
        x, y, width, height, weight = (rect.text or "").split()
        words += [int(x) | int(y) << 8 | int(width) << 16 | int(height) << 24, _bits(float(weight))]
    return words + [0] * (6 - len(words))


def _stage(stage: ElementTree.Element) -> np.ndarray:
    trees = stage.findall("weakClassifiers/_")
    words = [len(trees), _bits(np.float32(stage.findtext("stageThreshold", "0")) - EPSILON)]
    for tree in trees:
        nodes = (tree.findtext("internalNodes") or "").split()
        leaves = (tree.findtext("leafValues") or "").split()
        words.append(len(nodes) // 4)
        for at in range(0, len(nodes), 4):
            left, right, feature, threshold = nodes[at : at + 4]
            words += [int(feature), _bits(float(threshold)), int(left) & 0xFFFFFFFF, int(right) & 0xFFFFFFFF]
        words += [_bits(float(leaf)) for leaf in leaves]
    return np.array(words, np.uint32)


def _bits(value: float | np.float32) -> int:
    return int(np.float32(value).view(np.uint32))
