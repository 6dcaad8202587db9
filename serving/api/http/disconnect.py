"""Notices that a client has disconnected while its request waits, and withdraws the request.

ASGI reports a disconnect only as the result of another call of `receive()`, so something has to await that during the
request. The cost per request, measured by benchmarks/bench_disconnect.py (uvloop / asyncio, in microseconds):
    a task that watches from the start                           2.6 / 3.5
    the coroutine of `receive()` driven by hand, one callback    2.5 / 3.4
    a timer per request that starts the watching                 1.2 / 2.8
    one timer for all that watches only long waiting requests    0.5 / 0.6
The last one is used. It needs only documented calls and works on any server (uvicorn with h11 or httptools, Ray's
proxy). Withdrawing a request that ends within 25 ms would gain nothing.
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
    """Watches the requests of one application on one event loop for disconnects."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._waiting: dict[asyncio.Task[None], Receive] = {}
        self._present_before: list[asyncio.Task[None]] = []
        self._watchers: dict[asyncio.Task[None], asyncio.Task[None]] = {}
        self._gone: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def outcome(self, submitted: Awaitable[T], receive: Receive) -> T | None:
        """Awaits `submitted`. Returns its result, or None if the client disconnected first; then it was cancelled."""
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
        """Starts to watch the requests that have been waiting since the sweep before."""
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
            # Some servers report the end of the body again; any other message is the disconnect.
            for _ in range(10):
                if (await receive())["type"] != "http.request":
                    break
            else:
                return
        except Exception:
            _log.debug("the server cannot report whether the client is still connected", exc_info=True)
            return
        self._gone.add(task)
        task.cancel()

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self._gone.discard(task)
        watcher = self._watchers.pop(task, None)
        if watcher is not None:
            watcher.cancel()
