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


class Window(NamedTuple):
    start: int  # index of the first request that can make it
    rows: int  # how many rows the batch should have; at least one request's


def find_window(line: Sequence[Request], max_rows: int, rows_until: RowsWithin) -> Window:
    """The start index and size of the largest feasible batch.

    line: requests in deadline order, not empty, none hopeless by itself.
    rows_until: the largest batch, in rows, that would be done by the given deadline.
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
    # Further along the line fewer rows are left and more of them are feasible: find where the two cross.
    crossing = bisect_left(range(count), True, key=lambda index: rows_from[index] <= feasible_rows(index))
    rows = min(rows_from[crossing], max_rows) if crossing < count else 0
    if crossing > 0:
        rows = max(rows, feasible_rows(crossing - 1))
    # Ties go to the earliest start: whoever fits into an equally large batch rides.
    start = bisect_left(range(count), True, key=lambda index: feasible_rows(index) >= rows)
    return Window(min(start, count - 1), max(rows, 1))
