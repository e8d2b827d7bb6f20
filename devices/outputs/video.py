"""Results as an annotated video or image."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from edgefer.devices.outputs.encoders import MAX_GAP_S, NO_H264, CvEncoder, Encoder, MotionJpegEncoder, h264_encoder
from edgefer.devices.outputs.feeds import reason_of
from edgefer.devices.outputs.files import PartialFile, check_folder, check_room, images_in, make_folder
from edgefer.devices.outputs.overlay import View
from edgefer.devices.outputs.sink import Sink
from edgefer.errors import EdgeferError, SourceError
from edgefer.images import encode_image, write_image
from edgefer.quiet import hush_codecs
from edgefer.records import Frame
from edgefer.text import counted, printable, safe_name

STILLS = (".png", ".jpg")
VIDEOS = (".mp4", ".avi")
INDEX_BYTES = 16  # of a video's index per frame, at most, written at the end: an AVI 16.0, an MP4 4.2 to 4.8
FINISH_BYTES_S = 1e6  # an MP4 is rewritten at the end, with its index first: a slow SD card reads and writes so fast
LIVE_GAP_S = 1.0  # longer interruptions of a camera are shortened to this


class VideoFile(Sink):
    """An annotated video, or an image (the last frame) if the name ends in .png or .jpg.

    Written to a temporary file and renamed at the end, so that a file of that name is always complete. Frames keep their
    times. An .mp4 is H.264, which browsers play, if an encoder is installed; else `notice` is a message about that.
    live: interruptions of the source are shortened to LIVE_GAP_S. overwrite: at the end, replace a file of that name.
    """

    every_frame = True

    def __init__(
        self, path: Path, fps: float, *, live: bool = False, view: View | None = None, overwrite: bool = False
    ):
        self.name, self.path, self.live = printable(str(path)), path, live
        # Pauses are shortened to MAX_GAP_S: at a lower rate, frames of a time-lapse would fall between two of the video's.
        self.fps = max(fps, 1 / MAX_GAP_S)
        self._view = view or View()
        suffix = path.suffix.lower()
        if suffix not in (*VIDEOS, *STILLS):
            raise SourceError(
                f"Cannot save to {self.name}: name a .mp4 or .avi video, a .png or .jpg image, or a folder."
            )
        check_folder(path, "save")
        if path.exists() and not overwrite:
            raise SourceError(
                f"{self.name} is there already: choose another name, or replace the file with --overwrite."
            )
        self._still = suffix in STILLS
        kind = h264_encoder() if suffix == ".mp4" else MotionJpegEncoder
        self.notice = "" if kind or self._still else f"{self.name} {NO_H264}."
        self._open: Callable[[str, tuple[int, int], float], Encoder] = kind or CvEncoder
        self.partial = PartialFile(path, overwrite=overwrite)
        hush_codecs()
        self._encoder: Encoder | None = None
        self._last: Frame | None = None
        self._written, self._time_s, self._size = 0, 0.0, (0, 0)
        self._closed, self._published, self._whole = False, False, True

    def write(self, frame: Frame) -> None:
        last, self._last = self._last, frame
        if self._still:
            self._written += 1
            return
        check_room(self.path.parent, INDEX_BYTES * self._written)
        image = self._view.annotated(frame)
        if self._encoder is None:
            self._size = image.shape[1], image.shape[0]
            self._encoder = self._open(self.partial.for_libraries, self._size, self.fps)
        gap_s = 0.0 if last is None else max(0.0, frame.time_s - last.time_s)
        self._time_s += min(LIVE_GAP_S, gap_s) if self.live else gap_s
        self._encoder.write(fitted(image, self._size), self._time_s)
        self._written += 1

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        encoder, last, self._last = self._encoder, self._last, None
        try:
            if encoder is not None:
                self._finish(encoder)
            elif self._still and last is not None:
                self.partial.file.write_bytes(encode_image(self._view.annotated(last), self.path.suffix))
            else:
                return
            self.partial.publish()
            self._published = True
        finally:
            self.partial.close()
        if not self._whole:
            raise EdgeferError("its end is missing, since the disk is full or allows no larger file")

    def _finish(self, encoder: Encoder) -> None:
        """Finish the video; EdgeferError if it cannot be played. OpenCV does not report a full disk: an AVI is then playable up
        to there, but its header, which is completed last, counts no frames."""
        with suppress(OSError):  # someone has removed it
            self.finish_s = self.partial.file.stat().st_size / FINISH_BYTES_S
        try:
            encoder.close()
        except (EdgeferError, OSError) as error:
            raise EdgeferError(f"the video could not be finished and is lost: {reason_of(error)}") from None
        video = cv2.VideoCapture(self.partial.for_libraries)
        readable = video.isOpened() and video.read()[0]
        self._whole = video.get(cv2.CAP_PROP_FRAME_COUNT) > 0
        video.release()
        if not readable:
            raise EdgeferError("the video could not be finished and is lost: is the disk full?")

    def summary(self) -> str:
        if not self._written:
            return ""
        return f"{self.name}, the last of {self._written} frames" if self._still and self._written > 1 else self.name

    @property
    def lost(self) -> bool:  # type: ignore[override]
        return self._closed and not self._published

    def kept(self) -> str:
        if self.lost:
            return "nothing of it is left"
        if self._still:
            return "the last frame before that is in it"
        return (
            f"its first {counted(self._written, 'frame is', 'frames are')} in it"
            if self._whole
            else "what was written before that is in it"
        )


class ImageFolder(Sink):
    """Each annotated frame as a .jpg in a folder, named by number and source file. SourceError unless it is empty."""

    every_frame = True

    def __init__(self, folder: Path, *, view: View | None = None):
        self.name, self._folder, self._view, self.saved = printable(str(folder)), folder, view or View(), 0
        make_folder(folder)
        if any(folder.iterdir()):
            raise SourceError(f"{self.name} holds files already: choose another folder, or empty it first.")

    def write(self, frame: Frame) -> None:
        check_room(self._folder)
        file = f"{frame.index:06d}-{safe_name(Path(frame.source).stem)}.jpg"
        write_image(self._folder / file, self._view.annotated(frame))
        self.saved += 1

    def summary(self) -> str:
        return f"{self.name}, {self.saved} image{'s' * (self.saved > 1)}" if self.saved else ""

    def kept(self) -> str:
        return images_in(self.saved, "it")


def fitted(image_bgr: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image scaled to fit `size` (width, height), on black: images of a folder differ in size, a video's frames must
    not, and stretching would distort faces."""
    height, width = image_bgr.shape[:2]
    if (width, height) == size:
        return image_bgr
    scale = min(size[0] / width, size[1] / height)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    whole = np.zeros((size[1], size[0], 3), np.uint8)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    shrunk = cv2.resize(image_bgr, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    whole[top : top + inner[1], left : left + inner[0]] = shrunk
    return whole
