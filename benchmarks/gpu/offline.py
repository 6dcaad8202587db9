"""Runs the model's execution back to back in the lane's thread: the rate of an engine without overhead.

Requests are copied and padded as in the engine; queue, event loop and answers are missing.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import cycle
from time import perf_counter_ns
from typing import Any, TypeVar

import numpy as np

from models.base import Bucket, Prepared
from serving.runtime.engine import Engine

T = TypeVar("T")
Batches = list[tuple[list[Prepared], Bucket]]


def batches_of(parts: Sequence[Prepared], rows: int, lengths: Sequence[int]) -> Batches:
    """Puts every request into one batch with others of its padded length; the last batch of a length is filled with
    repeated requests."""
    by_length: dict[int, list[Prepared]] = {}
    for part in parts:
        padded = next((length for length in lengths if length >= part.length), part.length)
        by_length.setdefault(padded, []).append(part)
    batches: Batches = []
    for length, own in sorted(by_length.items()):
        count = -(-len(own) // rows)
        filled = [own[index % len(own)] for index in range(count * rows)]
        batches += [(filled[start : start + rows], Bucket(rows, length)) for start in range(0, count * rows, rows)]
    np.random.default_rng(0).shuffle(batches)
    return batches


async def back_to_back(engine: Engine, payloads: Sequence[dict[str, np.ndarray]], rows: int, seconds: float) -> float:
    """Returns the rows per second in batches of this size, while the engine is idle."""
    model = engine.model
    parts = [model.prepare(dict(payload)) for payload in payloads]
    batches = batches_of(parts, rows, model.lengths())
    return await in_lane(engine, lambda: _run(model, batches, seconds))


def _run(model: Any, batches: Batches, seconds: float) -> float:
    asynchronous = getattr(model, "asynchronous", False)
    for parts, bucket in batches[:3]:
        model.forward(model.collate(parts, bucket))
    under_way: deque[object] = deque()
    done = 0
    began = perf_counter_ns()
    for parts, bucket in cycle(batches):
        staged = model.collate(parts, bucket)
        if asynchronous:
            under_way.append(model.launch(staged))
            if len(under_way) == 2:
                model.collect(under_way.popleft())
        else:
            model.forward(staged)
        done += bucket.rows
        if perf_counter_ns() - began > seconds * 1e9:
            break
    while under_way:
        model.collect(under_way.popleft())
    return done / (perf_counter_ns() - began) * 1e9


async def in_lane(engine: Engine, work: Callable[[], T]) -> T:
    """Calls `work` in the lane's thread and returns its result."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def call() -> None:
        try:
            value = work()
        except Exception as error:
            loop.call_soon_threadsafe(result.set_exception, error)
        else:
            loop.call_soon_threadsafe(result.set_result, value)

    engine._driver._lanes[0].call(call)
    return await result
