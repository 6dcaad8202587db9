"""Spaces the batches of a model on a CPU with a quota, so that the quota is not used up.

A control group that has used up its CPU time for a period (100 ms by default) stands until the next one. With two
threads at once and a quota of half a core that is for 75 of 100 ms: requests wait unread in sockets, nobody sees their
age, and what is computed afterwards is late. It is better to compute as much in fewer batches with pauses between them,
in which requests arrive, are read and gather for the next batch. Beside processes that use the quota up alone, pauses
would never end, so they have a limit.

The pauses follow from a token bucket: CPU time comes in at a rate slightly below the quota, and all that the control
group has used goes out, whichever process used it. A batch begins once the balance is not negative.
"""

from dataclasses import dataclass
from math import inf

REFILL_SHARE = 0.9  # of the quota; the rest is for what the other processes use in a burst
SAVED_SHARE = 0.25  # of the quota of a period: the largest balance
LONGEST_SHARE = 0.7  # of the latency budget: the longest time from the beginning of a batch to that of the next
REMEMBERED_NS = 1_000_000_000  # for how long CPU time counts as short after the last debt
HARMLESS_SHARE = 0.2  # of the latency budget: shorter stops of the control group are left alone


@dataclass(frozen=True, slots=True)
class CpuQuota:
    """A control group may use `cpu_ns` of CPU time per `period_ns`, on at most `cores` cores at once."""

    cpu_ns: int
    period_ns: int
    cores: int

    def longest_stop_ns(self) -> int:
        """Returns for how long the control group stands in a period if it keeps all cores busy."""
        return max(0, self.period_ns - self.cpu_ns // self.cores)


class Pace:
    """Computes when the next batch may begin, given the CPU time that is used.

    ready_ns: no batch begins before this instant.
    is_short: whether CPU time was short within the last second: most quotas are hardly ever used up.
    """

    def __init__(self, budget_ns: int) -> None:
        self.ready_ns = 0
        self.is_short = False
        self._budget_ns = budget_ns
        self._quota: CpuQuota | None = None
        self._read_ns = 0
        self._used_ns = 0
        self._balance_ns = 0.0
        self._batch_ns = 0
        self._short_until_ns = 0

    @property
    def is_limited(self) -> bool:
        """Returns whether the quota in force is one that needs pauses."""
        return self._quota is not None

    @property
    def cores(self) -> float:
        """Returns the cores of that quota, infinite without one."""
        return inf if self._quota is None else self._quota.cpu_ns / self._quota.period_ns

    def limit(self, now_ns: int, quota: CpuQuota | None, used_ns: int) -> None:
        """Takes over the quota in force. used_ns: the CPU time that the control group has used so far."""
        if quota is not None and quota.longest_stop_ns() <= HARMLESS_SHARE * self._budget_ns:
            quota = None
        if quota == self._quota:
            return
        self._quota, self.ready_ns, self.is_short, self._short_until_ns = quota, 0, False, now_ns
        self._read_ns, self._used_ns, self._balance_ns = now_ns, used_ns, 0.0

    def follow(self, now_ns: int, used_ns: int) -> None:
        """Computes `ready_ns` anew. used_ns: as for `limit`."""
        if self._quota is None:
            return
        rate = REFILL_SHARE * self._quota.cpu_ns / self._quota.period_ns
        balance_ns = self._balance_ns + rate * (now_ns - self._read_ns) - (used_ns - self._used_ns)
        debt_ns = -rate * LONGEST_SHARE * self._budget_ns
        self._balance_ns = max(debt_ns, min(balance_ns, SAVED_SHARE * self._quota.cpu_ns))
        self._read_ns, self._used_ns = now_ns, used_ns
        if self._balance_ns < 0.0:
            self._short_until_ns = now_ns + REMEMBERED_NS
        self.is_short = now_ns < self._short_until_ns
        longest_ns = self._batch_ns + int(LONGEST_SHARE * self._budget_ns)
        self.ready_ns = min(now_ns + int(max(0.0, -self._balance_ns) / rate), longest_ns)

    def batch_began(self, now_ns: int) -> None:
        """Counts the longest pause from this instant."""
        self._batch_ns = now_ns
