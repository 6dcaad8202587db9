"""The readings of quotas: how many requests of each tenant a replica has admitted and refused, and what is left.

Plain values, sent between processes, and their sum over replicas. The number of tenants in them is bounded.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

REFUSALS = ("rate", "day", "concurrent")  # why a quota refuses: too many in a minute, in a day, or at once


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaCounts:
    """The requests of one tenant that asked for a place in its quota.

    refused: by reason, one of `REFUSALS`. limit: requests per minute. remaining: how many requests the tenant may send
    at once now, as far as the replica knows. Both are None for tenants that are counted together. day_limit, day_left:
    the same of the day; None without a daily total.
    """

    admitted: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    limit: int | None = None
    remaining: int | None = None
    day_limit: int | None = None
    day_left: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaReading:
    """The quotas of one replica, by the label of the tenant.

    shared: the replica shares the limits with others through a store that answers. If not, it has a part of each limit
    for itself. degraded: there is such a store, and it does not answer.
    """

    tenants: Mapping[str, QuotaCounts]
    shared: bool = False
    degraded: bool = False


def standing(readings: Iterable[QuotaReading]) -> dict[str, Any]:
    """Returns how quotas stand over these replicas: how many of them are degraded, and each tenant's limits and what is
    left of them: `limit` and `left` of a minute, and with a daily total `day_limit` and `day_left`.

    Parts of a limit add up. Of a shared limit each replica knows the whole, and the one that was used last knows it
    best; the others believe more to be left.
    """
    told = list(readings)
    tenants: dict[str, dict[str, int]] = {}
    for reading in told:
        for name, counts in reading.tenants.items():
            if counts.limit is None or counts.remaining is None:
                continue
            known = tenants.setdefault(name, {"limit": counts.limit})
            _add(known, "left", counts.remaining, shared=reading.shared)
            if counts.day_limit is not None and counts.day_left is not None:
                known["day_limit"] = counts.day_limit
                _add(known, "day_left", counts.day_left, shared=reading.shared)
    return {"degraded": sum(reading.degraded for reading in told), "replicas": len(told), "tenants": tenants}


def _add(known: dict[str, int], name: str, left: int, *, shared: bool) -> None:
    """Adds what a replica believes to be left to what the replicas before it do."""
    if name in known:
        left = min(known[name], left) if shared else known[name] + left
    known[name] = left
