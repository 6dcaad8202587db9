"""Who rides in the next batch: the shape that is most urgent, the window that makes it, tenants by turns, free seats.

Everything selected or passed over has left the queue when `select` returns.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import chain
from operator import attrgetter

from serving.core.fairness import FairShares
from serving.core.latency import LatencyModel
from serving.core.queue import Line, RequestQueue, Shape, by_rank
from serving.core.request import Request
from serving.core.sizes import Sizes
from serving.core.window import Window, find_window

by_deadline = attrgetter("deadline_ns")

CONTENTION_MEMORY = 20  # budgets for which a tenant that left is expected back


@dataclass(slots=True)
class Selection:
    """full: it has all the rows that pay off. held_back: more would have fitted, but not in time.
    passed_over: requests that could not make it in this batch nor in any later one.
    """

    requests: list[Request]
    length: int
    full: bool
    held_back: bool
    passed_over: list[Request] = field(default_factory=list)


@dataclass(slots=True)
class Seats:
    """One batch in the making: what it may hold and by when it is done."""

    latency: LatencyModel
    sizes: Sizes
    start_ns: int
    length: int
    max_rows: int

    def rows_until(self, deadline_ns: int) -> int:
        slack_ns = deadline_ns - self.start_ns
        return self.sizes.computable_rows(self.latency.largest_feasible_rows(slack_ns, self.length, self.max_rows))

    def duration_ns(self, rows: int) -> int:
        return self.latency.bound_ns(self.sizes.padded_rows(rows), self.length)

    def finish_ns(self, rows: int) -> int:
        return self.start_ns + self.duration_ns(rows)


def select(queue: RequestQueue, latency: LatencyModel, sizes: Sizes, shares: FairShares, start_ns: int) -> Selection:
    """The next batch, if it starts at `start_ns`. The queue is not empty, and nobody in it is hopeless."""
    shape = _most_urgent_shape(queue, latency, sizes, shares)
    length = shape[1]
    seats = Seats(latency, sizes, start_ns, length, sizes.useful_rows(latency, length))
    by_tenant = queue.lines[shape]
    waiting_rows = sum(_rows(line) for line in by_tenant.values())
    if _is_contended(by_tenant, shares, start_ns):
        seats.max_rows = min(seats.max_rows, max(1, seats.rows_until(start_ns + _tightest_budget_ns(by_tenant) // 2)))
    if len(by_tenant) == 1:
        riders, late = _ride_in_order(queue, shape, next(iter(by_tenant)), seats)
    else:
        riders, late = _ride_by_turns(queue, shape, seats, shares), []
    if not riders and not late:
        riders, late = _first_alone(queue, shape, seats)
    if not riders:
        return Selection([], length, full=False, held_back=False, passed_over=late)
    rows = _rows(riders)
    selection = Selection(riders, length, rows >= seats.max_rows, rows < waiting_rows, late)
    if not selection.full:
        rows += _board_shorter(queue, shape, seats, selection, rows)
    _fill_padding(selection, sizes.fastest_rows(rows, latency, length) - rows, seats.finish_ns(rows))
    return selection


def select_everyone(
    queue: RequestQueue, latency: LatencyModel, sizes: Sizes, shares: FairShares, start_ns: int
) -> Selection | None:
    """All who wait, where they are of one tenant and shape, no more than pays off, and nobody would be late.

    Nothing is left to decide then, and below capacity most cuts are like that. None: see `select`.
    """
    shape, by_tenant = next(iter(queue.lines.items()))
    if len(queue.lines) > 1 or len(by_tenant) > 1:
        return None
    rows, length = queue.rows, shape[1]
    useful_rows = sizes.useful_rows(latency, length)
    if rows > useful_rows:
        return None
    tenant, line = next(iter(by_tenant.items()))
    finish_ns = start_ns + latency.bound_ns(sizes.padded_rows(rows), length)
    if finish_ns > min(map(by_deadline, line)) or _is_contended(by_tenant, shares, start_ns):
        return None
    riders = queue.take(shape, tenant, 0, len(line))
    return Selection(riders, length, full=rows >= useful_rows, held_back=False)


def _most_urgent_shape(queue: RequestQueue, latency: LatencyModel, sizes: Sizes, shares: FairShares) -> Shape:
    """The shape whose first request has the least slack, among those that the least-served tenant waits for."""
    if len(queue.lines) == 1:
        return next(iter(queue.lines))
    least_served = min(queue.tenants(), key=shares.served_ns)

    def slack_ns(shape: Shape) -> int:
        first_rank_ns = min(line[0].rank_ns for line in queue.lines[shape].values())
        return first_rank_ns - latency.predict_ns(sizes.padded_rows(1), shape[1])

    return min((shape for shape, by_tenant in queue.lines.items() if least_served in by_tenant), key=slack_ns)


def _ride_in_order(queue: RequestQueue, shape: Shape, tenant: str, seats: Seats) -> tuple[list[Request], list[Request]]:
    """One tenant's line: the largest batch that makes it, and those before it that no longer can."""
    line = queue.lines[shape][tenant]
    window = find_window(line, seats.max_rows, seats.rows_until, seats.duration_ns)
    if window.start == 0 and _all_make_it(line, window, seats):
        return queue.take(shape, tenant, 0, window.rows), []
    finish_ns = seats.finish_ns(window.rows)
    riders: list[Request] = []
    late: list[Request] = []
    kept: list[Request] = []
    rows = seen = 0
    for index, request in enumerate(line):
        if rows >= window.rows:
            break
        seen += 1
        fits = rows + request.rows <= window.rows or not riders
        if fits and request.deadline_ns >= max(finish_ns, seats.finish_ns(request.rows)):
            riders.append(request)
            rows += request.rows
        elif index < window.start or request.deadline_ns < seats.finish_ns(request.rows):
            late.append(request)
        else:
            kept.append(request)
    queue.take(shape, tenant, 0, seen)
    for request in kept:
        queue.add(request, shape)
    return riders, late


