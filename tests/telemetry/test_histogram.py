"""Tests the histogram, and that adding a sorted list at once equals adding its values one by one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.telemetry.histogram import Histogram

BOUNDS = (10, 20, 50, 100)


@given(st.lists(st.integers(-20, 150), min_size=1, max_size=40), st.integers(0, 60))
def test_a_sorted_list_is_counted_as_its_values_are_one_by_one(values: list[int], shift: int) -> None:
    at_once, one_by_one = Histogram(BOUNDS), Histogram(BOUNDS)
    at_once.add_sorted(sorted(values), shift)
    for value in values:
        one_by_one.add(value + shift)
    assert at_once == one_by_one


def test_an_edge_belongs_to_the_bucket_below_it() -> None:
    histogram = Histogram(BOUNDS)
    histogram.add(20)
    histogram.add(20.5)
    assert histogram.counts == [0, 1, 1, 0, 0]


def test_a_quantile_lies_within_its_bucket_and_beyond_the_last_edge_at_it() -> None:
    histogram = Histogram(BOUNDS)
    assert histogram.quantile(0.5) is None
    histogram.add_sorted([15] * 50 + [60] * 50)
    assert histogram.quantile(0.25) == pytest.approx(15.0)
    assert histogram.quantile(0.75) == pytest.approx(75.0)
    histogram.add_sorted([1000] * 900)
    assert histogram.quantile(0.99) == 100
