"""Several lanes, one queue: when an idle lane should wait for more rows.

Lanes that take whatever waits the moment they are idle get batches of one or two, spend their time on the fixed cost of
each, and are busy when the crowd comes. Yet to wait for it is only worth while where lanes are short, and how much they
are is seen at the cut: whether the first in line had to wait for a lane for most of the time it has. By that much more
of its time each batch may be held back for others to join: by nothing, as long as lanes are there when they are needed.

After Symphony's deferral (Chen et al., 2023), which holds every batch back as long as it may and so pays for it at any
load; here the share of that time is found by feedback.
"""

from serving.core.latency import LatencyModel
from serving.core.request import NO_DEADLINE_NS, Request
from serving.core.seats import Seats
from serving.core.sizes import Sizes

MOST = 0.9  # of the time that a batch could be held back; the rest is for noise
TIGHT = 0.8  # had the first in line to wait for so much of its time, lanes are short
AFTER_MISS = 0.3
AFTER_TIGHT = 0.2
AFTER_ANY = -0.004  # a few hundred batches without need, and none is held back any more
AFTER_IDLE = -0.2  # no lane had anything to do: the rush is over
CHANCE = 0.05  # beyond the time it was held back for


class Deferral:
    """share: of the time between the arrival of the first in line and the last instant at which it could start."""

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
        """When to cut a batch of all these `rows`, which could start at `start_ns`: then, or at a later instant. Where
        it is then, the batch is taken to be cut, and the share follows.

        Requests without a deadline are not held back: where lanes are short, their queue grows, and batches with it.
        """
        budget_ns = head.deadline_ns - head.arrived_ns
        if budget_ns >= NO_DEADLINE_NS:
            return start_ns
        seats = Seats(latency, sizes, start_ns, length, sizes.largest_rows)
        spare_ns = max(1, budget_ns - seats.duration_ns(rows + 1))  # one more, since that is who is waited for
        due_ns = head.arrived_ns + int(self.share * spare_ns)
        if due_ns > start_ns and rows < sizes.useful_rows(latency, length):
            return due_ns
        self._follow((start_ns - head.arrived_ns) / spare_ns, all_idle=all_idle)
        return start_ns

    def _follow(self, waited: float, *, all_idle: bool) -> None:
        """waited: as a share of the time that it could wait; more than 1 if it is late."""
        change = AFTER_IDLE if all_idle else AFTER_ANY
        if waited > 1.0:
            change += AFTER_MISS
        elif waited > max(TIGHT, self.share + CHANCE):
            change += AFTER_TIGHT
        self.share = min(MOST, max(0.0, self.share + change))
