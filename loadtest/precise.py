"""An event loop that wakes at the microsecond it was asked for.

asyncio's epoll rounds every wait up to whole milliseconds, and uvloop counts in them: shots would leave half a
millisecond late on average, which is 10 % of a 5 ms answer. `select` takes microseconds, and an epoll is itself a file
it can wait for."""

import asyncio
import ctypes
import select
import selectors
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_PR_SET_TIMERSLACK = 29


class PreciseSelector(selectors.EpollSelector):
    """As many files as epoll allows; `select` only ever waits for the one epoll."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


def wake_sharply() -> None:
    """Linux lets a sleeper lie 50 µs longer, to wake several at once; this thread asks not to be. No harm elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Like `asyncio.run`; where there is no epoll, it is that."""
    if not hasattr(selectors, "EpollSelector"):
        return asyncio.run(main)
    wake_sharply()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(PreciseSelector())) as runner:
        return runner.run(main)
