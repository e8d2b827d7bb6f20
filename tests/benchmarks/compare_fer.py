"""Compares edgefer with the PyPI package `fer`, on one core of this machine, in one run. Not a test: it takes minutes.

    python -m venv /tmp/fer && /tmp/fer/bin/pip install fer==25.10.3 tensorflow 'moviepy<2' 'setuptools<81'
    python tests/benchmarks/compare_fer.py /tmp/fer/bin/python [--yunet FILE] [--rounds 5] [--video FILE ...]

Each measurement runs in its own process on core 0, and the packages alternate; a figure is the median of the rounds. Both decode
the same videos, of drawn faces, steady and shaken, or those given, and search every frame; edgefer also writes its JSON lines. With following, the
boxes are compared with those of a search of every frame: mean intersection over union, where a lost face counts 0. The bound is
the speed of the same run if it only decoded the video and ran the same networks. Times are CPU time, on which other programs have
less influence than on wall-clock time; for the cold start both are reported.
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

FOLLOW = 15  # frames between two searches of the whole frame

# Shared by both measurements; run by either Python, so it may import neither package.
COMMON = """
import json, os, re, sys, time
from importlib.metadata import PackageNotFoundError, distribution
import cv2
cv2.setNumThreads(1)
video, count = sys.argv[1], int(sys.argv[2])

def frames():
    capture = cv2.VideoCapture(video)
    while (result := capture.read())[0]:
        yield result[1]

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

def report(**figures):
    print(json.dumps(figures))
"""

FER = (
    COMMON
    + """
from fer.fer import FER
detector = FER(mtcnn=False)
some = next(((image, boxes[0]) for image in frames() if len(boxes := detector.find_faces(image))), None)
first, box = some or (next(frames()), (0, 0, 48, 48))
detector.detect_emotions(first, face_rectangles=[box])
began, faces, images = time.process_time(), 0, []
for number, image in zip(range(count), frames()):
    faces += len(detector.detect_emotions(image))
    images.append(number)
spent = time.process_time() - began
one = milliseconds(lambda: detector.detect_emotions(first, face_rectangles=[box]), 20)
report(fps=len(images) / spent, faces=faces / len(images), face_ms=one, resident_mb=resident_mb(), installed_mb=installed_mb("fer", "tensorflow"))
"""
)

EDGEFER = (
    COMMON
    + """
from pathlib import Path
from edgefer.bundle import Bundle, shipped_bundles
from edgefer.devices import loop
from edgefer.devices.faces.tracking import overlap
from edgefer.devices.outputs.lines import JsonLines
from edgefer.devices.outputs.sink import Sink
from edgefer.devices.reader import Reader
from edgefer.options import ReaderOptions
from edgefer.preprocess import face_pixels
name, file, follow = sys.argv[3], sys.argv[4], int(sys.argv[5])
bundle = Bundle.open(shipped_bundles()[sys.argv[6]])

class Boxes(Sink):
    def __init__(self):
        self.frames = []
    def write(self, frame):
        self.frames.append([face.box_xyxy for face in frame])

class Calls(Sink):  # the networks that were run for each frame, in order
    def __init__(self, kind):
        self.frames, self.called, self.kind, self.invoke = [], [], kind, kind.invoke
        kind.invoke = lambda network: (self.called.append(network), self.invoke(network))[1]
    def write(self, frame):
        self.frames.append(self.called)
        self.called = []
    def close(self):
        self.kind.invoke = self.invoke

def run(every, sinks):
    options = ReaderOptions(detector=name, yunet=Path(file) if file else None, follow=every, threads=1)
    reader = Reader.open(bundle, options)
    reader(next(frames()))
    with reader.open_sources([video]) as source:
        began = time.process_time()
        stats = loop.run(source, reader.session(), sinks, frames=count, overlap=False)
        return reader, stats, stats.frames / (time.process_time() - began)

followed = Boxes()
reader, stats, fps = run(follow, [JsonLines(open(os.devnull, "w")), followed])
found = ((image, face.box_xyxy) for image in frames() for face in reader.detector.find(image))
image, box = next(found, (next(frames()), (0, 0, 48, 48)))
crop, spec = reader.card.crop_for(reader.detector.name), reader.card.input
one = milliseconds(lambda: reader.classifier.predict(face_pixels(image, box, crop, spec)[None]), 200)
calls = Calls(type(reader.classifier.network._interpreter))
run(follow, [calls])
needed = calls.frames[1:]  # before the first frame, the self-check also runs networks
began = time.process_time()
for image, called in zip(frames(), needed):
    for network in called:
        network.invoke()
figures = {"bound_fps": len(needed) / (time.process_time() - began)}
if follow > 1:
    every = Boxes()
    run(1, [every])
    shared = [max((overlap(box, other) for other in boxes), default=0.0)
              for expected, boxes in zip(every.frames, followed.frames) for box in expected]
    figures["iou"] = sum(shared) / len(shared) if shared else 1.0
