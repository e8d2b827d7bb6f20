"""Timeouts for C++ code that may never return, such as a malicious network that loops: it must keep making progress."""

import threading
import time
from collections.abc import Callable

STEP_S = 0.25  # interval of checking


class TimedOut(Exception):
    """The work was abandoned: it made no progress, or took too long overall."""

    def __init__(self, seconds: float):
        super().__init__(seconds)
        self.seconds = seconds


def run_with_timeout(work: Callable[[], None], progress: Callable[[], int], *, step_s: float, total_s: float) -> None:
    """Run `work` in a separate thread, and raise what it raises. TimedOut when `progress()`, an increasing number, is
    unchanged for step_s, or everything takes longer than total_s.

    C++ code cannot be interrupted: a stuck thread is abandoned until the process ends, which does not wait for it.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # raised in the waiting thread
            raised.append(error)

    thread = threading.Thread(target=run, name="edgefer-timeout", daemon=True)
    began = moved_s = time.monotonic()
    seen = progress()
    thread.start()
    thread.join(STEP_S)
    while thread.is_alive():
        now, here = time.monotonic(), progress()
        if here != seen:
            seen, moved_s = here, now
        if now - moved_s > step_s or now - began > total_s:
            raise TimedOut(now - began)
        thread.join(STEP_S)
    if raised:
        raise raised[0]
