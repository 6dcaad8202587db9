"""Limits of a quantile of latencies that hold at all times at once, from counts by bucket.

Pure. Each bound of a bucket is asked whether more, or fewer, than the share beyond the quantile lie above it. All may
be asked at once without dividing alpha: of the bounds on one side of the true quantile, none has more evidence against
it than the nearest, so a mistake about any of them is a mistake about that one.
"""

from bisect import bisect_left
from collections.abc import Mapping
from math import log

from serving.traffic.e_process import log_e_above, log_e_below

BEYOND = 0.05  # the share of times above the quantile: p95


def p95_limits(latency: Mapping[int, int], alpha: float) -> tuple[int | None, int | None]:
    """Returns the largest bucket whose bound is below the p95, and the smallest whose bound is not: (lower, upper).

    latency: the number of times by bucket of `core.octaves`. The chance that one of the limits is ever wrong is at most
    alpha for each. None: there are too few times to say."""
    if not latency:
        return None, None
    count, needed = sum(latency.values()), -log(alpha)
    first, last = min(latency), max(latency)
    bounds = range(first - 1, last + 1)
    higher = dict(zip(bounds, _higher(latency, bounds, count), strict=True))
    lower = bisect_left(bounds, True, key=lambda b: log_e_above(higher[b], count, BEYOND) < needed) - 1
    upper = bisect_left(bounds, True, key=lambda b: log_e_below(higher[b], count, BEYOND) >= needed)
    return (bounds[lower] if lower >= 0 else None), (bounds[upper] if upper < len(bounds) else None)


def above(latency: Mapping[int, int], bucket: int) -> int:
    """Returns how many of the times are above the bound of a bucket."""
    return sum(number for other, number in latency.items() if other > bucket)


def p95(latency: Mapping[int, int]) -> int | None:
    """Returns the bucket that holds the p95 of what was seen, None without any."""
    count, seen = sum(latency.values()), 0
    for bucket in sorted(latency):
        seen += latency[bucket]
        if seen >= (1 - BEYOND) * count:
            return bucket
    return None


def _higher(latency: Mapping[int, int], bounds: range, count: int) -> list[int]:
    left, found = count, []
    for bucket in bounds:
        left -= latency.get(bucket, 0)
        found.append(left)
    return found
