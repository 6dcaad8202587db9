"""Tests the window: the largest batch that is in time, unless an earlier start loses fewer requests.

A batch takes 5 ms plus 1 ms per row.
"""

from hypothesis import given
from hypothesis import strategies as st

from serving.core.seats import Seats
from serving.core.sizes import Sizes
from serving.core.window import arrival_rate, find_window
from tests.core.stories import latency, ms, request


def seats(*, fixed_ms: float = 5.0, per_row_ms: float = 1.0, max_rows: int = 64, start_ms: float = 0.0) -> Seats:
    model = latency(fixed_ms=fixed_ms, per_row_ms=per_row_ms)
    return Seats(model, Sizes(largest_rows=max_rows), ms(start_ms), 1, max_rows)


@given(
    budgets=st.lists(st.integers(10, 120), min_size=1, max_size=40),
    max_rows=st.integers(1, 64),
    fixed=st.integers(1, 20),
)
def test_without_a_next_batch_no_other_start_allows_a_larger_batch(
    budgets: list[int], max_rows: int, fixed: int
) -> None:
    line = [request(budget_ms=100, at_ms=budget - 100) for budget in sorted(budgets)]
    these = seats(fixed_ms=fixed, max_rows=max_rows)

    def batch_from(start: int) -> int:
        return min(len(line) - start, these.rows_until(line[start].deadline_ns))

    window = find_window(line, these, comes_next=False)
    best = max(batch_from(start) for start in range(len(line)))
    if best > 0:
        assert window.rows == best
        assert window.start == next(start for start in range(len(line)) if batch_from(start) == best)


@given(
    waiting=st.lists(st.tuples(st.integers(10, 120), st.integers(1, 5)), min_size=1, max_size=40),
    max_rows=st.integers(1, 64),
)
def test_with_mixed_priorities_a_window_is_full_of_requests_in_time(
    waiting: list[tuple[int, int]], max_rows: int
) -> None:
    line = [request(budget_ms=budget, priority=priority) for budget, priority in waiting]
    line.sort(key=lambda one: one.rank_ns)
    these = seats(max_rows=max_rows)
    window = find_window(line, these, comes_next=False)
    if min(one.deadline_ns for one in line) >= these.finish_ns(1):  # each request could be in time alone
        able = [one for one in line if one.deadline_ns >= these.finish_ns(window.rows)]
        assert len(able) >= window.rows
        if window.start:
            more = these.finish_ns(window.rows + 1)
            assert window.rows == max_rows or len([one for one in line if one.deadline_ns >= more]) <= window.rows


def test_an_urgent_request_with_a_late_deadline_does_not_hide_the_tight_deadline_behind_it() -> None:
    urgent = request(budget_ms=500, priority=1)
    line = [urgent, *(request(budget_ms=15, priority=2) for _ in range(30)), request(budget_ms=500, priority=3)]
    window = find_window(line, seats())
    assert seats().finish_ns(window.rows) <= ms(15)
    assert window.rows >= 8


def test_below_capacity_no_request_is_passed_over() -> None:
    line = [request(budget_ms=100) for _ in range(5)]
    assert find_window(line, seats())[:2] == (0, 5)


def test_requests_with_several_rows_count_by_rows() -> None:
    line = [request(rows=3, budget_ms=100) for _ in range(4)]
    assert find_window(line, seats())[:2] == (0, 12)


def test_in_a_short_rush_the_oldest_get_a_small_batch_and_the_others_are_in_time_in_the_next() -> None:
    # Two requests with 10 ms left arrived together, eight more since then, one per 4 ms: 4 rows fit now, 6 in 9 ms.
    line = [request(at_ms=-30, budget_ms=40) for _ in range(2)]
    line += [request(at_ms=-28 + 4 * number, budget_ms=40) for number in range(8)]
    now_then_next = find_window(line, seats())
    assert now_then_next.start == 0
    assert now_then_next.rows < len(line)
    only_now = find_window(line, seats(), comes_next=False)
    assert only_now.start > 0


def test_in_lasting_overload_the_largest_batch_is_cut() -> None:
    # Four requests arrive per ms, and no batch serves more than one per ms.
    line = [request(at_ms=-40 + number / 4, budget_ms=50) for number in range(160)]
    assert find_window(line, seats()) == find_window(line, seats(), comes_next=False)


def test_where_budgets_differ_a_short_batch_for_the_tight_one_is_not_yet_overload() -> None:
    line = [request(budget_ms=9), *(request(budget_ms=200) for _ in range(30))]
    window = find_window(line, seats())
    assert window.start == 0
    assert 1 <= window.rows <= 4


def test_the_rate_is_that_of_the_later_two_thirds() -> None:
    line = [request(at_ms=at_ms) for at_ms in (-90, -50, -20, -16, -12, -8)]
    assert arrival_rate(line, 0) == 4 / ms(20)


def test_the_duration_of_a_batch_is_the_planned_one() -> None:
    these = seats()
    assert these.duration_ns(10) == these.latency.plan_ns(10)
    assert these.latency.predict_ns(10) < these.duration_ns(10) < these.latency.bound_ns(10)
    assert these.rows_until(these.finish_ns(10) + 10) == 10
    assert these.rows_until(these.finish_ns(10) - ms(0.5)) == 9
