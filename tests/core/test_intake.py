"""Tests the bound on requests in flight, with numbers and with a simulated replica for which reading costs work too."""

from collections import deque
from random import Random

import pytest

from serving.core.intake import GROWTH, LEAST, SLOW_GROWTH, UNBOUNDED, WINDOW_NS, Intake, least_in_flight
from serving.core.sizes import Sizes
from tests.core.stories import MS, latency

BUDGET_NS = 50 * MS
STEP_NS = 10 * MS
CAPACITY = 10.0  # units of work per step; a request takes one: a part to be read, the rest to be computed
READING = 0.4


class Windows:
    """A bound that lives through windows of the default length."""

    def __init__(self) -> None:
        self._intake = Intake(BUDGET_NS)
        self._now_ns = 0
        self._intake.ended(0, 0)

    def pass_one(self, *, in_flight: int, completed: int = 0, missed: int = 0) -> int:
        """Returns the bound after a window with these counts."""
        self._now_ns += WINDOW_NS
        self._intake.ended(self._now_ns, in_flight, completed=completed, missed=missed)
        return self._intake.bound


def overloaded(times: float, *, steps: int = 600, bounded: bool = True) -> float:
    """Returns the share of its capacity that a replica serves in time, asked for `times` its capacity."""
    intake = Intake(BUDGET_NS)
    unread: deque[int] = deque()  # instants of arrival; let in and not read yet
    queue: deque[int] = deque()
    served, asked = 0, 0.0
    for step in range(steps):
        now_ns = step * STEP_NS
        work = CAPACITY
        asked += times * CAPACITY
        while asked >= 1:
            asked -= 1
            if not bounded or len(unread) + len(queue) < intake.bound:
                unread.append(now_ns)
        completed, missed, in_flight = 0, 0, len(unread) + len(queue)
        while unread and work >= READING:  # reading goes before computing
            work -= READING
            arrived_ns = unread.popleft()
            if now_ns + STEP_NS - arrived_ns > BUDGET_NS:
                missed += 1
            else:
                queue.append(arrived_ns)
        while queue and work >= 1 - READING:
            if now_ns + STEP_NS - queue.popleft() > BUDGET_NS:
                missed += 1
            else:
                work -= 1 - READING
                completed += 1
        intake.ended(now_ns, in_flight, completed=completed, missed=missed)
        served += completed if step >= steps // 2 else 0
    return served / (CAPACITY * (steps - steps // 2))


@pytest.mark.parametrize("times", [1.5, 2, 4, 10])
def test_an_overloaded_replica_serves_nearly_what_it_can(times: float) -> None:
    assert overloaded(times) > 0.8


@pytest.mark.parametrize("times", [2, 4, 10])
def test_without_a_bound_it_reads_what_it_cannot_serve(times: float) -> None:
    assert overloaded(times, bounded=False) < 0.4


@pytest.mark.parametrize("times", [0.2, 0.5, 0.9])
def test_a_replica_that_is_not_overloaded_refuses_nobody(times: float) -> None:
    assert overloaded(times) == pytest.approx(times, abs=0.02)


def test_the_bound_falls_by_half_of_the_share_that_missed() -> None:
    windows = Windows()
    assert windows.pass_one(in_flight=200, missed=100) == 100
    assert windows.pass_one(in_flight=100, missed=100) == 50
    assert windows.pass_one(in_flight=50, completed=80, missed=20) == 45


def test_it_does_not_fall_below_what_littles_law_allows() -> None:
    # 120 completed in 100 ms, and 30 ms (0.6 of the budget) for each.
    assert Windows().pass_one(in_flight=40, completed=120, missed=300) == 36


def test_it_never_falls_to_nothing_and_rises_again() -> None:
    windows = Windows()
    for _ in range(20):
        bound = windows.pass_one(in_flight=100, missed=100)
        windows.pass_one(in_flight=4, missed=100)
    assert bound == LEAST
    for _ in range(80):
        bound = windows.pass_one(in_flight=bound, completed=100)
    assert bound == UNBOUNDED


def test_it_rises_quickly_if_it_is_used_up_and_slowly_otherwise() -> None:
    windows = Windows()
    windows.pass_one(in_flight=256, missed=100)
    assert windows.pass_one(in_flight=20, completed=100) == 128 + 128 // SLOW_GROWTH
    assert windows.pass_one(in_flight=128, completed=100) == 130 + 130 // GROWTH


def test_a_few_that_miss_are_left_to_the_scheduler() -> None:
    assert Windows().pass_one(in_flight=200, completed=90, missed=10) == UNBOUNDED


def test_a_quiet_model_is_not_bounded_because_of_one_late_answer() -> None:
    windows = Windows()
    for _ in range(100):
        assert windows.pass_one(in_flight=1, completed=0, missed=1) == UNBOUNDED


def test_with_a_long_budget_it_counts_for_as_long() -> None:
    intake = Intake(1000 * MS)
    intake.ended(0, 0)
    intake.ended(WINDOW_NS, 10, missed=100)
    assert intake.bound == UNBOUNDED
    intake.ended(1000 * MS, 10, missed=100)
    assert intake.bound < UNBOUNDED


def beside_other_work(asked_per_s: int, *, cheap: bool, windows: int = 200) -> float:
    """Returns the share of requests that are let in if other work on the machine makes a third of them late, whatever
    is in flight: each takes half a window, since everything waits for a core."""
    intake = Intake(BUDGET_NS, cheap=cheap)
    intake.ended(0, 0)
    asked = asked_per_s * WINDOW_NS // 10**9
    let_in = 0
    for window in range(1, windows + 1):
        ended = min(asked, 2 * intake.bound)
        intake.ended(window * WINDOW_NS, ended // 2, completed=ended - ended // 3, missed=ended // 3)
        let_in += ended
    return let_in / (asked * windows)


def test_beside_other_work_a_moderate_load_is_not_refused_in_front() -> None:
    assert beside_other_work(400, cheap=True) == 1.0
    assert beside_other_work(400, cheap=False) < 0.7


def test_beside_other_work_a_flood_is_bounded_to_what_is_cheap_to_refuse() -> None:
    assert 0.05 < beside_other_work(6000, cheap=True) < 0.2
    assert beside_other_work(6000, cheap=False) < 0.05


def test_times_that_vary_as_on_a_disturbed_machine_do_not_let_the_bound_fall_to_a_few_requests() -> None:
    model, sizes, random = latency(fixed_ms=5, per_row_ms=0.2, up_to=128), Sizes(largest_rows=128), Random(1)
    least, with_margin = [], []
    for _ in range(400):
        rows = random.randint(6, 32)
        model.observe(rows, 1, int((5 + 0.2 * rows) * MS * random.lognormvariate(0.4, 0.6)))
        least.append(least_in_flight(model, sizes, BUDGET_NS))
        with_margin.append(model.largest_feasible_rows(BUDGET_NS // 2, 1, 128))
    assert min(with_margin) == 0  # a plan with the margin for deadlines finds no batch that fits
    assert min(least) >= 10


def test_the_bound_stays_above_two_batches_in_which_a_row_costs_hardly_more_than_in_the_best() -> None:
    sizes = Sizes(largest_rows=128)
    # 0.2 ms more than a row of the best batch, 100 rows in 25 ms: 20 rows in 9 ms.
    assert 36 <= least_in_flight(latency(fixed_ms=5, per_row_ms=0.2, up_to=128), sizes, BUDGET_NS) <= 44
    assert least_in_flight(latency(fixed_ms=0.3, per_row_ms=0.001, up_to=128), sizes, BUDGET_NS) == LEAST
    assert least_in_flight(latency(fixed_ms=40, per_row_ms=1, up_to=128), sizes, BUDGET_NS) == LEAST  # none fits
    intake = Intake(BUDGET_NS, least=lambda: 40)
    for window in range(30):
        intake.ended(window * WINDOW_NS, 50, missed=100)
    assert intake.bound == 40
