"""edgefer beside the PyPI package `fer`, on one core of this machine, in one run. Not a test: it takes minutes.

    python -m venv /tmp/fer && /tmp/fer/bin/pip install fer==22.5.1 tensorflow 'moviepy<2' 'setuptools<81'
    python tests/compare_fer.py /tmp/fer/bin/python [--yunet FILE] [--rounds 5]

Each measurement is a process of its own, pinned to core 0, the two packages in turn; a figure is the median of the
rounds. Times are the processor's, which other programs on the machine change little; cold start is also told as it is waited for.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What both measurements share; run by either Python, so it may import neither package.
COMMON = """
import json, os, re, sys, time
from importlib.metadata import PackageNotFoundError, distribution
import cv2
cv2.setNumThreads(1)
video, count = sys.argv[1], int(sys.argv[2])

def frames():
    capture = cv2.VideoCapture(video)
    while (got := capture.read())[0]:
        yield got[1]

def milliseconds(work, times):
    for _ in range(5):
        work()
    began = time.process_time()
    for _ in range(times):
        work()
    return 1000 * (time.process_time() - began) / times

def resident_mb():
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1.024e-3

def installed_mb(*names):
    seen, left = {}, [*names]
    while left:
        one = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if one in seen:
            continue
        try:
            found = distribution(one)
        except PackageNotFoundError:
            seen[one] = 0
            continue
        seen[one] = sum(f.locate().stat().st_size for f in found.files or () if f.locate().is_file())
        left += [re.split(r"[^A-Za-z0-9._-]", need, maxsplit=1)[0] for need in found.requires or () if "extra ==" not in need]
    return sum(seen.values()) / 1e6

def tell(**figures):
    print(json.dumps(figures))
"""

FER = (
    COMMON
    + """
from fer import FER
detector = FER(mtcnn=False)
pictures = list(frames())[:count]
box = detector.find_faces(pictures[0])[0]
began, faces = time.process_time(), 0
for picture in pictures:
    faces += len(detector.detect_emotions(picture))
spent = time.process_time() - began
one = milliseconds(lambda: detector.detect_emotions(pictures[0], face_rectangles=[box]), 20)
tell(fps=len(pictures) / spent, faces=faces / len(pictures), face_ms=one, resident_mb=resident_mb(), installed_mb=installed_mb("fer", "tensorflow"))
"""
)

EDGEFER = (
    COMMON
    + """
from pathlib import Path
from edgefer.bundle import Bundle, shipped_bundles
from edgefer.devices import loop
from edgefer.devices.sources.cameras import open_source
from edgefer.devices.faces.detectors import HaarDetector
from edgefer.devices.faces.smoothing import PRESETS
from edgefer.devices.session import Session
from edgefer.devices.faces.yunet import YuNetDetector
from edgefer.interpreter import Classifier
from edgefer.preprocess import face_pixels
classifier = Classifier.load(Bundle.open(shipped_bundles()["fer-small"]))
detector = YuNetDetector(Path(sys.argv[3])) if sys.argv[3:] else HaarDetector()
found_s, network_s = [0.0], [0.0]

def timed(function, into):
    def call(*given):
        began = time.thread_time()
        try:
            return function(*given)
        finally:
            into[0] += time.thread_time() - began
    return call

detector.find, classifier.network.raw = timed(detector.find, found_s), timed(classifier.network.raw, network_s)
with open_source(video) as source:
    began = time.process_time()
    summary = loop.run(
        source, Session(classifier, detector, smooth=PRESETS["responsive"], reject=0.45), [], frames=count
    )
    spent = time.process_time() - began
picture = next(frames())
(box, *_) = (face.box_xyxy for face in detector.find(picture))
crop, spec = classifier.card.crop_for(detector.name), classifier.card.input
one = milliseconds(lambda: classifier.predict(face_pixels(picture, box, crop, spec)[None]), 200)
tell(fps=summary.frames / spent, faces=summary.faces / summary.frames, face_ms=one, resident_mb=resident_mb(),
     installed_mb=installed_mb("edgefer"), rest=1 - (found_s[0] + network_s[0]) / spent)
"""
)

FER_START = """
import sys, cv2
from fer import FER
print(FER(mtcnn=False).detect_emotions(cv2.VideoCapture(sys.argv[1]).read()[1]))
"""


def pinned(command: list[str]) -> tuple[str, float, float]:
    """What a command on core 0 printed, the processor's seconds it took, and the seconds waited."""
    began, before = time.monotonic(), os.times()
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "DISPLAY": ""}
    done = subprocess.run(
        ["taskset", "-c", "0", *command], env=os.environ | quiet, capture_output=True, text=True, timeout=1800
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:1])} failed:\n{done.stderr[-2000:]}")
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return done.stdout, spent, time.monotonic() - began


def drawn_video(file: Path, seconds: float) -> None:
    import cv2

    from edgefer import drawn

    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 15, (596, 336))
    for frame, _ in drawn.scene(seconds, 15, (596, 336)):
        writer.write(frame.image_bgr)
    writer.release()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", help="of an environment in which fer is installed")
    parser.add_argument("--yunet", type=Path, help="YuNet's .onnx: edgefer is measured with it too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=200)
    asked = parser.parse_args()
    runs: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        video = str(Path(folder) / "faces.mp4")
        drawn_video(Path(video), asked.frames / 15 + 1)
        edgefer = [sys.executable, "-c", EDGEFER, video, str(asked.frames)]
        run = [sys.executable, "-c", "from edgefer.cli import main; main()", "run", "fer-small", "--source", video]
        run += ["--headless", "--json", "--frames", "1"]
        kinds = {
            "fer": ([asked.python, "-c", FER, video, str(asked.frames)], [asked.python, "-c", FER_START, video]),
            "edgefer, haar": (edgefer, run),
        }
        if asked.yunet:
            yunet = [*run, "--detector", "yunet", "--detector-file", str(asked.yunet)]
            kinds["edgefer, yunet"] = ([*edgefer, str(asked.yunet)], yunet)
        for number in range(asked.rounds):
            for kind, (measure, start) in kinds.items():
                told = json.loads(pinned(measure)[0].strip().splitlines()[-1])
                _, told["start_cpu_s"], told["start_s"] = pinned(start)
                runs.setdefault(kind, []).append(told)
                print(number, kind, {key: round(value, 3) for key, value in told.items()}, file=sys.stderr, flush=True)
    names = {
        "fps": "frames a processor second", "faces": "faces found a frame", "face_ms": "one face, box given, ms",
        "start_cpu_s": "cold start to first result, processor s", "start_s": "the same, waited s",
        "resident_mb": "resident memory at most, MB", "installed_mb": "installed with dependencies, MB",
        "rest": "neither detector nor network",
    }  # fmt: skip
    print("| | " + " | ".join(runs) + " |\n|---|" + "--:|" * len(runs))
    for key, name in names.items():
        theirs = statistics.median(told[key] for told in runs["fer"]) if key in runs["fer"][0] else None
        cells = []
        for kind, rows in runs.items():
            if key not in rows[0]:
                cells.append("")
                continue
            value = statistics.median(told[key] for told in rows)
            ratio = f" ({value / theirs:.3g}x)" if theirs and kind != "fer" else ""
            cells.append(f"{value:.3g}{ratio}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
