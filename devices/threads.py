"""Threads of the loop: stages that run ahead of one another, and calls that may never come back."""

import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar, cast

from edgefer.devices.mailbox import TICK_S, Ended, Late, Mailbox
from edgefer.errors import EdgeferError

T = TypeVar("T")
In = TypeVar("In")
Out = TypeVar("Out")

HANG_S = 10.0  # how long a call may take; the slowest board's slowest detection takes half a second
LEAVE_S = 0.5  # how long a thread is waited for at the end
_LEAVE = object()  # asked of a worker that is to end


class Prefetch(Generic[T]):
    """The items in turn, each made in a thread of its own while the one before is being used. To be closed.

    items: of several iterables each has a thread, and whichever has an item gives the next one.
    room: how many may wait to be used. An exception of the items comes out here, in its turn. stop: ends the items.
    limit_s: how long one may take; EdgeferError that names `name` when it takes longer.
    """

    def __init__(
        self,
        *items: Iterable[T],
        room: int = 1,
        limit_s: float | None = None,
        name: str = "",
        stop: threading.Event | None = None,
    ):
        self._limit_s, self._name, self._stop = limit_s, name, stop or threading.Event()
        self._made: Mailbox[T] = Mailbox(room, givers=len(items))
        self._threads = [
            threading.Thread(target=self._run, args=(one,), name="edgefer-prefetch", daemon=True) for one in items
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                if not self._made.put(item):
                    return
            self._made.end()
        except BaseException as error:  # whatever it is, it belongs to the one who uses the items
            self._made.end(error)

    def __iter__(self) -> "Prefetch[T]":
        return self

    def __next__(self) -> T:
        if self._stop.is_set():
            raise StopIteration
        try:
            return self._made.take(self._limit_s, self._stop.is_set)
        except Late:
            raise EdgeferError(f"{self._name} has given nothing for {self._limit_s:g} s: it hangs.") from None
        except Ended as end:
            error = end.error or StopIteration()
        raise error

    def close(self) -> None:
        """Let the thread end after the item it is at; one that hangs is left behind."""
        self._made.leave()
        deadline = time.monotonic() + LEAVE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How a Watchdog judges and what it says.

    name, then, advice: how sentences call the function, what they say of a replacement, and what to do where there is
    none. limit_s: how long a call may take. log: takes a line about a replacement. faults: errors of the function that are
    also answered by replacing it. stop: interrupts a call that hangs, by KeyboardInterrupt.
    """

    name: str = "The call"
    then: str = "it is replaced"
    advice: str = "it hangs"
    limit_s: float = HANG_S
    log: Callable[[str], None] = lambda text: None
    faults: tuple[type[EdgeferError], ...] = ()
    stop: threading.Event | None = None


class Watchdog(Generic[In, Out]):
    """A function that is called in a thread of its own, and replaced when a call does not come back.

    A thread that hangs in a driver cannot be ended: it is left behind, with whatever it holds.

    function: the one to begin with. spare: makes another one; run in the new thread, as it may hang too. None: there is
    no other one.
    """

    def __init__(
        self, function: Callable[[In], Out], spare: Callable[[], Callable[[In], Out]] | None, rules: Rules | None = None
    ):
        self._spare, self._rules = spare, rules or Rules()
        self._worker: _Worker[In, Out] = self._begin(lambda: function)

    def _begin(self, make: Callable[[], Callable[[In], Out]]) -> "_Worker[In, Out]":
        """A worker whose thread ends with this watchdog: a program may load many networks."""
        worker: _Worker[In, Out] = _Worker(make)
        weakref.finalize(self, worker.leave).atexit = False
        return worker

    def __call__(self, given: In) -> Out:
        """The function's answer. EdgeferError when it hangs and cannot be replaced, or hangs again at once."""
        rules = self._rules
        try:
            return self._worker.ask(given, rules.limit_s, rules.stop)
        except Late:
            reason = f"{rules.name} has not answered for {rules.limit_s:g} s"
        except rules.faults as error:
            reason = str(error).rstrip(".")
        if self._spare is None:
            raise EdgeferError(f"{reason}: {rules.advice}.")
        self._worker.leave()
        rules.log(f"{reason}: {rules.then}.")
        self._worker = self._begin(self._spare)
        try:
            return self._worker.ask(given, rules.limit_s, rules.stop)
        except Late:
            raise EdgeferError(f"{reason}, and neither has its replacement.") from None


class _Worker(Generic[In, Out]):
    """A thread that answers one question at a time. Its queues are Python's own: every frame passes through two workers, and
    a Mailbox takes three times as long."""

    def __init__(self, make: Callable[[], Callable[[In], Out]]):
        self._asked: SimpleQueue[In | object] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Out | None, BaseException | None]] = SimpleQueue()
        self._make = make
        threading.Thread(target=self._run, name="edgefer-worker", daemon=True).start()

    def _run(self) -> None:
        function = None
        while (given := self._asked.get()) is not _LEAVE:
            try:
                function = function or self._make()
                self._answers.put((function(cast(In, given)), None))
            except BaseException as error:  # it belongs to the one who asked
                self._answers.put((None, error))

    def ask(self, given: In, limit_s: float, stop: threading.Event | None) -> Out:
        """The answer. Late when there is none in time: then this worker is of no more use. KeyboardInterrupt on a stop."""
        self._asked.put(given)
        answer, error = self._answer(time.monotonic() + limit_s, stop)
        if error is not None:
            raise error
        return cast(Out, answer)

    def _answer(self, deadline: float, stop: threading.Event | None) -> tuple[Out | None, BaseException | None]:
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                return self._answers.get(timeout=min(TICK_S, left_s))
            except Empty:
                if stop is not None and stop.is_set():
                    raise KeyboardInterrupt from None
        raise Late

    def leave(self) -> None:
        """Let the thread end, should it ever come back."""
        self._asked.put(_LEAVE)
