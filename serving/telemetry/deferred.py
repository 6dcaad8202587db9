"""Work that must not hold up the event loop: kept for a moment, then done together in a thread."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
WAIT_S = 0.2
MOST = 1000


class Deferred(Generic[T]):
    """`work` takes what was put, in order, in a thread; never twice at once. What does not fit while it is stuck is
    dropped and counted. Idle, it costs nothing."""

    def __init__(self, work: Callable[[list[T]], None], *, wait_s: float = WAIT_S, most: int = MOST) -> None:
        self._work = work
        self._wait_s = wait_s
        self._most = most
        self._kept: list[T] = []
        self._is_due = False
        self.dropped = 0

    def put(self, one: T) -> None:
        """On the event loop."""
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
            job.result()  # a failure is asyncio's to tell: nobody waits for it


class Allowance:
    """So many per second and no more."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._left = 0
        self._until_ns = 0
        self._passed_over = 0

    def take(self, now_ns: int) -> int:
        """0 if there is none left; else for how many this one stands: itself and those passed over since the last."""
        if now_ns >= self._until_ns:
            self._left = self._per_s
            self._until_ns = now_ns + 1_000_000_000
        if not self._left:
            self._passed_over += 1
            return 0
        self._left -= 1
        stands_for, self._passed_over = 1 + self._passed_over, 0
        return stands_for
