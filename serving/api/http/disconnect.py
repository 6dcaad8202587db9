"""Detects that a client disconnects while its request waits, and cancels the request.

ASGI reports a disconnect only to a pending call of `receive()`, so something must wait for it beside the request. The
cost per request, measured by benchmarks/bench_disconnect.py (uvloop / asyncio, in microseconds):
    a task per request, from the start                           2.6 / 3.5
    the coroutine of `receive()` driven by hand, one callback    2.5 / 3.4
    a timer per request that starts a task                       1.2 / 2.8
    one timer for all, a task only for requests that wait long   0.5 / 0.6
The last one is used. It needs only documented calls and works on any server (uvicorn with h11 or httptools, Ray's
proxy). It does not notice disconnects within the first 25 ms, which is no loss: such a request ends soon anyway.
"""

import asyncio
import logging
from collections.abc import Awaitable
from typing import TypeVar

from serving.api.http.asgi import Receive

_log = logging.getLogger(__name__)
INTERVAL_S = 0.025
T = TypeVar("T")


class DisconnectWatch:
    """Watches the clients of one application's requests. Must be used on one event loop."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._waiting: dict[asyncio.Task[None], Receive] = {}
        self._present_before: list[asyncio.Task[None]] = []
        self._watchers: dict[asyncio.Task[None], asyncio.Task[None]] = {}
        self._gone: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def outcome(self, submitted: Awaitable[T], receive: Receive) -> T | None:
        """Returns the result of `submitted`, or None if the client disconnected first; then it has been cancelled."""
        task = asyncio.current_task()
        assert task is not None
        self._waiting[task] = receive
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._sweep)
        try:
            return await submitted
        except asyncio.CancelledError:
            if task not in self._gone:
                raise
            task.uncancel()
            return None
        finally:
            del self._waiting[task]
            if self._watchers:
                self._forget(task)

    def _sweep(self) -> None:
        """Starts watching the requests that were already waiting at the previous sweep."""
        for task in self._present_before:
            receive = self._waiting.get(task)
            if receive is not None and task not in self._watchers:
                self._watchers[task] = asyncio.create_task(self._watch(task, receive))
        self._present_before = list(self._waiting)
        self._timer = None
        if self._present_before:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._sweep)

    async def _watch(self, task: "asyncio.Task[None]", receive: Receive) -> None:
        try:
            # Some servers report the end of the body once more. Any other event means that the client disconnected.
            for _ in range(10):
                if (await receive())["type"] != "http.request":
                    break
            else:
                return
        except Exception:
            _log.debug("this server does not report whether the client is still connected", exc_info=True)
            return
        self._gone.add(task)
        task.cancel()

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self._gone.discard(task)
        watcher = self._watchers.pop(task, None)
        if watcher is not None:
            watcher.cancel()
