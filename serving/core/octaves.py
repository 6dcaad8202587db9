"""Buckets for times: 32 in each octave, so that a time is known to 2.2 %, and twice a bound is a bound again.

Pure. Bucket `k` holds the times above `bound_ns(k - 1)` and not above `bound_ns(k)`.
"""

from math import ceil, log2

PER_OCTAVE = 32
_FIRST_NS = 1_000  # the bound of bucket 0


def bucket_of(ns: float) -> int:
    """Returns the bucket of a time. Times up to a microsecond are in bucket 0."""
    return max(0, ceil(PER_OCTAVE * log2(ns / _FIRST_NS))) if ns > _FIRST_NS else 0


def bound_ns(bucket: int) -> float:
    """Returns the upper bound of a bucket; bound_ns(k + PER_OCTAVE) is twice bound_ns(k)."""
    return float(_FIRST_NS * 2.0 ** (bucket / PER_OCTAVE))
