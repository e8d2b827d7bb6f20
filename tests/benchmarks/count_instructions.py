"""Instructions of a face search on the boards' processors, emulated: edgefer's detectors compared with OpenCV's YuNet.

    apt-get install qemu-user gcc && sudo tests/aarch64/setup.sh
    python tests/benchmarks/count_instructions.py YUNET.onnx [--pictures ARCHIVE.zip --count 4]

qemu-user runs every instruction of the arm64 wheels as on the named core, and `tests/aarch64/count.c` counts those of the searches
only, without start-up or other programs: runs differ by at most 20,000. OpenCV and the runtime have one thread.
An instruction count is not a time: one instruction does one to sixteen multiply-adds, and waiting for memory is not counted.
Frames are drawn, or your own images as they are.
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
    """The first images of an archive, as uint8 BGR [h, w, 3]."""
    with ZipFile(archive) as files:
        names = [name for name in sorted(files.namelist()) if name.lower().endswith((".jpg", ".jpeg", ".png"))]
        read = (cv2.imdecode(np.frombuffer(files.read(name), np.uint8), cv2.IMREAD_COLOR) for name in names[:count])
        return {f"picture {number}, {one.shape[1]}x{one.shape[0]}": one for number, one in enumerate(read, 1)}


def compile_counter(folder: Path) -> Path:
    """Compile count.c for the plugin API of the installed qemu."""
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
    """The rows printed by searches.py, with the counts written before and after each."""
    rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    counts = [int(line[1:]) for line in counted.splitlines() if line.startswith("#")]
    for row, began, ended in zip(rows, counts[::2], counts[1::2], strict=True):
        row["millions"] = (ended - began) / row["searches"] / 1e6
    return rows


def table(rows: list[dict]) -> str:
    """Millions of instructions per search by frame and detector, and in brackets the ratio to OpenCV's."""
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
    args = parser.parse_args()
    counts = {}
    with tempfile.TemporaryDirectory() as folder:
        frames, cache, counter = Path(folder, "frames.npz"), Path(folder, "cache"), compile_counter(Path(folder))
        shown = drawn_frames() | (pictures(args.pictures, args.count) if args.pictures else {})
        np.savez(frames, **shown)  # type: ignore[arg-type]
        YuNetLite(args.yunet, cache)  # converted and verified here, since that takes minutes in emulation
        for core in args.core or CORES:
            counts[core] = count(core, counter, args.yunet.resolve(), cache, frames, args.searches)
            print(
                f"\n{core} ({CORES[core]}), millions of instructions a search (of those of {BASE}):\n\n{table(counts[core])}"
            )
    if args.json:
        args.json.write_text(json.dumps(counts, indent=1))


if __name__ == "__main__":
    main()
