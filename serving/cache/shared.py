"""Looks answers up in a store that all replicas share, and keeps them there.

Requests of one turn of the loop share one call, and those that arrive while a call is under way share the next: so a
look-up costs the less, the more of them there are. A store that hangs, fails or is gone costs misses: no request waits
for it longer than the time limit.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from serving.store.answers import AnswerStore
from serving.store.base import StoreUnavailable
from serving.store.guard import Guard, is_late

_log = logging.getLogger(__name__)
LIMIT_S = 0.005  # that a request waits for the store
CLEARING_LIMIT_S = 60.0  # for finding and removing all answers of a model
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
        self._next: _LookUp | None = None
        self._reading: asyncio.Task[None] | None = None
        self._kept: list[tuple[str, bytes, int]] = []
        self._kept_bytes = 0
        self._writing: asyncio.Task[None] | None = None

    def find(self, key: str, then: Then) -> None:
        """Calls `then` once with what the store holds under this key, None if that is nothing or not known in time."""
        if self._next is None:
            self._next = _LookUp(self._limit_s, self._observer)
            if self._reading is None:
                self._reading = asyncio.get_running_loop().create_task(self._read())
        self._next.add(key, then)

    def keep(self, key: str, value: bytes, ttl_ms: int) -> None:
        """Stores a value some time soon. It is dropped if the store does not take it, or too much waits for that."""
        if self._kept_bytes + len(value) > MOST_WAITING_BYTES:
            self._observer.unavailable("busy", 1)
            return
        self._kept.append((key, value, ttl_ms))
        self._kept_bytes += len(value)
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write())

    async def settle(self) -> None:
        """Waits until every value that was to be kept is stored or dropped."""
        if self._writing is not None:
            await self._writing

    async def clear(self, model: str, tenant: str | None) -> int:
        """Removes the answers of a model, all or those of a tenant. Returns how many. Raises StoreUnavailable."""
        return await self._guard.call(lambda: self._store.clear(model, tenant), CLEARING_LIMIT_S)

    async def _read(self) -> None:
        """Asks the store until nobody waits. One call at a time: meanwhile, further keys gather."""
        loop = asyncio.get_running_loop()
        while self._next is not None:
            look_up, self._next = self._next, None
            if look_up.has_ended:
                continue
            began_s = loop.time()
            try:
                values = await self._guard.call(lambda look_up=look_up: self._store.read(look_up.keys))  # type: ignore[misc]
            except StoreUnavailable as failure:
                look_up.fail(failure.kind)
            else:
                self._observer.looked_up(int((loop.time() - began_s) * 1e9))
                look_up.end(values)
        self._reading = None

    async def _write(self) -> None:
        while self._kept:
            kept, self._kept, self._kept_bytes = self._kept, [], 0
            try:
                await self._guard.call(lambda kept=kept: self._store.write(kept))  # type: ignore[misc]
            except StoreUnavailable as failure:
                self._observer.unavailable(failure.kind, len(kept))
        self._writing = None


class _LookUp:
    """The keys of one call. Whoever waits for them waits no longer than the limit, also for the call to begin."""

    def __init__(self, limit_s: float, observer: LookUpObserver) -> None:
        self.keys: list[str] = []
        self.has_ended = False
        self._observer = observer
        self._thens: list[Then] = []
        self._loop = asyncio.get_running_loop()
        self._limit_s = limit_s
        due_s = self._loop.time() + limit_s
        self._timer = self._loop.call_at(due_s, self._give_up, due_s)

    def add(self, key: str, then: Then) -> None:
        if self.has_ended:  # in vain: the call before it takes too long
            self._observer.unavailable("slow", 1)
            then(None)
            return
        self.keys.append(key)
        self._thens.append(then)

    def end(self, values: Sequence[bytes | None]) -> None:
        """Passes the values on, unless the wait has been given up."""
        self._timer.cancel()
        if self.has_ended:
            return
        self.has_ended = True
        for then, value in zip(self._thens, values, strict=True):
            try:
                then(value)
            except Exception:
                _log.exception("a request could not go on after its look-up")

    def fail(self, kind: str) -> None:
        """Ends the wait without values, unless it has been given up. kind: why, in one word."""
        if not self.has_ended:
            self._observer.unavailable(kind, len(self.keys))
            self.end([None] * len(self.keys))

    def _give_up(self, due_s: float | None) -> None:
        """Ends the wait. If the loop itself was late, the answer may have arrived unread: it gets one limit more.

        due_s: when the limit was reached; None for the second time."""
        now_s = self._loop.time()
        if due_s is not None and is_late(now_s, due_s, self._limit_s):
            self._timer = self._loop.call_at(now_s + self._limit_s, self._give_up, None)
        else:
            self.fail("slow")
