"""One limit over several replicas with a real Valkey that is killed in the middle: how many requests a minute admits.

    python -m benchmarks.one_limit [--limit N] [--rates 23 6 3 0.7] [--before S] [--down S] [--after S] [--json FILE]

The replicas are objects on one event loop, each with its own connection and its own turns; requests arrive at random,
at the given rates per second. Prints the least and the most admitted in any sliding minute of each phase.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from bisect import bisect_left
from contextlib import ExitStack
from pathlib import Path

from models.breaker import Breaker
from serving.core.clock import SystemClock
from serving.gateway.quotas import ADMITTED, Quotas
from serving.store.connecting import Address, connect
from serving.store.embedded import embedded
from serving.store.guard import Guard
from serving.store.keys import Keys
from serving.store.redis import RedisQuotaStore
from serving.traffic.quota import MINUTE_NS
from serving.traffic.tenants import Tenant

LIMIT_S = 0.1
SECOND_NS = 1_000_000_000


async def requests(quotas: Quotas, rate: float, admitted_ns: list[int], chance: random.Random) -> None:
    """Sends requests at random until it is cancelled."""
    next_s = time.monotonic()
    while True:
        next_s += chance.expovariate(rate)
        await asyncio.sleep(max(0.0, next_s - time.monotonic()))
        now_ns = time.monotonic_ns()
        if quotas.admit("acme", now_ns) is ADMITTED:
            admitted_ns.append(now_ns)
            quotas.release("acme")


def sliding(admitted_ns: list[int], from_ns: int, to_ns: int) -> tuple[int, int] | None:
    """Returns the least and the most in any minute between two instants; None if they are less than a minute apart."""
    ends = range(from_ns + MINUTE_NS, to_ns, SECOND_NS // 20)
    counts = [bisect_left(admitted_ns, end) - bisect_left(admitted_ns, end - MINUTE_NS) for end in ends]
    return (min(counts), max(counts)) if counts else None


async def all_exact(all_quotas: list[Quotas]) -> int:
    """Returns the instant from which no replica is degraded."""
    for quotas in all_quotas:
        for _ in range(1200):
            if not quotas.degraded:
                break
            await asyncio.sleep(0.05)
    return time.monotonic_ns()


async def run(arguments: argparse.Namespace) -> dict[str, object]:
    clock, chance, admitted_ns = SystemClock(), random.Random(arguments.seed), list[int]()
    tenant = Tenant(name="acme", requests_per_minute=arguments.limit)
    found: dict[str, object] = {"limit": arguments.limit, "rates": arguments.rates}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as server:
        url = await asyncio.to_thread(server.enter_context, embedded(Path(folder)))
        all_quotas = [
            Quotas(
                {"acme": tenant},
                store=RedisQuotaStore(connect(Address(url=url), LIMIT_S), Keys()),
                guard=Guard(Breaker(chance.random), clock, LIMIT_S),
                replica=f"r{index}",
                replicas=len(arguments.rates),
            )
            for index in range(len(arguments.rates))
        ]
        running = [asyncio.ensure_future(quotas.run()) for quotas in all_quotas]
        running += [
            asyncio.ensure_future(requests(quotas, rate, admitted_ns, random.Random(chance.random())))
            for quotas, rate in zip(all_quotas, arguments.rates, strict=True)
        ]
        began_ns, cpu_ns = time.monotonic_ns(), time.process_time_ns()
        await asyncio.sleep(arguments.before)
        down_ns = time.monotonic_ns()
        found["cpu of a replica, per cent"] = round(
            (time.process_time_ns() - cpu_ns) / (down_ns - began_ns) / len(all_quotas) * 100, 2
        )
        found["before: least, most"] = sliding(admitted_ns, began_ns, down_ns)
        await asyncio.to_thread(server.close)
        await asyncio.sleep(1)
        found["down: degraded"] = [quotas.degraded for quotas in all_quotas]
        await asyncio.sleep(arguments.down)
        await asyncio.to_thread(server.enter_context, embedded(Path(folder)))
        up_ns = time.monotonic_ns()
        exact_ns = await all_exact(all_quotas)
        found["back: seconds until all are exact"] = round((exact_ns - up_ns) / SECOND_NS, 1)
        found["down and back: least, most"] = sliding(admitted_ns, down_ns - MINUTE_NS, exact_ns + MINUTE_NS // 2)
        await asyncio.sleep(arguments.after)
        found["after: least, most"] = sliding(admitted_ns, exact_ns, time.monotonic_ns())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=1000)
    parser.add_argument("--rates", type=float, nargs="+", default=[23.0, 6.0, 3.0, 0.7])
    parser.add_argument("--before", type=float, default=90)
    parser.add_argument("--down", type=float, default=75)
    parser.add_argument("--after", type=float, default=90)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = asyncio.run(run(arguments))
    for what, value in found.items():
        print(f"{what}: {value}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
