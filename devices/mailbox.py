"""A closable queue: the only place where edgefer's threads wait for each other."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

TICK_S = 0.1  # interval of checking for a stop

Until = Callable[[], bool]


class Ended(Exception):
    """There are no more items. error: what ended the mailbox, or None."""

    def __init__(self, error: BaseException | None):
        super().__init__(error)
        self.error = error


class Late(Exception):
    """The time limit passed without an item."""


class Mailbox(Generic[T]):
    """A bounded FIFO queue from one or several threads to another.

    room: its capacity. givers: number of producer threads, each of which ends the mailbox once.
    until: a method's `until` is checked every TICK_S and ends the wait.
    """

    def __init__(self, room: int = 1, givers: int = 1):
        self._items: deque[T] = deque()
        self._room, self._givers = room, givers
        self._news = threading.Condition()
        self.error: BaseException | None = None
        self.dropped = 0  # old items dropped for newer ones
        self.left = False

    def put(self, item: T, until: Until | None = None) -> bool:
        """Wait for room and put the item in. False: it was not, since the consumer has left or `until` holds."""
        with self._news:
            while len(self._items) >= self._room and not self.left:
                if until is not None and until():
                    return False
                self._news.wait(TICK_S)
            return self._add(item)

    def push(self, item: T) -> bool:
        """Put the item in at once; if full, drop the oldest one. False: the consumer has left."""
        with self._news:
            if len(self._items) >= self._room and not self.left:
                self._items.popleft()
                self.dropped += 1
            return self._add(item)

    def _add(self, item: T) -> bool:
        if not self.left:
            self._items.append(item)
            self._news.notify_all()
        return not self.left

    def end(self, error: BaseException | None = None) -> None:
        """End this producer; an error ends the mailbox for all of them. Remaining items can still be taken."""
        with self._news:
            self._givers = 0 if error is not None else self._givers - 1
            self.error = self.error or error
            self._news.notify_all()

    def wait(self, limit_s: float | None = None, until: Until | None = None) -> bool:
        """Whether there is an item; False when there are no more, none came in time, or `until` holds."""
        tick_s = TICK_S if limit_s is not None or until is not None else None
        deadline = None if limit_s is None else time.monotonic() + limit_s
        with self._news:
            while not self._items and self._givers > 0 and not self.left:
                left_s = TICK_S if deadline is None else deadline - time.monotonic()
                if left_s <= 0:
                    break
                if not self._news.wait(tick_s and min(tick_s, left_s)) and until is not None and until():
                    break
            return bool(self._items)

    def take(self, limit_s: float | None = None, until: Until | None = None) -> T:
        """The next item. Late when none came in time; Ended when there are no more, or `until` holds."""
        with self._news:
            if not self.wait(limit_s, until):
                going = self._givers > 0 and not self.left and not (until is not None and until())
                raise Late if going else Ended(self.error)
            self._news.notify_all()
            return self._items.popleft()

    def leave(self) -> None:
        """Stop consuming: discard all items, and release waiting producers."""
        with self._news:
            self.left = True
            self._items.clear()
            self._news.notify_all()
