"""One batch in the making: what it may hold, and when it is done."""

from dataclasses import dataclass

from serving.core.latency import LatencyModel
from serving.core.sizes import Sizes


@dataclass(slots=True)
class Seats:
    """A batch of padded `length` that starts at `start_ns` and may have `max_rows`."""

    latency: LatencyModel
    sizes: Sizes
    start_ns: int
    length: int
    max_rows: int

    def rows_until(self, deadline_ns: int) -> int:
        """The most rows, up to `max_rows`, that are done by then."""
        slack_ns = deadline_ns - self.start_ns
        return self.sizes.computable_rows(self.latency.largest_feasible_rows(slack_ns, self.length, self.max_rows))

    def duration_ns(self, rows: int) -> int:
        return self.latency.plan_ns(self.sizes.padded_rows(rows), self.length)

    def finish_ns(self, rows: int) -> int:
        return self.start_ns + self.duration_ns(rows)