def _all_make_it(line: Line, window: Window, seats: Seats) -> bool:
    """The first `window.rows` requests are single rows and none is late: the common case, taken as one slice."""
    finish_ns = seats.finish_ns(window.rows)
    first = line[: window.rows]
    return all(request.rows == 1 and request.deadline_ns >= finish_ns for request in first)


def _ride_by_turns(queue: RequestQueue, shape: Shape, seats: Seats, shares: FairShares) -> list[Request]:
    """Several tenants: seats go, one request at a time, to whoever has had the least device time per weight.

    Nobody is passed over for another's sake: a request is dropped when it is hopeless by itself, not before. A tenant
    that asks for no more than its share of the seats is not made late by those that ask for more.
    """
    by_tenant = queue.lines[shape]
    everyone = sorted(chain.from_iterable(by_tenant.values()), key=by_rank)
    rows = find_window(everyone, seats.max_rows, seats.rows_until, seats.duration_ns).rows
    total_weight = sum(shares.weight(tenant) for tenant in by_tenant)
    for tenant, line in by_tenant.items():
        feasible = seats.rows_until(line[0].deadline_ns)
        seats_due = max(1.0, seats.max_rows * shares.weight(tenant) / total_weight)
        if _rows(line) <= min(feasible, seats_due):
            rows = min(rows, feasible)
    finish_ns = seats.finish_ns(rows)
    riders = _deal(by_tenant, rows, finish_ns, shares, row_cost_ns=seats.duration_ns(rows) / rows)
    for request in riders:
        queue.remove(request, shape)
    return riders


