"""Tests that look-ups of one turn of the event loop are one, and what a slow or failing store costs."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from models.breaker import Breaker, State
from serving.core.clock import SystemClock
from serving.features.reading import Found, Reason, Stored
from serving.gateway.lookups import MOST_VALUES, Lookups
from serving.store.base import StoreUnavailable
from serving.store.features import Wanted
from serving.store.guard import Guard

SHORT_S, PATIENT_S = 0.01, 10.0


def guard(limit_s: float = PATIENT_S) -> Guard:
    return Guard(Breaker(random.Random(1).random), SystemClock(), limit_s)


class Store:
    """A store that answers with the id that is asked for, once its gate is open.

    calls: the ids of each call. begun, ended: released for each.
    """

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails = False
        self.begun, self.ended = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def read(self, wanted: Sequence[Wanted]) -> list[list[Found]]:
        self.calls.append([one.id for one in wanted])
        self.begun.release()
        await self.gate.wait()
        self.ended.release()
        if self.fails:
            raise OSError("told to fail")
        return [[Stored(0, "1", one.id)] * len(one.features) for one in wanted]


def of(*ids: str) -> list[Wanted]:
    return [Wanted("acme", "user", id, ("age",)) for id in ids]


def ids(found: list[list[Found]]) -> list[object]:
    return [one.value if isinstance(one, Stored) else one for (one,) in found]


def test_what_is_asked_for_in_one_turn_is_one_call_and_everybody_gets_the_own_part() -> None:
    async def run() -> None:
        store = Store()
        lookups = Lookups(store, guard())
        found = await asyncio.gather(*(lookups.read(of(*some)) for some in ("ab", "", "c", "ab")))
        assert [ids(one) for one in found] == [["a", "b"], [], ["c"], ["a", "b"]]
        assert store.calls == [["a", "b", "c", "a", "b"]]
        await lookups.read(of("d"))
        assert store.calls[1:] == [["d"]]

    asyncio.run(run())


def test_a_large_look_up_is_several_calls_none_of_which_is_large() -> None:
    async def run() -> None:
        store = Store()
        lookups = Lookups(store, guard())
        names = [str(number) for number in range(2 * MOST_VALUES + 1)]
        large, small = await asyncio.gather(lookups.read(of(*names)), lookups.read(of("a")))
        assert (ids(large), ids(small)) == (names, ["a"])
        assert [len(call) for call in store.calls] == [MOST_VALUES, MOST_VALUES, 2]
        store.calls.clear()
        wide = [Wanted("acme", "user", id, ("age",) * (MOST_VALUES + 1)) for id in "ab"]
        assert [len(one) for one in await lookups.read(wide)] == [MOST_VALUES + 1] * 2
        assert store.calls == [["a"], ["b"]]

    asyncio.run(run())


def test_a_look_up_that_is_under_way_does_not_hold_up_the_next() -> None:
    async def run() -> None:
        store = Store()
        store.gate.clear()
        lookups = Lookups(store, guard())
        first = asyncio.create_task(lookups.read(of("a")))
        await store.begun.acquire()
        second = asyncio.create_task(lookups.read(of("b")))
        await store.begun.acquire()
        store.gate.set()
        assert (ids(await first), ids(await second)) == (["a"], ["b"])

    asyncio.run(run())


def test_one_that_leaves_takes_nothing_away_from_the_others() -> None:
    async def run() -> None:
        store = Store()
        store.gate.clear()
        lookups = Lookups(store, guard())
        leaving, staying = (asyncio.create_task(lookups.read(of(id))) for id in "ab")
        await store.begun.acquire()
        leaving.cancel()
        await asyncio.wait([leaving])
        store.gate.set()
        assert ids(await staying) == ["b"]

    asyncio.run(run())


def test_a_store_that_hangs_costs_the_time_limit_and_one_look_up_goes_on_for_the_connection() -> None:
    async def run() -> None:
        store = Store()
        store.gate.clear()
        lookups = Lookups(store, guard(SHORT_S))
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="no answer within 10 ms"):
                await lookups.read(of("a"))
        for _ in range(4):
            await store.begun.acquire()
        store.gate.set()
        await store.ended.acquire()
        assert len(store.calls) == 4
        assert store.ended.locked()  # the others were given up

    asyncio.run(run())


def test_a_store_that_was_silent_for_a_moment_is_asked_again_as_soon_as_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serving.gateway.lookups.PATIENCE_S", PATIENT_S)

    async def run() -> None:
        store, watch = Store(), guard(SHORT_S)
        store.gate.clear()
        lookups = Lookups(store, watch)
        for _ in range(6):
            with pytest.raises(StoreUnavailable, match="no answer within 10 ms"):
                await lookups.read(of("a"))
        assert watch.breaker.state is State.OPEN
        store.gate.set()
        await store.ended.acquire()
        assert ids(await lookups.read(of("b"))) == ["b"]
        assert watch.breaker.state is State.CLOSED

    asyncio.run(run())


def test_a_look_up_that_fails_counts_once_however_many_have_shared_it() -> None:
    async def run() -> None:
        store, watch = Store(), guard()
        store.fails = True
        lookups = Lookups(store, watch)
        for failures in range(1, 6):
            failed = await asyncio.gather(*(lookups.read(of("a")) for _ in range(10)), return_exceptions=True)
            assert {type(one) for one in failed} == {StoreUnavailable}
            assert (len(store.calls), watch.breaker.state) == (failures, State.CLOSED)
        with pytest.raises(StoreUnavailable):
            await lookups.read(of("a"))
        assert watch.breaker.state is State.OPEN
        with pytest.raises(StoreUnavailable, match="not asked for"):
            await lookups.read(of("a"))
        assert len(store.calls) == 6

    asyncio.run(run())


def test_missing_values_are_passed_on() -> None:
    class Empty(Store):
        async def read(self, wanted: Sequence[Wanted]) -> list[list[Found]]:
            return [[Reason.MISSING] for _ in wanted]

    async def run() -> None:
        assert ids(await Lookups(Empty(), guard()).read(of("a"))) == [Reason.MISSING]

    asyncio.run(run())


def test_a_connection_is_opened_ahead_and_a_store_that_fails_does_no_harm() -> None:
    async def run() -> None:
        store, watch = Store(), guard(SHORT_S)
        store.fails = True
        await Lookups(store, watch).connect()
        assert len(store.calls) == 1
        assert watch.breaker.state is State.CLOSED

    asyncio.run(run())
