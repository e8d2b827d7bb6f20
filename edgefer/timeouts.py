"""Timeouts for work in C++ that may never return, such as a network made to loop: it is waited for only while it makes progress."""

import threading
import time
from collections.abc import Callable

STEP_S = 0.25  # how often it is looked at


class TimedOut(Exception):
    """The work was given up: it made no progress, or took too long altogether."""

    def __init__(self, seconds: float):
        super().__init__(seconds)
        self.seconds = seconds


def run_with_timeout(work: Callable[[], None], progress: Callable[[], int], *, step_s: float, total_s: float) -> None:
    """Run `work` in a thread of its own, and raise what it raises. TimedOut when `progress()`, a number that grows, stays the
    same for step_s, or when it all takes longer than total_s.

    C++ cannot be ended from outside: a thread that is stuck stays behind until the process ends, which does not wait for it.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # it belongs to the one who waits
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
