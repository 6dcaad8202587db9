"""Selects the requests of the next batch.

The steps: choose the shape with the highest worth (`core/shapes.py`), find the window of requests that can meet their
deadlines (`core/window.py`) or deal rows to several tenants (`core/turns.py`), add requests of shorter shapes, and fill
padding rows with late requests. All requests selected or passed over have left the queue when `select` returns.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

from serving.core.fairness import FairShares
from serving.core.latency import LatencyModel
from serving.core.queue import Line, RequestQueue, Shape, by_deadline, by_rank
from serving.core.request import Request
from serving.core.seats import Seats
from serving.core.shapes import choose_shape
from serving.core.sizes import Sizes
from serving.core.turns import are_others_expected, leave_room, ride_by_turns
from serving.core.window import Window, arrival_rate, find_window

DRAINING = 0.75  # the queue drains if fewer rows than this arrive for each row that leaves
PRESSED_SHARE = 0.995  # of the best throughput; used while the queue does not drain, when small differences matter


@dataclass(slots=True)
class Selection:
    """The requests of the next batch.

    length: the padded length. full: the batch has all the rows that pay off.
    held_back: more rows were waiting, but with them a deadline would have been missed.
    passed_over: requests that can meet their deadlines neither in this batch nor in a later one.
    """

    requests: list[Request]
    length: int
    full: bool
    held_back: bool
    passed_over: list[Request] = field(default_factory=list)


def select(queue: RequestQueue, latency: LatencyModel, sizes: Sizes, shares: FairShares, start_ns: int) -> Selection:
    """Selects the requests of a batch that starts at `start_ns`.

    Requires that the queue is not empty and that each request in it could meet its deadline alone.
    """
    if len(queue.lines) == 1:
        aboard = dict.fromkeys(queue.lines, 0)
    else:
        aboard = choose_shape(queue, latency, sizes, shares, start_ns)
    shape, *shorter = aboard
    by_tenant = queue.lines[shape]
    seats = Seats(latency, sizes, start_ns, shape[1], sizes.useful_rows(latency, shape[1]))
    waiting_rows = sum(_rows(line) for line in by_tenant.values())
    comes_next = len(queue.lines) == 1
    late: list[Request] = []
    if len(by_tenant) > 1:
        chosen = ride_by_turns(queue, shape, seats, shares, comes_next=comes_next)
    else:
        ((tenant, line),) = by_tenant.items()
        if waiting_rows > seats.max_rows and not _drains(line, seats):
            seats.max_rows = latency.best_rows(sizes.largest_rows, seats.length, PRESSED_SHARE)
        leave_room(by_tenant, seats, shares)
        chosen, late = _ride_in_order(queue, shape, tenant, seats, comes_next=comes_next)
    if not chosen and not late:
        chosen, late = _first_alone(queue, shape, seats)
    if not chosen:
        return Selection([], seats.length, full=False, held_back=False, passed_over=late)
    rows = _rows(chosen)
    selection = Selection(chosen, seats.length, rows >= seats.max_rows, rows < waiting_rows, late)
    for other in shorter:
        rows += _board(queue, other, aboard[other], seats, chosen, rows)
    _fill_padding(selection, sizes.fastest_rows(rows, latency, seats.length) - rows, seats.finish_ns(rows))
    return selection


def select_all(
    queue: RequestQueue,
    latency: LatencyModel,
    sizes: Sizes,
    shares: FairShares,
    start_ns: int,
    *,
    late_too: bool = False,
) -> Selection | None:
    """Selects all waiting requests if they are of one tenant and shape, no more than pays off, and none would be late.

    Nothing is left to decide then, which is the common case below capacity. Otherwise returns None and changes
    nothing; the caller uses `select`. O(n) for n waiting requests.

    late_too: select them even if some might be late.
    """
    shape, by_tenant = next(iter(queue.lines.items()))
    if len(queue.lines) > 1 or len(by_tenant) > 1:
        return None
    rows, length = queue.rows, shape[1]
    useful_rows = sizes.useful_rows(latency, length)
    if rows > useful_rows:
        return None
    tenant, line = next(iter(by_tenant.items()))
    finish_ns = start_ns + latency.plan_ns(sizes.padded_rows(rows), length)
    in_time = late_too or finish_ns <= min(map(by_deadline, line))
    if not in_time or are_others_expected(by_tenant, shares, start_ns):
        return None
    chosen = queue.take(shape, tenant, 0, len(line))
    return Selection(chosen, length, full=rows >= useful_rows, held_back=False)


def _drains(line: Line, seats: Seats) -> bool:
    """Returns whether clearly fewer rows arrive than leave while a batch of `seats.max_rows` is computed."""
    coming = arrival_rate(line, seats.start_ns) * seats.duration_ns(seats.max_rows) * line[-1].rows
    return coming < DRAINING * seats.max_rows


def _ride_in_order(
    queue: RequestQueue, shape: Shape, tenant: str, seats: Seats, *, comes_next: bool
) -> tuple[list[Request], list[Request]]:
    """Takes a batch from one tenant's line. Returns its requests, and the late ones that are passed over.

    Goes through the line in order of rank until the window's rows are filled. A request that would be late joins
    `late` if the window passes it over or no batch can serve it in time; otherwise it stays in the queue.
    """
    line = queue.lines[shape][tenant]
    window = find_window(line, seats, comes_next=comes_next)
    if window.start == 0 and _all_make_it(line, window, seats):
        return queue.take(shape, tenant, 0, window.rows), []
    finish_ns = seats.finish_ns(window.rows)
    # A batch from the head of the line passes no request over, whatever is behind those that it looked at.
    passed_over_until_ns = window.deadline_ns if window.start > 0 else 0
    chosen: list[Request] = []
    late: list[Request] = []
    kept: list[Request] = []
    rows = seen = 0
    for request in line:
        if rows >= window.rows:
            break
        seen += 1
        fits = rows + request.rows <= window.rows or not chosen
        if fits and request.deadline_ns >= max(finish_ns, seats.finish_ns(request.rows)):
            chosen.append(request)
            rows += request.rows
        elif request.deadline_ns < max(passed_over_until_ns, seats.finish_ns(request.rows)):
            late.append(request)
        else:
            kept.append(request)
    queue.take(shape, tenant, 0, seen)
    for request in kept:
        queue.add(request, shape)
    return chosen, late


def _all_make_it(line: Line, window: Window, seats: Seats) -> bool:
    """Returns whether the first `window.rows` requests have one row each and none would be late.

    This is the common case, in which they are taken as one slice.
    """
    finish_ns = seats.finish_ns(window.rows)
    first = line[: window.rows]
    return all(request.rows == 1 and request.deadline_ns >= finish_ns for request in first)


def _first_alone(queue: RequestQueue, shape: Shape, seats: Seats) -> tuple[list[Request], list[Request]]:
    """Takes the first request by rank, for the case that it has more rows than a batch should have.

    Returns it as a batch of its own, or in the list of late requests if it would miss its deadline.
    """
    first = min((line[0] for line in queue.lines[shape].values()), key=by_rank)
    queue.remove(first, shape)
    return ([first], []) if first.deadline_ns >= seats.finish_ns(first.rows) else ([], [first])


def _rows(requests: Iterable[Request]) -> int:
    return sum(request.rows for request in requests)


def _board(queue: RequestQueue, shape: Shape, most: int, seats: Seats, chosen: list[Request], rows: int) -> int:
    """Adds up to `most` rows of a shorter shape to `chosen`, as long as no request becomes late. Returns how many.

    rows: the rows of `chosen`, padded to the length of `seats`.
    """
    earliest_ns = min(map(by_deadline, chosen))
    by_tenant = queue.lines[shape]
    if len(by_tenant) == 1:
        ((tenant, line),) = by_tenant.items()
        first = line[:most]
        if rows + len(first) <= seats.max_rows and all(request.rows == 1 for request in first):
            finish_ns = seats.finish_ns(rows + len(first))
            if finish_ns <= min(earliest_ns, min(map(by_deadline, first))):  # the common case: take one slice
                chosen += queue.take(shape, tenant, 0, len(first))
                return len(first)
    boarded = 0
    for request in sorted(chain.from_iterable(by_tenant.values()), key=by_rank):
        if boarded + request.rows > most or rows + boarded + request.rows > seats.max_rows:
            break
        finish_ns = seats.finish_ns(rows + boarded + request.rows)
        if finish_ns > earliest_ns:
            break
        if finish_ns <= request.deadline_ns:
            queue.remove(request, shape)
            chosen.append(request)
            boarded += request.rows
            earliest_ns = min(earliest_ns, request.deadline_ns)
    return boarded


def _fill_padding(selection: Selection, free_rows: int, finish_ns: int) -> None:
    """Moves late requests whose clients still wait into rows that would be computed as padding anyway."""
    for request in list(selection.passed_over):
        if request.rows <= free_rows and request.expires_ns >= finish_ns:
            selection.passed_over.remove(request)
            selection.requests.append(request)
            free_rows -= request.rows
