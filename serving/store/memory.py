"""Quota counters in the memory of this process: the twin of Redis for tests, with the same contract."""

from collections.abc import Sequence

from serving.core.clock import Clock
from serving.store.base import PRESENT_NS, Renewal
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
