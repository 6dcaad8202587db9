"""Tests the records of keys in a store: many writers, a store that fails at any call, records that cannot be read.

The log below them has tests of its own: `tests/store/test_log.py`.
"""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.key_log import KeyLog, path_of
from serving.gateway.keys import Keys
from serving.store.log import BadRecord, RecordsUnreadable
from serving.store.objects import StoreUnreachable
from serving.testing.objects import MemoryObjects
from tests.gateway.stories import NOW_S, creation, fixed, revocation, rotation


def making(seed: int) -> Callable[[Keys], bytes]:
    return lambda keys: creation(fixed(seed))


def ids(*seeds: int) -> set[str]:
    return {fixed(seed).id for seed in seeds}


def test_writers_at_once_take_turns_and_lose_nothing() -> None:
    store = MemoryObjects()

    async def story() -> None:
        logs = [KeyLog(store) for _ in range(8)]
        await asyncio.gather(*(log.append(making(seed)) for seed, log in enumerate(logs)))
        reader = KeyLog(store)
        await reader.read_new()
        assert reader.keys.keys() == ids(*range(8))

    asyncio.run(story())


def test_a_decision_is_made_again_about_the_keys_as_the_other_writer_left_them() -> None:
    store, key = MemoryObjects(), fixed(1)
    store.objects[path_of(1)] = creation(key)

    class TooLate(Exception):
        pass

    def once(keys: Keys) -> bytes:
        if keys[key.id].replaced_by:
            raise TooLate
        new = fixed(2 + len(decided))
        decided.append(new)
        return rotation(keys[key.id], new, NOW_S + 60)

    decided: list[object] = []

    async def story() -> None:
        results = await asyncio.gather(*(KeyLog(store).append(once) for _ in range(2)), return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["TooLate", "int"]

    asyncio.run(story())
    assert len(store.objects) == 2


@pytest.mark.parametrize("writes_then_fails", [False, True])
def test_whichever_call_fails_a_key_is_there_whole_or_not_at_all(writes_then_fails: bool) -> None:
    for number in range(100):
        store = MemoryObjects(fails_at=frozenset({number}), writes_then_fails=writes_then_fails)
        store.objects[path_of(1)] = creation(fixed(0))
        failed = False
        try:
            asyncio.run(KeyLog(store).append(making(1)))
        except StoreUnreachable:
            failed = True
        asked, store.fails_at = store.calls, frozenset()
        reader = KeyLog(store)
        asyncio.run(reader.read_new())
        assert reader.unreadable == ()
        assert reader.keys.keys() in (ids(0), ids(0, 1))
        if not failed:
            assert reader.keys.keys() == ids(0, 1)
            assert number == asked == 5  # two listings, two records, one creation: each of them has failed before
            return
    raise AssertionError("it never succeeds")


def test_readers_go_on_behind_a_record_that_they_cannot_read_and_writers_do_not() -> None:
    store = MemoryObjects()
    store.objects = {
        path_of(1): creation(fixed(1)),
        path_of(2): creation(fixed(2))[:-5],
        path_of(4): revocation(fixed(1).id),
        path_of(5): b"x" * 100_000,
    }
    log = KeyLog(store)
    asyncio.run(log.read_new())
    assert log.keys[fixed(1).id].state(NOW_S) == "revoked"
    assert [str(one).partition(":")[0] for one in log.unreadable] == [
        "keys/log/000000000002.json is not JSON",
        "keys/log/000000000003.json is missing between others; records must not be deleted",
        "keys/log/000000000005.json is too large for a record of a key",
    ]
    with pytest.raises(RecordsUnreadable, match=r"000000000002\.json is not JSON"):
        asyncio.run(log.append(making(7)))
    asyncio.run(log.append(lambda keys: revocation(fixed(1).id), in_any_case=True))
    assert path_of(6) in store.objects


def test_a_record_that_nobody_could_read_is_not_written() -> None:
    store = MemoryObjects()
    with pytest.raises(BadRecord):
        asyncio.run(KeyLog(store).append(lambda keys: revocation("0" * 12)))
    assert store.objects == {}


@given(st.binary(max_size=60) | st.sampled_from([creation(fixed(3))[:at] for at in range(0, 200, 7)]))
def test_whatever_a_record_holds_the_others_are_read(content: bytes) -> None:
    store = MemoryObjects()
    store.objects = {path_of(1): creation(fixed(1)), path_of(2): content, path_of(3): creation(fixed(2))}
    log = KeyLog(store)
    asyncio.run(log.read_new())
    assert log.keys.keys() >= ids(1, 2)
    assert "secret" not in repr(log)
