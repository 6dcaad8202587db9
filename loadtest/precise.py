"""An event loop with timers of microsecond precision.

asyncio's epoll rounds every wait up to whole milliseconds, and uvloop's timers have that resolution: shots would leave
half a millisecond late on average, which is 10 % of a 5 ms answer. `select` takes microseconds, and it can wait for
the epoll's own file descriptor."""

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
    """An epoll selector that waits by `select` on the epoll's file descriptor, so `select`'s limit of descriptors does
    not apply."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


def wake_sharply() -> None:
    """Sets this thread's timer slack to 1 ns. By default Linux may delay a wake-up by 50 µs to combine several. No
    effect on other systems."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine like `asyncio.run`, on a precise event loop if the system has epoll."""
    if not hasattr(selectors, "EpollSelector"):
        return asyncio.run(main)
    wake_sharply()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(PreciseSelector())) as runner:
        return runner.run(main)
