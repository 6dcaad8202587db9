"""A mergeable histogram of durations with a bounded relative error, sent between processes and stored in files.

Buckets grow by 1 %, so the error of a quantile is at most half a percent of its value (DDSketch; Masson, Rim and Lee,
VLDB 2019). Exact quantiles are computed from the shots; this is for live numbers and for results without shots."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

_GROWTH = math.log(1.01)


class Histogram:
    """Counts whole numbers by bucket; numbers up to 1 share bucket 0."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: Counter[int] = Counter(counts or {})

    def add(self, value: int, times: int = 1) -> None:
        self.counts[math.ceil(math.log(value) / _GROWTH) if value > 1 else 0] += times

    def merge(self, other: "Histogram") -> None:
        self.counts.update(other.counts)

    @property
    def total(self) -> int:
        return self.counts.total()

    def quantile(self, share: float) -> float | None:
        """Returns the value of the nearest rank, within half a percent; None if the histogram is empty."""
        rank, seen = max(1, math.ceil(self.total * share - 1e-9)), 0
        for bucket, count in sorted(self.counts.items()):
            seen += count
            if seen >= rank:
                return middle(bucket)
        return None

    def mean(self) -> float | None:
        total = self.total
        return sum(middle(bucket) * count for bucket, count in self.counts.items()) / total if total else None

    def at_most(self, value: float) -> int:
        """Counts the values up to this one, to the precision of a bucket."""
        return sum(count for bucket, count in self.counts.items() if middle(bucket) <= value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.counts == other.counts

    __hash__ = None  # type: ignore[assignment]

    def as_json(self) -> dict[str, int]:
        return {str(bucket): count for bucket, count in sorted(self.counts.items())}

    @classmethod
    def from_json(cls, counts: Mapping[str, int]) -> "Histogram":
        return cls({int(bucket): count for bucket, count in counts.items()})


def merged(histograms: Iterable[Histogram]) -> Histogram:
    together = Histogram()
    for histogram in histograms:
        together.merge(histogram)
    return together


def lower_bound(bucket: int) -> float:
    """Returns the exclusive lower bound of a bucket; the bound of the next bucket is its inclusive upper bound."""
    return math.exp((bucket - 1) * _GROWTH)


def middle(bucket: int) -> float:
    """Returns the value that represents a bucket: the geometric mean of its bounds."""
    return math.exp((bucket - 0.5) * _GROWTH) if bucket > 0 else 0.0
