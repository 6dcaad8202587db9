"""Tests the target and its reason after successive windows."""

from dataclasses import replace

import pytest

from serving.scaling.policy import SECOND_NS, Cause, History, Target
from serving.scaling.signals import Signal
from tests.scaling.simulation import POLICY

CALM = Signal(replicas=4, wait_ns=0, busy_ratio=0.9, load_ratio=0.6, received=100)
WAITING = replace(CALM, wait_ns=400_000_000, busy_ratio=1.0)


def story(*windows: Signal, current: int = 4, memory: History | None = None) -> list[Target]:
    """Returns one decision per second. Replicas start and stop immediately."""
    memory = memory or History()
    targets = []
    for second, signal in enumerate(windows, 1):
        targets.append(POLICY.decide(signal, current, memory, second * SECOND_NS))
        current = targets[-1].replicas
    return targets


def test_a_wait_that_lasts_asks_for_more_in_proportion_and_says_how_long_it_was() -> None:
    targets = story(WAITING, WAITING, WAITING)
    assert [target.replicas for target in targets] == [4, 4, 7]
    assert targets[-1].cause is Cause.WAIT
    assert targets[-1].reason == "a wait of 400 ms, 250 ms are allowed"
    assert "watching whether it lasts" in targets[0].reason


def test_a_wait_that_is_over_in_a_moment_changes_nothing() -> None:
    assert {target.replicas for target in story(WAITING, WAITING, CALM, WAITING, WAITING, CALM)} == {4}


def test_the_target_at_most_doubles_and_waits_for_replicas_that_start() -> None:
    flood = replace(WAITING, wait_ns=90 * SECOND_NS)
    targets = story(*[flood] * 20)
    assert targets[2].replicas == 8
    assert "still starting" in targets[6].reason
    assert targets[-1].replicas == 8, "only four report: the others are still starting"
    assert story(*[flood] * 40)[-1].replicas == 10, "but not for ever"


def test_a_long_queue_raises_the_target_even_if_it_moves_fast() -> None:
    assert story(*[replace(CALM, queued=4 * 2000)] * 3)[-1].cause is Cause.QUEUE


def test_misses_raise_the_target_only_if_the_devices_are_busy() -> None:
    missing = replace(CALM, missed=20)
    assert story(*[missing] * 3)[-1] == Target(
        replicas=5, cause=Cause.MISSES, reason="20 of 100 requests expired or were refused"
    )
    assert story(*[replace(missing, busy_ratio=0.2)] * 3)[-1].cause is Cause.STEADY


def test_the_bounds_hold_and_are_named_as_the_reason() -> None:
    assert story(CALM, current=1)[-1] == Target(replicas=3, cause=Cause.BOUNDS, reason="the bounds are 3 to 10")
    at_most = story(*[WAITING] * 3, current=10)[-1]
    assert (at_most.replicas, at_most.cause) == (10, Cause.BOUNDS)


def test_after_ten_minutes_of_little_work_the_target_falls_and_leaves_spare_capacity() -> None:
    targets = story(*[replace(CALM, load_ratio=0.3)] * 610)
    went = next(second for second, target in enumerate(targets) if target.replicas < 4)
    assert went == 600
    assert (targets[went].replicas, targets[went].cause) == (3, Cause.IDLE)
    assert targets[went].reason == "1.20 devices' work for 600 s: 3 replicas suffice"


def test_a_moment_of_pressure_starts_the_ten_minutes_again() -> None:
    little = replace(CALM, load_ratio=0.3)
    assert {target.replicas for target in story(*[little] * 590, WAITING, *[little] * 590)} == {4}


def test_at_most_half_of_the_replicas_are_removed_at_a_time() -> None:
    idle = Signal(replicas=10, received=1)
    assert story(*[idle] * 1300, current=10)[601].replicas == 5


@pytest.mark.parametrize(("received", "left"), [(0, 0), (1, 1)])
def test_the_last_replica_goes_only_if_nobody_asked_at_all(received: int, left: int) -> None:
    policy, memory, current = replace(POLICY, min_replicas=0), History(), 1
    for second in range(1, 610):
        current = policy.decide(Signal(replicas=1, received=received), current, memory, second * SECOND_NS).replicas
    assert current == left


def test_nothing_is_decided_about_replicas_that_do_not_report() -> None:
    assert story(*[Signal()] * 700) == [Target(replicas=4, cause=Cause.STEADY, reason="no replica reports yet")] * 700
