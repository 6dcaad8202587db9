"""A batch under construction: how many rows it may have, and when it will be done."""

from dataclasses import dataclass

from serving.core.latency import LatencyModel
from serving.core.sizes import Sizes


@dataclass(slots=True)
class Seats:
    """A batch of padded `length` that starts at `start_ns` and has at most `max_rows`."""

    latency: LatencyModel
    sizes: Sizes
    start_ns: int
    length: int
    max_rows: int

    def rows_until(self, deadline_ns: int) -> int:
        """Returns the most rows, up to `max_rows`, that are planned to be done by the deadline; 0 if none."""
        slack_ns = deadline_ns - self.start_ns
        return self.sizes.computable_rows(self.latency.largest_feasible_rows(slack_ns, self.length, self.max_rows))

    def duration_ns(self, rows: int) -> int:
        """Returns the planned device time of a batch of `rows`, padding included."""
        return self.latency.plan_ns(self.sizes.padded_rows(rows), self.length)

    def finish_ns(self, rows: int) -> int:
        return self.start_ns + self.duration_ns(rows)
