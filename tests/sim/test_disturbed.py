"""Tests in seeded simulations that a disturbed server still answers most of what the CPU that is left allows."""

from random import Random

import pytest

from serving.testing.simulation.disturbed import DISTURBANCES, MLP, Span, play
from serving.testing.simulation.machine import MS, SECOND, Quota, Shared, beside_a_neighbour, between, stalling

NEIGHBOURS, GIVING_WAY, QUOTA, STALLS, HALF = list(DISTURBANCES)[1:]
LONG = Span.of(0.5, 1.5, 4.0)
BRIEF = Span.of(0.5, 1.5, 0.0)


@pytest.mark.parametrize(
    ("disturbance", "load", "least"),
    [
        (NEIGHBOURS, 0.2, 0.99),
        (NEIGHBOURS, 1.3, 0.7),
        (QUOTA, 0.2, 0.99),
        (QUOTA, 1.3, 0.5),
        (STALLS, 0.4, 0.9),
        (STALLS, 1.3, 0.85),
        (HALF, 0.2, 0.99),
        (HALF, 1.3, 0.8),
    ],
)
def test_most_of_what_the_cpu_that_is_left_allows_is_answered_in_time(
    disturbance: str, load: float, least: float
) -> None:
    assert play("Headway", disturbance, load, BRIEF, seed=1).of_possible >= least


@pytest.mark.parametrize("disturbance", [NEIGHBOURS, QUOTA, STALLS, HALF])
def test_soon_after_a_disturbance_all_is_as_before(disturbance: str) -> None:
    assert play("Headway", disturbance, 0.8, LONG, seed=1).recovered_s <= 2.5


@pytest.mark.parametrize("disturbance", [QUOTA, HALF])
def test_in_a_disturbed_overload_it_is_ahead_of_a_server_that_serves_whoever_came_first(disturbance: str) -> None:
    theirs = play("greedy, no drop", disturbance, 1.3, BRIEF, seed=1).of_possible
    assert play("Headway", disturbance, 1.3, BRIEF, seed=1).of_possible > theirs + 0.2


def test_computing_that_gives_way_to_neighbours_loses_most_of_its_answers() -> None:
    assert play("Headway", GIVING_WAY, 0.4, BRIEF, seed=1).of_possible < 0.3


def test_a_neighbour_takes_half_of_a_core_and_more_from_a_thread_that_gives_way() -> None:
    second = 10 * SECOND
    for niceness, share in ((0, 0.5), (5, 0.247)):
        core = Shared(beside_a_neighbour(Random(1), niceness))
        assert second * share / core.done_ns(0, int(second * share)) == pytest.approx(share, rel=0.03)


def test_a_process_stands_in_a_stall_and_only_while_the_disturbance_lasts() -> None:
    core = Shared(between(SECOND, 6 * SECOND, stalling(Random(1))))
    assert core.done_ns(0, 900 * MS) == 900 * MS
    lost_ns = core.done_ns(0, 10 * SECOND) - 10 * SECOND
    assert 0.05 * 5 * SECOND < lost_ns < 0.2 * 5 * SECOND
    assert core.done_ns(7 * SECOND, SECOND) == 8 * SECOND


def test_a_container_stands_once_its_quota_is_used_up_until_the_next_period() -> None:
    container = Quota(0.5, start_ns=0, end_ns=SECOND)
    assert container.spend(0, 30 * MS) == 30 * MS
    assert container.done_ns(40 * MS, 20 * MS) == 60 * MS
    assert container.spend(40 * MS, 30 * MS) == 110 * MS  # 20 ms, then 10 of the next period
    assert container.spend(110 * MS, 10 * MS) == 120 * MS
    assert container.spend(2 * SECOND, 300 * MS) == 2 * SECOND + 300 * MS


def test_the_simulated_model_has_the_times_that_were_measured() -> None:
    assert [round(MLP.law.mean_ns(rows) / MS) for rows in (16, 64, 128)] == [8, 18, 31]
