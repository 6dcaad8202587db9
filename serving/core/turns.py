"""Divides a batch between several tenants: its size, and the order in which tenants get rows.

The order is weighted fair queueing: the next request always comes from the tenant with the least device time per weight
(`core/fairness.py`). A tenant that asks for more than its share (a flood) gets the rows that the others leave, and
enlarges the batch only up to the size at which the device still has `FLOODED_SHARE` of its throughput. No request is
dropped in favour of another tenant's: it is dropped only if it could not meet its deadline even alone.
"""

from bisect import bisect_left
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import chain

from serving.core.fairness import FairShares
from serving.core.queue import Line, RequestQueue, Shape, by_rank
from serving.core.request import Request
from serving.core.seats import Seats
from serving.core.window import find_window

CONTENTION_MEMORY = 20  # for this many latency budgets a tenant that left is expected to return
FLOODED_SHARE = 0.8  # of the possible throughput: other tenants see a flooded device as if it had this load
NO_FLOOD_ROWS = 4  # up to this many rows are no flood, however small the tenant's share is


def ride_by_turns(
    queue: RequestQueue, shape: Shape, seats: Seats, shares: FairShares, *, comes_next: bool
) -> list[Request]:
    """Takes a batch of this shape from several tenants' lines, each request from the tenant least served so far.

    The requests of tenants within their share determine the batch size. Tenants that ask for more get the rows that
    remain up to the size of a flood, at least one. If all tenants ask for more, the batch takes at most half of the
    tightest budget, so that requests that arrive while it is computed can be served after it.
    """
    by_tenant = queue.lines[shape]
    half_rows = _half_budget_rows(by_tenant, seats)
    within = _within_share(by_tenant, half_rows, seats, shares)
    if not within:
        within = by_tenant
        seats.max_rows = half_rows
    beyond = {tenant: line for tenant, line in by_tenant.items() if tenant not in within}
    in_order = sorted(chain.from_iterable(within.values()), key=by_rank)
    window = find_window(in_order, seats, comes_next=comes_next)
    rows = window.rows
    if beyond:
        most = max(rows, seats.rows_until(window.deadline_ns))
        rows = min(max(rows + 1, _flood_rows(half_rows, seats)), most)
    finish_ns = seats.finish_ns(rows)
    row_cost_ns = seats.duration_ns(rows) / rows
    chosen: list[Request] = []
    for tenants in (within, beyond):
        _deal(chosen, tenants, rows, finish_ns, shares, row_cost_ns)
    for request in chosen:
        queue.remove(request, shape)
    return chosen


def leave_room(by_tenant: dict[str, Line], seats: Seats, shares: FairShares) -> None:
    """Limits `seats.max_rows` if one tenant waits, but others are expected to return.

    The limit is half of the tightest budget, or the size of a flood if the tenant asks for more than its share.
    """
    if not are_others_expected(by_tenant, shares, seats.start_ns):
        return
    half_rows = _half_budget_rows(by_tenant, seats)
    is_within = _within_share(by_tenant, half_rows, seats, shares, others=1.0)
    seats.max_rows = half_rows if is_within else _flood_rows(half_rows, seats)


def are_others_expected(by_tenant: dict[str, Line], shares: FairShares, now_ns: int) -> bool:
    """Returns whether another tenant than the single one that waits had requests lately and so may return."""
    memory_ns = CONTENTION_MEMORY * _tightest_budget_ns(by_tenant)
    return shares.others_since(next(iter(by_tenant)), now_ns - memory_ns)


def _half_budget_rows(by_tenant: dict[str, Line], seats: Seats) -> int:
    """Returns the largest batch that takes no more than half of the tightest budget, at least one row."""
    return max(1, seats.rows_until(seats.start_ns + _tightest_budget_ns(by_tenant) // 2))


def _flood_rows(half_rows: int, seats: Seats) -> int:
    """Returns the smallest batch with `FLOODED_SHARE` of the throughput of batches of `half_rows`, found by bisection.

    So batches take as long as they would without a flood at a load of `FLOODED_SHARE`.
    """
    wanted = FLOODED_SHARE * half_rows / seats.duration_ns(half_rows)
    return 1 + bisect_left(range(1, half_rows), True, key=lambda rows: rows >= wanted * seats.duration_ns(rows))


def _within_share(
    by_tenant: dict[str, Line], half_rows: int, seats: Seats, shares: FairShares, others: float = 0.0
) -> dict[str, Line]:
    """Returns the tenants within their share.

    Such a tenant waits for no more rows than its share of two batches of `half_rows`, which is the work of one budget,
    or for at most `NO_FLOOD_ROWS` rows. And its served time exceeds that of the least-served tenant by no more than
    one such batch.

    others: weight of the tenants that are expected but do not wait now.
    """
    rows_per_weight = 2 * half_rows / (others + sum(shares.weight(tenant) for tenant in by_tenant))
    most_served_ns = min(map(shares.served_ns, by_tenant)) + seats.duration_ns(half_rows)

    def is_within(tenant: str, line: Line) -> bool:
        rows_due = max(NO_FLOOD_ROWS, rows_per_weight * shares.weight(tenant))
        return shares.served_ns(tenant) <= most_served_ns and sum(request.rows for request in line) <= rows_due

    return {tenant: line for tenant, line in by_tenant.items() if is_within(tenant, line)}


def _deal(
    chosen: list[Request],
    by_tenant: dict[str, Line],
    rows: int,
    finish_ns: int,
    shares: FairShares,
    row_cost_ns: float,
) -> None:
    """Adds requests that can wait until `finish_ns` to `chosen`, up to `rows` in total, the least-served tenant first.

    Uses a heap of tenants: O(log t) per request for t tenants. A tenant is charged `row_cost_ns` per row for the order
    only; the shares do not change.
    """
    rows -= sum(request.rows for request in chosen)
    turns: list[tuple[float, str, Request, Iterator[Request]]] = []  # names differ, so requests are never compared

    def queue_up(served_ns: float, tenant: str, able: Iterator[Request]) -> None:
        request = next(able, None)
        if request is not None:
            heappush(turns, (served_ns, tenant, request, able))

    for tenant, line in by_tenant.items():
        queue_up(
            shares.served_ns(tenant), tenant, iter([request for request in line if request.deadline_ns >= finish_ns])
        )
    while turns and rows > 0:
        served_ns, tenant, request, able = heappop(turns)
        if request.rows <= rows or not chosen:
            chosen.append(request)
            rows -= request.rows
        queue_up(served_ns + row_cost_ns * request.rows / shares.weight(tenant), tenant, able)


def _tightest_budget_ns(by_tenant: dict[str, Line]) -> int:
    """Returns the smallest latency budget among the first requests of the lines."""
    return min(line[0].deadline_ns - line[0].arrived_ns for line in by_tenant.values())
