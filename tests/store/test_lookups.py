"""Tests that look-ups share calls of a store, and what one that is slow or fails costs those that ask."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import pytest

from models.breaker import Breaker, State
from serving.core.clock import SystemClock
from serving.store.guard import Guard
from serving.store.lookups import MOST, LookUps
from tests.cache.stories import turns

SHORT_S, PATIENT_S = 0.01, 10.0


class Store:
    """A store that answers with what is asked for, once its gate is open.

    calls: what was wanted in each call. begun, ended: released for each.
    """

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails = False
        self.begun, self.ended = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def read(self, wanted: Sequence[str]) -> Sequence[str]:
        self.calls.append(list(wanted))
        self.begun.release()
        await self.gate.wait()
        self.ended.release()
        if self.fails:
            raise OSError("told to fail")
        return [one.upper() for one in wanted]


class House:
    """Look-ups of such a store. failures: by kind; answered: calls that the store has answered."""

    def __init__(
        self, *, limit_s: float = PATIENT_S, guard_s: float = PATIENT_S, size: Callable[[str], int] = lambda one: 1
    ) -> None:
        self.store = Store()
        self.guard = Guard(Breaker(random.Random(1).random), SystemClock(), guard_s)
        self.failures: Counter[str] = Counter()
        self.answered = 0
        self.look_ups: LookUps[str, str] = LookUps(self.store.read, self.guard, self, limit_s=limit_s, size=size)

    def looked_up(self, took_ns: int) -> None:
        self.answered += 1

    def unavailable(self, kind: str, count: int) -> None:
        self.failures[kind] += count

    async def find(self, *wanted: str) -> list[str] | None:
        found = await self.look_ups.find(wanted)
        return None if found is None else list(found)


def story(tell: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(tell(), 60))


def test_what_is_asked_for_in_one_turn_is_one_call_and_everybody_gets_the_own_part() -> None:
    async def tell() -> None:
        house = House()
        found = await asyncio.gather(*(house.find(*some) for some in ("ab", "", "c", "ab")))
        assert found == [["A", "B"], [], ["C"], ["A", "B"]]
        assert house.store.calls == [["a", "b", "c", "a", "b"]]
        assert await house.find("d") == ["D"]
        assert house.store.calls[1:] == [["d"]]

    story(tell)


def test_what_is_asked_for_during_a_call_shares_the_next() -> None:
    async def tell() -> None:
        house = House()
        house.store.gate.clear()
        first = asyncio.create_task(house.find("a"))
        await house.store.begun.acquire()
        others = [asyncio.create_task(house.find(one)) for one in "bcd"]
        await turns()
        assert house.store.calls == [["a"]]
        house.store.gate.set()
        assert [await first, *[await one for one in others]] == [["A"], ["B"], ["C"], ["D"]]
        assert house.store.calls == [["a"], ["b", "c", "d"]]

    story(tell)


def test_a_large_look_up_is_several_calls_none_of_which_is_large() -> None:
    async def tell() -> None:
        house = House()
        names = [f"n{number}" for number in range(2 * MOST + 1)]
        large, small = await asyncio.gather(house.find(*names), house.find("a"))
        assert (large, small) == ([name.upper() for name in names], ["A"])
        assert [len(call) for call in house.store.calls] == [MOST, MOST, 2]

    story(tell)


def test_what_is_wanted_may_consist_of_many_values() -> None:
    async def tell() -> None:
        house = House(size=lambda one: MOST + 1 if one.isdigit() else MOST // 2)
        assert await house.find("1", "2", "a", "b", "c") == ["1", "2", "A", "B", "C"]
        assert house.store.calls == [["1"], ["2"], ["a", "b"], ["c"]]

    story(tell)


def test_one_that_leaves_takes_nothing_away_from_the_others() -> None:
    async def tell() -> None:
        house = House()
        house.store.gate.clear()
        leaving, staying = (asyncio.create_task(house.find(one)) for one in "ab")
        await house.store.begun.acquire()
        leaving.cancel()
        await asyncio.wait([leaving])
        house.store.gate.set()
        assert await staying == ["B"]

    story(tell)


def test_a_store_that_is_silent_for_a_moment_costs_the_time_limit_and_no_failure() -> None:
    async def tell() -> None:
        house = House(limit_s=SHORT_S)
        house.store.gate.clear()
        assert await house.find("a") is None
        assert await house.find("b", "c") is None  # it waits for its turn no longer either
        assert await house.find("d") is None  # and the others do not wait at all
        assert (house.store.calls, house.failures) == ([["a"]], {"slow": 4})
        house.store.gate.set()
        await house.look_ups.settle()
        assert await house.find("e") == ["E"]
        assert house.guard.breaker.state is State.CLOSED

    story(tell)


def test_a_store_that_stays_silent_is_not_asked_any_more() -> None:
    async def tell() -> None:
        house = House(limit_s=SHORT_S / 4, guard_s=SHORT_S)
        house.store.gate.clear()
        while house.guard.breaker.state is State.CLOSED:
            assert await house.find("a") is None
            await house.look_ups.settle()
        assert await house.find("a") is None
        assert len(house.store.calls) == 6
        assert house.failures == {"slow": 6, "open": 1}

    story(tell)


def test_every_call_of_a_large_look_up_may_take_the_time_limit() -> None:
    async def tell() -> None:
        house = House()
        house.store.gate.clear()
        large = asyncio.create_task(house.find(*["a"] * (2 * MOST)))
        await house.store.begun.acquire()
        small = asyncio.create_task(house.find("b"))
        await turns()
        waiting = house.look_ups._next
        assert waiting is not None
        due_s = waiting._timer.when()
        house.store.gate.set()
        assert [await large, await small] == [["A"] * (2 * MOST), ["B"]]
        assert waiting._timer.when() > due_s, "who waits for a store that answers waits on"

    story(tell)


def test_a_look_up_that_nobody_waits_for_any_more_is_not_read_to_its_end() -> None:
    async def tell() -> None:
        house = House(limit_s=SHORT_S)
        house.store.gate.clear()
        assert await house.find(*["a"] * (3 * MOST)) is None
        house.store.gate.set()
        await house.look_ups.settle()
        assert len(house.store.calls) == 1

    story(tell)


@pytest.mark.parametrize("together", [1, 10])
def test_a_call_that_fails_counts_once_however_many_have_shared_it(together: int) -> None:
    async def tell() -> None:
        house = House()
        house.store.fails = True
        for failures in range(1, 7):
            assert await asyncio.gather(*(house.find("a") for _ in range(together))) == [None] * together
            assert len(house.store.calls) == failures
            assert house.guard.breaker.state is (State.CLOSED if failures < 6 else State.OPEN)
        assert await house.find("a") is None
        assert len(house.store.calls) == 6
        assert house.failures == {"OSError": 6 * together, "open": 1}

    story(tell)


def test_one_that_cannot_go_on_does_no_harm_to_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async def tell() -> None:
        house = House()
        told: list[Sequence[str] | None] = []
        house.look_ups.ask("a", lambda values: 1 / 0)  # type: ignore[arg-type,return-value]
        house.look_ups.ask("b", told.append)
        await house.look_ups.settle()
        assert told == [["B"]]
        assert "could not go on" in caplog.text

    story(tell)
