"""Batching with a fixed configuration, as in other servers: a largest batch and a longest wait, on Headway's engine and
lane.

The best configuration is chosen in hindsight from a grid, which an operator who configures a server cannot do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from operator import attrgetter

from serving.core.batch import Cut
from serving.core.batcher import Batcher
from serving.core.outcome import Reason, Rejected
from serving.core.request import Request
from serving.core.selection import Selection
from serving.runtime.engine import Engine

WAITS = (0.0, 0.2)  # shares of the latency budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A fixed configuration. ahead: batches submitted to the lane at a time; 2 hides copies, but fixes the second batch
    while the first is computed."""

    max_rows: int
    wait_ns: int
    ahead: int

    def __str__(self) -> str:
        return f"{self.max_rows} rows, {self.wait_ns / 1e6:.2g} ms, {self.ahead} ahead"


class FixedBatcher(Batcher):
    """A first-come-first-served batcher, like Triton's dynamic batcher: a batch starts when it is full or when its
    oldest request has waited long enough, and expired requests are dropped. Requests of any length share a batch."""

    def __init__(self, like: Batcher, configuration: Configuration) -> None:
        super().__init__(
            deepcopy(like.latency), like.sizes, max_requests=like.max_requests, batches_per_lane=configuration.ahead
        )
        self._configuration = configuration

    def admit(self, request: Request, now_ns: int, waiting_elsewhere: int = 0) -> Rejected | None:
        full = len(self.queue) + waiting_elsewhere >= self.max_requests
        return Rejected(Reason.QUEUE_FULL, retry_after_ns=0) if full else None

    def cut(self, lane_index: int, now_ns: int) -> Cut:
        lane, wanted = self._lanes[lane_index], self._configuration
        if len(lane.batches) >= wanted.ahead or not self.queue:
            return Cut()
        expired = self.expire(now_ns)
        if not self.queue:
            return Cut(expired=expired)
        lines = [line for by_tenant in self.queue.lines.values() for line in by_tenant.values()]
        riders = list(islice(merge(*lines, key=attrgetter("arrived_ns")), wanted.max_rows))
        due_ns = riders[0].arrived_ns + wanted.wait_ns
        if len(riders) < wanted.max_rows and now_ns < due_ns:
            return Cut(expired=expired, ask_again_ns=due_ns)
        for request in riders:
            self.cancel(request)
        length = self.sizes.padded_length(max(request.length for request in riders))
        selection = Selection(riders, length, full=len(riders) == wanted.max_rows, held_back=False)
        return Cut(batch=self._mark(selection, lane_index, now_ns, max(now_ns, lane.free_ns())), expired=expired)

    def expire(self, now_ns: int) -> list[Request]:
        """Removes and returns the expired requests."""
        late = [
            request
            for by_tenant in self.queue.lines.values()
            for line in by_tenant.values()
            for request in line
            if request.deadline_ns <= now_ns
        ]
        for request in late:
            self.cancel(request)
        return late


def grid(batcher: Batcher, budget_ns: int) -> list[Configuration]:
    """Returns the configurations to try: the four largest sizes whose time is at most 80 % of the budget."""
    length = batcher.sizes.lengths[-1]
    sizes = [1 << power for power in range(11) if 1 << power <= batcher.sizes.largest_rows]
    feasible = [rows for rows in sizes if batcher.latency.predict_ns(rows, length) <= 0.8 * budget_ns] or [1]
    return [
        Configuration(max_rows=rows, wait_ns=int(share * budget_ns), ahead=ahead)
        for rows in feasible[-4:]
        for share in WAITS
        for ahead in (1, 2)
    ]


@contextmanager
def configured(engine: Engine, configuration: Configuration) -> Iterator[None]:
    """Replaces the batcher of the idle engine during the block."""
    own = engine.batcher
    engine.batcher = engine._driver._batcher = FixedBatcher(own, configuration)
    try:
        yield
    finally:
        engine.batcher = engine._driver._batcher = own
