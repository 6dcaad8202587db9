"""Chooses the shape of the next batch, and the shorter shapes that join it, if several shapes wait.

Padding a short text to the length of a longer one wastes device time (padding waste); a batch of its own pays the fixed
cost of a batch again. So for each shape an offer is made: a batch of this shape with those shorter shapes for which
joining is cheaper. The offer with the highest worth per device time wins, unless another shape can no longer wait.

Clients choose the shapes, so there may be as many shapes as requests. At most `COMPARED` are compared: those with the
oldest requests by rank, and those with the most requests. The comparison is quadratic in their number.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nlargest, nsmallest
from itertools import chain
from operator import itemgetter

from serving.core.fairness import FairShares
from serving.core.latency import LatencyModel
from serving.core.queue import RequestQueue, Shape
from serving.core.sizes import Sizes

ROUNDS_OF_PATIENCE = 2  # a round serves each shape once; no request is overtaken for longer than this many rounds
COMPARED = 64  # shapes; if more than these wait, each has a request or two and the choice matters little
LATER_FILL = 0.6  # how full a shape's own batch is assumed to be if the shape is left to wait


@dataclass(frozen=True, slots=True)
class Waiting:
    """The waiting requests of one shape.

    due_ns: the instant by which the first of them should be done: its rank, or the end of its patience if earlier.
    """

    shape: Shape
    rows: int
    batch_rows: int  # the most that one batch should take
    due_ns: int
    worth_ns: float  # device time of a row in a batch of the best size
    apart_ns: float  # device time of a row if it waits for a later batch of its own shape


@dataclass(frozen=True, slots=True)
class Offer:
    """A possible next batch. aboard: rows by shape, the batch's own shape first."""

    aboard: dict[Shape, int]
    worth: float  # device time of its rows in batches of the best size, divided by its own device time
    duration_ns: int


def choose_shape(
    queue: RequestQueue, latency: LatencyModel, sizes: Sizes, shares: FairShares, start_ns: int
) -> dict[Shape, int]:
    """Returns the rows of the next batch by shape, its own shape (the longest) first, then the shapes that join it.

    Only offers with requests of the least-served tenant are considered. If a shape of that tenant would miss `due_ns`
    by waiting for the best offer, the best offer that includes the most urgent such shape wins instead.
    """
    least_served = min(queue.tenants(), key=shares.served_ns)
    waiting = _waiting(queue, _compared(queue, least_served), latency, sizes)
    offers = [_offer(waiting, index, latency, sizes) for index in range(len(waiting))]
    entitled = [offer for offer in offers if any(least_served in queue.lines[shape] for shape in offer.aboard)]
    best = max(entitled, key=lambda offer: offer.worth)
    pressing = [
        (one.due_ns - alone_ns, index)
        for index, one in enumerate(waiting)
        if least_served in queue.lines[one.shape]
        for alone_ns in [latency.plan_ns(sizes.padded_rows(min(one.rows, one.batch_rows)), one.shape[1])]
        if one.due_ns < start_ns + best.duration_ns + alone_ns
    ]
    # The shapes of the best offer count too; otherwise it would be deferred for each other shape that is due.
    if pressing and (shape := waiting[min(pressing)[1]].shape) not in best.aboard:
        best = max((offer for offer in offers if shape in offer.aboard), key=lambda offer: offer.worth)
    return best.aboard


def _compared(queue: RequestQueue, tenant: str) -> Iterable[Shape]:
    """Returns all shapes; if there are many, those with this tenant's oldest requests and those with most requests."""
    lines = queue.lines
    if len(lines) <= COMPARED:
        return lines
    heads = [(by_tenant[tenant][0].rank_ns, shape) for shape, by_tenant in lines.items() if tenant in by_tenant]
    oldest = [shape for _, shape in nsmallest(COMPARED // 2, heads, key=itemgetter(0))]
    counts = [(sum(map(len, by_tenant.values())), shape) for shape, by_tenant in lines.items()]
    return dict.fromkeys(chain(oldest, (shape for _, shape in nlargest(COMPARED // 2, counts, key=itemgetter(0)))))


def _waiting(queue: RequestQueue, shapes: Iterable[Shape], latency: LatencyModel, sizes: Sizes) -> list[Waiting]:
    """Returns the waiting requests of these shapes, the longest shape first."""
    result = []
    rows_by_shape = {
        shape: sum(request.rows for line in queue.lines[shape].values() for request in line) for shape in shapes
    }
    useful = {shape: sizes.useful_rows(latency, shape[1]) for shape in rows_by_shape}
    round_ns = sum(
        latency.predict_ns(sizes.padded_rows(min(rows, useful[shape])), shape[1])
        for shape, rows in rows_by_shape.items()
    )
    backlog = sum(rows_by_shape.values())
    for shape, rows in rows_by_shape.items():
        length, batch_rows = shape[1], useful[shape]
        first = min((line[0] for line in queue.lines[shape].values()), key=lambda request: request.rank_ns)
        # While one batch could take all rows, the device has time and latency counts. With a larger backlog, a shape
        # that waits gets more requests until its own batch is cut.
        later_rows = rows if backlog <= batch_rows else max(rows, int(LATER_FILL * batch_rows))
        later_rows = max(1, min(later_rows, batch_rows))
        result.append(
            Waiting(
                shape,
                rows,
                batch_rows,
                min(first.rank_ns, first.arrived_ns + ROUNDS_OF_PATIENCE * round_ns),
                latency.predict_ns(sizes.padded_rows(batch_rows), length) / batch_rows,
                latency.predict_ns(sizes.padded_rows(later_rows), length) / later_rows,
            )
        )
    return sorted(result, key=lambda waiting: waiting.shape[1], reverse=True)


def _offer(waiting: list[Waiting], index: int, latency: LatencyModel, sizes: Sizes) -> Offer:
    """Returns the offer of the shape at `index`: greedily adds shorter shapes of its group while joining is cheaper."""
    own = waiting[index]
    group, length = own.shape
    rows = min(own.rows, own.batch_rows)
    aboard = {own.shape: rows}
    worth_ns = rows * own.worth_ns
    duration_ns = latency.predict_ns(sizes.padded_rows(rows), length)
    for other in waiting[index + 1 :]:
        if other.shape[0] != group:
            continue
        added = min(other.rows, own.batch_rows - rows)
        if added <= 0:
            break
        together_ns = latency.predict_ns(sizes.padded_rows(rows + added), length)
        if together_ns - duration_ns > added * other.apart_ns:
            break
        rows += added
        aboard[other.shape] = added
        worth_ns += added * other.worth_ns
        duration_ns = together_ns
    return Offer(aboard, worth_ns / max(duration_ns, 1), duration_ns)
