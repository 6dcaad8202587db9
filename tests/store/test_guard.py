"""Tests the time limit of calls of a store."""

import asyncio
import itertools
import random

import pytest

from models.breaker import Breaker, State
from serving.core.clock import SystemClock
from serving.store.base import StoreUnavailable
from serving.store.guard import Guard

LIMIT_S = 0.05


def guard() -> Guard:
    return Guard(Breaker(random.Random(1).random), SystemClock(), LIMIT_S)


def hold_the_loop() -> None:
    """Returns when calls that are under way have been so for much longer than their limit."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + 3 * LIMIT_S
    for _ in itertools.takewhile(lambda _: loop.time() < until_s, itertools.count()):
        pass


def test_an_answer_that_waits_for_a_busy_loop_is_not_late() -> None:
    async def run() -> None:
        arrived, is_asked = asyncio.Event(), asyncio.Event()

        async def work() -> str:
            is_asked.set()
            await arrived.wait()
            return "answer"

        call = asyncio.create_task(guard().call(work))
        await is_asked.wait()
        hold_the_loop()
        asyncio.get_running_loop().call_soon(arrived.set)  # as when the loop reads from the socket
        assert await call == "answer"

    asyncio.run(run())


def test_a_store_that_hangs_is_given_up_also_when_the_loop_was_busy() -> None:
    async def run() -> None:
        is_asked = asyncio.Event()

        async def hang() -> None:
            is_asked.set()
            await asyncio.Event().wait()

        call = asyncio.create_task(guard().call(hang))
        await is_asked.wait()
        hold_the_loop()
        with pytest.raises(StoreUnavailable, match="no answer within 50 ms"):
            await call

    asyncio.run(run())


def test_calls_that_fail_together_are_one_failure() -> None:
    async def run() -> None:
        guarded, gate = guard(), asyncio.Event()

        async def fail() -> None:
            await gate.wait()
            raise OSError("told to fail")

        for failures in range(1, 7):
            gate.clear()
            calls = [asyncio.create_task(guarded.call(fail)) for _ in range(20)]
            asyncio.get_running_loop().call_soon(gate.set)
            await asyncio.wait(calls)
            assert {type(call.exception()) for call in calls} == {StoreUnavailable}
            assert guarded.breaker.state is (State.CLOSED if failures < 6 else State.OPEN)

    asyncio.run(run())
