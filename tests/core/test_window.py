"""The window rule against a search of all possibilities."""

from hypothesis import given
from hypothesis import strategies as st

from serving.core.window import find_window
from tests.core.stories import ms, request


@given(
    budgets=st.lists(st.integers(10, 120), min_size=1, max_size=40),
    max_rows=st.integers(1, 64),
    fixed=st.integers(1, 20),
)
def test_no_other_start_allows_a_larger_batch(budgets: list[int], max_rows: int, fixed: int) -> None:
    line = [request(budget_ms=budget) for budget in sorted(budgets)]

    def rows_until(deadline_ns: int) -> int:
        return max(0, deadline_ns // ms(1) - fixed)

    def batch_from(start: int) -> int:
        return min(len(line) - start, max_rows, rows_until(line[start].deadline_ns))

    window = find_window(line, max_rows, rows_until)
    best = max(batch_from(start) for start in range(len(line)))
    if best > 0:
        assert window.rows == best
        assert window.start == next(start for start in range(len(line)) if batch_from(start) == best)


def test_below_capacity_nobody_is_passed_over() -> None:
    line = [request(budget_ms=100) for _ in range(5)]
    assert find_window(line, 64, lambda deadline_ns: 50) == (0, 5)


def test_requests_with_several_rows_count_by_rows() -> None:
    line = [request(rows=3, budget_ms=100) for _ in range(4)]
    assert find_window(line, 64, lambda deadline_ns: 50) == (0, 12)
