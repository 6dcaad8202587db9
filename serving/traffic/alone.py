"""The share of a replica that cannot ask the others, and what all leases of a replica have in common.

While the shared store does not answer, each replica keeps to the limit divided by the number of replicas. Without a
store it is the only replica, and its share is the whole limit, exactly.
"""

import enum
from collections.abc import Callable

from serving.traffic.quota import DailyTotal, Pace
from serving.traffic.tenants import Tenant


class Reason(enum.StrEnum):
    """The cause of a refusal: too many in this minute, today, or in flight."""

    RATE = "rate"
    DAY = "day"
    CONCURRENT = "concurrent"


RATE, DAY, CONCURRENT = Reason  # a look-up in the class takes half a microsecond in Python 3.11


class Sharing:
    """The facts that all leases of a replica have in common.

    alone_since_ns: None while the shared store answers; since when it does not, or 0 where there is none.
    replicas: how many replicas share the limits. day_ends_ns: when the day ends, by the clock of `now_ns`.
    wake: called with the name of a tenant that has something to ask soon.
    """

    __slots__ = ("alone_since_ns", "day_ends_ns", "replicas", "wake")

    def __init__(
        self,
        *,
        replicas: int = 1,
        alone_since_ns: int | None = None,
        day_ends_ns: int = 0,
        wake: Callable[[str], None] = lambda tenant: None,
    ) -> None:
        self.replicas = replicas
        self.alone_since_ns = alone_since_ns
        self.day_ends_ns = day_ends_ns
        self.wake = wake


class Alone:
    """The own share of a replica that cannot ask the others: of the pace, of the burst and of the day."""

    __slots__ = ("_clear_ns", "_day", "_interval_ns", "_most_ns", "_pace", "since_ns")

    def __init__(self, tenant: Tenant, sharing: Sharing, day_left: int | None, owed: int) -> None:
        self.since_ns = since_ns = sharing.alone_since_ns or 0
        replicas = sharing.replicas
        self._pace = Pace.per_minute(tenant.requests_per_minute, max(1, tenant.at_once // replicas))
        self._pace = Pace(self._pace.interval_ns * replicas, self._pace.burst)
        self._interval_ns = self._pace.interval_ns
        self._most_ns = self._pace.interval_ns * self._pace.burst
        self._clear_ns = 0
        if since_ns:  # what might be taken at once was in the leases: begin with nothing
            self._clear_ns = self._pace.take(0, since_ns, self._pace.burst + owed)
        self._day = None
        if tenant.per_day is not None:
            self._day = DailyTotal(max(1, tenant.per_day // replicas), sharing.day_ends_ns)
            if day_left is not None:
                self._day.limit(day_left // replicas)

    def take(self, now_ns: int) -> bool:
        day = self._day
        if day is not None and day.left(now_ns) <= 0:
            return False
        clear_ns = self._clear_ns  # as `Pace.step`, without its calls
        if clear_ns < now_ns:
            clear_ns = now_ns
        clear_ns += self._interval_ns
        if clear_ns - now_ns > self._most_ns:
            return False
        self._clear_ns = clear_ns
        if day is not None:
            day.count()
        return True

    def refusal(self, now_ns: int) -> tuple[Reason, int]:
        if self._day is not None and self._day.left(now_ns) <= 0:
            return DAY, self._day.ends_ns - now_ns
        return RATE, self._pace.wait_ns(self._clear_ns, now_ns)

    def day_left(self, now_ns: int) -> int | None:
        return None if self._day is None else max(0, self._day.left(now_ns))

    def level(self, now_ns: int) -> int:
        level = max(0, self._pace.level(self._clear_ns, now_ns))
        left = self.day_left(now_ns)
        return level if left is None else min(level, left)
