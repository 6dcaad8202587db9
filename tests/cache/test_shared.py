"""Tests answers that replicas share through a store: a real Valkey, also one that hangs, lies or is gone."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.breaker import Breaker, State
from serving.cache.shared import SharedAnswers
from serving.core.clock import SystemClock
from serving.protocol.packing import pack
from serving.store.answers import AnswerStore, RedisAnswerStore
from serving.store.connecting import Address, connect
from serving.store.guard import Guard
from tests.cache.stories import House, Told, story, turns, value
from tests.store.conftest import PATIENT_S, fresh_keys, socket_of
from tests.store.faulty import between


def sharing(
    store: AnswerStore, *, limit_s: float = PATIENT_S, guard_s: float = PATIENT_S
) -> Callable[[Told], SharedAnswers]:
    guard = Guard(Breaker(random.Random(1).random), SystemClock(), guard_s)
    return lambda told: SharedAnswers(store, guard, told, limit_s=limit_s)


@asynccontextmanager
async def replicas(url: str, count: int = 2, **limits: float) -> AsyncIterator[list[House]]:
    """Yields the caches of several replicas that share a Valkey."""
    keys = fresh_keys()
    stores = [RedisAnswerStore(connect(Address(url=url), PATIENT_S), keys) for _ in range(count)]
    try:
        yield [House(sharing(store, **limits), keys=keys) for store in stores]
    finally:
        for store in stores:
            await store.close()


async def until(happened: Callable[[], bool]) -> None:
    while not happened():
        await turns(1)


async def computed(house: House, request: Any, **outputs: Any) -> None:
    """Completes a request as soon as it has been looked up, and waits until its answer is stored."""
    await until(lambda: bool(house.engine.open()))
    house.engine.open()[0].complete(**outputs)
    assert request.outcome is not None
    if house.shared is not None:
        await house.shared.settle()


def test_an_answer_of_one_replica_is_found_by_the_other(valkey: str) -> None:
    async def tell() -> None:
        async with replicas(valkey) as (one, two):
            await computed(one, one.ask())
            found = two.ask()
            await found
            assert (value(found), found.outcome.cached, two.told.sources()) == (2.0, True, ["shared"])
            assert value(two.ask()) == 2.0
            assert two.told.sources() == ["shared", "memory"]
            assert not two.engine.asked

    story(tell)


def test_what_is_found_counts_with_the_memory_that_it_takes(valkey: str) -> None:
    async def tell() -> None:
        async with replicas(valkey) as (one, two):
            await computed(one, one.ask(), y=np.array([[b"no"]] * 200, object))
            await two.ask()
            assert two.told.sources() == ["shared"]
            assert two.cache.kept.bytes == one.cache.kept.bytes > 200 * len(b"no")

    story(tell)


def test_what_is_found_expires_when_it_would_have_where_it_was_computed(valkey: str) -> None:
    async def tell() -> None:
        async with replicas(valkey) as (one, two):
            await computed(one, one.ask())
            two.calendar.advance(99_000_000_000)
            await two.ask()
            two.calendar.advance(1_000_000_000)
            again = two.ask()
            await until(lambda: bool(two.engine.open()))
            assert again.outcome is None

    story(tell)


def test_tenants_and_versions_of_a_model_do_not_meet(valkey: str) -> None:
    async def tell() -> None:
        keys = fresh_keys()
        store = RedisAnswerStore(connect(Address(url=valkey), PATIENT_S), keys)
        old, new = (House(sharing(store), keys=keys, fingerprint=version) for version in (b"v1", b"v2"))
        await computed(old, old.ask(tenant="acme"))
        for house, tenant in ((old, "blue"), (new, "acme"), (old, "acm"), (old, "acme:net")):
            asked = house.ask(tenant=tenant)
            await until(lambda house=house: bool(house.engine.open()))
            assert asked.outcome is None
            house.engine.open()[0].complete()
        again = old.ask(tenant="acme")
        assert again.outcome.cached
        await store.close()

    story(tell)


def test_requests_of_one_turn_share_one_look_up(valkey: str) -> None:
    async def tell() -> None:
        async with replicas(valkey, 1) as (house,):
            for number in range(50):
                house.ask(number)
            await until(lambda: len(house.engine.open()) == 50)
            assert house.told.looked == 1

    story(tell)


def test_equal_requests_share_one_look_up_and_one_computation(valkey: str) -> None:
    async def tell() -> None:
        async with replicas(valkey, 1) as (house,):
            waiting = [house.ask() for _ in range(5)]
            await computed(house, waiting[0])
            assert [value(one) for one in waiting] == [2.0] * 5
            assert len(house.engine.asked) == 1

    story(tell)


def test_a_client_that_leaves_during_the_look_up_is_not_computed(valkey: str) -> None:
    async def tell() -> None:
        async with replicas(valkey, 1) as (house,):
            gone = house.ask()
            gone.cancel()
            await house.cache.leave()
            assert not house.engine.asked
            assert house.told.ended_here["acme"] == 1

    story(tell)


def test_leaving_waits_until_the_engine_has_what_is_being_looked_up(valkey: str) -> None:
    async def tell() -> None:
        async with replicas(valkey, 1) as (house,):
            house.ask()
            await house.cache.leave()
            assert len(house.engine.open()) == 1

    story(tell)


def test_nothing_is_left_after_the_cache_was_cleared_everywhere(valkey: str) -> None:
    async def tell() -> None:
        async with replicas(valkey) as (one, two):
            await computed(one, one.ask())
            unfinished = one.ask(5.0)
            await until(lambda: len(one.engine.open()) == 1)
            for house in (one, two):
                await house.cache.clear()
            assert await one.shared.clear("net", None) == 1  # type: ignore[union-attr]
            one.engine.open()[0].complete()
            assert value(unfinished) == 10.0
            await one.shared.settle()  # type: ignore[union-attr]
            for number in (1.0, 5.0):
                asked = two.ask(number)
                await until(lambda: bool(two.engine.open()))
                assert asked.outcome is None
                two.engine.open()[0].complete()

    story(tell)


@pytest.mark.parametrize("garbage", [b"", b"\x80", b"\x93\x02\x00\x90", pack({"z": np.zeros(1)}, 10**15), b"x" * 1000])
def test_garbage_in_the_store_is_a_miss(valkey: str, garbage: bytes) -> None:
    async def tell() -> None:
        async with replicas(valkey) as (one, two):
            await computed(one, one.ask())
            client: Any = connect(Address(url=valkey), PATIENT_S)
            (key,) = [key async for key in client.scan_iter(match=one.cache._keys.all_answers("net"))]
            await client.set(key, garbage)
            await client.aclose()
            asked = two.ask()
            await computed(two, asked)
            assert value(asked) == 2.0

    story(tell)


Alter = Callable[[int, bytes], bytes | None]
GARBAGE = b"HTTP/1.1 400 Bad Request\r\n\r\n"
FAULTS: dict[str, Callable[[int], Alter]] = {
    "breaks off": lambda n: lambda number, piece: None if number == n else piece,
    "lies": lambda n: lambda number, piece: GARBAGE if number == n else piece,
    "is dead from then on": lambda n: lambda number, piece: None if number >= n else piece,
}


@pytest.mark.parametrize("nth", range(1, 8))
@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_fails_at_any_call_costs_misses_only(valkey: str, tmp_path: Path, fault: str, nth: int) -> None:
    async def tell() -> None:
        async with between(tmp_path, socket_of(valkey), FAULTS[fault](nth)) as (url, _), replicas(url, 1) as (house,):
            for number in range(6):
                asked = house.ask(number)
                await until(lambda asked=asked: asked.outcome is not None or bool(house.engine.open()))
                if asked.outcome is None:
                    house.engine.open()[0].complete()
                assert value(asked) == 2.0 * number
                await house.shared.settle()  # type: ignore[union-attr]
            assert house.told.failures.total() >= 1

    story(tell)


def test_a_hanging_store_is_waited_for_until_the_limit_and_then_not_asked(valkey: str, tmp_path: Path) -> None:
    async def tell() -> None:
        async with (
            between(tmp_path, socket_of(valkey)) as (url, middle),
            replicas(url, 1, limit_s=0.001, guard_s=0.02) as (house,),
        ):
            middle.flows.clear()
            for number in range(20):
                house.ask(number)
                await until(lambda: bool(house.engine.open()))
                house.engine.open()[0].complete()
                await house.shared.settle()  # type: ignore[union-attr]
            assert house.shared._guard.breaker.state is State.OPEN  # type: ignore[union-attr]
            assert house.told.failures["open"] > 0
            middle.flows.set()

    story(tell)


class Silent:
    """A store that never answers."""

    def __init__(self) -> None:
        self.reads = 0

    async def read(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        self.reads += 1
        await asyncio.Event().wait()
        return []

    async def write(self, values: Sequence[tuple[str, bytes, int]]) -> None:
        await asyncio.Event().wait()

    async def clear(self, model: str, tenant: str | None) -> int:
        return 0

    async def close(self) -> None:
        """Does nothing."""


def test_a_silent_store_is_asked_by_one_call_at_a_time() -> None:
    async def tell() -> None:
        store = Silent()
        house = House(sharing(store, limit_s=0.01, guard_s=PATIENT_S))
        for number in range(20):
            house.ask(number)
            await turns(2)
        await until(lambda: len(house.engine.open()) == 20)
        assert store.reads == 1
        assert house.told.failures == {"slow": 20}
        house.ask(99)
        assert len(house.engine.open()) == 21  # it does not wait for the call either

    story(tell)


def test_requests_that_arrive_during_a_call_share_the_next(valkey: str) -> None:
    async def tell() -> None:
        async with replicas(valkey, 1) as (house,):
            house.ask(0)
            await turns(1)
            for number in range(1, 20):
                house.ask(number)
            await until(lambda: len(house.engine.open()) == 20)
            assert house.told.looked == 2

    story(tell)


def test_a_busy_loop_does_not_make_the_store_slow(valkey: str) -> None:
    """The answer has arrived unread while the loop was held for longer than the limit."""

    async def tell() -> None:
        async with replicas(valkey, 2, limit_s=0.3) as (one, two):
            await computed(one, one.ask())
            await computed(two, two.ask(9.0))  # connected
            loop = asyncio.get_running_loop()
            asked = two.ask()
            await turns(3)  # the look-up is under way
            held_until_s = loop.time() + 0.5
            for _ in itertools.takewhile(lambda _: loop.time() < held_until_s, itertools.count()):
                pass
            await asked
            assert two.told.sources() == ["shared"]

    story(tell)
