"""Deferred batching for several lanes with one queue: how long an idle lane should wait for more rows.

Lanes that take waiting requests as soon as they are idle get batches of one or two rows, spend their time on the fixed
cost of each batch, and are busy when many requests arrive. But waiting is only worth its latency when lanes are scarce.
Scarcity is observed at each cut: did the most urgent request have to wait for a lane for most of the time that it has?
If so, batches are deferred by a larger share of that time; if not, the share slowly falls to zero.

After the deferral of Symphony (Chen et al., 2023), which defers every batch as long as its deadline allows and so adds
latency at any load. Here a feedback loop with additive steps controls the share.
"""

from serving.core.latency import LatencyModel
from serving.core.request import NO_DEADLINE_NS, Request
from serving.core.seats import Seats
from serving.core.sizes import Sizes

LARGEST_SHARE = 0.9  # the rest of the time is left for noise
SCARCE_SHARE = 0.8  # if the most urgent request waited for more than this share of its time, lanes are scarce
STEP_AFTER_MISS = 0.3
STEP_WHEN_SCARCE = 0.2
STEP_OTHERWISE = -0.004  # after a few hundred batches without scarcity, batches are no longer deferred
STEP_WHEN_IDLE = -0.2  # all lanes were idle: the rush is over
TOLERANCE = 0.05  # waiting at most this much longer than the deferral is no sign of scarce lanes


class Deferral:
    """The feedback loop of the deferral.

    share: part of the time between a request's arrival and the last instant at which its batch could start for which
        batches are deferred, 0 to `LARGEST_SHARE`.
    """

    def __init__(self) -> None:
        self.share = 0.0

    def due_ns(
        self,
        head: Request,
        rows: int,
        length: int,
        latency: LatencyModel,
        sizes: Sizes,
        start_ns: int,
        *,
        all_idle: bool = False,
    ) -> int:
        """Returns the instant at which to cut a batch of all waiting `rows`: `start_ns`, or later to defer it.

        If it returns `start_ns`, it assumes that the batch is cut and updates the share. Requests without a deadline
        are not deferred: when lanes are scarce, their queue grows, and their batches with it.

        head: the most urgent request. start_ns: the earliest instant at which the batch could start.
        all_idle: whether all lanes are idle.
        """
        budget_ns = head.deadline_ns - head.arrived_ns
        if budget_ns >= NO_DEADLINE_NS:
            return start_ns
        seats = Seats(latency, sizes, start_ns, length, sizes.largest_rows)
        spare_ns = max(1, budget_ns - seats.duration_ns(rows + 1))  # with the next row, because the deferral awaits it
        due_ns = head.arrived_ns + int(self.share * spare_ns)
        if due_ns > start_ns and rows < sizes.useful_rows(latency, length):
            return due_ns
        self._follow((start_ns - head.arrived_ns) / spare_ns, all_idle=all_idle)
        return start_ns

    def _follow(self, waited: float, *, all_idle: bool) -> None:
        """Updates the share. waited: the wait as a share of the time that it could take; more than 1 if it is late."""
        change = STEP_WHEN_IDLE if all_idle else STEP_OTHERWISE
        if waited > 1.0:
            change += STEP_AFTER_MISS
        elif waited > max(SCARCE_SHARE, self.share + TOLERANCE):
            change += STEP_WHEN_SCARCE
        self.share = min(LARGEST_SHARE, max(0.0, self.share + change))
