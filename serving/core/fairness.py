"""Weighted fair sharing of device time between tenants.

Uses virtual token counters (Sheng et al., "Fairness in serving large language models", OSDI 2024) that count device
nanoseconds instead of tokens: the tenant with the least device time per unit of weight goes next. A tenant that
returns after being idle starts at the counter of the least-served active tenant, so it cannot save up credit.
"""

from collections.abc import Iterable, Mapping

MAX_TENANTS_REMEMBERED = 4096


class FairShares:
    """The device time used per unit of weight, by tenant.

    A batch is charged with its predicted time when it is cut and corrected when it is done, so batches in flight count.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = dict(weights or {})
        self._served_ns: dict[str, float] = {}
        self._returned: list[tuple[str, int]] = []  # the last two different tenants that returned, and the instants

    def activate(self, tenant: str, active: Iterable[str], now_ns: int) -> None:
        """Records that `tenant`, which had no request in the queue, has one again. active: the tenants that have some.

        Raises the tenant's counter to that of the least-served active tenant, or without one to the largest of all.
        """
        others = [entry for entry in self._returned if entry[0] != tenant]
        self._returned = [*others[-1:], (tenant, now_ns)]
        floor = min((self._served_ns[other] for other in active if other in self._served_ns), default=None)
        if floor is None:
            floor = max(self._served_ns.values(), default=0.0)
        self._served_ns[tenant] = max(self._served_ns.pop(tenant, 0.0), floor)
        while len(self._served_ns) > MAX_TENANTS_REMEMBERED:  # several if `charge` has added some again
            self._served_ns.pop(next(iter(self._served_ns)))

    def others_since(self, tenant: str, since_ns: int) -> bool:
        """Returns whether a tenant other than `tenant` has returned since that instant, so that it may return again."""
        return any(other != tenant and returned_ns >= since_ns for other, returned_ns in self._returned)

    def served_ns(self, tenant: str) -> float:
        """Returns the tenant's counter in ns per unit of weight; only differences between tenants are meaningful."""
        return self._served_ns.get(tenant, 0.0)

    def charge(self, tenant: str, device_ns: float) -> None:
        """Adds device time to the tenant's counter; negative time corrects an earlier charge."""
        self._served_ns[tenant] = self.served_ns(tenant) + device_ns / self.weight(tenant)

    def weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)
