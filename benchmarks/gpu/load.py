"""Drives an engine from the event loop it lives on: always so many in flight, or as a crowd of strangers comes."""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np

from serving.core.outcome import Completed, Outcome
from serving.runtime.engine import Engine

PAUSE_S = 0.0 if len(os.sched_getaffinity(0)) >= 4 else 0.001  # spinning would take a core that computes
Payloads = Sequence[dict[str, np.ndarray]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturated:
    """mean_rows: per batch. busy_share: of the time, as the engine's lane saw it."""

    rows_per_s: float
    mean_rows: float
    busy_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """offered, in_time: requests per second. p99_ms: of those answered, from the planned instant."""

    offered: float
    in_time: float
    p99_ms: float


async def saturate(engine: Engine, payloads: Payloads, *, in_flight: int, seconds: float) -> Saturated:
    """Each answered request is followed by another at once. The first quarter of the time is not counted."""
    loop = asyncio.get_running_loop()
    done, sent, failures = 0, 0, 0
    stopped, idle = False, asyncio.Event()

    def submit() -> None:
        nonlocal sent
        payload = payloads[sent % len(payloads)]
        sent += 1
        engine.submit(payload, rows=1).then(answered)

    def answered(outcome: Outcome) -> None:
        nonlocal done, failures
        done += 1
        failures += not isinstance(outcome, Completed)
        if stopped or failures:
            if done == sent:
                idle.set()
        else:
            loop.call_soon(submit)

    for _ in range(in_flight):
        submit()
    await asyncio.sleep(seconds / 4)
    began, done_before = perf_counter_ns(), done
    batches, busy_ns = engine.statistics().execution_count, engine.reading().busy_ns
    await asyncio.sleep(seconds * 3 / 4)
    took_ns, rows = perf_counter_ns() - began, done - done_before
    batches, busy_ns = engine.statistics().execution_count - batches, engine.reading().busy_ns - busy_ns
    stopped = True
    if failures:
        raise RuntimeError(f"{failures} requests failed under load: {engine!r}")
    await asyncio.wait_for(idle.wait(), 60)
    return Saturated(
        rows_per_s=rows / took_ns * 1e9, mean_rows=rows / max(1, batches), busy_share=min(1.0, busy_ns / took_ns)
    )


async def single_request_ns(engine: Engine, payloads: Payloads, count: int) -> int:
    """The median of one request at a time, submitted when the one before is answered."""
    times = []
    for number in range(count):
        began = perf_counter_ns()
        outcome = await engine.submit(payloads[number % len(payloads)], rows=1)
        times.append(perf_counter_ns() - began)
        if not isinstance(outcome, Completed):
            raise RuntimeError(f"a lone request was not answered: {outcome}")
    return int(np.median(times))


async def crowd(
    engine: Engine, payloads: Payloads, *, rate: float, budget_ns: int, seconds: float, seed: int
) -> Goodput:
    """Poisson arrivals on a schedule made before; an answer is in time if it comes within the budget of its planned
    instant. Sending does not wait for answers, and spins where there are cores: the loop's timers are too coarse."""
    gaps = np.random.default_rng(seed).exponential(1e9 / rate, max(1, round(rate * seconds)))
    planned = np.cumsum(gaps).astype(np.int64).tolist()
    latencies: list[int] = []
    ended = 0
    all_ended = asyncio.Event()
    began = perf_counter_ns()

    def answered(number: int) -> Callable[[Outcome], None]:
        def note(outcome: Outcome) -> None:
            nonlocal ended
            ended += 1
            if isinstance(outcome, Completed):
                latencies.append(perf_counter_ns() - began - planned[number])
            if ended == len(planned):
                all_ended.set()

        return note

    for number, at_ns in enumerate(planned):
        while (late_ns := perf_counter_ns() - began - at_ns) < 0:  # noqa: ASYNC110 - time is all it waits for
            await asyncio.sleep(PAUSE_S)
        # A request that could not be sent on time has less time left, as it would have had on the way here.
        left_ns = max(1, budget_ns - late_ns)
        engine.submit(payloads[number % len(payloads)], rows=1, timeout_ns=left_ns).then(answered(number))
    await asyncio.wait_for(all_ended.wait(), 60)
    took_s = planned[-1] / 1e9
    in_time = sum(latency <= budget_ns for latency in latencies)
    p99_ms = float(np.quantile(latencies, 0.99)) / 1e6 if latencies else float("nan")
    return Goodput(offered=len(planned) / took_s, in_time=in_time / took_s, p99_ms=p99_ms)
