"""CPU per request and per batch of the engine alone: submit, cut, one batch through a lane, settle, answer.

    python -m benchmarks.bench_engine [--rows 32] [--batches 300]

The model returns at once, so that only the engine is measured. CPU of all threads, not wall time.
"""

import argparse
import asyncio
import time
from collections.abc import Coroutine
from statistics import median
from typing import Any, TypeVar

import numpy as np
import uvloop

from models.loading import load_model
from models.reference import noop
from models.spec import Limits, ModelSpec, TensorSpec
from serving.core.outcome import Completed
from serving.runtime.engine import Engine
from serving.runtime.ticket import Ticket

T = TypeVar("T")
SPEC = ModelSpec(
    name="noop",
    factory=f"{noop.__module__}:{noop.__qualname__}",
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 1024)),),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 1)),),
    limits=Limits(max_batch_rows=128),
)


async def measure(rows_per_batch: int, batches: int) -> tuple[float, float, float]:
    """Returns (CPU us per request, CPU us per batch, mean rows per batch)."""
    payload = {"x": np.zeros((1, 1024), np.float32)}
    async with Engine([load_model(SPEC)]) as engine:
        engine.batcher.sizes.largest_rows = rows_per_batch

        async def wait_for(tickets: list[Ticket]) -> None:
            for ticket in tickets:
                assert isinstance(await ticket, Completed)

        before = engine.statistics().execution_count
        began = time.process_time()
        for _ in range(batches):
            await wait_for([engine.submit(payload, rows=1) for _ in range(rows_per_batch)])
        spent_us = (time.process_time() - began) * 1e6
        executed = engine.statistics().execution_count - before
    return spent_us / (batches * rows_per_batch), spent_us / executed, batches * rows_per_batch / executed


async def added_latency_ms(requests: int) -> float:
    """Returns the median wall time in ms of one request at a time, submitted when the previous one is answered."""
    payload = {"x": np.zeros((1, 1024), np.float32)}
    times = []
    async with Engine([load_model(SPEC)]) as engine:
        for _ in range(requests):
            began = time.perf_counter()
            assert isinstance(await engine.submit(payload, rows=1), Completed)
            times.append(time.perf_counter() - began)
    return median(times) * 1e3


def run(story: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on uvloop, the event loop of replicas."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(story)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 8, 32, 64, 128])
    parser.add_argument("--batches", type=int, default=300)
    arguments = parser.parse_args()
    print("rows offered   rows per batch   CPU us/request   CPU us/batch")
    for rows in arguments.rows:
        run(measure(rows, 20))
        per_request, per_batch, reached = run(measure(rows, arguments.batches))
        print(f"{rows:12d} {reached:16.1f} {per_request:16.1f} {per_batch:14.0f}")
    print(f"one request at a time: {run(added_latency_ms(2000)):.2f} ms at the median, model included")


if __name__ == "__main__":
    main()
