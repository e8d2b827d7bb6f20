"""Video encoders: H.264 with any available encoder, since browsers play only that."""

import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import cv2
import numpy as np

from edgefer.devices.outputs.feeds import reason_of
from edgefer.errors import EdgeferError
from edgefer.quiet import quiet
from edgefer.text import printable

MAX_GAP_S = 60.0  # longer pauses between two frames are shortened to this
ENDED_BY_SIGNAL = 255  # ffmpeg's exit code; it has finished the file
CRF = "23"  # libx264's own default quality
PROBE_S = 20.0
NO_H264 = (
    "is written as MPEG-4, which browsers do not play: no H.264 encoder is installed. sudo apt install -y ffmpeg, "
    "or pip install 'edgefer[video]'"
)


class Encoder(Protocol):
    """Writes images, uint8 BGR [h, w, 3] of one size, each at its time in seconds, to a file."""

    def write(self, image_bgr: np.ndarray, time_s: float) -> None:
        """Raises EdgeferError when it cannot continue."""

    def close(self) -> None:
        """Finish the file."""


class PyavEncoder:
    """H.264 with PyAV (the extra `video`), with a time stamp per frame."""

    TICKS = 90_000  # per second, MPEG's clock

    def __init__(self, path: str, size: tuple[int, int], fps: float):
        self._av: Any = import_module("av")
        self._container = self._av.open(path, "w", format="mp4", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        self._stream.width, self._stream.height = _even(size)
        self._stream.pix_fmt, self._stream.options = "yuv420p", {"crf": CRF, "preset": "veryfast"}
        self._stream.codec_context.time_base = Fraction(1, self.TICKS)
        self._tick, self._last_s = -1, 0.0
        self._shift_s = 0.0

    @staticmethod
    def here() -> bool:
        return find_spec("av") is not None and "libx264" in import_module("av").codecs_available

    def write(self, image_bgr: np.ndarray, time_s: float) -> None:
        self._shift_s += max(0.0, time_s - self._last_s - MAX_GAP_S)
        self._last_s = time_s
        self._tick = max(self._tick + 1, round((time_s - self._shift_s) * self.TICKS))
        frame = self._av.VideoFrame.from_ndarray(_padded(image_bgr), format="bgr24")
        frame.pts, frame.time_base = self._tick, Fraction(1, self.TICKS)
        self._mux(frame)

    def _mux(self, frame: Any) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except (OSError, ValueError) as error:  # av.FFmpegError is one or the other
            raise EdgeferError(reason_of(error)) from None

    def close(self) -> None:
        try:
            self._mux(None)
        finally:
            self._container.close()


class ConstantRate:
    """Converts a variable to a constant frame rate by repeating frames until the next one's time."""

    def __init__(self, fps: float, write: Callable[[np.ndarray], None]):
        self._fps, self._write = fps, write
        self._last: tuple[np.ndarray, float] | None = None
        self._owed = 0.0  # frames due but not yet written

    def write(self, image_bgr: np.ndarray, time_s: float) -> None:
        gap_s = 1 / self._fps if self._last is None else min(MAX_GAP_S, max(0.0, time_s - self._last[1]))
        # The previous image is repeated until now; the newest is written once.
        self._owed += gap_s * self._fps
        for _ in range(round(self._owed) - 1):
            if self._last is not None:
                self._write(self._last[0])
                self._owed -= 1
        if round(self._owed) >= 1:
            self._write(image_bgr)
            self._owed -= 1
        self._last = image_bgr, time_s


class FfmpegEncoder:
    """H.264 with the program ffmpeg, through a pipe."""

    def __init__(self, path: str, size: tuple[int, int], fps: float):
        width, height = _even(size)
        command = [
            "ffmpeg", "-hide_banner", "-loglevel", "error", "-nostdin", "-y", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s",
            f"{width}x{height}", "-r", f"{fps:.6f}", "-i", "pipe:0", "-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", CRF,
            "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4", f"file:{path}",
        ]  # fmt: skip
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        # In a separate session: Ctrl-C only reaches edgefer, which then finishes the file.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._errors, start_new_session=True
        )
        self.write = ConstantRate(fps, self._write).write

    @staticmethod
    def here() -> bool:
        """Whether ffmpeg is installed with an H.264 encoder: some builds have none."""
        if not shutil.which("ffmpeg"):
            return False
        trial = ["-f", "lavfi", "-i", "color=s=64x64:d=0.1", "-c:v", "libx264", "-f", "null", "-"]
        try:
            return subprocess.run(["ffmpeg", "-nostdin", *trial], capture_output=True, timeout=PROBE_S).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False

    def _write(self, image_bgr: np.ndarray) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(_padded(image_bgr).tobytes())
        except OSError:  # it has ended
            raise EdgeferError(self._reason()) from None

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        # The end of a service or a session signals all of its processes.
        if self._process.wait() not in (0, ENDED_BY_SIGNAL):
            raise EdgeferError(self._reason())

    def _reason(self) -> str:
        self._process.wait(PROBE_S)
        self._errors.seek(0)
        lines = printable(self._errors.read(4000).decode(errors="replace"), keep="\n").strip().splitlines()
        for number in (errno.ENOSPC, errno.EFBIG):
            if any(os.strerror(number) in line for line in lines):
                return reason_of(OSError(number, ""))
        if self._process.returncode == ENDED_BY_SIGNAL and not lines:
            return "ffmpeg was ended by a signal"
        return f"ffmpeg ended: {lines[-1][:200]}" if lines else f"ffmpeg failed (exit code {self._process.returncode})"


class CvEncoder:
    """With OpenCV: `code` avc1 (H.264; pip's OpenCV has no encoder for it), mp4v or MJPG."""

    code = "mp4v"

    def __init__(self, path: str, size: tuple[int, int], fps: float):
        self._writer = _cv_writer(path, self.code, size, fps)
        if not self._writer.isOpened():
            raise EdgeferError("a video cannot be written there: is the folder writable and the disk not full?")
        self.write = ConstantRate(fps, self._writer.write).write

    def close(self) -> None:
        self._writer.release()


class CvH264Encoder(CvEncoder):
    code = "avc1"

    @staticmethod
    def here() -> bool:
        with tempfile.TemporaryDirectory(prefix="edgefer-") as folder, quiet():
            writer = _cv_writer(f"{folder}/trial.mp4", "avc1", (64, 64), 10)
            opened = writer.isOpened()
            writer.release()
        return opened


class MotionJpegEncoder(CvEncoder):
    code = "MJPG"


def h264_encoder() -> Callable[[str, tuple[int, int], float], Encoder] | None:
    """The best available H.264 encoder, None if there is none."""
    return next((kind for kind in (PyavEncoder, FfmpegEncoder, CvH264Encoder) if kind.here()), None)


def _cv_writer(path: str, code: str, size: tuple[int, int], fps: float) -> cv2.VideoWriter:
    return cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*code), fps, size)


def _even(size: tuple[int, int]) -> tuple[int, int]:
    """H.264 in the pixel format that browsers play (4:2:0) needs even sizes."""
    return size[0] + size[0] % 2, size[1] + size[1] % 2


def _padded(image_bgr: np.ndarray) -> np.ndarray:
    height, width = image_bgr.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return np.ascontiguousarray(image_bgr)
    return cv2.copyMakeBorder(image_bgr, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
