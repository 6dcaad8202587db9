"""CPU per request and per batch of the engine alone: submit, cut, one batch through a lane, settle, answer.

    python -m benchmarks.bench_engine [--rows 32] [--chunks 150]

The model returns at once, so that only the engine is measured. CPU of all threads, not wall time. Prints the fastest
twentieth of many small chunks, and their median: other work on the machine only adds to a chunk. Compare only with
numbers of the same machine, interleaved: run it alternately in two checkouts.
"""

import argparse
import asyncio
import time
from collections.abc import Coroutine
from statistics import median
from typing import Any, NamedTuple, TypeVar

import numpy as np
import uvloop

from models.loading import load_model
from models.reference import noop
from models.spec import Limits, ModelSpec, TensorSpec
from serving.core.outcome import Completed
from serving.runtime.engine import Engine

T = TypeVar("T")
CHUNK = 10  # batches
SPEC = ModelSpec(
    name="noop",
    factory=f"{noop.__module__}:{noop.__qualname__}",
    inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 1024)),),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 1)),),
    limits=Limits(max_batch_rows=128),
)


class Costs(NamedTuple):
    """CPU us per request (the fastest twentieth of the chunks, and their median), and the mean rows per batch."""

    least_us: float
    median_us: float
    rows_per_batch: float


async def measure(rows: int, chunks: int) -> Costs:
    """Measures chunks of `CHUNK` times `rows` requests that are submitted together."""
    payload = {"x": np.zeros((1, 1024), np.float32)}
    costs_us = []
    async with Engine([load_model(SPEC)]) as engine:
        engine.batcher.sizes.largest_rows = rows
        before = engine.statistics().execution_count
        for _ in range(chunks):
            began_ns = time.process_time_ns()
            for _ in range(CHUNK):
                for ticket in [engine.submit(payload, rows=1) for _ in range(rows)]:
                    assert isinstance(await ticket, Completed)
            costs_us.append((time.process_time_ns() - began_ns) / 1000 / (CHUNK * rows))
        executed = engine.statistics().execution_count - before
    costs_us.sort()
    return Costs(costs_us[chunks // 20], median(costs_us), chunks * CHUNK * rows / executed)


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
    parser.add_argument("--chunks", type=int, default=150)
    arguments = parser.parse_args()
    print("rows offered   rows per batch   CPU us/request   median   CPU us/batch")
    for rows in arguments.rows:
        run(measure(rows, 3))
        least_us, median_us, reached = run(measure(rows, arguments.chunks))
        print(f"{rows:12d} {reached:16.1f} {least_us:16.2f} {median_us:8.2f} {least_us * reached:14.0f}")
    print(f"one request at a time: {run(added_latency_ms(2000)):.2f} ms at the median, model included")


if __name__ == "__main__":
    main()
