"""Deferred work that must not block the event loop: items are collected briefly and processed together in a thread."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
WAIT_S = 0.2
MOST = 1000


class Deferred(Generic[T]):
    """A bounded buffer of items that `work` processes in a thread: in order, never two calls at a time.

    wait_s: how long items are collected before a call. most: the most items kept; further ones are dropped and counted
    in `dropped`. Without items no timer runs.
    """

    def __init__(self, work: Callable[[list[T]], None], *, wait_s: float = WAIT_S, most: int = MOST) -> None:
        self._work = work
        self._wait_s = wait_s
        self._most = most
        self._kept: list[T] = []
        self._is_due = False
        self.dropped = 0

    def put(self, one: T) -> None:
        """Adds an item, or drops it if the buffer is full. Call it on the event loop."""
        if len(self._kept) >= self._most:
            self.dropped += 1
            return
        self._kept.append(one)
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(self._wait_s, self._begin)

    def _begin(self) -> None:
        kept, self._kept = self._kept, []
        job = asyncio.get_running_loop().run_in_executor(None, self._work, kept)
        job.add_done_callback(self._done)

    def _done(self, job: "asyncio.Future[None]") -> None:
        self._is_due = bool(self._kept)
        if self._is_due:
            asyncio.get_running_loop().call_later(self._wait_s, self._begin)
        if not job.cancelled():
            job.result()  # raises a failure of `work`, which asyncio then logs, because no caller awaits the job


class Allowance:
    """A rate limit of `per_s` events per second, in windows of a second. It counts the events that it passes over."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._left = 0
        self._until_ns = 0
        self._passed_over = 0

    def take(self, now_ns: int) -> int:
        """Returns 0 if the limit is reached, else the number of events that this one stands for.

        This is the event itself and those passed over since the last one that was taken.
        """
        if now_ns >= self._until_ns:
            self._left = self._per_s
            self._until_ns = now_ns + 1_000_000_000
        if not self._left:
            self._passed_over += 1
            return 0
        self._left -= 1
        stands_for, self._passed_over = 1 + self._passed_over, 0
        return stands_for
