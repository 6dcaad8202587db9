"""One batch in the making: what it may hold, and when it is done."""

from dataclasses import dataclass, field

from serving.core.latency import LatencyModel
from serving.core.sizes import Sizes


@dataclass(slots=True)
class Seats:
    """A batch of padded `length` that starts at `start_ns` and may have `max_rows`.

    Times allow for half of the learned margin. Whoever is left behind for fear of being late is lost for certain, so
    the whole margin, meant for promises, gives up more than it saves; none at all would make too many late.
    """

    latency: LatencyModel
    sizes: Sizes
    start_ns: int
    length: int
    max_rows: int
    _stretch: float = field(default=0.0, init=False)  # whole margin over half of it, once somebody asks

    def rows_until(self, deadline_ns: int) -> int:
        """The most rows, up to `max_rows`, that are done by then."""
        if not self._stretch:
            self._stretch = self._bound_ns(self.max_rows) / max(self.duration_ns(self.max_rows), 1)
        slack_ns = int((deadline_ns - self.start_ns) * self._stretch)
        return self.sizes.computable_rows(self.latency.largest_feasible_rows(slack_ns, self.length, self.max_rows))

    def duration_ns(self, rows: int) -> int:
        expected_ns = self.latency.predict_ns(self.sizes.padded_rows(rows), self.length)
        return (expected_ns + self._bound_ns(rows)) // 2

    def finish_ns(self, rows: int) -> int:
        return self.start_ns + self.duration_ns(rows)

    def _bound_ns(self, rows: int) -> int:
        return self.latency.bound_ns(self.sizes.padded_rows(rows), self.length)
