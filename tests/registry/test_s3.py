"""Tests the registry on S3: many writers, files of several parts, and a bucket that is away. Needs moto's server."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.registry.changes import AlreadyRegistered, Refused, approval
from serving.registry.copies import Copies
from serving.registry.log import ModelLog, models_of
from serving.registry.state import fold
from serving.store.files import PIECE_BYTES, open_files
from serving.store.objects import AlreadyExists, NoSuchObject, ObjectTooLarge, StoreUnreachable
from tests.registry.artifacts import FILES, artifact, pushed
from tests.registry.stories import author


def test_a_version_goes_there_and_comes_back(bucket: str, tmp_path: Path) -> None:
    store = open_files(bucket)
    version = pushed(store, artifact(tmp_path / "artifact"))
    copy = asyncio.run(Copies(tmp_path / "copies").make(store, "ranker", version.digest))
    assert {name: (copy.folder / name).read_text() for name in FILES} == FILES
    assert asyncio.run(models_of(store)) == ["ranker"]
    assert set(asyncio.run(store.ages_s("models", 0)).values()) == {0}


def test_a_file_of_several_parts_comes_back_whole_and_what_is_removed_is_gone(bucket: str, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(PIECE_BYTES + 5))
    size = source.stat().st_size

    async def story() -> None:
        store = open_files(bucket)
        with pytest.raises(NoSuchObject):
            await store.download("net.bin", target, size)
        await store.upload("net.bin", source)
        with pytest.raises(ObjectTooLarge):
            await store.download("net.bin", target, size - 1)
        await store.download("net.bin", target, size)
        await store.remove("net.bin")
        await store.remove("net.bin")
        assert await store.paths("net.bin") == []

    asyncio.run(story())
    assert target.read_bytes() == source.read_bytes()


def test_of_many_that_create_one_object_one_wins_and_the_others_are_told(bucket: str) -> None:
    def write(number: int) -> int | None:
        try:
            asyncio.run(open_files(bucket).create("log/1", b"%d" % number))
        except AlreadyExists:
            return None
        return number

    with ThreadPoolExecutor(8) as threads:
        winners = [number for number in threads.map(write, range(16)) if number is not None]
    assert len(winners) == 1
    assert asyncio.run(open_files(bucket).get("log/1")) == b"%d" % winners[0]


def test_pushes_at_once_never_share_a_number(bucket: str, tmp_path: Path) -> None:
    def one(name: str) -> str:
        folder = artifact(tmp_path / name, {**FILES, "scale.txt": name[-1]})
        try:
            return pushed(open_files(bucket), folder, by=author(nonce=name)).number
        except AlreadyRegistered as error:
            return f"is {error.version.number}"

    with ThreadPoolExecutor(8) as threads:
        numbers = list(threads.map(one, [f"{kind}{value}" for kind in "ab" for value in range(4)]))
    assert sorted(number for number in numbers if number.isdigit()) == ["1", "2", "3", "4"]
    for value in range(4):
        first, second = sorted((numbers[value], numbers[4 + value]), key=len)
        assert second == f"is {first}"


def test_of_two_approvals_by_one_person_at_once_one_is_refused(bucket: str, tmp_path: Path) -> None:
    pushed(open_files(bucket), artifact(tmp_path))

    def approve(nonce: str) -> str:
        try:
            asyncio.run(ModelLog(open_files(bucket), "ranker").append(approval(author("user:ben", nonce=nonce), "v1")))
        except Refused:
            return "refused"
        return "done"

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(approve, "abcd")) == ["done", "refused", "refused", "refused"]
    log = ModelLog(open_files(bucket), "ranker")
    asyncio.run(log.read_new())
    assert [one.by for one in fold(log.records).versions["1"].approvals] == ["user:ben"]


def test_a_bucket_that_is_missing_is_away_and_not_empty(bucket: str) -> None:
    with pytest.raises(StoreUnreachable):
        asyncio.run(models_of(open_files("s3://no-such-bucket/registry")))
