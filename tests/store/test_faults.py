"""Tests that a store which hangs, lies or dies costs a caller no more than its time limit, and is used again after."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from models.breaker import OPEN_NS, Breaker, State
from serving.core.clock import SystemClock
from serving.store.base import Renewal, StoreUnavailable
from serving.store.connecting import Address, connect
from serving.store.guard import Guard
from serving.store.redis import RedisQuotaStore
from serving.testing.clock import ManualClock
from serving.traffic.quota import MINUTE_NS, Pace
from serving.traffic.sharing import Ask
from tests.store.conftest import PATIENT_S, fresh_keys, socket_of
from tests.store.faulty import Between, between

ACME = Ask("acme", Pace(60 * MINUTE_NS, 1000), None, want=1)
SHORT_S = 0.05
GARBAGE = [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00" * 64, b":7\r\n", b"*-1\r\n", b"*1\r\n$3\r\nabc\r\n", b"*4\r\n"]


def guarded(limit_s: float) -> Guard:
    return Guard(Breaker(random.Random(1).random), SystemClock(), limit_s)


def story(
    valkey: str,
    folder: Path,
    tell: Callable[[RedisQuotaStore, Guard, Between], Awaitable[None]],
    limit_s: float = PATIENT_S,
) -> None:
    """Tells a story with a store that is reached through a server between."""

    async def run() -> None:
        async with between(folder, socket_of(valkey)) as (url, middle):
            store = RedisQuotaStore(connect(Address(url=url), PATIENT_S), fresh_keys())
            await tell(store, guarded(limit_s), middle)
            await store.close()

    asyncio.run(run())


async def renewed(store: RedisQuotaStore, guard: Guard, *asks: Ask) -> Renewal:
    return await guard.call(lambda: store.renew("one", asks or [ACME]))


def test_a_hanging_server_costs_the_time_limit_and_its_late_answer_is_nobodys(valkey: str, tmp_path: Path) -> None:
    async def tell(store: RedisQuotaStore, guard: Guard, middle: Between) -> None:
        middle.flows.clear()
        with pytest.raises(StoreUnavailable, match="no answer within") as failure:
            await renewed(store, guard)
        assert failure.value.kind == "slow"
        middle.flows.set()
        patient = guarded(PATIENT_S)
        grants = (await renewed(store, patient, *[ACME] * 3)).grants
        assert len(grants) == 3
        assert [grant.level for grant in grants] == [grants[0].level - less for less in range(3)]
        assert 996 <= grants[0].level <= 999  # the call that hung was booked or not

    story(valkey, tmp_path, tell, SHORT_S)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_no_grant(valkey: str, tmp_path: Path, garbage: bytes) -> None:
    async def tell(store: RedisQuotaStore, guard: Guard, middle: Between) -> None:
        await renewed(store, guard)
        middle.alter = lambda number, piece: garbage
        with pytest.raises(StoreUnavailable):
            await renewed(store, guarded(SHORT_S))
        middle.alter = lambda number, piece: piece
        assert (await renewed(store, guard)).grants[0].tokens == 1

    story(valkey, tmp_path, tell)


@pytest.mark.parametrize("kept", [0, 1, 5, 20])
def test_a_server_that_dies_in_the_middle_of_an_answer(valkey: str, tmp_path: Path, kept: int) -> None:
    async def tell(store: RedisQuotaStore, guard: Guard, middle: Between) -> None:
        await renewed(store, guard)
        dies_at = middle.pieces + 1
        middle.alter = lambda number, piece: piece[:kept] if number == dies_at else None if number > dies_at else piece
        with pytest.raises(StoreUnavailable):
            await renewed(store, guarded(SHORT_S))
        middle.alter = lambda number, piece: piece
        assert (await renewed(store, guard)).grants[0].tokens == 1

    story(valkey, tmp_path, tell)


def test_whichever_answer_breaks_off_one_call_fails_and_the_books_hold(valkey: str, tmp_path: Path) -> None:
    """Breaks off at the n-th answer, for every n until nothing fails any more."""
    failures: list[int] = []

    async def tell(store: RedisQuotaStore, guard: Guard, middle: Between) -> None:
        breaks_at = len(failures) + 1
        middle.alter = lambda number, piece: None if number == breaks_at else piece
        failed, levels = 0, []
        for _ in range(4):
            try:
                levels.append((await renewed(store, guard)).grants[0].level)
            except StoreUnavailable:
                failed += 1
        assert failed <= 1
        assert levels[-1] in (1000 - 4, 1000 - 4 + failed)
        failures.append(failed)

    while not failures or failures[-1]:
        story(valkey, tmp_path, tell)
    assert len(failures) >= 5


def test_no_server_at_all(tmp_path: Path) -> None:
    async def run() -> None:
        store = RedisQuotaStore(connect(Address(url=f"unix://{tmp_path}/none"), PATIENT_S), fresh_keys())
        with pytest.raises(StoreUnavailable) as failure:
            await renewed(store, guarded(PATIENT_S))
        assert failure.value.kind == "ConnectionError"
        await store.close()

    asyncio.run(run())


class Scripted:
    """Work whose n-th call fails."""

    def __init__(self, fails: Callable[[int], bool]) -> None:
        self.calls = 0
        self._fails = fails

    async def work(self) -> int:
        self.calls += 1
        if self._fails(self.calls):
            raise ConnectionError("gone")
        return self.calls


def test_after_six_failures_the_store_is_left_alone_for_thirty_seconds_and_then_probed() -> None:
    clock, script = ManualClock(), Scripted(lambda call: call <= 7)
    guard = Guard(Breaker(lambda: 0.0), clock, PATIENT_S)

    async def kinds(count: int) -> list[str]:
        found = []
        for _ in range(count):
            try:
                await guard.call(script.work)
            except StoreUnavailable as failure:
                found.append(failure.kind)
        return found

    async def run() -> None:
        assert await kinds(8) == ["ConnectionError"] * 6 + ["open"] * 2
        clock.advance(OPEN_NS)
        assert await kinds(2) == ["ConnectionError", "open"]
        clock.advance(OPEN_NS)
        assert await kinds(3) == []

    asyncio.run(run())
    assert script.calls == 10


def test_a_caller_that_is_ended_says_nothing_of_the_store() -> None:
    clock = ManualClock()
    guard = Guard(Breaker(lambda: 0.0), clock, PATIENT_S)

    async def run() -> None:
        for _ in range(20):
            calling = asyncio.create_task(guard.call(asyncio.Event().wait))
            await asyncio.sleep(0)
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling

    asyncio.run(run())
    assert guard.breaker.state is State.CLOSED
