"""Tests the curve of batch time over rows: it never falls, and batches are padded where larger ones are faster."""

from random import Random

import pytest

from serving.core.batcher import Batcher
from serving.core.curve import Curve
from serving.core.latency import LatencyModel
from serving.core.sizes import Sizes
from tests.core.stories import ms, request


def curve(times: dict[int, float], seen: int = 3) -> Curve:
    one = Curve()
    for rows, time in times.items():
        for _ in range(seen):
            one.add(rows, time)
    return one


@pytest.mark.parametrize("seed", range(20))
def test_renewing_one_entry_in_place_gives_what_pooling_everything_gives(seed: int) -> None:
    random = Random(seed)
    renewed, pooled = Curve(), Curve()
    for _ in range(300):
        rows = random.randint(1, 12)
        time = (5 + rows) * random.lognormvariate(0, random.choice((0.01, 0.3)))
        renewed.add(rows, time)
        renewed.pool()
        pooled._fresh = False
        pooled.add(rows, time)
        pooled._fresh = False
        pooled.pool()
        assert renewed.knots == pooled.knots
        assert renewed.times == pooled.times


def test_a_size_that_is_slower_than_a_larger_one_is_padded_and_takes_as_long_as_that() -> None:
    one = curve({1: 1.0, 8: 2.8, 13: 4.6, 15: 4.6, 16: 2.9, 32: 3.6})
    assert [one.fastest_rows(rows) for rows in (1, 8, 13, 15, 16, 32)] == [1, 8, 16, 16, 16, 32]
    assert one.at(13) == one.at(15) == one.at(16) == 2.9
    assert one.at(8) == 2.8


def test_a_size_never_seen_is_tried_as_it_is() -> None:
    one = curve({8: 2.8, 13: 4.6, 16: 2.9})
    assert one.fastest_rows(12) == 12


def test_one_slow_run_of_a_size_does_not_cause_padding() -> None:
    one = curve({8: 2.8, 16: 2.9})
    one.add(13, 9.0)
    assert one.fastest_rows(13) == 13


def test_noise_between_neighbours_pads_no_batch() -> None:
    one = curve({10: 1.03, 11: 1.0, 12: 1.02})
    assert [one.fastest_rows(rows) for rows in (10, 11, 12)] == [10, 11, 12]


def test_a_batch_is_padded_to_the_faster_size_but_never_beyond_the_largest_allowed() -> None:
    def batcher(largest_rows: int) -> Batcher:
        latency = LatencyModel()
        for rows, time_ms in ((1, 1.0), (3, 4.6), (4, 2.0), (8, 2.5)):
            for _ in range(4):
                latency.observe(rows, 1, ms(time_ms))
        return Batcher(latency, Sizes(largest_rows=largest_rows))

    for largest_rows, padded_rows in ((8, 4), (3, 3)):
        one = batcher(largest_rows)
        for _ in range(3):
            one.offer(request())
        batch = one.cut(0, now_ns=0).batch
        assert batch is not None
        assert (batch.rows, batch.padded_rows) == (3, padded_rows)


def test_a_size_within_what_its_neighbours_allow_is_under_no_tension() -> None:
    curve = Curve()
    for rows, time in ((8, 10.0), (16, 14.0), (32, 22.0)):
        curve.add(rows, time)
    assert [curve.tension(rows) for rows in (8, 16, 32)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("time", "sign"), [(2.0, -1), (200.0, 1)])
def test_a_size_far_faster_than_a_smaller_or_slower_than_a_larger_one_is_under_tension(time: float, sign: int) -> None:
    curve = Curve()
    for rows, usual in ((8, 10.0), (32, 22.0)):
        curve.add(rows, usual)
    curve.add(16, time)
    assert curve.tension(16) * sign > 0
    curve.scale(16, 14.0 / time)
    assert curve.tension(16) == 0.0


def test_a_stale_measurement_counts_for_one_batch() -> None:
    curve = Curve()
    for _ in range(10):
        curve.add(64, 30.0)
    assert curve.weight_at(64) == 10.0
    for _ in range(300):
        curve.add(8, 5.0)
    assert curve.weight_at(64) == 1.0
    curve.add(64, 40.0)
    assert curve.at(64) == 35.0
