"""Measures the age of the images of an RTSP stream when they are read, by the time that the server draws in them:

    python tests/benchmarks/measure_delay.py

For each codec and transport: seconds to the first image, and the median and longest age after two seconds, of a reader that
takes each image and of one that needs 0.3 s for each. With --soak MINUTES, the server is killed for 7 s after every 20 s,
and the reader's memory, threads and open files are printed.
"""

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from rtsp import RtspServer, delay_s

from edgefer import drawn
from edgefer.devices.board import health
from edgefer.devices.sources.cameras import LiveOptions, open_source

SIZE, FPS, SECONDS, SETTLED_S = (640, 480), 25, 12, 2
UP_S, DOWN_S = 20, 7


def image():
    return next(drawn.scene(1, 5, SIZE, 1))[0].image_bgr


def measure(folder: Path, codec: str, transport: str, pause_s: float) -> str:
    server = RtspServer(folder, image(), codec=codec, transport=transport, fps=FPS)
    began, ages = time.monotonic(), []
    try:
        with open_source(server.url()) as source:
            opened = time.monotonic()
            for frame in source:
                if (passed := time.monotonic() - opened) > SECONDS:
                    break
                if passed > SETTLED_S:
                    ages.append(delay_s(frame.image_bgr))
                time.sleep(pause_s)
    finally:
        server.stop()
    return f"| {codec} | {transport} | {pause_s} | {opened - began:.1f} | {statistics.median(ages):.2f} | {max(ages):.2f} |"


def soak(folder: Path, minutes: float) -> None:
    server, stop = RtspServer(folder, image(), fps=FPS), threading.Event()
    threading.Timer(60 * minutes, stop.set).start()

    def flap() -> None:
        while not stop.wait(UP_S):
            server.stop()
            stop.wait(DOWN_S)
            server.start()

    flapping = threading.Thread(target=flap)
    flapping.start()
    print("| seconds | MB | threads | open files |\n|--:|--:|--:|--:|")
    began, shown_s = time.monotonic(), 0.0
    with open_source(server.url(), live=LiveOptions(stop=stop)) as source:
        for _ in source:
            passed = time.monotonic() - began
            if passed >= shown_s:
                shown_s += 60
                files = len(os.listdir("/proc/self/fd"))
                print(f"| {passed:.0f} | {health.memory_mb():.0f} | {threading.active_count()} | {files} |", flush=True)
    flapping.join()
    server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--soak", type=float, metavar="MINUTES")
    minutes = parser.parse_args().soak
    with tempfile.TemporaryDirectory() as folder:
        if minutes:
            return soak(Path(folder), minutes)
        print("| codec | transport | pause, s | open, s | median age, s | longest |\n|---|---|--:|--:|--:|--:|")
        for codec in ("h264", "mjpeg"):
            for transport in ("tcp", "udp"):
                for pause_s in (0.0, 0.3):
                    print(measure(Path(folder), codec, transport, pause_s), flush=True)


if __name__ == "__main__":
    main()