report(fps=fps, faces=stats.faces / stats.frames, face_ms=one, resident_mb=resident_mb(), installed_mb=installed_mb("edgefer"), **figures)
"""
)

FER_START = """
import sys, cv2
from fer.fer import FER
print(FER(mtcnn=False).detect_emotions(cv2.VideoCapture(sys.argv[1]).read()[1]))
"""


def pinned(command: list[str]) -> tuple[str, float, float]:
    """The output of a command on core 0, its CPU time and its wall-clock time in seconds."""
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


def drawn_video(file: Path, seconds: float, people: int, shaken: bool) -> None:
    import cv2

    from edgefer import drawn

    frames = (frame for frame, _ in drawn.scene(seconds, 15, (596, 336), people))
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 15, (596, 336))
    for frame in drawn.shaken(frames) if shaken else frames:
        writer.write(frame.image_bgr)
    writer.release()


def commands(args: argparse.Namespace, video: str, *, measure_start: bool) -> dict[str, tuple[list[str], list[str]]]:
    """By package: the command that measures it on a video, and the one that starts it once, or nothing."""

    def edgefer(detector: str, file: str, follow: int) -> list[str]:
        return [sys.executable, "-c", EDGEFER, video, str(args.frames), detector, file, str(follow), args.network]

    start = [sys.executable, "-c", "from edgefer.cli import main; main()", "run", args.network, "--source", video]
    start += ["--headless", "--json", "--frames", "1", "--detector"]
    file = str(args.yunet or "")
    kinds = {
        "fer": ([args.python, "-c", FER, video, str(args.frames)], [args.python, "-c", FER_START, video]),
        "own": (edgefer("own", "", 1), [*start, "own"]),
        "own following": (edgefer("own", "", FOLLOW), []),
    }
    if file:
        kinds["yunet"] = (edgefer("yunet", file, 1), [*start, "yunet", "--yunet", file])
        kinds["yunet following"] = (edgefer("yunet", file, FOLLOW), [])
    return {name: (measure, start if measure_start else []) for name, (measure, start) in kinds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", help="of an environment in which fer is installed")
    parser.add_argument("--yunet", type=Path, help="YuNet's .onnx: edgefer is measured with it too")
    parser.add_argument("--network", default="fer-small", help="one that ships; %(default)s has fer's seven labels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--people", type=int, default=2, help="faces in the video")
    parser.add_argument(
        "--video", type=Path, action="append", help="measure on this instead; may be given several times"
    )
    args = parser.parse_args()
    runs: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        clips = {file.name: str(file) for file in args.video or ()}
        if not clips:
            clips = {name: str(Path(folder) / f"{name}.mp4") for name in ("drawn", "shaken")}
            for name, file in clips.items():
                drawn_video(Path(file), args.frames / 15 + 1, args.people, shaken=name == "shaken")
        kinds = {
            f"{package}, {clip}": command
            for clip, file in clips.items()
            for package, command in commands(args, file, measure_start=file == next(iter(clips.values()))).items()
        }
        for number in range(args.rounds):
            for kind, (measure, start) in kinds.items():
                figures = json.loads(pinned(measure)[0].strip().splitlines()[-1])
                if start:
                    _, figures["start_cpu_s"], figures["start_s"] = pinned(start)
                runs.setdefault(kind, []).append(figures)
                print(
                    number, kind, {key: round(value, 3) for key, value in figures.items()}, file=sys.stderr, flush=True
                )
    names = {
        "fps": "frames a processor second", "bound_fps": "bound: decoding and networks alone", "faces": "faces found a frame", "face_ms": "one face, box given, ms",
        "start_cpu_s": "cold start to first result, processor s", "start_s": "the same, waited s",
        "resident_mb": "resident memory at most, MB", "installed_mb": "installed with dependencies, MB",
        "iou": "overlap with the boxes of a search of every frame",
    }  # fmt: skip
    print("| | " + " | ".join(names.values()) + " |\n|---|" + "--:|" * len(names))
    for kind, rows in runs.items():
        base = runs[f"fer, {kind.split(', ', 1)[1]}"]
        print(f"| {kind} | " + " | ".join(cell(key, rows, base) for key in names) + " |")


def cell(key: str, rows: list[dict], base: list[dict]) -> str:
    """A figure's median, and its ratio to fer's on the same video."""
    if key not in rows[0]:
        return ""
    value = statistics.median(figures[key] for figures in rows)
    theirs = statistics.median(figures.get("fps" if key == "bound_fps" else key, 0.0) for figures in base)
    ratio = f" ({value / theirs:.3g}x)" if theirs and rows is not base else ""
    return f"{value:.3g}{ratio}"


if __name__ == "__main__":
    main()
