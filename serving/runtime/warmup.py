"""Measures a model before it takes requests: a ladder of batch sizes, climbed as far as larger batches pay."""

import asyncio
from collections.abc import Callable, Iterator

from models.base import Bucket, Model, OutOfDeviceMemory
from serving.core.clock import Clock
from serving.core.latency import LatencyModel
from serving.runtime.lane import Lane

REPEATS = 3
WORTH_CLIMBING = 1.02  # a rung must beat the best so far by this factor; two that do not end the climb
TIME_LIMIT_NS = 20_000_000_000


def ladder(largest_rows: int) -> Iterator[int]:
    """1, 2, 4, ... and at last `largest_rows` itself."""
    rows = 1
    while rows < largest_rows:
        yield rows
        rows *= 2
    yield largest_rows


def warm_up(
    model: Model,
    latency: LatencyModel,
    clock: Clock,
    *,
    largest_rows: int,
    budget_ns: int | None,
    report: Callable[[str], None] = lambda text: None,
) -> int:
    """Runs the ladder for every padded length, longest last; teaches `latency`. Returns the most rows that worked.

    Rungs stop where throughput stops growing, where one batch would take longer than the latency budget, where the
    device runs out of memory, or when warming up has taken long enough.
    """
    began_ns = clock.now_ns()
    lengths = model.lengths()
    worked = largest_rows
    for length in lengths:
        best = disappointments = 0.0
        for rows in ladder(worked):
            try:
                took_ns = _measure(model, latency, clock, rows, length)
            except OutOfDeviceMemory:
                worked = max(1, rows // 2)
                report(f"{rows} x {length}: out of memory, going on with at most {worked} rows")
                break
            throughput = rows / took_ns
            report(f"{rows} x {length}: {took_ns / 1e6:.2f} ms, {throughput * 1e9:.0f} rows/s")
            disappointments = disappointments + 1 if throughput < best * WORTH_CLIMBING else 0
            best = max(best, throughput)
            too_slow = budget_ns is not None and took_ns > budget_ns
            if disappointments >= 2 or too_slow or clock.now_ns() - began_ns > TIME_LIMIT_NS:
                break
    return worked


def _measure(model: Model, latency: LatencyModel, clock: Clock, rows: int, length: int) -> int:
    """The fastest of a few runs, after one that is not counted (first runs allocate and compile). All teach."""
    times = []
    parts = [model.sample(1, length) for _ in range(rows)]
    for attempt in range(REPEATS + 1):
        began_ns = clock.now_ns()
        model.forward(model.collate(parts, Bucket(rows, length)))
        took_ns = max(1, clock.now_ns() - began_ns)
        if attempt:
            latency.observe(rows, length, took_ns)
            times.append(took_ns)
    return min(times)


async def warm_up_in_lane(
    lane: Lane,
    latency: LatencyModel,
    clock: Clock,
    *,
    largest_rows: int,
    budget_ns: int | None,
    report: Callable[[str], None],
) -> int:
    """`warm_up` in the thread that will compute later: what it allocates and compiles belongs to that thread."""
    loop = asyncio.get_running_loop()
    warmed: asyncio.Future[int] = loop.create_future()

    def work() -> None:
        try:
            rows = warm_up(lane.model, latency, clock, largest_rows=largest_rows, budget_ns=budget_ns, report=report)
        except Exception as error:
            loop.call_soon_threadsafe(warmed.set_exception, error)
        else:
            loop.call_soon_threadsafe(warmed.set_result, rows)

    lane.call(work)
    return await warmed
