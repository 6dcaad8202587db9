"""Stores in the memory of this process: the twins of those in Redis for tests, with the same contracts."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from serving.core.clock import Clock
from serving.store.base import PRESENT_NS, Renewal
from serving.store.keys import Keys
from serving.traffic.sharing import Ask, Counter, Grant, settle


class MemoryQuotaStore:
    """Counters of all tenants. clock: the time of day, as `core.clock.Calendar` shows it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counters: dict[str, Counter] = {}
        self._seen_ns: dict[str, int] = {}

    async def renew(self, replica: str, asks: Sequence[Ask]) -> Renewal:
        now_ns = self._clock.now_ns()
        self._seen_ns[replica] = now_ns
        self._seen_ns = {name: seen_ns for name, seen_ns in self._seen_ns.items() if now_ns - seen_ns < PRESENT_NS}
        return Renewal([self._book(ask, now_ns) for ask in asks], len(self._seen_ns))

    async def leave(self, replica: str, asks: Sequence[Ask]) -> None:
        now_ns = self._clock.now_ns()
        for ask in asks:
            self._book(ask, now_ns)
        self._seen_ns.pop(replica, None)

    async def close(self) -> None:
        """Does nothing: there are no connections."""

    def _book(self, ask: Ask, now_ns: int) -> Grant:
        counter, grant = settle(self._counters.get(ask.tenant, Counter()), ask, now_ns)
        if counter.clear_ns > now_ns or (ask.per_day is not None and counter.used):
            self._counters[ask.tenant] = counter
        else:
            self._counters.pop(ask.tenant, None)  # the same as one that was never used
        return grant


class MemoryAnswerStore:
    """Answers of all tenants. clock: any that goes forward."""

    def __init__(self, clock: Clock, keys: Keys) -> None:
        self._clock = clock
        self._keys = keys
        self._values: dict[str, tuple[bytes, int]] = {}  # with the instant in ns at which it expires

    async def read(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        now_ns = self._clock.now_ns()
        self._values = {key: held for key, held in self._values.items() if held[1] > now_ns}
        return [self._values[key][0] if key in self._values else None for key in keys]

    async def write(self, values: Sequence[tuple[str, bytes, int]]) -> None:
        for key, value, ttl_ms in values:
            self._values[key] = (value, self._clock.now_ns() + ttl_ms * 1_000_000)

    async def clear(self, model: str, tenant: str | None) -> int:
        pattern = self._keys.all_answers(model, tenant)
        found = [key for key in self._values if fnmatchcase(key, pattern)]
        for key in found:
            del self._values[key]
        return len(found)

    async def close(self) -> None:
        """Does nothing: there are no connections."""
