"""Which shape is computed next, and which shorter ones ride along, where there are several.

Padding a short text to the length of a long one costs what the difference costs; a batch of its own costs the fixed
part again. So each shape is offered with the shorter ones for which riding along is cheaper, and the offer that is
worth the most per unit of time goes, unless another can no longer wait for it.

Clients choose shapes, so there may be as many as requests. Of many only a handful is compared: those whose turn is
next, and those for which most wait.
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

ROUNDS_OF_PATIENCE = 2  # in each of which every shape is served once: nobody is overtaken for longer
COMPARED = 64  # shapes; where more wait, batches of a request or two are what there is to choose from
COMPANY = 0.6  # how full a batch of its own is taken to be for a shape that is left to wait


@dataclass(frozen=True, slots=True)
class Waiting:
    """Who waits for one shape. due_ns: when the first of them is wanted, or will have waited long enough."""

    shape: Shape
    rows: int
    batch_rows: int  # the most that one batch should take
    due_ns: int
    worth_ns: float  # device time of a row at its best
    apart_ns: float  # device time of a row if it waits for a batch of its own shape


@dataclass(frozen=True, slots=True)
class Offer:
    """One batch that could be next. aboard: rows by shape, its own first."""

    aboard: dict[Shape, int]
    worth: float  # what its riders would cost at their best over what they cost in it
    duration_ns: int


def choose_shape(
    queue: RequestQueue, latency: LatencyModel, sizes: Sizes, shares: FairShares, start_ns: int
) -> dict[Shape, int]:
    """The shape of the next batch and those that ride along, the longest first, each with the rows meant to ride."""
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
    # Those aboard the best offer count too: else it would be put off for every other one that is due.
    if pressing and (shape := waiting[min(pressing)[1]].shape) not in best.aboard:
        best = max((offer for offer in offers if shape in offer.aboard), key=lambda offer: offer.worth)
    return best.aboard


def _compared(queue: RequestQueue, tenant: str) -> Iterable[Shape]:
    """All shapes, or of many those that this tenant has waited for longest, and those that most requests have."""
    lines = queue.lines
    if len(lines) <= COMPARED:
        return lines
    heads = [(by_tenant[tenant][0].rank_ns, shape) for shape, by_tenant in lines.items() if tenant in by_tenant]
    oldest = [shape for _, shape in nsmallest(COMPARED // 2, heads, key=itemgetter(0))]
    counts = [(sum(map(len, by_tenant.values())), shape) for shape, by_tenant in lines.items()]
    return dict.fromkeys(chain(oldest, (shape for _, shape in nlargest(COMPARED // 2, counts, key=itemgetter(0)))))


def _waiting(queue: RequestQueue, shapes: Iterable[Shape], latency: LatencyModel, sizes: Sizes) -> list[Waiting]:
    """The longest first."""
    found = []
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
        # While one batch could take everyone, the device is not pressed and latency counts. Beyond that a shape left
        # alone fills up until its turn comes.
        company = rows if backlog <= batch_rows else max(rows, int(COMPANY * batch_rows))
        company = max(1, min(company, batch_rows))
        found.append(
            Waiting(
                shape,
                rows,
                batch_rows,
                min(first.rank_ns, first.arrived_ns + ROUNDS_OF_PATIENCE * round_ns),
                latency.predict_ns(sizes.padded_rows(batch_rows), length) / batch_rows,
                latency.predict_ns(sizes.padded_rows(company), length) / company,
            )
        )
    return sorted(found, key=lambda one: one.shape[1], reverse=True)


def _offer(waiting: list[Waiting], index: int, latency: LatencyModel, sizes: Sizes) -> Offer:
    own = waiting[index]
    group, length = own.shape
    rows = min(own.rows, own.batch_rows)
    aboard = {own.shape: rows}
    worth_ns = rows * own.worth_ns
    duration_ns = latency.predict_ns(sizes.padded_rows(rows), length)
    for other in waiting[index + 1 :]:
        if other.shape[0] != group:
            continue
        more = min(other.rows, own.batch_rows - rows)
        if more <= 0:
            break
        together_ns = latency.predict_ns(sizes.padded_rows(rows + more), length)
        if together_ns - duration_ns > more * other.apart_ns:
            break
        rows += more
        aboard[other.shape] = more
        worth_ns += more * other.worth_ns
        duration_ns = together_ns
    return Offer(aboard, worth_ns / max(duration_ns, 1), duration_ns)
