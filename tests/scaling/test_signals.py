"""Tests that the readings of replicas are combined into the signal of a window."""

from dataclasses import replace

from serving.scaling.signals import Reading, Signal, window

FIRST = Reading(at_ns=5_000, queued=0, wait_ns=0, busy_ns=100, lanes=1, rows=10, row_ns=10, received=10, missed=0)


def later(**changes: int) -> Reading:
    values: dict[str, int] = {"at_ns": 6_000, "queued": 4, "wait_ns": 30, "busy_ns": 600, "rows": 30, "row_ns": 10}
    values |= {"received": 30, "missed": 2}
    return Reading(lanes=1, **(values | changes))


def test_two_readings_of_each_replica_are_one_signal() -> None:
    other = later(queued=6, wait_ns=50, busy_ns=1_100, rows=90, received=10, missed=0)
    assert window([(FIRST, later()), (FIRST, other)]) == Signal(
        replicas=2, queued=10, wait_ns=40, busy_ratio=0.75, load_ratio=0.5, received=20, missed=2
    )
    assert window([(FIRST, later()), (FIRST, other)]).work == 1.0


def test_a_replica_that_has_said_nothing_new_is_not_counted() -> None:
    assert window([(FIRST, FIRST)]) == Signal()
    assert window([]) == Signal()


def test_several_lanes_share_the_time() -> None:
    first = Reading(at_ns=0, queued=0, wait_ns=0, busy_ns=0, lanes=2, rows=0, row_ns=1, received=0, missed=0)
    two = [first, replace(first, at_ns=1_000, busy_ns=1_000)]
    assert window([(two[0], two[1])]).busy_ratio == 0.5


def test_a_reading_survives_the_transport_through_ray_as_numbers() -> None:
    stats = {name: float(value) for name, value in FIRST.as_stats().items()}
    assert Reading.from_stats(stats | {"running_requests": 3.0}) == FIRST
    assert Reading.from_stats({"running_requests": 3.0}) is None


def test_computing_rows_one_by_one_keeps_a_device_busy_but_is_little_work() -> None:
    signal = window([(FIRST, later(busy_ns=1_100, rows=11))])
    assert (signal.busy_ratio, signal.load_ratio) == (1.0, 0.01)


def test_rows_that_are_cheaper_than_the_largest_are_no_more_work_than_they_took() -> None:
    assert window([(FIRST, later(rows=1_000))]).load_ratio == 0.5
