"""Finds the window of a line: the requests of the next batch, and those to pass over, if not all can be served in time.

In overload, serving the oldest request first collapses: the batches must be small to meet the earliest deadline, so
throughput falls. Passing over the oldest requests up to the start that allows the largest batch keeps the goodput at
its fluid optimum. The early drop of Nexus (Shen et al., SOSP 2019) makes the same trade for a configured batch size;
here the batch size is a result of the search.

In a short rush that start loses more than necessary: the oldest requests could be served in a small batch, and the rest
could still meet their deadlines in the next one. So a few starts between the head of the line and that start are
compared, and the one is taken that loses the fewest requests in this batch and the next, expected arrivals included.

A line is in order of rank. If this is not the order of deadlines, the deadlines determine the batch size and the
requests passed over; the rank determines which of the others are in the batch.
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
OVERLOAD = 1.1  # arrivals beyond this many times the sustainable rate are overload, not a short rush


class Window(NamedTuple):
    """The size of a batch and the deadline that it keeps."""

    start: int  # how many requests are passed over, in order of deadlines
    rows: int  # how many rows the batch should have, at least 1
    deadline_ns: int  # the earliest deadline that the batch keeps; late requests with an earlier one are passed over


def find_window(line: Sequence[Request], seats: Seats, *, comes_next: bool = True) -> Window:
    """Returns the start and the size of the batch to cut.

    If budgets differ, no request is passed over as long as all waiting requests can be served batch after batch: a
    small batch for a tight deadline is not yet overload. O(n log n) for n requests (one sort); the searches are
    bisections.

    line: in order of rank, not empty; each request could meet its deadline alone.
    comes_next: whether the next batch is for the same line. Otherwise the chances of the requests left are unknown.
    """
    wanted_rows = min(sum([request.rows for request in line]), seats.max_rows)
    tightest_ns = min(map(by_deadline, line[:wanted_rows]))
    if seats.rows_until(tightest_ns) >= wanted_rows:
        return Window(0, wanted_rows, tightest_ns)
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
    """Returns the arrival rate in requests per ns, estimated from the later two thirds of the waiting requests.

    The earlier third is left out because some requests of its time have left the queue. Returns 0 if all these requests
    arrived at this instant.
    """
    first = len(line) // 3
    elapsed_ns = now_ns - line[first].arrived_ns
    return (len(line) - first) / elapsed_ns if elapsed_ns > 0 else 0.0


def _is_overload(rate: float, typical: Request, seats: Seats) -> bool:
    """Returns whether clearly more rows arrive than can be served by batches of half a budget each.

    This is the highest sustainable rate: a request that arrives just after a batch began waits for that batch and then
    needs its own.
    """
    rows = seats.rows_until(seats.start_ns + (typical.deadline_ns - typical.arrived_ns) // 2)
    return rate * typical.rows * seats.duration_ns(rows) > OVERLOAD * rows


def _first_in_rank(line: Sequence[Request], seats: Seats) -> Window:
    """Returns a window of as many first requests as can all meet their deadlines together; the rest stays."""
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
    """Returns the window with the largest batch that still meets its earliest deadline; the earliest of equals.

    The rows left behind a start fall along the line and the feasible rows rise, so bisection finds their crossing.

    line: in order of deadlines. rows_from: the sum of rows from each index to the end.
    """

    def feasible_rows(index: int) -> int:
        return seats.rows_until(line[index].deadline_ns)

    starts = range(len(line))
    crossing = bisect_left(starts, True, key=lambda index: rows_from[index] <= feasible_rows(index))
    rows = min(rows_from[crossing], seats.max_rows)
    if crossing > 0:
        rows = max(rows, feasible_rows(crossing - 1))
    start = min(bisect_left(starts, True, key=lambda index: feasible_rows(index) >= rows), len(line) - 1)
    return Window(start, max(rows, 1), line[start].deadline_ns)


def _lost_next(line: Sequence[Request], rows_from: Sequence[int], window: Window, seats: Seats, rate: float) -> int:
    """Returns how many requests the next window would pass over, of those left behind and those arriving meanwhile.

    Found by bisection on the number lost. rate: arrivals in requests per ns; they are assumed to be like the last
    request of the line.
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
    """Returns whether some requests have clearly larger budgets than the first.

    A sample of three requests (first, middle, last) is accurate enough and O(1).
    """
    first_ns = line[0].deadline_ns - line[0].arrived_ns
    sample = (line[len(line) // 2], line[-1])
    return any(2 * (request.deadline_ns - request.arrived_ns) > 3 * first_ns for request in sample)


def _all_make_it_in_turn(line: Sequence[Request], seats: Seats) -> bool:
    """Returns whether batches of the largest feasible size, one after the other, would serve all requests in time.

    Looks at most `MAX_BATCHES_AHEAD` batches ahead. line: in order of deadlines.
    """
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
