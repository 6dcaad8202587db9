"""Which tenants are counted under their own name. Whoever sends requests can make up tenants, and every name is a time
series for ever: so there is room for a few, and all others are one.

A name once given is kept: if a tenant moved between its own series and that of the others, both would jump.
"""

from collections.abc import Iterable
from dataclasses import dataclass

MOST_NAMES = 20
LEAST_SHARE = 0.01  # of all requests, for a name of the second half of the room: made-up tenants do not come that often
MAX_CANDIDATES = 256
MAX_NAME = 64  # characters
OTHER = "other"
NOBODY = "none"  # a request that named no tenant


@dataclass(slots=True)
class TenantCounts:
    """requests: that ended, in whatever way; device_ns: what their batches occupied, by their share of the rows."""

    requests: int = 0
    device_ns: float = 0


class TenantTable:
    """known: the tenants of the settings; they have a name from the start. The first to come fill half of the room, the
    rest is for those that send a good part of the requests."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self.named = {label(tenant): TenantCounts() for tenant in ["", *known]}
        self.others = TenantCounts()
        self._half = len(self.named) + MOST_NAMES // 2
        self._most = len(self.named) + MOST_NAMES
        self._candidates: dict[str, int] = {}
        self._requests = 0

    def count(self, tenant: str, requests: int) -> None:
        """`requests` more of this tenant have ended."""
        self._requests += requests
        self._of(tenant, requests).requests += requests

    def charge(self, tenant: str, device_ns: float) -> None:
        self._of(tenant, 0).device_ns += device_ns

    def snapshot(self) -> dict[str, TenantCounts]:
        """By label; the others, if there are any, among them."""
        found = {name: counts for name, counts in self.named.items() if counts.requests}
        return found | ({OTHER: self.others} if self.others.requests else {})

    def _of(self, tenant: str, requests: int) -> TenantCounts:
        return self.named.get(tenant or NOBODY) or self._newcomer(label(tenant), requests)

    def _newcomer(self, name: str, requests: int) -> TenantCounts:
        if name in self.named:  # cut to length
            return self.named[name]
        if len(self.named) >= self._most or name == OTHER:
            return self.others
        seen = self._candidates.get(name, 0) + requests
        if len(self.named) < self._half or seen >= max(100, LEAST_SHARE * self._requests):
            self._candidates.pop(name, None)
            return self.named.setdefault(name, TenantCounts())
        self._candidates[name] = seen
        if len(self._candidates) > MAX_CANDIDATES:
            busiest = sorted(self._candidates, key=self._candidates.__getitem__, reverse=True)
            self._candidates = {one: self._candidates[one] for one in busiest[: MAX_CANDIDATES // 2]}
        return self.others


def label(tenant: str) -> str:
    return tenant[:MAX_NAME] or NOBODY
