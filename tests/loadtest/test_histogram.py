"""Histograms of durations: the error is bounded."""

import random

import pytest

from loadtest.histogram import Histogram, merged
from loadtest.report import quantile


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.99, 0.999, 1.0])
def test_a_quantile_is_within_half_a_percent_of_the_exact_one(share: float) -> None:
    generator = random.Random(1)
    values = sorted(round(generator.lognormvariate(17, 1.5)) for _ in range(5000))
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    assert histogram.quantile(share) == pytest.approx(quantile(values, share), rel=0.0051)


def test_the_parts_merged_are_the_whole() -> None:
    whole, parts = Histogram(), [Histogram(), Histogram()]
    for value in (0, 1, 5, 1_000_000, 7):
        whole.add(value)
        parts[value % 2].add(value)
    assert merged(parts) == whole
    assert Histogram.from_json(whole.as_json()) == whole


def test_an_empty_histogram_has_no_quantiles() -> None:
    assert Histogram().quantile(0.5) is None
    assert Histogram().mean() is None


def test_instants_before_their_plan_count_as_not_late() -> None:
    histogram = Histogram()
    histogram.add(-5)
    assert histogram.quantile(1.0) == 0.0
