"""Threads of the loop: stages that run ahead of one another, and calls that may never come back."""

import queue
import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from edgefer.errors import EdgeferError

T = TypeVar("T")
In = TypeVar("In")
Out = TypeVar("Out")

HANG_S = 10.0  # how long a call may take; the slowest board's slowest detection takes half a second
TICK_S = 0.1  # how soon a stop is noticed
LEAVE_S = 0.5  # how long a thread is waited for at the end
_END = object()


class Ahead(Generic[T]):
    """The items in turn, each made in a thread of its own while the one before is being used. To be closed.

    room: how many may wait to be used. An exception of the items comes out here, in its turn. stop: ends the items.
    limit_s: how long one may take; EdgeferError that names `what` when it takes longer.
    """

    def __init__(
        self,
        items: Iterable[T],
        *,
        room: int = 1,
        limit_s: float | None = None,
        what: str = "",
        stop: threading.Event | None = None,
    ):
        self._items, self._limit_s, self._what, self._stop = items, limit_s, what, stop
        self._made: queue.Queue = queue.Queue(room)
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgefer-ahead", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for item in self._items:
                self._put(item, None)
                if self._left.is_set():
                    return
            self._put(_END, None)
        except BaseException as error:  # whatever it is, it belongs to the one who uses the items
            self._put(_END, error)

    def _put(self, item: object, error: BaseException | None) -> None:
        while not self._left.is_set():
            try:
                return self._made.put((item, error), timeout=TICK_S)
            except queue.Full:
                continue

    def __iter__(self) -> "Ahead[T]":
        return self

    def __next__(self) -> T:
        asked = time.monotonic()
        while not self._left.is_set() and not (self._stop is not None and self._stop.is_set()):
            try:
                item, error = self._made.get(timeout=TICK_S)
            except queue.Empty:
                if self._limit_s is not None and time.monotonic() - asked > self._limit_s:
                    raise EdgeferError(f"{self._what} has given nothing for {self._limit_s:g} s: it hangs.") from None
                continue
            if error is not None:
                raise error
            if item is _END:
                break
            return item
        raise StopIteration

    def close(self) -> None:
        """Let the thread end after the item it is at; one that hangs is left behind."""
        self._left.set()
        self._thread.join(LEAVE_S)


class Guard(Generic[In, Out]):
    """A function that is called in a thread of its own, and replaced when a call does not come back.

    A thread that hangs in a driver cannot be ended: it is left behind, with whatever it holds.

    function: the one to begin with. replace: makes another one; run in the new thread, as it may hang too. None: there
    is no other one. name, then, advice: how sentences call it, what they say of a replacement, and what to do where there
    is none. say: is told of a replacement. faults: errors of the function that are also answered by replacing it.
    stop: interrupts a call that hangs, by KeyboardInterrupt.
    """

    def __init__(
        self,
        function: Callable[[In], Out],
        replace: Callable[[], Callable[[In], Out]] | None,
        *,
        name: str,
        then: str = "it is replaced",
        advice: str = "it hangs",
        limit_s: float = HANG_S,
        say: Callable[[str], None] = lambda text: None,
        faults: tuple[type[EdgeferError], ...] = (),
        stop: threading.Event | None = None,
    ):
        self._replace, self._name, self._limit_s, self._say = replace, name, limit_s, say
        self._then, self._advice = then, advice
        self._faults, self._stop = faults, stop
        self._worker: _Worker[In, Out] = _Worker(lambda: function)

    def __call__(self, given: In) -> Out:
        """The function's answer. EdgeferError when it hangs and cannot be replaced, or hangs again at once."""
        try:
            return self._worker.ask(given, self._limit_s, self._stop)
        except TimeoutError:
            why = f"{self._name} has not answered for {self._limit_s:g} s"
        except self._faults as error:
            why = str(error).rstrip(".")
        if self._replace is None:
            raise EdgeferError(f"{why}: {self._advice}.")
        self._worker.leave()
        self._say(f"{why}: {self._then}.")
        self._worker = _Worker(self._replace)
        try:
            return self._worker.ask(given, self._limit_s, self._stop)
        except TimeoutError:
            raise EdgeferError(f"{why}, and neither has its replacement.") from None


class _Worker(Generic[In, Out]):
    """A thread that answers one question at a time."""

    def __init__(self, make: Callable[[], Callable[[In], Out]]):
        self._asked: queue.SimpleQueue = queue.SimpleQueue()
        self._answers: queue.SimpleQueue = queue.SimpleQueue()
        self._make = make
        threading.Thread(target=self._run, name="edgefer-worker", daemon=True).start()

    def _run(self) -> None:
        function = None
        while (given := self._asked.get()) is not _END:
            try:
                function = function or self._make()
                self._answers.put((function(given), None))
            except BaseException as error:  # it belongs to the one who asked
                self._answers.put((None, error))

    def ask(self, given: In, limit_s: float, stop: threading.Event | None) -> Out:
        """The answer, or TimeoutError; then this worker is of no more use."""
        self._asked.put(given)
        deadline = time.monotonic() + limit_s
        while True:
            try:
                answer, error = self._answers.get(timeout=TICK_S if limit_s > TICK_S else limit_s)
            except queue.Empty:
                if stop is not None and stop.is_set():
                    raise KeyboardInterrupt from None
                if time.monotonic() >= deadline:
                    raise TimeoutError from None
                continue
            if error is not None:
                raise error
            return answer

    def leave(self) -> None:
        self._asked.put(_END)
