"""CPU of a replica per request with a prediction cache: a hit in memory, and a look-up in Valkey.

    python -m benchmarks.bench_cache [--rounds 30]

Each line is the CPU of this process (Valkey's is not in it) per request, the fastest of the rounds: other work on the
machine only adds to a round. `digest` is that of 4 KiB and is part of all the others. Look-ups are of requests that
arrive in one turn of the loop, which share one call. The last line is the wall time of a look-up in an open loop.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from models.breaker import Breaker
from serving.cache.backend import CachedBackend
from serving.cache.digest import digest
from serving.cache.shared import SharedAnswers
from serving.core.backend import Submitted
from serving.core.clock import SystemClock
from serving.core.outcome import Completed, Timings
from serving.core.statistics import ModelStatistics
from serving.protocol.packing import pack
from serving.runtime.settling import Settling
from serving.store.answers import RedisAnswerStore
from serving.store.connecting import Address, connect
from serving.store.embedded import embedded
from serving.store.guard import Guard
from serving.store.keys import Keys
from serving.telemetry.cache import CacheRecorder
from serving.telemetry.recorder import Recorder

MODEL = b"model"
TTL_MS = 3_600_000
OPEN_LOOP_S = 5
CONNECTIONS = 32
Y = {"y": np.zeros((1, 384), np.float32)}


class Settled(Settling):
    """A request that has its answer."""

    __slots__ = ("_then", "_waiter", "outcome")

    def __init__(self) -> None:
        self.outcome = Completed(Y, 0, Timings(0, 0, 0, 1))
        self._then = self._waiter = None

    def cancel(self) -> None:
        """Does nothing: the request has ended."""


class AtOnce:
    """A backend that takes no time."""

    def submit(self, payload: object, **more: Any) -> Submitted:
        return Settled()

    def statistics(self) -> ModelStatistics:
        return ModelStatistics()

    def is_ready(self) -> bool:
        return True


def inputs(number: int) -> dict[str, np.ndarray]:
    """Returns 4 KiB of inputs, others for each number."""
    return {"x": np.full((1, 1024), number, np.float32)}


def cached(url: str, most_bytes: int) -> tuple[CachedBackend, RedisAnswerStore, Keys]:
    keys = Keys("bench")
    store = RedisAnswerStore(connect(Address(url=url), 1.0), keys)
    counts = CacheRecorder(Recorder(), lambda: 0)
    guard = Guard(Breaker(random.random), SystemClock(), 1.0)
    backend = CachedBackend(
        AtOnce(), model="m", outputs=["y"], fingerprint=MODEL, ttl_s=3600, most_bytes=most_bytes, observer=counts,
        random=random.random, shared=SharedAnswers(store, guard, counts, limit_s=1.0), keys=keys,
    )  # fmt: skip
    return backend, store, keys


async def least_us(work: Callable[[], Awaitable[None]], requests: int, rounds: int) -> float:
    least = float("inf")
    for _ in range(rounds):
        began_ns = time.process_time_ns()
        await work()
        least = min(least, (time.process_time_ns() - began_ns) / 1000 / requests)
    return least


async def measure(url: str, rounds: int) -> None:
    backend, store, keys = cached(url, 1 << 26)
    without_memory, *_ = cached(url, 0)
    known = [inputs(number) for number in range(256)]
    value, prefix = pack(Y, 10**15), keys.answers("acme", "m")
    await store.write([(prefix + digest(MODEL, one, None).hex(), value, TTL_MS) for one in known])

    async def digests() -> None:
        for one in known:
            digest(MODEL, one, None)

    async def ask(of: CachedBackend, together: int) -> None:
        for start in range(0, len(known), together):
            some = [of.submit(one, rows=1, tenant="acme") for one in known[start : start + together]]
            for submitted in some:
                assert (await submitted).cached  # type: ignore[union-attr]

    print(f"digest of 4 KiB                         {await least_us(digests, 256, rounds):6.1f} us")
    await ask(backend, 32)
    print(f"hit in memory                           {await least_us(lambda: ask(backend, 32), 256, rounds):6.1f} us")
    for together in (1, 2, 4, 8, 32):
        took = await least_us(lambda together=together: ask(without_memory, together), 256, rounds)  # type: ignore[misc]
        print(f"hit in Valkey, {together:2} requests in one turn   {took:6.1f} us")
    took = await least_us(lambda: connections(without_memory, known, CONNECTIONS), 8 * len(known), rounds)
    print(f"hit in Valkey, {CONNECTIONS} connections          {took:6.1f} us")
    print(f"p99 of look-ups at 2,000/s              {await p99_ms(without_memory, known):6.2f} ms")
    await store.close()


async def connections(of: CachedBackend, known: list[dict[str, np.ndarray]], count: int) -> None:
    """Sends 8 times all known requests over connections each of which sends the next when it has its answer."""
    left = iter(known * 8)

    async def connection() -> None:
        for one in left:
            await of.submit(one, rows=1, tenant="acme")

    await asyncio.gather(*(connection() for _ in range(count)))


async def p99_ms(of: CachedBackend, known: list[dict[str, np.ndarray]]) -> float:
    """Returns the 99th percentile of the wall time of look-ups that begin at 2,000 a second."""
    loop, chance = asyncio.get_running_loop(), random.Random(1)
    took: list[float] = []
    due_s = loop.time()
    end_s = due_s + OPEN_LOOP_S
    while due_s < end_s:
        due_s += chance.expovariate(2000)
        await asyncio.sleep(max(0, due_s - loop.time()))
        began_s = due_s
        of.submit(chance.choice(known), rows=1, tenant="acme").then(
            lambda _, began_s=began_s: took.append(loop.time() - began_s)  # type: ignore[misc]
        )
    await asyncio.sleep(1)
    return 1000 * sorted(took)[len(took) * 99 // 100]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, embedded(Path(folder)) as url:
        uvloop.run(measure(url, arguments.rounds))


if __name__ == "__main__":
    main()
