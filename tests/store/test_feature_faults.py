"""Tests that a Redis which hangs, lies or dies costs a look-up of features no more than its time limit."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import redis

from models.breaker import Breaker
from serving.core.clock import SystemClock
from serving.features.reading import Found, Reason, Stored
from serving.store.connecting import Address, connect
from serving.store.features import RedisFeatureStore, Wanted, Write
from serving.store.guard import Guard
from serving.store.lookups import LookUps
from tests.store.conftest import PATIENT_S, fresh_keys, socket_of
from tests.store.faulty import Between, between

SHORT_S = 0.05
WANTED = [Wanted("acme", "user", "u7", ("age", "none"))]
KNOWN = [[Stored(1, "1", 41), Reason.MISSING]]
GARBAGE = [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 64, b":7\r\n", b"*-1\r\n", b"*1\r\n$3\r\nabc\r\n", b"$-1\r\n"]


class Guarded:
    """Look-ups of a store. kinds: of their failures."""

    def __init__(self, store: RedisFeatureStore, limit_s: float) -> None:
        self.kinds: list[str] = []
        guard = Guard(Breaker(random.Random(1).random), SystemClock(), limit_s)
        self._look_ups = LookUps(store.read, guard, self, limit_s=limit_s)

    async def read(self, wanted: list[Wanted]) -> list[list[Found]] | None:
        found = await self._look_ups.find(wanted)
        await self._look_ups.settle()
        return None if found is None else list(found)

    def looked_up(self, took_ns: int) -> None: ...

    def unavailable(self, kind: str, count: int) -> None:
        self.kinds.append(kind)


def story(valkey: str, folder: Path, tell: Callable[[RedisFeatureStore, Between], Awaitable[None]]) -> None:
    """Tells a story with a store that holds one value, and is reached through a server between."""

    async def run() -> None:
        async with between(folder, socket_of(valkey)) as (url, middle):
            store = RedisFeatureStore(connect(Address(url=url), PATIENT_S), fresh_keys())
            await store.write([Write("acme", "user", "u7", "age", Stored(1, "1", 41), 60_000)])
            assert await store.read(WANTED) == KNOWN  # reads and writes have a connection each from now on
            await tell(store, middle)
            await store.close()

    asyncio.run(run())


def test_a_hanging_server_costs_the_time_limit_and_its_late_answer_is_nobodys(valkey: str, tmp_path: Path) -> None:
    async def tell(store: RedisFeatureStore, middle: Between) -> None:
        middle.flows.clear()
        hasty = Guarded(store, SHORT_S)
        assert await hasty.read(WANTED) is None
        assert hasty.kinds == ["slow"]
        middle.flows.set()
        others = [Wanted("acme", "user", "u8", ("age",))]
        patient = Guarded(store, PATIENT_S)
        assert await patient.read(others) == [[Reason.MISSING]]
        assert await patient.read(WANTED) == KNOWN

    story(valkey, tmp_path, tell)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_an_answer_that_is_no_list_of_values_is_a_failure_once(valkey: str, tmp_path: Path, garbage: bytes) -> None:
    async def tell(store: RedisFeatureStore, middle: Between) -> None:
        spoiled = middle.pieces + 1
        middle.alter = lambda number, piece: garbage if number == spoiled else piece
        assert await Guarded(store, SHORT_S).read(WANTED) is None
        middle.alter = lambda number, piece: piece
        assert await Guarded(store, PATIENT_S).read(WANTED) == KNOWN

    story(valkey, tmp_path, tell)


@pytest.mark.parametrize("kept", [0, 1, 5, 15])
def test_a_server_that_dies_in_the_middle_of_an_answer(valkey: str, tmp_path: Path, kept: int) -> None:
    async def tell(store: RedisFeatureStore, middle: Between) -> None:
        dies_at = middle.pieces + 1
        middle.alter = lambda number, piece: piece[:kept] if number == dies_at else None if number > dies_at else piece
        assert await Guarded(store, SHORT_S).read(WANTED) is None
        middle.alter = lambda number, piece: piece
        assert await Guarded(store, PATIENT_S).read(WANTED) == KNOWN

    story(valkey, tmp_path, tell)


def test_writes_that_break_off_may_be_written_again(valkey: str, tmp_path: Path) -> None:
    async def tell(store: RedisFeatureStore, middle: Between) -> None:
        breaks_at = middle.pieces + 1
        middle.alter = lambda number, piece: None if number == breaks_at else piece
        write = Write("acme", "user", "u7", "age", Stored(2, "1", 42), 60_000)
        with pytest.raises(redis.ConnectionError):
            await store.write([write])
        assert await store.write([write]) == [True]
        assert await Guarded(store, PATIENT_S).read(WANTED) == [[Stored(2, "1", 42), Reason.MISSING]]

    story(valkey, tmp_path, tell)


def test_no_server_at_all(tmp_path: Path) -> None:
    async def run() -> None:
        store = RedisFeatureStore(connect(Address(url=f"unix://{tmp_path}/none"), PATIENT_S), fresh_keys())
        look_ups = Guarded(store, PATIENT_S)
        assert await look_ups.read(WANTED) is None
        assert look_ups.kinds == ["ConnectionError"]
        await store.close()

    asyncio.run(run())
