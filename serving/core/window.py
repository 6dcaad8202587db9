"""Which requests of a line, in deadline order, should ride in the next batch: the largest batch that makes it.

Among all start positions take the one that allows the largest batch whose earliest deadline still holds. What stands
before it cannot make it in any batch worth cutting. Below capacity the start is 0 and nobody is passed over; above it
this keeps the goodput at its fluid optimum, where serving the oldest first collapses. The same trade is made by the
early drop of Nexus (Shen et al., SOSP 2019); here the batch size it aims at is not configured, it falls out.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

from serving.core.request import Request

RowsWithin = Callable[[int], int]

MAX_BATCHES_AHEAD = 16


class Window(NamedTuple):
    start: int  # index of the first request that can make it
    rows: int  # how many rows the batch should have; at least one request's


def find_window(
    line: Sequence[Request], max_rows: int, rows_until: RowsWithin, duration_ns: Callable[[int], int] | None = None
) -> Window:
    """The start index and size of the batch to cut.

    line: requests in deadline order, not empty, none hopeless by itself.
    rows_until: the largest batch, in rows, that would be done by the given deadline.
    duration_ns: how long so many rows take. With it, and where budgets differ, nobody is passed over as long as all who
        wait can be served batch after batch: a short batch for a tight deadline is not yet overload. With equal budgets
        short batches beget late ones, and looking ahead loses more than it saves.
    """
    count = len(line)
    if sum(request.rows for request in line) == count:
        rows_from = list(range(count, 0, -1))
    else:
        rows_from = list(accumulate(request.rows for request in reversed(line)))[::-1]

    def feasible_rows(index: int) -> int:
        return min(max_rows, rows_until(line[index].deadline_ns))

    if feasible_rows(0) >= min(rows_from[0], max_rows):
        return Window(0, min(rows_from[0], max_rows))
    if duration_ns is not None and _all_make_it_in_turn(line, max_rows, rows_until, duration_ns):
        return Window(0, feasible_rows(0))
    # Further along the line fewer rows are left and more of them are feasible: find where the two cross.
    crossing = bisect_left(range(count), True, key=lambda index: rows_from[index] <= feasible_rows(index))
    rows = min(rows_from[crossing], max_rows) if crossing < count else 0
    if crossing > 0:
        rows = max(rows, feasible_rows(crossing - 1))
    # Ties go to the earliest start: whoever fits into an equally large batch rides.
    start = bisect_left(range(count), True, key=lambda index: feasible_rows(index) >= rows)
    return Window(min(start, count - 1), max(rows, 1))


def _budgets_differ(line: Sequence[Request]) -> bool:
    """Whether some have clearly more time than the first; looked at in three places, which is enough to be useful."""
    first_ns = line[0].deadline_ns - line[0].arrived_ns
    return any(2 * (one.deadline_ns - one.arrived_ns) > 3 * first_ns for one in (line[len(line) // 2], line[-1]))


def _all_make_it_in_turn(
    line: Sequence[Request], max_rows: int, rows_until: RowsWithin, duration_ns: Callable[[int], int]
) -> bool:
    """Whether batches of the largest feasible size, one after the other, would serve everybody in time.

    Asked only where budgets differ: elsewhere the answer costs more than it saves.
    """
    if not _budgets_differ(line):
        return False
    index = elapsed_ns = 0
    for _ in range(MAX_BATCHES_AHEAD):
        rows = min(max_rows, rows_until(line[index].deadline_ns - elapsed_ns))
        seats = rows
        while index < len(line) and line[index].rows <= seats:
            seats -= line[index].rows
            index += 1
        if index == len(line):
            return True
        if seats == rows:
            return False
        elapsed_ns += duration_ns(rows)
    return False
