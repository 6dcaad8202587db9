"""Looks answers up in a store that all replicas share, and keeps them there.

A store that hangs, fails or is gone costs misses: no request waits for it longer than the time limit.
"""

import asyncio
from collections.abc import Callable

from serving.store.answers import AnswerStore
from serving.store.base import StoreUnavailable
from serving.store.guard import Guard
from serving.store.lookups import LookUpObserver, LookUps

LIMIT_S = 0.005  # that a request waits for the store
CLEARING_LIMIT_S = 60.0  # for finding and removing all answers of a model
MOST_WAITING_BYTES = 16 * 1024 * 1024  # of answers that wait to be stored

Then = Callable[[bytes | None], None]


class SharedAnswers:
    """The shared store as seen from one replica. Use it on the event loop.

    guard: for the calls; its limit is longer than that of requests, so that a short delay does not open its breaker.
    """

    def __init__(self, store: AnswerStore, guard: Guard, observer: LookUpObserver, *, limit_s: float = LIMIT_S) -> None:
        self._store = store
        self._guard = guard
        self._observer = observer
        self._look_ups = LookUps(store.read, guard, observer, limit_s=limit_s)
        self._kept: list[tuple[str, bytes, int]] = []
        self._kept_bytes = 0
        self._writing: asyncio.Task[None] | None = None

    def find(self, key: str, then: Then) -> None:
        """Calls `then` once with what the store holds under this key, None if that is nothing or not known in time."""
        self._look_ups.ask((key,), lambda values: then(values[0] if values is not None else None))

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

    async def _write(self) -> None:
        while self._kept:
            kept, self._kept, self._kept_bytes = self._kept, [], 0
            try:
                await self._guard.call(lambda kept=kept: self._store.write(kept))  # type: ignore[misc]
            except StoreUnavailable as failure:
                self._observer.unavailable(failure.kind, len(kept))
        self._writing = None
