"""Measures the cost of an answer of a generating model: `python -m benchmarks.bench_generation`.

The model does nothing, so that only Headway's work is measured: one step in the lane's thread and one iteration of the
event loop.
"""

import asyncio

import numpy as np

from models.generating import PlainGenerating
from models.reference import Repeat, repeat_spec
from serving.core.clock import SystemClock
from serving.runtime.generation import GeneratingEngine

ANSWERS = 2000


async def measure(requests: int) -> float:
    """Returns the microseconds per answer, with this many requests at a time."""
    inputs = {"in": np.zeros((1, ANSWERS), np.int32)}
    async with GeneratingEngine(PlainGenerating(repeat_spec(), Repeat())) as engine:
        began_ns = SystemClock.now_ns()

        async def read() -> int:
            return sum([1 async for _ in engine.generate(inputs)])

        answers = sum(await asyncio.gather(*(read() for _ in range(requests))))
        return (SystemClock.now_ns() - began_ns) / answers / 1000


def main() -> None:
    for requests in (1, 8):
        times = sorted(asyncio.run(measure(requests)) for _ in range(5))
        print(f"{requests} at a time: {times[2]:.0f} µs per answer (from {times[0]:.0f} to {times[-1]:.0f})")


if __name__ == "__main__":
    main()
