"""Looks answers up in a store that all replicas share, and keeps them there. Requests of one turn of the loop share
one call. A store that hangs, fails or is gone costs misses: no request waits for it longer than the time limit.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from serving.store.answers import AnswerStore
from serving.store.base import StoreUnavailable
from serving.store.guard import Guard

_log = logging.getLogger(__name__)
LIMIT_S = 0.005  # that a request waits for the store
CLEARING_LIMIT_S = 60.0  # for finding and removing all answers of a model
MOST_CALLS = 8  # in flight at a time, of each kind; more would only wait for a store that is too slow
MOST_WAITING_BYTES = 16 * 1024 * 1024  # of answers that wait to be stored

Then = Callable[[bytes | None], None]


class LookUpObserver(Protocol):
    """Is told about calls of the store. All methods are called on the event loop."""

    def looked_up(self, took_ns: int) -> None:
        """Called when the store has answered a look-up of one or more keys."""

    def unavailable(self, kind: str, count: int) -> None:
        """Called when that many look-ups or answers to store have failed. kind: why, in one word."""


class SharedAnswers:
    """The shared store as seen from one replica. Use it on the event loop.

    guard: for the calls; its limit is longer than that of requests, so that a short delay does not open its breaker.
    """

    def __init__(self, store: AnswerStore, guard: Guard, observer: LookUpObserver, *, limit_s: float = LIMIT_S) -> None:
        self._store = store
        self._guard = guard
        self._observer = observer
        self._limit_s = limit_s
        self._asked: list[tuple[str, Then]] = []
        self._kept: list[tuple[str, bytes, int]] = []
        self._kept_bytes = 0
        self._reads: set[asyncio.Task[None]] = set()
        self._writes: set[asyncio.Task[None]] = set()

    def find(self, key: str, then: Then) -> None:
        """Calls `then` once with what the store holds under this key, None if that is nothing or not known in time."""
        if len(self._reads) >= MOST_CALLS:
            self._observer.unavailable("busy", 1)
            then(None)
            return
        if not self._asked:
            asyncio.get_running_loop().call_soon(self._ask)
        self._asked.append((key, then))

    def keep(self, key: str, value: bytes, ttl_ms: int) -> None:
        """Stores a value some time soon. It is dropped if the store does not take it, or too much waits for that."""
        if len(self._writes) >= MOST_CALLS or self._kept_bytes + len(value) > MOST_WAITING_BYTES:
            self._observer.unavailable("busy", 1)
            return
        if not self._kept:
            asyncio.get_running_loop().call_soon(self._write)
        self._kept.append((key, value, ttl_ms))
        self._kept_bytes += len(value)

    async def settle(self) -> None:
        """Waits until every value that was to be kept is stored or dropped."""
        while self._kept or self._writes:
            if self._kept:
                self._write()
            await asyncio.wait(self._writes)

    async def clear(self, model: str, tenant: str | None) -> int:
        """Removes the answers of a model, all or those of a tenant. Returns how many. Raises StoreUnavailable."""
        return await self._guard.call(lambda: self._store.clear(model, tenant), CLEARING_LIMIT_S)

    async def close(self) -> None:
        await self.settle()
        await self._store.close()

    def _ask(self) -> None:
        asked, self._asked = self._asked, []
        _begin(self._reads, self._read(_LookUp(asked, self._limit_s)))

    async def _read(self, look_up: "_LookUp") -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            values = await self._guard.call(lambda: self._store.read(look_up.keys))
        except StoreUnavailable as failure:
            self._observer.unavailable(failure.kind, len(look_up.keys))
            values = [None] * len(look_up.keys)
        else:
            self._observer.looked_up(int((loop.time() - began_s) * 1e9))
        look_up.end(values)

    def _write(self) -> None:
        kept, self._kept, self._kept_bytes = self._kept, [], 0
        if kept:
            _begin(self._writes, self._stored(kept))

    async def _stored(self, kept: Sequence[tuple[str, bytes, int]]) -> None:
        try:
            await self._guard.call(lambda: self._store.write(kept))
        except StoreUnavailable as failure:
            self._observer.unavailable(failure.kind, len(kept))


class _LookUp:
    """The keys of one call. Whoever waits for them waits no longer than the limit."""

    def __init__(self, asked: list[tuple[str, Then]], limit_s: float) -> None:
        self.keys = [key for key, _ in asked]
        self._thens = [then for _, then in asked]
        self._loop = asyncio.get_running_loop()
        self._limit_s = limit_s
        self._due_s = self._loop.time() + limit_s
        self._timer = self._loop.call_at(self._due_s, self._give_up)

    def end(self, values: Sequence[bytes | None]) -> None:
        self._timer.cancel()
        thens, self._thens = self._thens, []
        for then, value in zip(thens, values, strict=bool(thens)):
            try:
                then(value)
            except Exception:
                _log.exception("a request could not go on after its look-up")

    def _give_up(self) -> None:
        """Ends the wait. If the loop itself was late, the answer may have arrived unread: it gets one limit more."""
        now_s = self._loop.time()
        if now_s - self._due_s > self._limit_s / 2:
            self._due_s = now_s + 10 * self._limit_s  # so that this happens once
            self._timer = self._loop.call_at(now_s + self._limit_s, self._give_up)
        else:
            self.end([None] * len(self._thens))


def _begin(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
