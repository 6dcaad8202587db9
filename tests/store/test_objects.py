"""Tests the contract of an object store over both implementations: in a folder and in memory."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.store.objects import (
    AlreadyExists,
    BadPath,
    NoSuchObject,
    ObjectStore,
    ObjectTooLarge,
    StoreUnreachable,
    checked,
    open_store,
    scheme_of,
)
from serving.testing.objects import MemoryObjects

KINDS: dict[str, Callable[[Path], ObjectStore]] = {
    "folder": lambda folder: open_store(str(folder / "state")),
    "url": lambda folder: open_store(f"file://{folder}/state"),
    "memory": lambda folder: MemoryObjects(),
}


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return KINDS[request.param](tmp_path)


def test_what_was_created_is_read_and_listed_in_order(store: ObjectStore) -> None:
    async def story() -> None:
        for name in ("b/2", "b/10", "a/1", "bb/1", "b/c/1"):
            await store.create(name, name.encode())
        assert await store.get("b/10") == b"b/10"
        assert await store.paths("b") == ["b/10", "b/2", "b/c/1"]
        assert await store.paths("b", after="b/10") == ["b/2", "b/c/1"]
        assert await store.paths("b", after="b/11") == ["b/2", "b/c/1"]  # a marker need not exist
        assert await store.paths("none") == []

    asyncio.run(story())


def test_of_many_writers_of_one_object_one_wins_and_the_others_are_told(store: ObjectStore) -> None:
    async def write(number: int) -> int | None:
        try:
            await store.create("log/1", b"%d" % number)
        except AlreadyExists:
            return None
        return number

    async def story() -> None:
        winners = [number for number in await asyncio.gather(*map(write, range(20))) if number is not None]
        assert [b"%d" % winner for winner in winners] == [await store.get("log/1")]

    asyncio.run(story())


def test_an_object_that_is_missing_or_too_large_is_told_apart_from_a_store_that_is_down(store: ObjectStore) -> None:
    async def story() -> None:
        with pytest.raises(NoSuchObject):
            await store.get("log/1")
        await store.create("log/1", b"12345")
        assert await store.get("log/1", most_bytes=5) == b"12345"
        with pytest.raises(ObjectTooLarge):
            await store.get("log/1", most_bytes=4)
        with pytest.raises(NoSuchObject):
            await store.get("log")

    asyncio.run(story())


def test_percent_encoded_names_are_names_and_lead_nowhere(tmp_path: Path, store: ObjectStore) -> None:
    names = ["a/%2E%2E/x", "a/%2e%2e%2fx", "a/b%2Fc~", "a/b%252Fc"]

    async def story() -> None:
        for name in names:
            await store.create(name, name.encode())
        assert await store.paths("a") == sorted(names)
        assert [await store.get(name) for name in names] == [name.encode() for name in names]

    asyncio.run(story())
    if (tmp_path / "state").exists():
        assert all((tmp_path / "state" / name).is_file() for name in names)


BAD = [
    "",
    "/etc/passwd",
    "..",
    "../x",
    "a/../b",
    "a/./b",
    "a//b",
    "a/",
    "a b",
    "a\0b",
    "a\\b",
    "ä",
    "a#1",
    "...",
    "x" * 256,
]


@pytest.mark.parametrize("path", BAD)
def test_a_path_that_could_leave_its_folder_is_refused(store: ObjectStore, path: str) -> None:
    async def story() -> None:
        for call in (store.create(path, b""), store.get(path), store.paths(path)):
            with pytest.raises(BadPath):
                await call

    asyncio.run(story())


def test_a_path_has_an_end() -> None:
    with pytest.raises(BadPath):
        checked("/".join(["a" * 100] * 11))


def test_a_folder_that_vanished_is_down_and_not_empty(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "state"))

    async def story() -> None:
        await store.create("log/1", b"1")
        (tmp_path / "state").rename(tmp_path / "unmounted")
        for call in (store.get("log/1"), store.paths("log"), store.create("log/2", b"2")):
            with pytest.raises(StoreUnreachable, match="is not there"):
                await call

    asyncio.run(story())


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnreachable, match=r"file.*: "):
        open_store(str(tmp_path / "file" / "state"))


def test_the_folder_is_closed_to_others(tmp_path: Path) -> None:
    open_store(str(tmp_path / "state"))
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_place_is_a_folder_or_a_url() -> None:
    assert scheme_of("state/of it") == ("file", "state/of it")
    assert scheme_of("file:///var/lib/head%20way") == ("file", "/var/lib/head way")
    assert scheme_of("s3://bucket/headway") == ("s3", "s3://bucket/headway")
    for place in ("gs://bucket", "s3://", "file://host/x", "http://x/y", "s3://key:secret@bucket/x"):
        with pytest.raises(BadPath, match="is no place for objects") as caught:
            scheme_of(place)
        assert "secret" not in str(caught.value)
