"""Threads of the loop: stages that run in parallel, and calls that may never return."""

import os
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

HANG_S = 10.0  # time limit of a call; the slowest detection on the slowest board takes 0.5 s
LEAVE_S = 0.5  # how long to wait for a thread at the end
_LEAVE = object()  # tells a worker to end
_Answers = SimpleQueue[tuple[Out | None, BaseException | None]]  # the result of one call, or its exception


class Prefetch(Generic[T]):
    """Iterates over items that are made in other threads while earlier ones are being used. Must be closed.

    items: each iterable has a thread; items of several are interleaved as they come.
    room: size of the queue. An exception of an iterable is raised here, in order. stop: ends the iteration.
    limit_s: time limit for an item; EdgeferError that names `name` when it is exceeded.
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
        except BaseException as error:  # raised in the consumer's thread
            self._made.end(error)

    def __iter__(self) -> "Prefetch[T]":
        return self

    def __next__(self) -> T:
        if self._stop.is_set():
            raise StopIteration
        try:
            return self._made.take(self._limit_s, self._stop.is_set)
        except Late:
            raise EdgeferError(f"{self._name} has not responded for {self._limit_s:g} s: it hangs.") from None
        except Ended as end:
            error = end.error or StopIteration()
        raise error

    def close(self) -> None:
        """End the threads after their current items; one that hangs is abandoned."""
        self._made.leave()
        deadline = time.monotonic() + LEAVE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The limits and messages of a Watchdog.

    name, then, advice: for messages: the function's name, what happens to it, and what to do if it cannot be replaced.
    limit_s: time limit of a call. log: receives a message about a replacement. faults: exceptions that also
    lead to a replacement. stop: interrupts a hanging call with KeyboardInterrupt.
    """

    name: str = "The call"
    then: str = "it is replaced"
    advice: str = "it hangs"
    limit_s: float = HANG_S
    log: Callable[[str], None] = lambda text: None
    faults: tuple[type[EdgeferError], ...] = ()
    stop: threading.Event | None = None


class Watchdog(Generic[In, Out]):
    """Calls a function in a separate thread, and replaces both when a call does not return.

    A thread that hangs in a driver cannot be ended: it is abandoned, with everything it holds. Threads that call at once
    wait for each other, which does not count against the time limit. A forked process, which has none of its parent's
    threads, begins with a replacement.

    function: the initial one. spare: makes a replacement; called in the new thread, since it may hang too. None: there
    is no replacement.
    """

    def __init__(
        self, function: Callable[[In], Out], spare: Callable[[], Callable[[In], Out]] | None, rules: Rules | None = None
    ):
        self._spare, self._rules = spare, rules or Rules()
        self._make_in_child = spare or (lambda: function)
        self._start(lambda: function)

    def _start(self, make: Callable[[], Callable[[In], Out]]) -> None:
        """Begin in this process. A forked one needs its own lock too: its parent's may be held by a thread that it lacks."""
        self._pid, self._turn = os.getpid(), threading.Lock()
        self._worker: _Worker[In, Out] = self._begin(make)

    def _begin(self, make: Callable[[], Callable[[In], Out]]) -> "_Worker[In, Out]":
        """A worker whose thread ends with this watchdog, since a program may load many networks."""
        worker: _Worker[In, Out] = _Worker(make)
        weakref.finalize(self, worker.leave).atexit = False
        return worker

    def __call__(self, given: In) -> Out:
        """The function's result. EdgeferError when it hangs and cannot be replaced, or its replacement hangs too."""
        if self._pid != os.getpid():
            self._start(self._make_in_child)
        with self._turn:
            return self._ask(given, self._rules)

    def _ask(self, given: In, rules: Rules) -> Out:
        try:
            return self._worker.ask(given, rules.limit_s, rules.stop)
        except Late:
            reason = f"{rules.name} has not responded for {rules.limit_s:g} s"
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
    """A thread that handles one call at a time. It uses Python's queues: every frame passes through two workers, and a
    Mailbox takes three times as long."""

    def __init__(self, make: Callable[[], Callable[[In], Out]]):
        self._asked: SimpleQueue[tuple[In | object, _Answers[Out]]] = SimpleQueue()
        self._make = make
        threading.Thread(target=self._run, name="edgefer-worker", daemon=True).start()

    def _run(self) -> None:
        function = None
        while True:
            given, answers = self._asked.get()
            if given is _LEAVE:
                return
            try:
                function = function or self._make()
                answers.put((function(cast(In, given)), None))
            except BaseException as error:  # raised in the caller's thread
                answers.put((None, error))

    def ask(self, given: In, limit_s: float, stop: threading.Event | None) -> Out:
        """The result. Late if it exceeds limit_s, after which this worker cannot be used. KeyboardInterrupt on a stop."""
        # A queue per call: after an interrupt, or with callers in several threads, a call must not get another one's answer.
        answers: _Answers[Out] = SimpleQueue()
        self._asked.put((given, answers))
        answer, error = _answer(answers, time.monotonic() + limit_s, stop)
        if error is not None:
            raise error
        return cast(Out, answer)

    def leave(self) -> None:
        """End the thread after its current call, if that ever returns."""
        self._asked.put((_LEAVE, SimpleQueue()))


def _answer(
    answers: _Answers[Out], deadline: float, stop: threading.Event | None
) -> tuple[Out | None, BaseException | None]:
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            return answers.get(timeout=min(TICK_S, left_s))
        except Empty:
            if stop is not None and stop.is_set():
                raise KeyboardInterrupt from None
    raise Late
