"""Results in a window on the display."""

import os

import cv2

from edgefer.devices.outputs.overlay import View
from edgefer.devices.outputs.sink import Sink
from edgefer.records import Frame


class Window(Sink):
    """A window on the display; `closed` once the user has closed it or pressed q or Escape."""

    name = "the window"
    ends_run = True
    TITLE = "edgefer (q to quit)"

    def __init__(self, view: View | None = None):
        self._view = view or View()

    @staticmethod
    def possible() -> bool:
        """Whether a window can open."""
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            return False
        from edgefer.devices.board.probes import opens_window  # which looks for installed packages

        return opens_window()[0]

    def write(self, frame: Frame) -> None:
        cv2.imshow(self.TITLE, self._view.annotated(frame))
        key = cv2.waitKey(1) & 0xFF
        self.closed = key in (ord("q"), 27) or cv2.getWindowProperty(self.TITLE, cv2.WND_PROP_VISIBLE) < 1

    def close(self) -> None:
        cv2.destroyAllWindows()
