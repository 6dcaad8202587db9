"""Builders of requests, latency models and batchers for the tests of the core, with times in milliseconds."""

from itertools import count

from serving.core.batcher import Batcher
from serving.core.latency import LatencyModel
from serving.core.pace import Pace
from serving.core.request import NO_DEADLINE_NS, Request, rank
from serving.core.sizes import Sizes

MS = 1_000_000
_ids = count(1)


def ms(value: float) -> int:
    return int(value * MS)


def request(
    *,
    tenant: str = "",
    rows: int = 1,
    length: int = 1,
    group: object = None,
    at_ms: float = 0.0,
    budget_ms: float | None = None,
    timeout_ms: float | None = None,
    priority: int = 0,
) -> Request:
    """Returns a request that arrives at `at_ms`; `budget_ms` and `timeout_ms` count from its arrival."""
    arrived_ns = ms(at_ms)
    expires_ns = arrived_ns + (ms(timeout_ms) if timeout_ms is not None else NO_DEADLINE_NS)
    budget_ns = ms(budget_ms) if budget_ms is not None else NO_DEADLINE_NS
    deadline_ns = min(arrived_ns + budget_ns, expires_ns)
    return Request(
        id=next(_ids),
        tenant=tenant,
        rows=rows,
        length=length,
        group=group,
        arrived_ns=arrived_ns,
        deadline_ns=deadline_ns,
        expires_ns=expires_ns,
        rank_ns=rank(arrived_ns, deadline_ns, priority, ms(100)),
        payload=None,
    )


def latency(*, fixed_ms: float, per_row_ms: float, up_to: int = 64, lengths: tuple[int, ...] = (1,)) -> LatencyModel:
    """Returns a model that has learned `fixed + per_row * rows * length` exactly; its margin has hardly adapted yet."""
    model = LatencyModel(lengths=lengths)
    for length in lengths:
        rows = 1
        while rows <= up_to:
            for _ in range(3):
                model.observe(rows, length, ms(fixed_ms + per_row_ms * rows * length))
            rows *= 2
    return model


def batcher(
    *,
    fixed_ms: float = 5.0,
    per_row_ms: float = 1.0,
    max_rows: int = 8,
    lengths: tuple[int, ...] = (1,),
    ladder: tuple[int, ...] | None = None,
    max_requests: int = 1000,
    weights: dict[str, float] | None = None,
    batches_per_lane: int = 1,
    lead_ms: float = 0.0,
    fills_ahead: bool = False,
    pace: Pace | None = None,
) -> Batcher:
    return Batcher(
        latency(fixed_ms=fixed_ms, per_row_ms=per_row_ms, lengths=lengths),
        Sizes(largest_rows=max_rows, lengths=lengths, row_ladder=ladder),
        max_requests=max_requests,
        weights=weights,
        batches_per_lane=batches_per_lane,
        lead_ns=ms(lead_ms),
        fills_ahead=fills_ahead,
        pace=pace,
    )
