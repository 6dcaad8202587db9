"""Counts requests by tenant with a bounded number of names.

Clients can make up tenants, and each name would be a time series for ever. So only a few tenants are counted under
their own names; all others are counted together. A tenant that has a name keeps it: if it moved between its own series
and that of the others, both would jump.
"""

from collections.abc import Iterable
from dataclasses import dataclass

MOST_NAMES = 20
LEAST_SHARE = 0.01  # of all requests, to get one of the second half of the names; made-up tenants stay below it
MAX_CANDIDATES = 256
MAX_NAME = 64  # characters
OTHER = "other"
NOBODY = "none"  # requests without a tenant


@dataclass(slots=True)
class TenantCounts:
    """The counts of one tenant.

    requests: requests that ended, with any outcome. device_ns: lane time of their batches, by their share of the rows.
    """

    requests: int = 0
    device_ns: float = 0


class TenantTable:
    """The counts by tenant, at most `MOST_NAMES` names beside the known ones.

    The first half of the names goes to the first tenants that send a request, the second half to tenants that send at
    least `LEAST_SHARE` of the requests (and 100).

    known: the tenants named in the settings, which always have a name.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        self.named = {label(tenant): TenantCounts() for tenant in ["", *known]}
        self.others = TenantCounts()
        self._half = len(self.named) + MOST_NAMES // 2
        self._most = len(self.named) + MOST_NAMES
        self._candidates: dict[str, int] = {}
        self._requests = 0

    def count(self, tenant: str, requests: int) -> None:
        """Counts `requests` of this tenant that have ended."""
        self._requests += requests
        self._of(tenant, requests).requests += requests

    def charge(self, tenant: str, device_ns: float) -> None:
        self._of(tenant, 0).device_ns += device_ns

    def snapshot(self) -> dict[str, TenantCounts]:
        """Returns the counts by label of tenants with requests; those of all tenants without a name under `OTHER`."""
        active = {name: counts for name, counts in self.named.items() if counts.requests}
        return active | ({OTHER: self.others} if self.others.requests else {})

    def _of(self, tenant: str, requests: int) -> TenantCounts:
        return self.named.get(tenant or NOBODY) or self._newcomer(label(tenant), requests)

    def _newcomer(self, name: str, requests: int) -> TenantCounts:
        if name in self.named:  # a long name that was truncated
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
            self._candidates = {candidate: self._candidates[candidate] for candidate in busiest[: MAX_CANDIDATES // 2]}
        return self.others


class TenantNames:
    """The labels of tenants that are counted elsewhere: `MOST_NAMES` names beside the known ones, to those that come
    first. A tenant that has a name keeps it, for the reason above."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._named = {label(tenant) for tenant in known}
        self._most = len(self._named) + MOST_NAMES

    def of(self, tenant: str) -> str:
        """Returns the label of a tenant, `OTHER` for one without a name of its own."""
        if tenant in self._named:
            return tenant
        name = label(tenant)
        if name not in self._named:
            if len(self._named) >= self._most or name == OTHER or len(tenant) > MAX_NAME:
                return OTHER
            self._named.add(name)
        return name


def label(tenant: str) -> str:
    """Returns the label of a tenant: its name, truncated, or `NOBODY` without a tenant."""
    return tenant[:MAX_NAME] or NOBODY
