"""Schedules are numbers: nothing here waits."""

from itertools import pairwise
from statistics import mean, pstdev

import pytest

from loadtest.arrivals import ARRIVALS, SECOND_NS, constant, poisson


def test_constant_arrivals_are_evenly_spaced_and_begin_at_once() -> None:
    assert constant(rate=4, seconds=1) == (0, 250_000_000, 500_000_000, 750_000_000)


def test_constant_arrivals_do_not_drift_where_the_gap_is_no_whole_number() -> None:
    schedule = constant(rate=3, seconds=1000)
    assert len(schedule) == 3000
    assert schedule[2997] == 999 * SECOND_NS


def test_poisson_arrivals_keep_the_rate_and_stay_within_the_time() -> None:
    schedule = poisson(rate=1000, seconds=20, seed=1)
    assert len(schedule) == pytest.approx(20_000, rel=0.03)
    assert schedule[-1] < 20 * SECOND_NS
    assert list(schedule) == sorted(schedule)


def test_gaps_of_poisson_arrivals_vary_as_much_as_they_are_long() -> None:
    schedule = poisson(rate=1000, seconds=20, seed=2)
    gaps = [later - earlier for earlier, later in pairwise(schedule)]
    assert pstdev(gaps) == pytest.approx(mean(gaps), rel=0.05)


@pytest.mark.parametrize("kind", sorted(ARRIVALS))
def test_equal_seeds_give_equal_schedules(kind: str) -> None:
    assert ARRIVALS[kind](100, 1, 7) == ARRIVALS[kind](100, 1, 7)


def test_another_seed_gives_another_schedule() -> None:
    assert poisson(100, 1, seed=1) != poisson(100, 1, seed=2)


@pytest.mark.parametrize("kind", sorted(ARRIVALS))
@pytest.mark.parametrize(("rate", "seconds"), [(0, 1), (-1, 1), (1, 0), (float("nan"), 1)])
def test_a_rate_or_time_that_is_not_positive_is_refused(kind: str, rate: float, seconds: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        ARRIVALS[kind](rate, seconds, 0)
