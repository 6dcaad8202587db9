"""Tests the buckets of times: their bounds, and that twice a bound is a bound."""

import pytest

from serving.core.octaves import PER_OCTAVE, bound_ns, bucket_of


@pytest.mark.parametrize("ns", [1, 999, 1000, 1001, 5_000_000, 20_123_456, 10**10, 10**13])
def test_a_time_is_above_the_bound_before_its_bucket_and_not_above_its_own(ns: int) -> None:
    bucket = bucket_of(ns)
    assert ns <= bound_ns(bucket) * (1 + 1e-12)
    assert bucket == 0 or ns > bound_ns(bucket - 1)


def test_an_octave_further_is_twice_as_long() -> None:
    assert bound_ns(40 + PER_OCTAVE) == 2 * bound_ns(40)
    assert bucket_of(2 * 20e6) == bucket_of(20e6) + PER_OCTAVE
