"""Tests the pauses between batches on a CPU with a quota, with half a core of two in periods of 100 ms."""

from dataclasses import replace
from math import inf

from serving.core.pace import LONGEST_SHARE, REFILL_SHARE, SAVED_SHARE, CpuQuota, Pace
from tests.core.stories import MS, batcher, ms, request

BUDGET_NS = 50 * MS
HALF = CpuQuota(cpu_ns=50 * MS, period_ns=100 * MS, cores=2)
RATE = REFILL_SHARE / 2


def paced(quota: CpuQuota | None = HALF) -> Pace:
    pace = Pace(BUDGET_NS)
    pace.limit(0, quota, used_ns=0)
    return pace


def test_a_group_that_keeps_all_its_cores_busy_stands_for_the_rest_of_the_period() -> None:
    assert HALF.longest_stop_ns() == 75 * MS
    assert CpuQuota(cpu_ns=300 * MS, period_ns=100 * MS, cores=2).longest_stop_ns() == 0


def test_without_a_quota_there_are_no_pauses() -> None:
    pace = paced(None)
    pace.follow(10 * MS, used_ns=500 * MS)
    assert (pace.is_limited, pace.ready_ns, pace.cores) == (False, 0, inf)


def test_a_quota_that_stops_the_group_only_briefly_is_left_alone() -> None:
    assert not paced(CpuQuota(cpu_ns=190 * MS, period_ns=100 * MS, cores=2)).is_limited
    assert not paced(CpuQuota(cpu_ns=5 * MS, period_ns=10 * MS, cores=2)).is_limited
    assert paced().is_limited


def test_what_was_used_beyond_the_quota_is_waited_for() -> None:
    pace = paced()
    pace.batch_began(0)
    pace.follow(10 * MS, used_ns=9 * MS)  # 4.5 ms have come in
    assert pace.ready_ns == 10 * MS + int(4.5 * MS / RATE)
    pace.follow(20 * MS, used_ns=9 * MS)
    assert pace.ready_ns == 20 * MS


def test_what_was_saved_before_is_not_waited_for_but_not_everything_can_be_saved() -> None:
    pace = paced()
    pace.follow(10_000 * MS, used_ns=0)
    pace.batch_began(10_000 * MS)
    saved_ns = int(SAVED_SHARE * HALF.cpu_ns)
    pace.follow(10_000 * MS, used_ns=saved_ns)
    assert pace.ready_ns == 10_000 * MS
    pace.follow(10_000 * MS, used_ns=saved_ns + 9 * MS)
    assert pace.ready_ns == 10_000 * MS + int(9 * MS / RATE)


def test_a_pause_ends_although_other_processes_use_the_quota_up() -> None:
    pace = paced()
    pace.batch_began(3 * MS)
    for now_ms in range(5, 100, 5):
        pace.follow(now_ms * MS, used_ns=2 * now_ms * MS)
        assert pace.ready_ns <= 3 * MS + LONGEST_SHARE * BUDGET_NS


def test_a_new_quota_begins_with_an_even_balance() -> None:
    pace = paced()
    pace.batch_began(0)
    pace.follow(10 * MS, used_ns=20 * MS)
    assert pace.ready_ns > 10 * MS
    pace.limit(11 * MS, replace(HALF, cpu_ns=40 * MS), used_ns=20 * MS)
    assert (pace.ready_ns, pace.cores) == (0, 0.4)
    pace.follow(11 * MS, used_ns=20 * MS)
    assert not pace.is_short
    pace.limit(12 * MS, None, used_ns=20 * MS)
    assert not pace.is_limited


def test_cpu_time_is_short_until_a_second_after_the_last_debt() -> None:
    pace = paced()
    pace.follow(MS, used_ns=0)
    assert not pace.is_short
    pace.follow(2 * MS, used_ns=3 * MS)
    assert pace.is_short
    pace.follow(1001 * MS, used_ns=3 * MS)
    assert pace.is_short
    pace.follow(1002 * MS, used_ns=3 * MS)
    assert not pace.is_short


def test_a_batch_waits_for_the_end_of_the_pause_and_takes_all_that_gathered_meanwhile() -> None:
    b = batcher(pace=paced())
    b.offer(request())
    first = b.cut(0, 0).batch
    assert first is not None
    b.settle(first, ms(6))
    b.pace.follow(ms(6), used_ns=ms(9))
    b.offer(request(at_ms=6))
    cut = b.cut(0, ms(6))
    assert (cut.batch, cut.ask_again_ns) == (None, b.pace.ready_ns)
    b.offer(request(at_ms=10))
    second = b.cut(0, b.pace.ready_ns).batch
    assert second is not None
    assert len(second.requests) == 2


def test_a_request_that_would_be_late_after_the_pause_is_refused_on_arrival() -> None:
    b = batcher(pace=paced())
    b.offer(request())
    first = b.cut(0, 0).batch
    assert first is not None
    hurried = request(budget_ms=25)
    b.settle(first, ms(6))
    b.offer(request())
    assert b.admit(hurried, ms(6)) is None
    b.pace.follow(ms(6), used_ns=ms(30))
    assert b.admit(hurried, ms(6)) is not None


def test_while_cpu_time_is_short_no_batch_is_cut_ahead() -> None:
    free, limited = batcher(batches_per_lane=2), batcher(batches_per_lane=2, pace=paced())
    for b in (free, limited):
        b.offer(request())
        assert b.cut(0, 0).batch is not None
        b.offer(request())
    assert free.cut(0, ms(1)).ask_again_ns is not None
    assert limited.cut(0, ms(1)).ask_again_ns is not None
    limited.pace.follow(ms(1), used_ns=ms(2))
    assert limited.cut(0, ms(1)).ask_again_ns is None
