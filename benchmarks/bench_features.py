"""CPU and latency of reading features from a real Valkey on a Unix socket, without HTTP.

    python -m benchmarks.bench_features [--seconds S] [--rate R] [--parser python|hiredis|both]

Three cases: one entity with 40 features, R requests a second; the same without any pause, 32 at a time; and 100
entities in each request. CPU is that of this process, which holds what a replica or the front would do; the cost of the
loop that paces is subtracted. With `both`, rounds with either parser of answers alternate.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from models.breaker import Breaker
from serving.core.clock import Calendar, SystemClock
from serving.features.reading import Stored
from serving.features.views import Feature, FeatureView, FeatureViews, Missing
from serving.gateway.features import OnlineFeatures
from serving.store.connecting import Address, connect
from serving.store.embedded import embedded
from serving.store.features import RedisFeatureStore, Write
from serving.store.guard import Guard
from serving.store.keys import Keys

ENTITIES, FEATURES = 1000, 40
VIEW = FeatureView(
    name="stats",
    entity="user",
    key="user_id",
    features=tuple(
        Feature(name=f"feature_{number}", datatype="FP32", missing=Missing.DEFAULT, default=0.0)
        for number in range(FEATURES)
    ),
)
ROUNDS = 3


def opened(url: str, parser: str) -> OnlineFeatures:
    """Returns the feature store with a client of its own, which reads answers with this parser."""
    client: Any = connect(Address(url=url), 10.0, is_bounded=True)
    if parser == "python":
        from redis._parsers import _AsyncRESP3Parser

        client.connection_pool.connection_kwargs["parser_class"] = _AsyncRESP3Parser
    reads, writes = (Guard(Breaker(random.random), SystemClock(), 10.0) for _ in range(2))
    store = RedisFeatureStore(client, Keys("bench"))
    return OnlineFeatures(FeatureViews.of([VIEW]), store, reads=reads, writes=writes)


async def fill(features: OnlineFeatures) -> None:
    now_ms = Calendar.now_ns() // 1_000_000
    for entity in range(ENTITIES):
        value = Stored(now_ms, "1", entity / 7)
        await features._store.write(
            [Write("acme", "user", f"user-{entity}", one.name, value, 3_600_000) for one in VIEW.features]
        )


Read = Callable[[int], Awaitable[object]]


def reader(features: OnlineFeatures, entities: int) -> Read:
    async def read(number: int) -> object:
        ids = [f"user-{(number + step) % ENTITIES}" for step in range(entities)]
        return await features.answers("acme", VIEW, ids, VIEW.features)

    return read


async def paced(read: Read, rate: int, seconds: float) -> list[float]:
    """Returns the latencies in seconds of requests that begin at random times, `rate` a second."""
    latencies: list[float] = []
    chance, loop = random.Random(1), asyncio.get_running_loop()
    tasks, begin_s, number = set(), loop.time(), 0
    next_s = begin_s

    async def one(number: int, due_s: float) -> None:
        await read(number)
        latencies.append(loop.time() - due_s)

    while (now_s := loop.time()) < begin_s + seconds:
        while next_s <= now_s:
            tasks.add(asyncio.create_task(one(number, next_s)))
            number, next_s = number + 1, next_s + chance.expovariate(rate)
        await asyncio.sleep(max(0.0, next_s - loop.time()))
    await asyncio.gather(*tasks)
    return latencies


async def pressed(read: Read, at_once: int, seconds: float) -> list[float]:
    """Returns the latencies in seconds of requests of which `at_once` are always under way."""
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    end_s = loop.time() + seconds

    async def client(number: int) -> None:
        while (began_s := loop.time()) < end_s:
            await read(number)
            latencies.append(loop.time() - began_s)
            number += at_once

    await asyncio.gather(*(client(number) for number in range(at_once)))
    return latencies


async def nothing(number: int) -> object:
    """Stands for a look-up that costs nothing."""
    return None


async def case(name: str, run: Callable[[Read], Awaitable[list[float]]], readers: dict[str, Read], paces: bool) -> None:
    found: dict[str, list[tuple[float, list[float]]]] = {parser: [] for parser in readers}
    for _ in range(ROUNDS):
        idle_s = 0.0
        if paces:
            began_s = time.process_time()
            count = len(await run(nothing))
            idle_s = (time.process_time() - began_s) / count
        for parser, read in readers.items():
            began_s = time.process_time()
            latencies = await run(read)
            cpu_s = (time.process_time() - began_s) / len(latencies) - idle_s
            found[parser].append((cpu_s, sorted(latencies)))
    for parser, rounds in found.items():
        cpu_us = median(cpu_s for cpu_s, _ in rounds) * 1e6
        p50, p99 = (median(one[int(len(one) * share)] for _, one in rounds) * 1e3 for share in (0.5, 0.99))
        per_s = len(rounds[0][1])
        print(f"{name:34} {parser:8} CPU {cpu_us:7.1f} us  p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  n {per_s}")


@contextmanager
def valkey() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder, embedded(Path(folder)) as url:
        yield url


async def compare(url: str, parsers: list[str], rate: int, seconds: float) -> None:
    stores = {parser: opened(url, parser) for parser in parsers}
    await fill(next(iter(stores.values())))
    single = {parser: reader(features, 1) for parser, features in stores.items()}
    many = {parser: reader(features, 100) for parser, features in stores.items()}
    for read in (*single.values(), *many.values()):
        await read(0)
    await case(f"1 x {FEATURES}, {rate}/s", lambda read: paced(read, rate, seconds), single, True)
    await case(f"1 x {FEATURES}, 32 at once", lambda read: pressed(read, 32, seconds), single, False)
    await case(f"100 x {FEATURES}, one at a time", lambda read: pressed(read, 1, seconds), many, False)
    for features in stores.values():
        await features.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--parser", choices=["python", "hiredis", "both"], default=None)
    arguments = parser.parse_args()
    chosen = arguments.parser or ("hiredis" if find_spec("hiredis") else "python")
    parsers = ["python", "hiredis"] if chosen == "both" else [chosen]
    with valkey() as url:
        asyncio.run(compare(url, parsers, arguments.rate, arguments.seconds))


if __name__ == "__main__":
    main()
