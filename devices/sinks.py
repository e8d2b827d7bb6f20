"""Where results go: JSON lines, changes as text, an annotated video, a window."""

import json
import os
from pathlib import Path
from typing import Protocol, TextIO

import cv2
import numpy as np

from edgefer.errors import SourceError
from edgefer.records import Face, Frame


class Sink(Protocol):
    """Takes each frame with its faces. `picture` is the annotated frame, uint8 BGR [h, w, 3]; None unless wanted."""

    wants_picture: bool

    def write(self, frame: Frame, faces: list[Face], picture: np.ndarray | None) -> None: ...
    def close(self) -> None: ...


class JsonLines:
    """One JSON object a frame: frame, time_s, faces with id, box_xyxy, label, score, scores, and why one is unsure."""

    wants_picture = False

    def __init__(self, out: TextIO):
        self.out = out

    def write(self, frame: Frame, faces: list[Face], picture: np.ndarray | None) -> None:
        found = [
            {
                "id": face.track,
                "box_xyxy": face.box_xyxy,
                "label": face.prediction.label,
                "score": round(face.prediction.score, 4),
                "scores": {label: round(score, 4) for label, score in face.prediction.scores.items()},
            }
            | ({"unsure": face.prediction.unsure} if face.prediction.unsure else {})
            for face in faces
        ]
        self.out.write(json.dumps({"frame": frame.index, "time_s": round(frame.time_s, 4), "faces": found}) + "\n")
        self.out.flush()

    def close(self) -> None:
        pass


class Changes:
    """For a person at a terminal: a line whenever the labels in view change."""

    wants_picture = False

    def __init__(self, out: TextIO):
        self.out = out
        self._last: list[str] | None = None

    def write(self, frame: Frame, faces: list[Face], picture: np.ndarray | None) -> None:
        labels = sorted(face.prediction.label for face in faces)
        if labels != self._last:
            seen = ", ".join(f"{face.prediction.label} {face.prediction.score:.0%}" for face in faces)
            self.out.write(f"{frame.time_s:8.2f} s  {seen or 'no face'}\n")
            self.out.flush()
            self._last = labels

    def close(self) -> None:
        pass


class VideoFile:
    """An annotated MP4 video, or a picture when the name ends in .png or .jpg (the last frame is kept).

    Written under another name and renamed at the end, so that a file of that name is always a whole one.
    """

    wants_picture = True

    def __init__(self, path: Path, fps: float):
        if path.suffix.lower() not in (".mp4", ".avi", ".png", ".jpg"):
            raise SourceError(f"Cannot save to {path}: name a .mp4 or .avi video, or a .png or .jpg picture.")
        if path.exists():
            raise SourceError(f"{path} is there already: choose another name, or remove it first.")
        if not path.parent.is_dir():
            raise SourceError(f"There is no folder {path.parent} to save {path.name} in.")
        self.path, self.fps = path, fps
        self.partial = path.with_name(f".partial-{path.name}")
        self._writer: cv2.VideoWriter | None = None
        self._picture: np.ndarray | None = None

    def write(self, frame: Frame, faces: list[Face], picture: np.ndarray | None) -> None:
        assert picture is not None
        if self.path.suffix.lower() in (".png", ".jpg"):
            self._picture = picture
            return
        if self._writer is None:
            self.size = picture.shape[1], picture.shape[0]
            codec = cv2.VideoWriter.fourcc(*("mp4v" if self.path.suffix.lower() == ".mp4" else "MJPG"))
            self._writer = cv2.VideoWriter(str(self.partial), codec, self.fps, self.size)
            if not self._writer.isOpened():
                raise SourceError(f"Cannot write a video to {self.path}: is the folder writable and the disk not full?")
        if (picture.shape[1], picture.shape[0]) != self.size:
            picture = cv2.resize(picture, self.size)  # pictures of a folder may differ in size, a video's may not
        self._writer.write(picture)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()
            self.partial.replace(self.path)
        elif self._picture is not None:
            cv2.imwrite(str(self.path), self._picture)


class Window:
    """A window on the display; `closed` once the user has closed it or pressed q or Escape."""

    wants_picture = True
    TITLE = "edgefer (q to quit)"

    def __init__(self) -> None:
        self.closed = False

    @staticmethod
    def possible() -> bool:
        """Whether there is a display. Without one OpenCV's window ends the whole process."""
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))

    def write(self, frame: Frame, faces: list[Face], picture: np.ndarray | None) -> None:
        assert picture is not None
        cv2.imshow(self.TITLE, picture)
        key = cv2.waitKey(1) & 0xFF
        self.closed = key in (ord("q"), 27) or cv2.getWindowProperty(self.TITLE, cv2.WND_PROP_VISIBLE) < 1

    def close(self) -> None:
        cv2.destroyAllWindows()
