"""Instructions that a search for faces takes on the boards' processors, emulated: edgefer's detectors beside OpenCV's YuNet.

    apt-get install qemu-user gcc && sudo tests/aarch64/setup.sh
    python tests/benchmarks/count_instructions.py YUNET.onnx [--pictures ARCHIVE.zip --count 4]

qemu-user runs every instruction of the arm64 wheels as the named core would, and `tests/aarch64/count.c` counts them, for the searches
alone: no start-up, no other program, and the same number in every run to 20,000. OpenCV and the runtime have one thread.
An instruction is no time: a core does one multiply-add or sixteen in one, and waits for memory in none. Frames are drawn by program,
and pictures of your own as they are.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from boards import CORES, ROOT, python_on

from edgefer import drawn
from edgefer.devices.faces.yunet_lite import YuNetLite

SIZES = ((640, 480), (1280, 720))  # of the drawn frames
BASE = "OpenCV's YuNet, 320x320"


def drawn_frames() -> dict[str, np.ndarray]:
    """One frame of one drawn person for each size: uint8 BGR [h, w, 3]."""
    frames = {}
    for size in SIZES:
        (frame, _), *_ = drawn.scene(seconds=1, fps=1, size=size, people=1)
        frames[f"{size[0]}x{size[1]}, drawn"] = frame.image_bgr
    return frames


def pictures(archive: Path, count: int) -> dict[str, np.ndarray]:
    """The first pictures of an archive, as uint8 BGR [h, w, 3]."""
    with ZipFile(archive) as files:
        names = [name for name in sorted(files.namelist()) if name.lower().endswith((".jpg", ".jpeg", ".png"))]
        read = (cv2.imdecode(np.frombuffer(files.read(name), np.uint8), cv2.IMREAD_COLOR) for name in names[:count])
        return {f"picture {number}, {one.shape[1]}x{one.shape[0]}": one for number, one in enumerate(read, 1)}


def compile_counter(folder: Path) -> Path:
    """count.c as this qemu takes it."""
    version = subprocess.run(["qemu-aarch64", "-version"], capture_output=True, text=True, check=True).stdout.split()[2]
    api = 1 if int(version.split(".")[0]) < 9 else 2
    library = folder / "count.so"
    source = ROOT / "tests" / "aarch64" / "count.c"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", f"-DPLUGIN_API={api}", "-o", library, source], check=True)
    return library


def count(core: str, counter: Path, *arguments) -> list[dict]:
    """The rows of searches.py, each with the millions of instructions of one search."""
    emulator = ("qemu-aarch64", "-plugin", counter, "-E", "PYTHONHASHSEED=0", "-E", "OPENBLAS_NUM_THREADS=1")
    done = python_on(core, ROOT / "tests" / "aarch64" / "searches.py", *arguments, emulator=emulator)
    if done.returncode:
        raise SystemExit(f"{core} failed:\n{done.stdout[-500:]}{done.stderr[-2000:]}")
    return joined(done.stdout, done.stderr)


def joined(printed: str, counted: str) -> list[dict]:
    """What searches.py printed, with what the counter wrote before and after each."""
    rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    counts = [int(line[1:]) for line in counted.splitlines() if line.startswith("#")]
    for row, began, ended in zip(rows, counts[::2], counts[1::2], strict=True):
        row["millions"] = (ended - began) / row["searches"] / 1e6
    return rows


def table(rows: list[dict]) -> str:
    """Millions of instructions of one search by frame and detector, and in brackets its share of OpenCV's."""
    frames, detectors = (list(dict.fromkeys(row[key] for row in rows)) for key in ("frame", "detector"))
    millions = {(row["frame"], row["detector"]): row["millions"] for row in rows}
    lines = [f"| | {' | '.join(frames)} |", "|---|" + "--:|" * len(frames)]
    for detector in detectors:
        cells = [
            f"{millions[frame, detector]:.1f} ({millions[frame, detector] / millions[frame, BASE]:.3f})"
            for frame in frames
        ]
        lines.append(f"| {detector} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("yunet", type=Path, help="YuNet's .onnx")
    parser.add_argument("--pictures", type=Path, help="an archive of pictures, searched beside the drawn frames")
    parser.add_argument("--count", type=int, default=4, help="of its pictures (%(default)s)")
    parser.add_argument("--searches", type=int, default=1, help="counted of each frame by each detector (%(default)s)")
    parser.add_argument("--core", choices=CORES, action="append", help="all of them if not given")
    parser.add_argument("--json", type=Path, help="keeps the counts in this file")
    asked = parser.parse_args()
    kept = {}
    with tempfile.TemporaryDirectory() as folder:
        frames, cache, counter = Path(folder, "frames.npz"), Path(folder, "cache"), compile_counter(Path(folder))
        shown = drawn_frames() | (pictures(asked.pictures, asked.count) if asked.pictures else {})
        np.savez(frames, **shown)  # type: ignore[arg-type]
        YuNetLite(asked.yunet, cache)  # made and proven here: emulated that takes minutes
        for core in asked.core or CORES:
            kept[core] = count(core, counter, asked.yunet.resolve(), cache, frames, asked.searches)
            print(
                f"\n{core} ({CORES[core]}), millions of instructions a search (of those of {BASE}):\n\n{table(kept[core])}"
            )
    if asked.json:
        asked.json.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
