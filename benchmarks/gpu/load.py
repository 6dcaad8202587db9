"""Drives an engine from its own event loop: with a constant number of requests in flight, or with Poisson arrivals."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns

import numpy as np

from benchmarks.gpu import arrivals
from serving.core.outcome import Completed, Outcome
from serving.runtime.engine import Engine

Payloads = Sequence[dict[str, np.ndarray]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturated:
    """The result of saturation. mean_rows: per batch. busy_share: the share of time in which the engine's lane was
    busy."""

    rows_per_s: float
    mean_rows: float
    busy_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """The result of Poisson arrivals. offered, in_time: requests per second. p99_ms: latency of answered requests, from
    the planned instant."""

    offered: float
    in_time: float
    p99_ms: float


async def saturate(engine: Engine, payloads: Payloads, *, in_flight: int, seconds: float) -> Saturated:
    """Saturates the engine: each answered request is followed by another at once. The first quarter of the time is not
    counted."""
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
    while done == done_before and not failures:  # noqa: ASYNC110  # a rate needs an answer, however slow the device is
        await asyncio.sleep(seconds / 4)
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
    """Returns the median latency of one request at a time, submitted when the previous one is answered."""
    times = []
    for number in range(count):
        began = perf_counter_ns()
        outcome = await engine.submit(payloads[number % len(payloads)], rows=1)
        times.append(perf_counter_ns() - began)
        if not isinstance(outcome, Completed):
            raise RuntimeError(f"a single request was not answered: {outcome}")
    return int(np.median(times))


async def crowd(
    engine: Engine, payloads: Payloads, *, rate: float, budget_ns: int, seconds: float, seed: int
) -> Goodput:
    """Submits requests on a Poisson schedule drawn in advance. An answer is in time if it comes within the budget after
    its planned instant, even if it was sent late. A separate process wakes the loop, like a socket, for all requests
    that are due."""
    loop = asyncio.get_running_loop()
    gaps = np.random.default_rng(seed).exponential(1e9 / rate, max(1, round(rate * seconds)))
    planned = np.cumsum(gaps).astype(np.int64)
    instants = planned.tolist()
    latencies: list[int] = []
    sent = ended = 0
    all_ended = asyncio.Event()

    def note(number: int, outcome: Outcome) -> None:
        nonlocal ended
        ended += 1
        if isinstance(outcome, Completed):
            latencies.append(perf_counter_ns() - began_ns - instants[number])
        if ended == len(instants):
            all_ended.set()

    def submit_those_due() -> None:
        nonlocal sent
        due = _last_number(os.read(said, 1 << 16))
        now_ns = perf_counter_ns() - began_ns
        for number in range(sent, due):
            left_ns = max(1, budget_ns - (now_ns - instants[number]))
            ticket = engine.submit(payloads[number % len(payloads)], rows=1, timeout_ns=left_ns)
            ticket.then(partial(note, number))
        sent = due
        if sent == len(instants):
            loop.remove_reader(said)

    said, tell = os.pipe()
    try:
        clients = await asyncio.create_subprocess_exec(sys.executable, arrivals.__file__, stdin=PIPE, stdout=tell)
        assert clients.stdin is not None
        clients.stdin.write(planned.tobytes())
        clients.stdin.close()
        began_ns = _last_number(await asyncio.to_thread(os.read, said, arrivals.NUMBER))
        loop.add_reader(said, submit_those_due)
        await asyncio.wait_for(all_ended.wait(), 60)
        await clients.wait()
    finally:
        loop.remove_reader(said)
        os.close(said)
        os.close(tell)
    took_s = instants[-1] / 1e9
    in_time = sum(latency <= budget_ns for latency in latencies)
    p99_ms = float(np.quantile(latencies, 0.99)) / 1e6 if latencies else float("nan")
    return Goodput(offered=len(instants) / took_s, in_time=in_time / took_s, p99_ms=p99_ms)


def _last_number(said: bytes) -> int:
    return int.from_bytes(said[-arrivals.NUMBER :], "little")
