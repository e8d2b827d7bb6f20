"""Keeps a slow or dead sink from blocking the loop, with a short queue and a thread per sink."""

import errno
import math
import threading
import time
from collections.abc import Callable

from edgefer.devices.mailbox import TICK_S, Mailbox
from edgefer.devices.outputs.sink import Sink
from edgefer.devices.sources.urls import redact
from edgefer.errors import EdgeferError
from edgefer.records import Frame
from edgefer.shortage import shortage_of
from edgefer.text import counted

DEPTH = 8  # frames: half a second of a camera, a few MB
HUNG_S = 10.0  # a sink that takes no frame for so long hangs
REPORT_S = 600.0  # the shortest pause between two messages about dropped frames
CLOSE_S = 10.0  # to finish a file; other sinks have their own close_s


class Feed(Sink):
    """A sink with a queue. `write` returns at once, unless it waits for room.

    wait: when the queue is full, wait and do not drop the oldest frame; for files written from a file. stop: ends that
    wait, and drops frames for which there is no room.
    log: receives a message when the sink has failed, after which it gets no more frames, and about dropped frames.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        wait: bool = False,
        stop: threading.Event | None = None,
        log: Callable[[str], None] = lambda text: None,
        depth: int = DEPTH,
    ):
        self.sink, self.name, self._wait, self._log = sink, sink.name, wait, log
        self._stop = stop or threading.Event()
        self.error: Exception | None = None
        self._missed = 0  # frames without room after the stop
        self._taken_s = time.monotonic()  # when the sink took its last frame
        self._reported_s = -math.inf  # when dropped frames were last reported
        self._frames: Mailbox[Frame] = Mailbox(depth)
        # A daemon: a sink that hangs, on a network drive for instance, must not keep the program from ending.
        self._thread = threading.Thread(target=self._run, name=f"edgefer-sink-{sink.name}", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:  # type: ignore[override]
        """Also one that has failed: a run without any output ends."""
        return self.sink.closed or self.error is not None

    @property
    def trouble(self) -> str:  # type: ignore[override]
        return reason_of(self.error) if self.error else self.sink.trouble

    @property
    def errors(self) -> int:  # type: ignore[override]
        return self.sink.errors + (self.error is not None)

    @property
    def dropped(self) -> int:  # type: ignore[override]
        return self._frames.dropped + self._missed

    @property
    def unsent(self) -> bool:  # type: ignore[override]
        return self.sink.unsent

    def write(self, frame: Frame) -> None:
        if not self._wait:
            before = self.dropped
            self._frames.push(frame)
            if self.dropped > before:
                self._report_dropped()
        elif not self._frames.put(frame, self._stop.is_set) and not self.error:
            self._missed += 1  # only frames at the end may be missing

    def _report_dropped(self) -> None:
        """Log that frames are being dropped, at most once in REPORT_S. MQTT may drop frames, unless it hangs."""
        now = time.monotonic()
        if now - self._reported_s < REPORT_S or not (self.sink.every_frame or now - self._taken_s >= HUNG_S):
            return
        self._reported_s = now
        text = f"{self.name} is too slow or hangs: {frames_dropped(self.dropped)} so far."
        # In a thread: stderr may be the very pipe that is full, and must not block the loop.
        threading.Thread(target=self._log, args=(text,), daemon=True).start()

    def close(self) -> None:
        """Write the queued frames, then close the sink; one that hangs is abandoned."""
        self._frames.end()
        if self.sink.every_frame:
            self._finish_file()
        else:
            self._thread.join(self.sink.close_s)
        hangs = self._thread.is_alive()
        if self.dropped and (self.sink.every_frame or hangs):
            self._log(f"{self.name} was too slow: {frames_dropped(self.dropped)}.")
        if hangs and self.sink.every_frame:
            self.error = EdgeferError("its last results could not be written: they are lost")
            self._log(f"{self.name}: {self.error}.")

    def _finish_file(self) -> None:
        """Wait for the thread, longer for a long file."""
        self._thread.join(CLOSE_S)
        began, limit_s = time.monotonic(), self.sink.finish_s
        if self._thread.is_alive() and limit_s > 0:
            self._log(f"{self.name} is being finished, which may take {limit_s:.0f} s more: Ctrl-C would lose it.")
        while self._thread.is_alive() and time.monotonic() - began < limit_s:
            self._thread.join(TICK_S)

    def _run(self) -> None:
        try:
            while self._frames.wait():
                frame = self._frames.take()
                self._taken_s = time.monotonic()
                self.sink.write(frame)
        except Exception as error:  # no library's exception may end the loop and the other sinks
            self._stop_taking(error)
        try:
            self.sink.close()
        except Exception as error:
            if not self.error:
                self._stop_taking(error)
        if self.error and not self.sink.closed:
            # Only now: the file's state is known once it is closed.
            kept = self.sink.kept()
            outcome = f" {kept[0].upper()}{kept[1:]}." if kept else ""
            verb = "could not be written" if self.sink.lost else "has ended"
            self._log(f"{self.name} {verb}: {reason_of(self.error)}.{outcome} Other outputs continue.")

    def _stop_taking(self, error: Exception) -> None:
        self.error = error
        self._frames.leave()


def frames_dropped(count: int) -> str:
    return f"{counted(count, 'frame was', 'frames were')} dropped"


def reason_of(error: Exception) -> str:
    """Why a sink failed, for the end of a message."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    if sentence := shortage_of(error):
        return sentence[0].lower() + sentence[1:].rstrip(".")
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return "the file has reached the maximum file size"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return redact(" ".join(text.split())).rstrip(".")
