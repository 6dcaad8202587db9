"""Tests a log in an object store: writers take turns, readers read what is new, a store fails at any call."""

import asyncio
import random
from collections.abc import Callable

import pytest

from serving.store.log import ATTEMPTS, MOST_MISSING, BadRecord, Busy, Log, RecordsUnreadable, RecordTooLarge
from serving.store.objects import MOST_BYTES, AlreadyExists, StoreUnreachable
from serving.testing.objects import MemoryObjects

Words = tuple[str, ...]


def spoken(words: Words, record: bytes) -> Words:
    if not record.isalnum():
        raise BadRecord("is no word")
    return (*words, record.decode())


def log_in(store: MemoryObjects) -> Log[Words]:
    return Log(store, "words/log", (), spoken, of="a word")


def path_of(number: int) -> str:
    return f"words/log/{number:012}.json"


def saying(word: str) -> Callable[[Words], bytes]:
    return lambda words: word.encode()


def kept(count: int) -> dict[str, bytes]:
    return {path_of(number): b"w%d" % number for number in range(1, count + 1)}


def test_what_one_writes_all_others_read() -> None:
    store = MemoryObjects()
    writer, reader = log_in(store), log_in(store)

    async def story() -> None:
        assert not await reader.read_new()
        assert await writer.append(saying("one")) == 1
        assert await writer.append(saying("two")) == 2
        assert await reader.read_new()
        assert (reader.state, reader.last) == (writer.state, 2) == (("one", "two"), 2)
        assert not await reader.read_new()

    asyncio.run(story())
    assert list(store.objects) == [path_of(1), path_of(2)]


