"""Tenants share device time by weight.

Virtual token counters (Sheng et al., "Fairness in serving large language models", OSDI 2024), counted in device
nanoseconds instead of tokens: the tenant that has had the least time per unit of weight goes next. A tenant that
returns from idleness starts at the least-served active tenant's count, so it cannot save up credit.
"""

from collections.abc import Iterable, Mapping

MAX_TENANTS_REMEMBERED = 4096


class FairShares:
    """Device time had per unit of weight, by tenant.

    Work is charged when it is cut, with its predicted time, and corrected when it is settled: batches in flight count.
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = dict(weights or {})
        self._served_ns: dict[str, float] = {}
        self._returned: list[tuple[str, int]] = []  # the last two different tenants to return, and when

    def activate(self, tenant: str, active: Iterable[str], now_ns: int) -> None:
        """`tenant` has work again after having none; `active` are those that have work now."""
        others = [one for one in self._returned if one[0] != tenant]
        self._returned = [*others[-1:], (tenant, now_ns)]
        floor = min((self._served_ns[other] for other in active if other in self._served_ns), default=None)
        if floor is None:
            floor = max(self._served_ns.values(), default=0.0)
        self._served_ns[tenant] = max(self._served_ns.pop(tenant, 0.0), floor)
        while len(self._served_ns) > MAX_TENANTS_REMEMBERED:  # settling a batch may bring one back that was forgotten
            self._served_ns.pop(next(iter(self._served_ns)))

    def others_since(self, tenant: str, since_ns: int) -> bool:
        """Whether another tenant has come with work since then, and so may well come again."""
        return any(other != tenant and returned_ns >= since_ns for other, returned_ns in self._returned)

    def served_ns(self, tenant: str) -> float:
        """Device nanoseconds per unit of weight; only differences between tenants mean something."""
        return self._served_ns.get(tenant, 0.0)

    def charge(self, tenant: str, device_ns: float) -> None:
        self._served_ns[tenant] = self.served_ns(tenant) + device_ns / self.weight(tenant)

    def weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)
