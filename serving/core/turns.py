"""Several tenants at one batch: how large it may be, and whose turn each seat is.

Nobody is passed over for another's sake: a request is dropped when it is hopeless by itself, not before.
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

CONTENTION_MEMORY = 20  # budgets for which a tenant that left is expected back
FLOODED_SHARE = 0.8  # of the throughput that is possible: a flood makes the device look no busier than this to others
HANDFUL = 4  # rows: fewer are no flood, however small the share


def ride_by_turns(
    queue: RequestQueue, shape: Shape, seats: Seats, shares: FairShares, *, comes_next: bool
) -> list[Request]:
    """Seats go, one request at a time, to whoever has had the least device time per weight.

    Those within their share say how large the batch is; who asks for more has the seats left up to the size of a flood,
    and one at least. Where everybody asks for more, a batch takes half the tightest budget at most, so that who comes
    while it computes can be served after it.
    """
    by_tenant = queue.lines[shape]
    half_rows = _half_budget_rows(by_tenant, seats)
    within = _within_share(by_tenant, half_rows, seats, shares)
    if not within:
        within = by_tenant
        seats.max_rows = half_rows
    beyond = {tenant: line for tenant, line in by_tenant.items() if tenant not in within}
    everyone = sorted(chain.from_iterable(within.values()), key=by_rank)
    window = find_window(everyone, seats, comes_next=comes_next)
    rows = window.rows
    if beyond:
        most = max(rows, seats.rows_until(window.deadline_ns))
        rows = min(max(rows + 1, _flood_rows(half_rows, seats)), most)
    finish_ns = seats.finish_ns(rows)
    row_cost_ns = seats.duration_ns(rows) / rows
    riders: list[Request] = []
    for tenants in (within, beyond):
        _deal(riders, tenants, rows, finish_ns, shares, row_cost_ns)
    for request in riders:
        queue.remove(request, shape)
    return riders


def leave_room(by_tenant: dict[str, Line], seats: Seats, shares: FairShares) -> None:
    """One tenant waits, but others were here lately and may come again: if it asks for more than its share, it gets no
    larger batch than a flood may fill.
    """
    if not are_others_expected(by_tenant, shares, seats.start_ns):
        return
    half_rows = _half_budget_rows(by_tenant, seats)
    is_within = _within_share(by_tenant, half_rows, seats, shares, others=1.0)
    seats.max_rows = half_rows if is_within else _flood_rows(half_rows, seats)


def are_others_expected(by_tenant: dict[str, Line], shares: FairShares, now_ns: int) -> bool:
    """Whether another tenant than the one that waits was here lately, and so may well come again."""
    memory_ns = CONTENTION_MEMORY * _tightest_budget_ns(by_tenant)
    return shares.others_since(next(iter(by_tenant)), now_ns - memory_ns)


def _half_budget_rows(by_tenant: dict[str, Line], seats: Seats) -> int:
    return max(1, seats.rows_until(seats.start_ns + _tightest_budget_ns(by_tenant) // 2))


def _flood_rows(half_rows: int, seats: Seats) -> int:
    """The smallest batch with that share of the throughput that batches of `half_rows` have.

    So batches are as long as they would be if nobody flooded and the load were `FLOODED_SHARE`.
    """
    wanted = FLOODED_SHARE * half_rows / seats.duration_ns(half_rows)
    return 1 + bisect_left(range(1, half_rows), True, key=lambda rows: rows >= wanted * seats.duration_ns(rows))


def _within_share(
    by_tenant: dict[str, Line], half_rows: int, seats: Seats, shares: FairShares, others: float = 0.0
) -> dict[str, Line]:
    """The tenants who wait for no more than their share of two batches, which is what they can have in a budget, and
    who have not had a batch's time more than another. A handful is no flood, however small the share.

    others: weight of those who are expected but do not wait now.
    """
    rows_per_weight = 2 * half_rows / (others + sum(shares.weight(tenant) for tenant in by_tenant))
    most_served_ns = min(map(shares.served_ns, by_tenant)) + seats.duration_ns(half_rows)

    def is_within(tenant: str, line: Line) -> bool:
        rows_due = max(HANDFUL, rows_per_weight * shares.weight(tenant))
        return shares.served_ns(tenant) <= most_served_ns and sum(request.rows for request in line) <= rows_due

    return {tenant: line for tenant, line in by_tenant.items() if is_within(tenant, line)}


def _deal(
    riders: list[Request],
    by_tenant: dict[str, Line],
    rows: int,
    finish_ns: int,
    shares: FairShares,
    row_cost_ns: float,
) -> None:
    """Adds to the riders, up to `rows`, those who make `finish_ns`, the least-served tenant first."""
    rows -= sum(request.rows for request in riders)
    turns: list[tuple[float, str, Request, Iterator[Request]]] = []  # tenants differ, so nothing behind is compared

    def queue_up(served_ns: float, tenant: str, able: Iterator[Request]) -> None:
        request = next(able, None)
        if request is not None:
            heappush(turns, (served_ns, tenant, request, able))

    for tenant, line in by_tenant.items():
        queue_up(shares.served_ns(tenant), tenant, iter([one for one in line if one.deadline_ns >= finish_ns]))
    while turns and rows > 0:
        served_ns, tenant, request, able = heappop(turns)
        if request.rows <= rows or not riders:
            riders.append(request)
            rows -= request.rows
        queue_up(served_ns + row_cost_ns * request.rows / shares.weight(tenant), tenant, able)


def _tightest_budget_ns(by_tenant: dict[str, Line]) -> int:
    return min(line[0].deadline_ns - line[0].arrived_ns for line in by_tenant.values())
