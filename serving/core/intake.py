"""Bounds how many requests may be in flight to a replica at once, so that those let in are answered in time.

The bound is for whoever stands in front (`cluster/haproxy/intake.py`): a request refused there costs the replica
nothing. Without a bound, an overloaded replica spends its cores on requests that it can only refuse, and the others
wait unseen in its sockets.

While few requests miss their deadlines the bound rises, quickly if it is used up. While more miss them, it falls by
half of the share that did: additive increase and proportional decrease as of DCTCP (Alizadeh et al., 2010). It never
falls at once below what Little's law allows: throughput times the time that a request may take.

Nor does it fall below two batches of a size at which a row costs hardly more than in the best one. Else each step down
makes batches smaller, rows dearer, and more requests late, which is taken for a reason to step down again.

Only requests that come in large numbers, or that are costly before it is known that they are too late, can keep a
replica from computing. Where other work on the machine makes a few requests late, a lower bound would help nobody: it
would only make batches smaller, and more requests would be refused.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable

from serving.core.latency import LatencyModel
from serving.core.pace import Pace
from serving.core.sizes import Sizes

WINDOW_NS = 100_000_000  # the least time over which is counted
MISSED_SHARE = 0.1  # above it the bound falls; below, the scheduler's own choice of whom to serve decides
BUDGET_SHARE = 0.6  # of the latency budget, for waiting and computing; the rest is for the way there and back
HOLD_SHARE = 0.5  # of the latency budget, so that a refusal too comes in time
GROWTH, SLOW_GROWTH = 8, 64  # the bound rises by an eighth per window if it is used up, otherwise by a 64th
FEW = 16  # requests; fewer in a window are no evidence of an overload
READING_NS = 200_000  # at most, for a request that is refused once it has been read
CHEAP_PER_S = 500  # reading and refusing fewer requests than this per second takes less than a tenth of a core
LEAST = 4
UNBOUNDED = 4096  # HAProxy takes no more connections than this in all (Ray's `maxconn`)


class Intake:
    """The bound for one replica.

    budget_ns: the latency budget of its model. cheap: requests that are refused here have only been read, not prepared.
    least: returns the least bound, see `least_in_flight`.
    pace: while CPU time is short because of a quota, pauses between batches decide how large they become, and every
        request that is read in vain makes the pauses longer: the bound may then fall to `LEAST`, at lower rates too.
    bound: the most requests in flight, `UNBOUNDED` while the replica is not overloaded.
    hold_ms: for how long the one in front holds a refusal back, in ms. A client that asks again as soon as it is
        answered would otherwise use up the cores by being refused.
    """

    def __init__(
        self,
        budget_ns: int,
        *,
        cheap: bool = False,
        least: Callable[[], int] = lambda: LEAST,
        pace: Pace | None = None,
    ) -> None:
        self.bound = UNBOUNDED
        self.hold_ms = int(budget_ns * HOLD_SHARE / 1e6)
        self._few_per_s = CHEAP_PER_S if cheap else 0
        self._least = least
        self._pace = pace or Pace(0)
        self._budget_ns = budget_ns
        self._window_ns = max(WINDOW_NS, budget_ns)
        self._since_ns: int | None = None
        self._completed = 0
        self._missed = 0
        self._most = 0

    def ended(self, now_ns: int, in_flight: int, *, completed: int = 0, missed: int = 0) -> None:
        """Counts requests that have ended.

        in_flight: the requests in this replica just before. completed: those answered in time. missed: those refused or
            given up because of their deadlines, or answered late.
        """
        self._completed += completed
        self._missed += missed
        if in_flight > self._most:
            self._most = in_flight
        if self._since_ns is None:
            self._since_ns = now_ns
        passed_ns = now_ns - self._since_ns
        if passed_ns >= self._window_ns:
            self.bound = self._next(passed_ns)
            self._since_ns = now_ns
            self._completed = self._missed = self._most = 0

    def _next(self, passed_ns: int) -> int:
        ended = self._completed + self._missed
        pace = self._pace
        cores = min(1.0, pace.cores) if pace.is_short else 1.0
        few = max(FEW, self._few_per_s * cores * passed_ns / 1e9)
        if self._missed > MISSED_SHARE * ended and ended >= few:
            lowered = int(min(self.bound, self._most) * (1 - self._missed / ended / 2))
            share = 1.0 if pace.is_short else BUDGET_SHARE
            fits = int(self._completed * self._budget_ns * share / passed_ns)
            least = LEAST if pace.is_short else self._least()
            return min(self.bound, max(lowered, fits, least))
        is_used_up = self._most * 4 >= self.bound * 3
        return min(self.bound + max(1, self.bound // (GROWTH if is_used_up else SLOW_GROWTH)), UNBOUNDED)


def least_in_flight(latency: LatencyModel, sizes: Sizes, budget_ns: int) -> int:
    """Returns the rows of two batches, one being computed and one waiting, that are worth letting in.

    The batch is the smallest in which a row costs at most `READING_NS` more than in a batch of half the budget: to read
    a request in vain is cheaper than to compute the others in smaller batches. Times are predicted without a margin:
    it grows on a disturbed machine, on which small batches are worst.
    """
    length = sizes.lengths[-1]

    def batch_ns(rows: int) -> int:
        return latency.predict_ns(sizes.padded_rows(rows), length)

    def row_ns(rows: int) -> float:
        return batch_ns(rows) / rows

    most = bisect_right(range(1, sizes.largest_rows + 1), budget_ns // 2, key=batch_ns)
    if most == 0:
        return LEAST
    wanted_ns = row_ns(most) + READING_NS
    rows = 1 + bisect_left(range(1, most), True, key=lambda rows: row_ns(rows) <= wanted_ns)
    return max(LEAST, 2 * rows)
