"""Tests that a read of many keys gives each its own value, also after one that was ended in the middle."""

import asyncio
from pathlib import Path

import pytest
import redis

from serving.store.base import StoreUnavailable
from serving.store.connecting import Address, connect
from serving.store.mget import mget, packed
from tests.cache.stories import turns
from tests.store.conftest import PATIENT_S, fresh_keys, socket_of
from tests.store.faulty import between


def stored(valkey: str, count: int) -> list[str]:
    """Stores values that name their keys. Returns the keys."""
    keys = [fresh_keys().quota(str(number)) for number in range(count)]
    redis.Redis.from_url(valkey).mset({key: key.encode() for key in keys})
    return keys


def test_each_key_has_its_own_value(valkey: str) -> None:
    keys = stored(valkey, 300)

    async def tell() -> None:
        client = connect(Address(url=valkey), PATIENT_S)
        absent = fresh_keys().present()
        assert await mget(client, [*keys, absent, keys[0]]) == [*(key.encode() for key in keys), None, keys[0].encode()]
        assert await mget(client, []) == []
        await client.aclose()

    asyncio.run(tell())


def test_the_command_is_what_redis_reads() -> None:
    assert packed(["a", "bcd"]) == b"*3\r\n$4\r\nMGET\r\n$1\r\na\r\n$3\r\nbcd\r\n"


@pytest.mark.parametrize("is_bounded", [True, False])
def test_the_late_answer_of_a_read_that_was_given_up_is_nobodys(valkey: str, tmp_path: Path, is_bounded: bool) -> None:
    keys = stored(valkey, 3)

    async def tell() -> None:
        async with between(tmp_path, socket_of(valkey)) as (url, middle):
            client = connect(Address(url=url), PATIENT_S, is_bounded=is_bounded)
            assert await mget(client, keys[:1]) == [keys[0].encode()]
            middle.flows.clear()
            before = middle.asked
            reading = asyncio.create_task(mget(client, keys[1:2]))
            while middle.asked == before:
                await turns(1)
            reading.cancel()
            await asyncio.wait([reading])
            middle.flows.set()
            for _ in range(3):
                assert await mget(client, keys[2:]) == [keys[2].encode()]
            await client.aclose()

    asyncio.run(tell())


@pytest.mark.parametrize(
    "garbage", [b"*1\r\n:7\r\n", b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", b"*-1\r\n", b"+OK\r\n", b":1\r\n"]
)
def test_what_is_no_answer_to_the_keys_is_no_value(valkey: str, tmp_path: Path, garbage: bytes) -> None:
    keys = stored(valkey, 1)

    async def tell() -> None:
        async with between(tmp_path, socket_of(valkey)) as (url, middle):
            client = connect(Address(url=url), PATIENT_S)
            await mget(client, keys)
            middle.alter = lambda number, piece: garbage
            with pytest.raises(StoreUnavailable, match="an answer"):
                await mget(client, keys)
            await client.aclose()

    asyncio.run(tell())
