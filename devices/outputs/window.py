"""Results in a window on the display."""

import os
import subprocess
import sys

import cv2

from edgefer.devices.outputs.overlay import View
from edgefer.devices.outputs.sink import Sink
from edgefer.records import Frame

START_S = 30.0  # time limit for a window to open


class Window(Sink):
    """A window on the display; `closed` once the user has closed it or pressed q or Escape."""

    name = "the window"
    ends_run = True
    TITLE = "edgefer (q to quit)"

    def __init__(self, view: View | None = None):
        self._view = view or View()

    @staticmethod
    def possible() -> bool:
        """Whether a window can open. Tried in a separate process: if the display refuses, Qt ends the process."""
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            return False
        command = [sys.executable, "-c", "import cv2; cv2.namedWindow('edgefer'); cv2.waitKey(1)"]
        try:
            safe = os.environ | {"PYTHONSAFEPATH": "1"}  # a cv2.py in the current folder is not OpenCV
            return subprocess.run(command, capture_output=True, timeout=START_S, env=safe).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def write(self, frame: Frame) -> None:
        cv2.imshow(self.TITLE, self._view.annotated(frame))
        key = cv2.waitKey(1) & 0xFF
        self.closed = key in (ord("q"), 27) or cv2.getWindowProperty(self.TITLE, cv2.WND_PROP_VISIBLE) < 1

    def close(self) -> None:
        cv2.destroyAllWindows()
