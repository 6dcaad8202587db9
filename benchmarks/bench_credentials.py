"""Microseconds of CPU per request that keys and quotas add, over HTTP and gRPC, with 100 callers in turn.

    python -m benchmarks.bench_credentials [--rounds R]

As `bench_http_connection` and `bench_grpc_connection`, alternately without and with an API key that is checked and a
quota that is counted. Prints the fastest of the rounds of each: other work on the machine only adds to a round.
"""

import argparse
import asyncio
import time
from random import Random

from benchmarks.bench_grpc_connection import ARRAY, Sink, reads, serving
from benchmarks.bench_grpc_connection import run as calls
from benchmarks.bench_http_connection import connected, request
from benchmarks.bench_quotas import TENANTS, leased
from serving.api.admission.gate import Gate
from serving.api.admission.local_gate import LocalGate
from serving.api.admission.quota import Quota
from serving.api.http.connection import InferConnection
from serving.core.clock import Calendar
from serving.gateway import keys
from serving.gateway.callers import Callers
from serving.gateway.gate import KeyGate
from serving.gateway.key_log import KeyLog
from serving.gateway.key_text import make_key
from serving.gateway.tenant_quota import TenantQuota
from serving.testing.objects import MemoryObjects
from serving.traffic.lease import TURN_NS

CALLS = 1600


async def opened() -> tuple[list[str], Gate, Quota]:
    """Returns a key of each tenant, and the gate and the quotas that let them all in."""
    store = MemoryObjects()
    log = KeyLog(store)
    now_s = Calendar.now_ns() // 10**9
    random, shown = Random(1), []
    for tenant in TENANTS:
        new = make_key(random.randbytes)
        shown.append(new.text)
        record = keys.created(
            new, tenant=tenant, scopes=["predict"], expires_s=None, now_s=now_s, by="benchmark", nonce=tenant
        )
        await log.append(lambda _, record=record: record)  # type: ignore[misc]
    callers = Callers(KeyLog(store))
    await callers.look(Calendar.now_ns())
    gate = KeyGate(callers, local=LocalGate(own_token="0" * 64))
    return shown, gate, TenantQuota(leased(1 << 40), now_ns=lambda: TURN_NS)


async def http_us(opened: tuple[InferConnection, Sink], requests: list[bytes]) -> float:
    connection, sink = opened
    before, began = sink.bytes, time.process_time_ns()
    for data in requests:
        connection.data_received(data)
    took_us = (time.process_time_ns() - began) / len(requests) / 1000
    assert sink.bytes - before > len(requests) * ARRAY.nbytes, "every request was answered with the input"
    await asyncio.sleep(0)
    return took_us


async def measure(rounds: int) -> None:
    shown, gate, quota = await opened()
    requests = [request(key) for key in shown] * 4
    prepared = reads(CALLS, shown)
    loop = asyncio.get_running_loop()
    http_without, http_with = connected(loop), connected(loop, gate, quota)
    without, with_keys = serving(), serving(gate, quota)
    least = dict.fromkeys(("HTTP without", "HTTP with", "gRPC without", "gRPC with"), float("inf"))
    for _ in range(rounds):
        took = (
            await http_us(http_without, requests),
            await http_us(http_with, requests),
            await calls(without, prepared, 1),
            await calls(with_keys, prepared, 1),
        )
        least = {name: min(now, before) for (name, before), now in zip(least.items(), took, strict=True)}
    for wire in ("HTTP", "gRPC"):
        off, on = least[f"{wire} without"], least[f"{wire} with"]
        print(f"{wire}: {off:.2f} µs without, {on:.2f} with keys and quotas: {on - off:+.2f} µs, {on / off:.2f} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    asyncio.run(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
