"""Tests the deferral with several lanes: batches are deferred while lanes are scarce, and only then."""

import pytest

from serving.core.batcher import Batcher
from serving.core.deferral import LARGEST_SHARE, Deferral
from serving.core.latency import LatencyModel
from serving.core.request import Request
from serving.core.sizes import Sizes
from serving.testing.simulation.arrivals import poisson
from serving.testing.simulation.capacity import run_at
from serving.testing.simulation.field import greedy
from serving.testing.simulation.headway import Headway
from serving.testing.simulation.laws import SET_A, SETS, Setting
from tests.core.stories import MS, request

SIZES = Sizes(largest_rows=64)


def known() -> LatencyModel:
    """Returns a latency model that has learned 5 ms per batch plus 1 ms per row."""
    latency = LatencyModel()
    for rows in (1, 2, 4, 8, 16, 32, 64):
        for _ in range(4):
            latency.observe(rows, 1, (5 + rows) * MS)
    return latency


LATENCY = known()


def due_ms(deferral: Deferral, head: Request, rows: int, now_ms: int) -> float:
    return deferral.due_ns(head, rows, 1, LATENCY, SIZES, now_ms * MS) / MS


def test_without_scarce_lanes_no_batch_is_deferred() -> None:
    deferral = Deferral()
    for _ in range(100):
        assert due_ms(deferral, request(budget_ms=25), rows=1, now_ms=2) == 2


def test_after_the_most_urgent_request_had_to_wait_for_a_lane_batches_are_deferred() -> None:
    deferral = Deferral()
    for _ in range(10):
        due_ms(deferral, request(budget_ms=25), rows=4, now_ms=14)
    assert deferral.share > 0.7
    early = due_ms(deferral, request(budget_ms=25), rows=1, now_ms=1)
    assert 10 < early < 17  # with one more row it could start at 18 ms at the latest
    assert due_ms(deferral, request(budget_ms=25), rows=64, now_ms=1) == 1  # the batch is full
    no_deadline = request()
    assert due_ms(deferral, no_deadline, rows=1, now_ms=1) == 1


def test_deferral_itself_does_not_count_as_waiting_for_a_lane() -> None:
    deferral = Deferral()
    for _ in range(10):
        due_ms(deferral, request(budget_ms=25), rows=4, now_ms=30)
    assert deferral.share == pytest.approx(LARGEST_SHARE, abs=0.01)
    for _ in range(1000):
        due_ns = deferral.due_ns(request(budget_ms=25), 1, 1, LATENCY, SIZES, 0)
        deferral.due_ns(request(budget_ms=25), 1, 1, LATENCY, SIZES, due_ns)
    assert deferral.share == 0.0


def test_a_rush_is_over_when_no_lane_has_anything_to_do() -> None:
    deferral = Deferral()
    deferral.share = LARGEST_SHARE
    for _ in range(5):
        due_ns = deferral.due_ns(request(budget_ms=25), 1, 1, LATENCY, SIZES, 0, all_idle=True)
        deferral.due_ns(request(budget_ms=25), 1, 1, LATENCY, SIZES, due_ns, all_idle=True)
    assert deferral.share == 0.0


def test_four_lanes_sustain_more_load_than_greedy_lanes() -> None:
    """Compares with greedy lanes, which sustain only 0.66 of the fluid capacity here."""
    ours = run_at(SET_A, lambda: four_lanes(SET_A), poisson, 0.78, count=20_000, seed=5, lanes=4)
    theirs = run_at(SET_A, greedy(SET_A), poisson, 0.78, count=20_000, seed=5, lanes=4)
    assert ours.in_time >= 0.985
    assert theirs.in_time < 0.9


def test_a_busy_lane_gets_no_second_batch_while_another_is_idle() -> None:
    batcher = Batcher(LATENCY, SIZES, lane_count=2, batches_per_lane=2, lead_ns=100 * MS)
    for lane, taken in ((0, True), (0, False), (1, True), (0, True), (0, False)):
        batcher.offer(request())
        assert (batcher.cut(lane, 0).batch is not None) is taken


@pytest.mark.parametrize("setting", SETS, ids=lambda setting: setting.name)
def test_at_low_load_four_lanes_are_as_fast_as_without_deferral(setting: Setting) -> None:
    ours = run_at(setting, lambda: four_lanes(setting), poisson, 0.25, count=5_000, seed=5, lanes=4)
    theirs = run_at(setting, greedy(setting), poisson, 0.25, count=5_000, seed=5, lanes=4)
    assert ours.mean_ms <= 1.05 * theirs.mean_ms


def four_lanes(setting: Setting) -> Headway:
    return Headway(setting.law, setting.max_rows, lanes=4)
