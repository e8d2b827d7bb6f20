"""Faults of boards in long operation. Not tests: they take minutes and print the outcomes; exit code 1 if one failed.

python tests/benchmarks/soak.py frames [--count 200000]   memory and lost frames over a long replay of a video
python tests/benchmarks/soak.py faults                    a camera that comes and goes, a killed reader, a full disk, a damaged
                                                          model, SIGKILL: each against a real `edgefer run`
"""

import argparse
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2

from edgefer import drawn
from edgefer.bundle import Bundle, shipped_bundles
from edgefer.card import InputSpec, ModelCard, Provenance
from edgefer.devices import loop
from edgefer.devices.board.selftest import network_content
from edgefer.devices.faces.detectors import HaarDetector
from edgefer.devices.faces.smoothing import PRESETS
from edgefer.devices.faces.tracking import Pace
from edgefer.devices.outputs.lines import JsonLines
from edgefer.devices.outputs.stats import RunStats
from edgefer.devices.session import Session
from edgefer.devices.sources.cameras import open_source
from edgefer.interpreter import Classifier, Network
from edgefer.records import Frame

APART = 25  # frames between two face searches in the soak; faces are tracked in between
FLAT_MB = 5
TIMES_UNPLUGGED = 50


def resident_mb() -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1.024e-3


def video(file: Path, seconds: float, size: tuple[int, int], people: int = 1) -> Path:
    """Write drawn faces as a video; returns `file`."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 15, size)
    for frame, _ in drawn.scene(seconds, 15, size, people):
        writer.write(frame.image_bgr)
    writer.release()
    return file


# ---- frames ----


class Lines:
    """A text file that only counts its lines: each must be of the next frame."""

    def __init__(self) -> None:
        self.count, self.faces = 0, 0

    def write(self, text: str) -> int:
        for line in text.splitlines():
            record = json.loads(line)
            if record["frame"] != self.count:
                raise SystemExit(f"Frame {record['frame']} came after {self.count - 1} frames: one was lost.")
            self.count += 1
            self.faces += len(record["faces"])
        return len(text)

    def flush(self) -> None:
        pass


def repeated(file: Path, count: int) -> Iterator[Frame]:
    """The video's frames, repeated, with the numbers and times of one long video."""
    index = 0
    while index < count:
        with open_source(str(file)) as source:
            for frame in source:
                yield Frame(index=index, time_s=index / source.fps, image_bgr=frame.image_bgr)
                index += 1


