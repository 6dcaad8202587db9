"""Which requests of a line should ride in the next batch, when not all of them can.

Among all start positions the one that allows the largest batch keeps the goodput at its fluid optimum in overload,
where serving the oldest first collapses. The same trade is made by the early drop of Nexus (Shen et al., SOSP 2019);
here the batch size it aims at is not configured, it falls out. Yet in a short rush it gives up more than it must: the
oldest might ride in a short batch, and whoever stays behind still make the next. So between that start and the head of
the line the one is taken that loses fewest, now and in the batch after it, those counted in who come meanwhile.

A line is in order of rank. Where that is not the order of deadlines, deadlines say how large the batch may be and who
is given up, and rank says who of the others rides.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from serving.core.queue import by_deadline
from serving.core.request import Request
from serving.core.seats import Seats

MAX_BATCHES_AHEAD = 16
STARTS_COMPARED = 4  # besides the head of the line
OVERLOAD = 1.1  # from so many times what can be borne it is no rush that will pass


class Window(NamedTuple):
    start: int  # how many are passed over, in order of deadlines
    rows: int  # how many rows the batch should have; at least one request's
    deadline_ns: int  # which the batch keeps; those ahead of its riders with an earlier one are passed over


def find_window(line: Sequence[Request], seats: Seats, *, comes_next: bool = True) -> Window:
    """The start and size of the batch to cut. line: in order of rank, not empty, none hopeless by itself.

    comes_next: whether those left behind can have the batch after this one; else nothing is known of their chances.
    Where budgets differ, nobody is passed over as long as all who wait can be served batch after batch: a short batch
    for a tight deadline is not yet overload.
    """
    everyone = min(sum([request.rows for request in line]), seats.max_rows)
    tightest_ns = min(map(by_deadline, line[:everyone]))
    if seats.rows_until(tightest_ns) >= everyone:
        return Window(0, everyone, tightest_ns)
    by_rank, line = line, sorted(line, key=by_deadline)
    rows_from = [*accumulate((request.rows for request in reversed(line)), initial=0)][::-1]
    budgets_differ = _budgets_differ(line)
    if budgets_differ and _all_make_it_in_turn(line, seats):
        return _first_in_rank(by_rank, seats)
    largest = _largest_window(line, rows_from, seats)
    if largest.start == 0 or budgets_differ or not comes_next or line != by_rank:
        return largest
    rate = arrival_rate(line, seats.start_ns)
    if _is_overload(rate, line[-1], seats):
        return largest
    starts = sorted({largest.start * part // STARTS_COMPARED for part in range(STARTS_COMPARED + 1)})
    windows = [
        Window(start, min(rows_from[start], seats.rows_until(line[start].deadline_ns)), line[start].deadline_ns)
        for start in starts
    ]
    return min(
        (window for window in windows if window.rows > 0),
        key=lambda window: window.start + _lost_next(line, rows_from, window, seats, rate),
        default=largest,
    )


def arrival_rate(line: Sequence[Request], now_ns: int) -> float:
    """Requests per nanosecond, from the later two thirds of those who wait: of the earlier ones, some are gone.

    0 where all came this instant.
    """
    first = len(line) // 3
    elapsed_ns = now_ns - line[first].arrived_ns
    return (len(line) - first) / elapsed_ns if elapsed_ns > 0 else 0.0


def _is_overload(rate: float, typical: Request, seats: Seats) -> bool:
    """Whether clearly more comes than batches can serve that take half a budget each, the most that can be borne."""
    rows = seats.rows_until(seats.start_ns + (typical.deadline_ns - typical.arrived_ns) // 2)
    return rate * typical.rows * seats.duration_ns(rows) > OVERLOAD * rows


def _first_in_rank(line: Sequence[Request], seats: Seats) -> Window:
    """As many of the first as all make it together; whoever cannot ride with those ahead stays."""
    deadline_ns, rows, possible_rows = line[0].deadline_ns, 0, seats.rows_until(line[0].deadline_ns)
    for request in line:
        if request.deadline_ns < deadline_ns:
            possible_rows = seats.rows_until(request.deadline_ns)
        if rows + request.rows > possible_rows:
            break
        deadline_ns = min(deadline_ns, request.deadline_ns)
        rows += request.rows
    return Window(0, max(rows, 1), deadline_ns)


def _largest_window(line: Sequence[Request], rows_from: Sequence[int], seats: Seats) -> Window:
    """The start that allows the largest batch whose earliest deadline still holds; the earliest of equals."""

    def feasible_rows(index: int) -> int:
        return seats.rows_until(line[index].deadline_ns)

    # Further along the line fewer rows are left and more of them are feasible: find where the two cross.
    everywhere = range(len(line))
    crossing = bisect_left(everywhere, True, key=lambda index: rows_from[index] <= feasible_rows(index))
    rows = min(rows_from[crossing], seats.max_rows)
    if crossing > 0:
        rows = max(rows, feasible_rows(crossing - 1))
    start = min(bisect_left(everywhere, True, key=lambda index: feasible_rows(index) >= rows), len(line) - 1)
    return Window(start, max(rows, 1), line[start].deadline_ns)


def _lost_next(line: Sequence[Request], rows_from: Sequence[int], window: Window, seats: Seats, rate: float) -> int:
    """How many the next window gives up of those that this one leaves behind and of those who come meanwhile.

    rate: of arrivals, in requests per nanosecond; they are taken to be like the last in line.
    """
    last = line[-1]
    budget_ns = last.deadline_ns - last.arrived_ns
    duration_ns = seats.duration_ns(window.rows)
    after = bisect_left(rows_from, window.rows - rows_from[window.start], key=lambda rows: -rows)
    behind = len(line) - after
    coming = int(rate * duration_ns)

    def rest_makes_it(lost: int) -> bool:
        if lost < behind:
            rows = rows_from[after + lost] + coming * last.rows
            deadline_ns = line[after + lost].deadline_ns
        else:
            rows = (behind + coming - lost) * last.rows
            deadline_ns = seats.start_ns + int((lost - behind) / rate) + budget_ns
        return seats.rows_until(deadline_ns - duration_ns) >= min(rows, seats.max_rows)

    return bisect_left(range(behind + coming), True, key=rest_makes_it)


def _budgets_differ(line: Sequence[Request]) -> bool:
    """Whether some have clearly more time than the first; looked at in three places, which is enough to be useful."""
    first_ns = line[0].deadline_ns - line[0].arrived_ns
    return any(2 * (one.deadline_ns - one.arrived_ns) > 3 * first_ns for one in (line[len(line) // 2], line[-1]))


def _all_make_it_in_turn(line: Sequence[Request], seats: Seats) -> bool:
    """Whether batches of the largest feasible size, one after the other, would serve everybody in time."""
    index = elapsed_ns = 0
    for _ in range(MAX_BATCHES_AHEAD):
        rows = free_rows = seats.rows_until(line[index].deadline_ns - elapsed_ns)
        while index < len(line) and line[index].rows <= free_rows:
            free_rows -= line[index].rows
            index += 1
        if index == len(line):
            return True
        if free_rows == rows:
            return False
        elapsed_ns += seats.duration_ns(rows)
    return False
