"""Tests the contract of a store of files over both implementations: in a folder and in memory."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.store.files import AT_A_TIME, PIECE_BYTES, UNFINISHED, FileStore, open_files
from serving.store.objects import BadPath, NoSuchObject, ObjectTooLarge, StoreUnreachable
from serving.testing.files import MemoryFiles

KINDS: dict[str, Callable[[Path], FileStore]] = {
    "folder": lambda folder: open_files(str(folder / "store")),
    "memory": lambda folder: MemoryFiles(),
}


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FileStore:
    return KINDS[request.param](tmp_path)


def test_a_file_comes_back_as_it_was_and_an_upload_replaces(store: FileStore, tmp_path: Path) -> None:
    source = tmp_path / "source"

    async def story(target: Path, size: int) -> bytes:
        await store.upload("a/net.bin", source)
        await store.download("a/net.bin", target, size)
        assert await store.paths("a") == ["a/net.bin"]
        return await store.get("a/net.bin")

    for content in (b"old", b"", b"the new one"):
        source.write_bytes(content)
        target = tmp_path / f"target{len(content)}"
        assert asyncio.run(story(target, len(content))) == content == target.read_bytes()


def test_a_file_of_several_pieces_comes_back_whole(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    size = PIECE_BYTES * AT_A_TIME + 5
    with source.open("wb") as file:
        file.seek(PIECE_BYTES - 1)
        file.write(b"ab")
        file.truncate(size)

    async def story() -> None:
        store = open_files(str(tmp_path / "store"))
        await store.upload("net.bin", source)
        await store.download("net.bin", target, size)

    asyncio.run(story())
    assert target.stat().st_size == size
    assert target.read_bytes() == source.read_bytes()


def test_a_file_that_is_missing_or_larger_than_expected_is_not_written(store: FileStore, tmp_path: Path) -> None:
    target = tmp_path / "target"

    async def story() -> None:
        with pytest.raises(NoSuchObject):
            await store.download("net.bin", target, 100)
        await store.create("net.bin", b"12345")
        with pytest.raises(ObjectTooLarge):
            await store.download("net.bin", target, 4)

    asyncio.run(story())
    assert not target.exists()
    target.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        asyncio.run(store.download("net.bin", target, 5))
    assert target.read_bytes() == b"mine"


def test_what_is_removed_is_gone_and_removing_it_again_is_no_error(store: FileStore) -> None:
    async def story() -> None:
        for path in ("a/1", "a/2"):
            await store.create(path, b"")
        await store.remove("a/1")
        await store.remove("a/1")
        assert await store.paths("a") == ["a/2"]

    asyncio.run(story())


def test_objects_have_an_age(store: FileStore) -> None:
    async def story() -> None:
        await store.create("a/b/1", b"")
        await store.create("b/1", b"")
        ages = await store.ages_s("a", 0)
        assert list(ages) == ["a/b/1"]
        assert ages["a/b/1"] == 0  # of a clock that is behind the store's

    asyncio.run(story())


@pytest.mark.parametrize("path", ["", "../x", "/x", "a b"])
def test_a_path_that_could_leave_its_folder_is_refused(store: FileStore, tmp_path: Path, path: str) -> None:
    (tmp_path / "source").write_bytes(b"")

    async def story() -> None:
        for call in (
            store.upload(path, tmp_path / "source"),
            store.download(path, tmp_path / "target", 1),
            store.remove(path),
            store.ages_s(path, 0),
        ):
            with pytest.raises(BadPath):
                await call

    asyncio.run(story())


def test_a_folder_that_vanished_is_down(tmp_path: Path) -> None:
    store = open_files(str(tmp_path / "store"))
    (tmp_path / "store").rename(tmp_path / "unmounted")
    (tmp_path / "source").write_bytes(b"")

    async def story() -> None:
        for call in (store.upload("x", tmp_path / "source"), store.remove("x"), store.ages_s("x", 0)):
            with pytest.raises(StoreUnreachable, match="is not there"):
                await call

    asyncio.run(story())


def test_an_upload_that_is_killed_leaves_nothing_beside_the_objects_and_what_it_leaves_is_listed(
    tmp_path: Path,
) -> None:
    store, source = open_files(str(tmp_path / "store")), tmp_path / "source"
    source.write_bytes(b"12345")
    asyncio.run(store.upload("a/net.bin", source))
    assert list((tmp_path / "store" / UNFINISHED).iterdir()) == []
    (tmp_path / "store" / UNFINISHED / "0123456789abcdef").write_bytes(b"12")  # as a kill leaves it
    assert asyncio.run(store.paths("a")) == ["a/net.bin"]
    assert list(asyncio.run(store.ages_s(UNFINISHED, 0))) == [f"{UNFINISHED}/0123456789abcdef"]
    with pytest.raises(StoreUnreachable):
        asyncio.run(store.upload("a/net.bin/below", source))
    assert len(list((tmp_path / "store" / UNFINISHED).iterdir())) == 1