def soak_frames(count: int, real: bool) -> bool:
    """Whether memory use was constant after the first tenth, and no frame was lost."""
    setattr(Pace, "apart", APART)  # noqa: B010
    if real:
        classifier = Classifier.load(Bundle.open(shipped_bundles()["fer-small"]))
    else:
        none = Provenance(data="none", split_sizes={}, recipe={}, seed=0, epoch=0, versions={})
        card = ModelCard(name="tiny", labels=("a", "b"), input=InputSpec(height=16, width=16), provenance=none)
        classifier = Classifier(Network(network_content(), card.input, 2), card, "int8")
    lines, rows = Lines(), []
    began = time.monotonic()

    def on_frame() -> None:
        if lines.count and lines.count % (count // 20) == 0:
            rows.append((lines.count, resident_mb()))
            print(f"| {lines.count:7d} | {time.monotonic() - began:6.0f} | {rows[-1][1]:6.1f} |", flush=True)

    print("| frames | seconds | resident MB |\n|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        file = video(Path(folder) / "faces.mp4", 10, (160, 120))
        summary = loop.run(
            repeated(file, count), Session(classifier, HaarDetector(width=160), smooth=PRESETS["responsive"], reject=0.45),
            [JsonLines(lines)], frames=count, stats=RunStats(on_frame=on_frame),
        )  # fmt: skip
    warm = [megabytes for done, megabytes in rows if done >= count // 10]
    growth = max(warm) - warm[0]
    print(f"{summary.frames} frames, {lines.count} written, {lines.faces} faces; after the first tenth memory grew by "
          f"{growth:.1f} MB at most (allowed {FLAT_MB}).")  # fmt: skip
    return growth <= FLAT_MB and lines.count == summary.frames == count


# ---- faults ----


class Camera(http.server.BaseHTTPRequestHandler):
    """Drawn faces over HTTP while the server is `on`; otherwise connections break off and new ones are refused."""

    def do_GET(self) -> None:
        if not self.server.on.is_set():  # type: ignore[attr-defined]
            return self.send_error(503)
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        while self.server.on.is_set():  # type: ignore[attr-defined]
            jpeg = self.server.jpeg  # type: ignore[attr-defined]
            try:
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg))
                self.wfile.write(jpeg + b"\r\n")
            except OSError:
                return
            time.sleep(0.05)

    def log_message(self, *_: object) -> None:
        pass


def camera() -> http.server.ThreadingHTTPServer:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    ((frame, _),) = drawn.scene(1 / 15, 15, (160, 120), 1)
    server.jpeg, server.on = cv2.imencode(".jpg", frame.image_bgr)[1].tobytes(), threading.Event()  # type: ignore[attr-defined]
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def run(*arguments: object, **options) -> subprocess.Popen:
    code = "from edgefer.cli import main; main()"
    command = [sys.executable, "-c", code, "run", *map(str, arguments), "--headless"]
    return subprocess.Popen(command, **({"stderr": subprocess.PIPE, "text": True} | options))


def playable(file: Path) -> int:
    """How many frames the video has; an exception if it cannot be played."""
    with open_source(str(file)) as source:
        return sum(1 for _ in source)


def output_of(process: subprocess.Popen, codes: tuple[int, ...] = (0,)) -> str:
    """The error output of a run that has ended."""
    _, output = process.communicate(timeout=300)
    assert process.returncode in codes and "Traceback" not in output, f"exit {process.returncode}: {output}"
    return output


def camera_removed(folder: Path) -> str:
    server, saved = camera(), folder / "out.mp4"
    server.on.set()  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{server.server_port}/stream.mjpg"
    process = run("fer-small", "--source", url, "--json", "--save", saved, stdout=subprocess.PIPE)
    assert process.stdout is not None
    lines = 0
    for _ in range(TIMES_UNPLUGGED):
        server.on.clear()  # type: ignore[attr-defined]
        time.sleep(0.3)
        server.on.set()  # type: ignore[attr-defined]
        for _ in range(10):  # more than were in the buffers
            assert json.loads(process.stdout.readline())["frame"] == lines
            lines += 1
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    output = output_of(process)
    return f"{output.count('is back')} times back, {playable(saved)} frames saved, ended in {time.monotonic() - began:.1f} s"


def reader_killed(folder: Path) -> str:
    clip, saved = video(folder / "clip.mp4", 10, (160, 120)), folder / "out.mp4"
    process = run("fer-small", "--source", clip, "--json", "--save", saved, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    output = output_of(process, (0, 1))  # 1: not everything was written
    assert playable(saved) == 150, f"{playable(saved)} of 150 frames are in the video: {output}"
    return "all 150 frames saved"


def disk_full(folder: Path) -> str:
    small, outcomes = folder / "small", []
    small.mkdir()
    clip, lines = video(folder / "clip.mp4", 20, (480, 360), 2), folder / "lines.jsonl"
    for megabytes, codes in ((5, (2,)), (21, (0, 1))):  # full from the start, and full during the run
        try:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", small], check=True, capture_output=True
            )
        except (OSError, subprocess.CalledProcessError):
            return "not tried: needs root, to mount a small disk"
        try:
            with lines.open("w") as out:
                process = run("fer-small", "--source", clip, "--json", "--save", small / "out.mp4", stdout=out)
                output = output_of(process, codes)
            assert codes == (2,) or len(lines.read_text().splitlines()) == 300, "the other results are complete"
            left = [file.name for file in small.iterdir()]
            assert left == ([] if codes == (2,) else ["out.mp4"]), f"on the disk {left}"
            frames = playable(small / "out.mp4") if left else 0
            outcomes.append(f"{megabytes} MB: {frames} frames; said: {' '.join(output.split())[:160]}")
        finally:
            subprocess.run(["umount", small], check=True)
    return "; ".join(outcomes)


def model_damaged(folder: Path) -> str:
    clip, bundle, lines = video(folder / "clip.mp4", 10, (160, 120)), folder / "bundle", folder / "lines.jsonl"
    shutil.copytree(shipped_bundles()["fer-small"], bundle)
    with lines.open("w") as out:
        process = run(bundle, "--source", clip, "--json", stdout=out)
        while not lines.read_text():
            time.sleep(0.05)
        (bundle / "int8.tflite").write_bytes(b"damaged")
        (bundle / "card.json").unlink()
        output_of(process)
    assert len(lines.read_text().splitlines()) == 150
    again = run(bundle, "--source", clip)
    output = again.communicate(timeout=60)[1].strip()
    assert again.returncode == 2 and "Traceback" not in output
    return f"all 150 results; started again: {output}"


def killed_and_restarted(folder: Path) -> str:
    clip, saved, lines = video(folder / "clip.mp4", 10, (160, 120)), folder / "out.mp4", folder / "lines.jsonl"
    with lines.open("w") as out:
        first = run("fer-small", "--source", clip, "--json", "--save", saved, stdout=out)
        while len(lines.read_text().splitlines()) < 20:
            time.sleep(0.05)
        first.kill()
        first.wait()
    assert not saved.exists(), "an incomplete video under the name of a complete one"
    half = [file.name for file in folder.glob(".partial*")]
    output_of(run("fer-small", "--source", clip, "--save", saved, stdout=subprocess.DEVNULL))
    assert playable(saved) == 150
    return f"no half video; again: all 150 frames. Left by the killed one: {half}, then {[f.name for f in folder.glob('.partial*')]}"


def faults() -> bool:
    print("| fault | outcome |\n|---|---|")
    passed = True  # also on a busy machine: no time limit is checked
    for fault in (reader_killed, disk_full, model_damaged, killed_and_restarted, camera_removed):
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcome = fault(Path(folder))
            except Exception as error:
                outcome, passed = f"FAILED: {type(error).__name__}: {error}", False
        print(f"| {fault.__name__.replace('_', ' ')} | {outcome} |", flush=True)
    return passed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("frames", "faults"))
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--real", action="store_true", help="frames: fer-small, not a network of 2 kB")
    args = parser.parse_args()
    os.environ["DISPLAY"] = ""
    sys.exit(0 if (soak_frames(args.count, args.real) if args.mode == "frames" else faults()) else 1)


if __name__ == "__main__":
    main()