def _deal(
    by_tenant: dict[str, Line], rows: int, finish_ns: int, shares: FairShares, *, row_cost_ns: float
) -> list[Request]:
    """Deals `rows` seats to those who make `finish_ns`, the least-served tenant first."""
    turns: list[tuple[float, str, Request, Iterator[Request]]] = []  # tenants differ, so nothing behind is compared

    def queue_up(served_ns: float, tenant: str, able: Iterator[Request]) -> None:
        request = next(able, None)
        if request is not None:
            heappush(turns, (served_ns, tenant, request, able))

    for tenant, line in by_tenant.items():
        queue_up(shares.served_ns(tenant), tenant, iter([one for one in line if one.deadline_ns >= finish_ns]))
    riders: list[Request] = []
    while turns and rows > 0:
        served_ns, tenant, request, able = heappop(turns)
        if request.rows <= rows or not riders:
            riders.append(request)
            rows -= request.rows
        queue_up(served_ns + row_cost_ns * request.rows / shares.weight(tenant), tenant, able)
    return riders


def _first_alone(queue: RequestQueue, shape: Shape, seats: Seats) -> tuple[list[Request], list[Request]]:
    """A request with more rows than a batch should have rides alone, if it makes it."""
    first = min((line[0] for line in queue.lines[shape].values()), key=by_rank)
    queue.remove(first, shape)
    return ([first], []) if first.deadline_ns >= seats.finish_ns(first.rows) else ([], [first])


def _is_contended(by_tenant: dict[str, Line], shares: FairShares, now_ns: int) -> bool:
    """Several tenants wait, or another than the one that waits was here lately.

    Then a batch may take half the tightest budget at most, so that who comes while it computes can be served after it.
    """
    if len(by_tenant) > 1:
        return True
    memory_ns = CONTENTION_MEMORY * _tightest_budget_ns(by_tenant)
    return shares.others_since(next(iter(by_tenant)), now_ns - memory_ns)


def _tightest_budget_ns(by_tenant: dict[str, Line]) -> int:
    return min(line[0].deadline_ns - line[0].arrived_ns for line in by_tenant.values())


def _rows(requests: Iterable[Request]) -> int:
    return sum(request.rows for request in requests)


def _board_shorter(queue: RequestQueue, shape: Shape, seats: Seats, selection: Selection, rows: int) -> int:
    """Lets shorter requests of the same group ride along where that costs less than a batch of their own."""
    earliest_ns = min(request.deadline_ns for request in selection.requests)
    boarded = 0
    shorter = sorted(
        (other for other in queue.lines if other[0] == shape[0] and other[1] < shape[1]),
        reverse=True,
        key=lambda other: other[1],
    )
    for other in shorter:
        for request in _in_order(queue.lines[other].values()):
            more = rows + boarded + request.rows
            if more > seats.max_rows:
                break
            finish_ns = seats.finish_ns(more)
            if finish_ns > min(earliest_ns, request.deadline_ns) or not _cheaper_together(
                seats, other[1], rows + boarded, request.rows
            ):
                break
            queue.remove(request, other)
            selection.requests.append(request)
            boarded += request.rows
    return boarded


def _cheaper_together(seats: Seats, own_length: int, rows: int, more: int) -> bool:
    latency, padded = seats.latency, seats.sizes.padded_rows
    together_ns = latency.predict_ns(padded(rows + more), seats.length)
    apart_ns = latency.predict_ns(padded(rows), seats.length) + latency.predict_ns(padded(more), own_length)
    return together_ns <= apart_ns


def _fill_padding(selection: Selection, free_rows: int, finish_ns: int) -> None:
    """Seats that would be computed empty go to those who are late but whose clients still wait."""
    for request in list(selection.passed_over):
        if request.rows <= free_rows and request.expires_ns >= finish_ns:
            selection.passed_over.remove(request)
            selection.requests.append(request)
            free_rows -= request.rows


def _in_order(lines: Iterable[Line]) -> list[Request]:
    return sorted(chain.from_iterable(lines), key=by_rank)
