"""Videos for the tests of sources."""

import shutil
from pathlib import Path

import cv2
import numpy as np

FFMPEG = shutil.which("ffmpeg")


def write_video(file: Path, frames: int = 60, codec: str = "mp4v", fps: float = 20) -> Path:
    """Frames of noise, so that every one takes room in the file; the top left pixel counts them."""
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*codec), fps, (96, 64))
    for _ in range(frames):
        writer.write(rng.integers(0, 255, (64, 96, 3), np.uint8))
    writer.release()
    return file


def of_pattern(source: str) -> list[str]:
    """The beginning of an ffmpeg command that encodes a test pattern, such as testsrc2=size=96x64:rate=10:duration=6."""
    return [str(FFMPEG), "-v", "error", "-f", "lavfi", "-i", source]
