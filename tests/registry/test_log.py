"""Tests the log of a model in a store: writers at once, and a store that fails at any call."""

import asyncio

import pytest

from serving.registry.changes import AlreadyRegistered, registration, rollback
from serving.registry.log import ModelLog, models_of
from serving.registry.state import fold
from serving.store.objects import BadPath, StoreUnreachable
from serving.testing.objects import MemoryObjects
from tests.registry.stories import DIGESTS, author, events_written


def test_of_writers_at_once_each_gets_a_number_of_its_own() -> None:
    store = MemoryObjects()

    async def story() -> None:
        await asyncio.gather(
            *(
                ModelLog(store, "ranker").append(registration(author(nonce=number), digest))
                for number, digest in list(DIGESTS.items())[:8]
            )
        )
        log = ModelLog(store, "ranker")
        await log.read_new()
        state = fold(log.records)
        assert list(state.versions) == [str(number) for number in range(1, 9)]
        assert {version.digest for version in state.versions.values()} == set(list(DIGESTS.values())[:8])

    asyncio.run(story())


def test_of_two_that_push_the_same_content_one_is_told_the_version_of_the_other() -> None:
    store = MemoryObjects()

    async def story() -> None:
        pushes = [ModelLog(store, "ranker").append(registration(author(nonce=nonce), "ab" * 32)) for nonce in "xy"]
        won, lost = sorted(await asyncio.gather(*pushes, return_exceptions=True), key=str)
        assert won == 1
        assert isinstance(lost, AlreadyRegistered)
        assert lost.version.number == "1"

    asyncio.run(story())


@pytest.mark.parametrize("writes_then_fails", [False, True])
def test_whichever_call_fails_a_rollback_is_done_or_not_done(writes_then_fails: bool) -> None:
    async def story(store: MemoryObjects) -> bool:
        try:
            await ModelLog(store, "ranker").append(rollback(author()))
        except StoreUnreachable:
            return False
        return True

    for number in range(20):
        store = MemoryObjects(writes_then_fails=writes_then_fails)
        asyncio.run(_released(store))
        store.calls, store.fails_at = 0, frozenset({number})
        done = asyncio.run(story(store))
        asked, store.fails_at = store.calls, frozenset()
        log = ModelLog(store, "ranker")
        asyncio.run(log.read_new())
        route = fold(log.records).route
        assert log.unreadable == ()
        assert route is not None
        assert route.stable in (["1"] if done else ["1", "2"])
        if done:
            assert number == asked
            return
    raise AssertionError("it never succeeds")


async def _released(store: MemoryObjects) -> None:
    for number, event in enumerate(("a registered 1", "a registered 2", "a routed 1", "a routed 2")):
        for record in events_written(number, event):
            await store.create(f"models/ranker/log/{number + 1:012}.json", record)


def test_models_are_those_with_a_record() -> None:
    store = MemoryObjects()
    store.objects = dict.fromkeys(["models/b/log/000000000001.json", "models/a/versions/x/manifest.json"], b"")
    assert asyncio.run(models_of(store)) == ["b"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "-a", "x" * 101, "a b"])
def test_a_name_that_no_model_has_is_refused(name: str) -> None:
    with pytest.raises(BadPath):
        ModelLog(MemoryObjects(), name)
