"""CPU and latency of reading features from a real Valkey on a Unix socket, without HTTP, on the event loop of servers.

    python -m benchmarks.bench_features [--seconds S] [--rate R]

One entity with 40 features, R requests a second (whose CPU has that of the loop which paces in it), one after the
other, and 32 at a time; and 100 entities in each request. CPU is that of this process, which holds what a replica or
the front would do. `late` is the share of requests for which Valkey's answer took too long. Other work on the machine
only adds to a round: of each number, the least of the rounds counts.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from models.breaker import Breaker
from serving.core.clock import Calendar, SystemClock
from serving.features.reading import Reason, Selection, Stored
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
SELECTION = Selection(VIEW, VIEW.features)
ROUNDS = 5


def opened(url: str) -> OnlineFeatures:
    client = connect(Address(url=url), 10.0, is_bounded=True)
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


Read = Callable[[int], Awaitable[bool]]


def reader(features: OnlineFeatures, entities: int) -> Read:
    async def read(number: int) -> bool:
        ids = [f"user-{(number + step) % ENTITIES}" for step in range(entities)]
        return (await features.answers("acme", SELECTION, ids))[0].reasons[0] is Reason.PRESENT

    return read


async def paced(read: Read, rate: int, seconds: float) -> list[float]:
    """Returns the latencies in seconds of requests that begin at random times, `rate` a second."""
    latencies: list[float] = []
    chance = random.Random(1)
    tasks, begin_s, number = set(), time.perf_counter(), 0
    next_s = begin_s

    async def one(number: int, due_s: float) -> None:
        await read(number)
        latencies.append(time.perf_counter() - due_s)

    while (now_s := time.perf_counter()) < begin_s + seconds:
        while next_s <= now_s:
            tasks.add(asyncio.create_task(one(number, next_s)))
            number, next_s = number + 1, next_s + chance.expovariate(rate)
        await asyncio.sleep(max(0.0, next_s - time.perf_counter()))
    await asyncio.gather(*tasks)
    return latencies


async def pressed(read: Read, at_once: int, seconds: float) -> list[float]:
    """Returns the latencies in seconds of requests of which `at_once` are always under way."""
    latencies: list[float] = []
    end_s = time.perf_counter() + seconds

    async def client(number: int) -> None:
        while (began_s := time.perf_counter()) < end_s:
            await read(number)
            latencies.append(time.perf_counter() - began_s)
            number += at_once

    await asyncio.gather(*(client(number) for number in range(at_once)))
    return latencies


async def case(name: str, run: Callable[[Read], Awaitable[list[float]]], read: Read) -> None:
    found: list[tuple[float, float, float, float]] = []
    for _ in range(ROUNDS):
        late = 0

        async def counted(number: int) -> bool:
            nonlocal late
            is_in_time = await read(number)
            late += not is_in_time
            return is_in_time

        began_s = time.process_time()
        latencies = sorted(await run(counted))
        cpu_s = (time.process_time() - began_s) / len(latencies)
        p50_s, p99_s = (latencies[int(len(latencies) * share)] for share in (0.5, 0.99))
        found.append((cpu_s, p50_s, p99_s, late / len(latencies)))
    cpu_s, p50_s, p99_s, share = map(min, zip(*found, strict=True))
    told = f"CPU {cpu_s * 1e6:7.1f} us  p50 {p50_s * 1e3:6.2f} ms  p99 {p99_s * 1e3:6.2f} ms  late {share:.1%}"
    print(f"{name:34} {told}")


@contextmanager
def valkey() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder, embedded(Path(folder)) as url:
        yield url


async def measure(url: str, rate: int, seconds: float) -> None:
    features = opened(url)
    await fill(features)
    await features.connect()
    one, many = reader(features, 1), reader(features, 100)
    await case(f"1 x {FEATURES}, {rate}/s", lambda read: paced(read, rate, seconds), one)
    await case(f"1 x {FEATURES}, one at a time", lambda read: pressed(read, 1, seconds), one)
    await case(f"1 x {FEATURES}, 32 at once", lambda read: pressed(read, 32, seconds), one)
    await case(f"100 x {FEATURES}, one at a time", lambda read: pressed(read, 1, seconds), many)
    await features.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rate", type=int, default=1000)
    arguments = parser.parse_args()
    with valkey() as url:
        uvloop.run(measure(url, arguments.rate, arguments.seconds))


if __name__ == "__main__":
    main()
