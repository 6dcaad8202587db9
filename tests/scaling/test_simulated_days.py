"""Tests scaling over simulated days: it follows the load, ignores noise and never oscillates."""

from collections.abc import Callable
from dataclasses import replace
from math import pi, sin
from random import Random

import pytest

from serving.scaling.policy import Cause
from tests.scaling.simulation import PER_REPLICA, POLICY, simulate

DAY_S = 86_400
SEEDS = range(3)


def flat(rate: float) -> Callable[[int], float]:
    return lambda second: rate


def daily(low: float, high: float) -> Callable[[int], float]:
    return lambda second: low + (high - low) * (1 - sin(2 * pi * second / DAY_S + pi / 2)) / 2


def wandering(seed: int, low: float, high: float) -> Callable[[int], float]:
    """Returns a load with a new level every five minutes and random bursts of some seconds."""
    random = Random(f"wandering {seed}")
    levels = [random.uniform(low, high) for _ in range(3 * DAY_S // 300 + 1)]
    bursts = {random.randrange(3 * DAY_S) for _ in range(200)}
    spread = {second + offset for second in bursts for offset in range(random.randint(1, 8))}
    return lambda second: levels[second // 300] * (3.0 if second in spread else 1.0)


@pytest.mark.parametrize(("seed", "busy"), list(enumerate([0.45, 0.6, 0.75, 0.85])))
def test_a_flat_load_within_the_band_changes_nothing_for_a_day(seed: int, busy: float) -> None:
    story = simulate(flat(busy * 3 * PER_REPLICA), DAY_S, seed)
    assert story.changes == []
    assert story.missed == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_flat_load_above_the_band_is_met_once_and_then_the_target_is_stable(seed: int) -> None:
    story = simulate(flat(4.2 * PER_REPLICA), DAY_S, seed)
    assert [after for _, _, after, _ in story.changes][-1] >= 5
    assert story.reversals_s() == []
    assert story.changes[-1][0] < 120


@pytest.mark.parametrize("seed", SEEDS)
def test_a_tenfold_step_is_answered_within_five_seconds_and_the_refusals_end(seed: int) -> None:
    story = simulate(lambda second: 0.6 * PER_REPLICA * (10 if second > 600 else 1), 1200, seed)
    began = story.changes[0]
    assert began[0] - 600 <= 5
    assert began[3] in (Cause.WAIT, Cause.MISSES)
    until_met = simulate(lambda second: 0.6 * PER_REPLICA * (10 if second > 600 else 1), 700, seed)
    assert story.missed == until_met.missed, "nothing is refused any more"


@pytest.mark.parametrize("seed", SEEDS)
def test_over_a_day_the_target_changes_direction_no_more_often_than_the_load(seed: int) -> None:
    story = simulate(daily(0.5 * PER_REPLICA, 7 * PER_REPLICA), 3 * DAY_S, seed)
    assert len(story.reversals_s()) <= 6
    assert all(apart_s > 3600 for apart_s in story.reversals_s())
    assert story.missed < 0.001 * story.received
    assert story.replica_seconds < 0.75 * 10 * 3 * DAY_S, "less than ten all the time"


@pytest.mark.parametrize("seed", SEEDS)
def test_with_a_wandering_load_the_target_never_falls_soon_after_it_rose(seed: int) -> None:
    story = simulate(wandering(seed, 1.0 * PER_REPLICA, 6 * PER_REPLICA), 3 * DAY_S, seed)
    downs = [second for second, before, after, _ in story.changes if after < before]
    ups = [second for second, before, after, _ in story.changes if after > before]
    assert all(down - max((up for up in ups if up < down), default=-DAY_S) >= 600 for down in downs)
    assert story.missed < 0.005 * story.received


@pytest.mark.parametrize("seed", SEEDS)
def test_a_model_that_is_slow_at_half_load_is_not_scaled_down_again_and_again(seed: int) -> None:
    """Each replica is slow above half load: three replicas would have spare capacity, but would make requests wait."""
    story = simulate(flat(1.75 * PER_REPLICA), DAY_S, seed, extra_wait_s=0.3)
    assert len(story.changes) <= 2


@pytest.mark.parametrize("seed", SEEDS)
def test_a_model_without_requests_at_night_is_scaled_to_zero_once(seed: int) -> None:
    policy = replace(POLICY, min_replicas=0)
    story = simulate(lambda second: 20.0 if second % DAY_S < DAY_S // 2 else 0.0, DAY_S, seed, policy)
    assert [(before, after, cause) for _, before, after, cause in story.changes] == [(1, 0, Cause.IDLE)]
    assert story.changes[0][0] - DAY_S // 2 == pytest.approx(600, abs=5)