class SlowObjects(MemoryObjects):
    """A store whose calls let other tasks run first, for a number of turns that a seed decides."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    async def get(self, path: str, most_bytes: int = MOST_BYTES) -> bytes:
        await self._turns()
        return await super().get(path, most_bytes)

    async def paths(self, folder: str, after: str = "") -> list[str]:
        found = await super().paths(folder, after)
        await self._turns()
        return found

    async def _turns(self) -> None:
        for _ in range(self._random.randrange(6)):
            await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(10))
def test_tasks_that_share_a_log_fold_every_record_once(seed: int) -> None:
    store = SlowObjects(seed)
    shared, another = log_in(store), log_in(store)

    async def write(log: Log[Words], name: str) -> None:
        for number in range(5):
            await log.append(saying(f"{name}{number}"))

    async def read() -> None:
        for _ in range(10):
            await shared.read_new()

    async def story() -> None:
        await asyncio.gather(write(shared, "a"), read(), write(another, "b"), read())
        await shared.read_new()

    asyncio.run(story())
    assert shared.state == tuple(record.decode() for record in store.objects.values())
    assert (shared.last, len(set(shared.state))) == (10, 10)


def test_a_record_that_nobody_could_read_again_is_not_written() -> None:
    store = MemoryObjects()
    log = Log(store, "words/log", (), spoken, of="a word", most_bytes=10)
    asyncio.run(log.append(saying("tenletters")))
    with pytest.raises(RecordTooLarge, match="would take 11 bytes"):
        asyncio.run(log.append(saying("elevenchars")))
    assert list(store.objects) == [path_of(1)]


def test_only_what_is_new_is_read() -> None:
    store = MemoryObjects()
    store.objects = kept(5)
    reader = log_in(store)

    async def story() -> None:
        await reader.read_new()
        store.objects[path_of(6)] = b"w6"
        store.asked.clear()
        await reader.read_new()

    asyncio.run(story())
    assert store.asked == [("paths", "words/log"), ("get", path_of(6))]


def test_writers_at_once_take_turns_and_each_decides_about_what_the_others_left() -> None:
    store = MemoryObjects()

    async def story() -> None:
        await asyncio.gather(*(log_in(store).append(after(writer)) for writer in "abcdefgh"))

    def after(writer: str) -> Callable[[Words], bytes]:
        return lambda words: f"{writer}{len(words)}".encode()

    asyncio.run(story())
    records = [record.decode() for record in store.objects.values()]
    assert {record[0] for record in records} == set("abcdefgh")
    assert [record[1] for record in records] == list("01234567")


def test_a_writer_that_is_always_too_late_gives_up_and_says_so() -> None:
    class Contended(MemoryObjects):
        async def create(self, path: str, data: bytes) -> None:
            self.objects[path] = b"other"
            await super().create(path, data)

    with pytest.raises(Busy, match=f"{ATTEMPTS} times"):
        asyncio.run(log_in(Contended()).append(saying("mine")))


@pytest.mark.parametrize("writes_then_fails", [False, True])
def test_whichever_call_of_a_writer_fails_its_record_is_there_whole_or_not_at_all(writes_then_fails: bool) -> None:
    for number in range(100):
        store = MemoryObjects(fails_at=frozenset({number}), writes_then_fails=writes_then_fails)
        store.objects = kept(1)
        failed = False
        try:
            asyncio.run(log_in(store).append(saying("mine")))
        except StoreUnreachable:
            failed = True
        asked, store.fails_at = store.calls, frozenset()
        reader = log_in(store)
        asyncio.run(reader.read_new())
        assert reader.unreadable == ()
        assert reader.state == ("w1", "mine") or (failed and reader.state == ("w1",))
        if not failed:
            assert number == asked == 5  # two listings, two records, one creation: each of them has failed before
            return
    raise AssertionError("it never succeeds")


def test_a_reading_that_fails_anywhere_changes_nothing() -> None:
    number, failed = 0, True
    while failed:
        store = MemoryObjects(fails_at=frozenset({number}))
        store.objects = kept(3)
        log = log_in(store)
        try:
            asyncio.run(log.read_new())
            failed = False
        except StoreUnreachable:
            assert (log.state, log.last) == ((), 0)
            asyncio.run(log.read_new())
        assert log.state == ("w1", "w2", "w3")
        number += 1
    assert number == 5  # a listing and three records, then nothing fails


def test_a_writer_that_is_told_of_another_that_then_fails_tries_again() -> None:
    class Conflicting(MemoryObjects):
        async def create(self, path: str, data: bytes) -> None:
            if not self.asked[2:]:
                self.asked.append(("create", path))
                raise AlreadyExists(path)
            await super().create(path, data)

    log = log_in(Conflicting())
    assert asyncio.run(log.append(saying("mine"))) == 1
    assert log.state == ("mine",)


def test_a_client_that_tries_again_after_a_lost_answer_has_won() -> None:
    class Retrying(MemoryObjects):
        async def create(self, path: str, data: bytes) -> None:
            self.objects.setdefault(path, data)
            await super().create(path, data)

    store = Retrying()
    assert asyncio.run(log_in(store).append(saying("mine"))) == 1
    assert len(store.objects) == 1


def test_a_record_that_a_listing_misses_is_asked_for() -> None:
    class Late(MemoryObjects):
        async def paths(self, folder: str, after: str = "") -> list[str]:
            return [path for path in await super().paths(folder, after) if path != path_of(2)]

    store = Late()
    store.objects = kept(3)
    log = log_in(store)
    asyncio.run(log.read_new())
    assert log.state == ("w1", "w2", "w3")


def test_readers_go_on_behind_a_record_that_they_cannot_read_and_writers_do_not() -> None:
    store = MemoryObjects()
    store.objects = {**kept(5), path_of(2): b"?"}
    del store.objects[path_of(4)]
    log = log_in(store)
    asyncio.run(log.read_new())
    assert log.state == ("w1", "w3", "w5")
    assert [one.why for one in log.unreadable] == [
        "is no word",
        "is missing between others; records must not be deleted",
    ]
    with pytest.raises(RecordsUnreadable, match=r"000000000002\.json is no word"):
        asyncio.run(log.append(saying("mine")))
    asyncio.run(log.append(saying("mine"), in_any_case=True))
    assert log.state == ("w1", "w3", "w5", "mine")


def test_a_record_that_cannot_be_folded_may_still_change_the_state_and_one_that_is_too_large_does_not() -> None:
    store = MemoryObjects()
    store.objects = {path_of(1): b"?", path_of(2): b"x" * 11}

    def noted(words: Words, record: bytes) -> Words:
        return (*words, "something")

    log = Log[Words](store, "words/log", (), spoken, of="a word", beside=noted, most_bytes=10)
    asyncio.run(log.read_new())
    assert log.state == ("something",)
    assert [one.why for one in log.unreadable] == ["is no word", "is too large for a record of a word"]


def test_a_record_that_nobody_could_read_is_not_written() -> None:
    store = MemoryObjects()
    with pytest.raises(BadRecord):
        asyncio.run(log_in(store).append(saying("?")))
    assert store.objects == {}


def test_objects_that_are_no_records_disturb_nobody() -> None:
    store = MemoryObjects()
    folder = "words/log"
    strange = [f"{folder}/README", f"{folder}/1.json", f"{folder}/{10**11}.json", f"{folder}/a/{1:012}.json"]
    store.objects = {**kept(1), **dict.fromkeys(strange, b"")}
    log = log_in(store)
    asyncio.run(log.read_new())
    assert (log.state, log.unreadable) == (("w1",), ())
    assert {one.path for one in log.foreign} == set(strange)
    assert asyncio.run(log.append(saying("mine"))) == 2
    assert MOST_MISSING < 10**11


def test_a_store_whose_records_have_vanished_is_not_the_one_it_was() -> None:
    store = MemoryObjects()
    log = log_in(store)
    asyncio.run(log.append(saying("one")))
    store.objects.clear()
    with pytest.raises(StoreUnreachable, match="has vanished"):
        asyncio.run(log.read_new())
    assert log.state == ("one",)
