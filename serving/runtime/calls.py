"""Threads for calls of the user's code that may be slow or never return. The event loop watches how long they take."""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from serving.core.clock import Clock

AHEAD = 2  # calls per thread that are handed out ahead, so that a thread need not wait for the event loop


class Call:
    """One call of the user's code. `work` runs in a thread and must not raise; `then` gets its result on the event
    loop. tenant: on whose behalf, "" if that is of no concern."""

    __slots__ = ("began_ns", "tenant", "then", "wanted", "work")

    def __init__(self, work: Callable[[], Any], then: Callable[[Any], None], tenant: str = "") -> None:
        self.tenant = tenant
        self.work = work
        self.then = then
        self.wanted = True
        self.began_ns = 0

    def forget(self) -> None:
        """Drops `work`, unless it already runs, and `then`, with all that they refer to. `then` is never called."""
        self.wanted = False
        self.work = self.then = _nothing


class CallThreads:
    """Daemon threads that run calls of the user's code, one thread per name.

    next_call: returns the next call, or None; asked when a thread can take one. Call `fill` when there is a new one.
    limit_s: how long a call may take. on_stuck: called once if a call takes longer; then no further call is begun.
    All methods and callbacks run on the event loop.
    """

    def __init__(
        self,
        names: list[str],
        clock: Clock,
        next_call: Callable[[], Call | None],
        *,
        limit_s: float,
        on_stuck: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._next_call = next_call
        self._limit_s = limit_s
        self._on_stuck = on_stuck
        self.handed_out: dict[Call, None] = {}
        self.most_handed_out = len(names) * (1 + AHEAD)
        self._hands: SimpleQueue[Call | None] = SimpleQueue()
        # Daemons: a call that never returns cannot be stopped, and must not keep the process from exiting.
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
        self._watchdog: asyncio.TimerHandle | None = None
        self._is_closed = False

    def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Drops the calls that have not begun, and ends the threads once their current calls return."""
        self._is_closed = True
        if self._watchdog is not None:
            self._watchdog.cancel()
        for call in self.handed_out:
            call.forget()
        for _ in self._threads:
            self._hands.put(None)

    def is_alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def fill(self) -> None:
        """Hands out calls until every thread has `AHEAD` calls beside its current one, or no more calls wait."""
        while len(self.handed_out) < self.most_handed_out and not self._is_closed:
            call = self._next_call()
            if call is None:
                break
            self.handed_out[call] = None
            self._hands.put(call)
        if self.handed_out and self._watchdog is None and not self._is_closed:
            self._watchdog = self._loop.call_later(self._limit_s, self._watch)

    def _work(self) -> None:
        while (call := self._hands.get()) is not None:
            result = None
            if call.wanted:
                call.began_ns = self._clock.now_ns()
                result = call.work()
            try:
                self._loop.call_soon_threadsafe(self._returned, call, result)
            except RuntimeError:  # the loop was closed: no caller waits for the result
                return

    def _returned(self, call: Call, result: Any) -> None:
        self.handed_out.pop(call, None)
        self.fill()  # before the result is handled, so that the threads do not wait for that
        if call.wanted:
            call.then(result)

    def _watch(self) -> None:
        """Checks whether a call has exceeded the limit. One timer serves all calls."""
        self._watchdog = None
        now_ns = self._clock.now_ns()
        began_ns = min((call.began_ns for call in self.handed_out if call.began_ns), default=now_ns)
        left_s = self._limit_s - (now_ns - began_ns) / 1e9
        if left_s <= 0:
            self._is_closed = True
            self._on_stuck()
        elif self.handed_out:
            self._watchdog = self._loop.call_later(left_s, self._watch)


def _nothing(*_: object) -> None:
    """Does nothing: replaces the functions of a call that was dropped."""
