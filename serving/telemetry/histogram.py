"""A histogram with fixed buckets, for values of any unit."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field


@dataclass(slots=True)
class Histogram:
    """Counts of values by bucket, and their sum (`total`).

    bounds: the inclusive upper bound of each bucket, ascending; the last bucket has none.
    """

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0

    def __post_init__(self) -> None:
        if not self.counts:
            self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add_sorted(self, values: list[int], shift: int = 0) -> None:
        """Adds each `value + shift`. values: ascending, not empty.

        One bisection per bound between the smallest and the largest value instead of one per value, because the values
        of a batch lie close together.
        """
        bounds, counts = self.bounds, self.counts
        last = bisect_left(bounds, values[-1] + shift)
        seen = 0
        for index in range(bisect_left(bounds, values[0] + shift), last):
            below = bisect_right(values, bounds[index] - shift)
            counts[index] += below - seen
            seen = below
        counts[last] += len(values) - seen
        self.total += sum(values) + shift * len(values)

    def count(self) -> int:
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """Returns a quantile by linear interpolation within its bucket, as Prometheus does; None without values."""
        wanted = share * self.count()
        if not wanted:
            return None
        below, lower = 0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if below + count >= wanted:
                return lower + (bound - lower) * (wanted - below) / count
            below, lower = below + count, bound
        return lower
