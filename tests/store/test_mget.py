"""Tests that a read of many keys gives each its own value, also after one that was ended in the middle."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import hiredis
import pytest
import redis
import uvloop

from serving.store.base import StoreUnavailable
from serving.store.connecting import Address, connect
from serving.store.mget import Reader, argument
from tests.cache.stories import turns
from tests.store.conftest import PATIENT_S, fresh_keys, socket_of
from tests.store.faulty import between

TWICE = b"*1\r\n$1\r\na\r\n" * 2  # the second is an answer to nothing


def stored(valkey: str, count: int) -> list[str]:
    """Stores values that name their keys. Returns the keys."""
    keys = [fresh_keys().quota(str(number)) for number in range(count)]
    redis.Redis.from_url(valkey).mset({key: key.encode() for key in keys})
    return keys


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[Callable[[Sequence[str]], Awaitable[Sequence[bytes | None]]]]:
    """Yields the function that reads keys of this server."""
    client = connect(Address(url=url), PATIENT_S)
    reader = Reader(client)
    yield lambda keys: reader.read("".join(map(argument, keys)), len(keys))
    reader.close()
    await client.aclose()


def test_each_key_has_its_own_value(valkey: str) -> None:
    keys = stored(valkey, 300)

    async def tell() -> None:
        async with reading(valkey) as read:
            absent = fresh_keys().present()
            assert await read([*keys, absent, keys[0]]) == [*(key.encode() for key in keys), None, keys[0].encode()]
            assert await read([]) == []

    asyncio.run(tell())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_reads_at_the_same_time_share_the_connection_and_keep_their_answers(
    valkey: str, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    keys = stored(valkey, 50)

    async def tell() -> None:
        async with reading(valkey) as read:
            found = await asyncio.gather(*(read([key]) for key in keys))
            assert found == [[key.encode()] for key in keys]

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(tell())


def test_a_key_is_an_argument_of_a_command() -> None:
    assert argument("bcd") == "$3\r\nbcd\r\n"


def test_the_late_answer_of_a_read_that_was_given_up_is_nobodys(valkey: str, tmp_path: Path) -> None:
    keys = stored(valkey, 3)

    async def tell() -> None:
        async with between(tmp_path, socket_of(valkey)) as (url, middle), reading(url) as read:
            assert await read(keys[:1]) == [keys[0].encode()]
            middle.flows.clear()
            before = middle.asked
            given_up = asyncio.create_task(read(keys[1:2]))
            while middle.asked == before:
                await turns(1)
            given_up.cancel()
            await asyncio.wait([given_up])
            middle.flows.set()
            for _ in range(3):
                assert await read(keys[2:]) == [keys[2].encode()]

    asyncio.run(tell())


@pytest.mark.parametrize(
    "garbage", [b"*1\r\n:7\r\n", b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", b"*-1\r\n", b"+OK\r\n", b":1\r\n"]
)
def test_what_is_no_answer_to_the_keys_is_no_value(valkey: str, tmp_path: Path, garbage: bytes) -> None:
    keys = stored(valkey, 1)

    async def tell() -> None:
        async with between(tmp_path, socket_of(valkey)) as (url, middle), reading(url) as read:
            await read(keys)
            middle.alter = lambda number, piece: garbage
            with pytest.raises(StoreUnavailable, match="an answer"):
                await read(keys)

    asyncio.run(tell())


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", TWICE, None])
def test_after_a_connection_that_lies_or_breaks_off_another_is_opened(
    valkey: str, tmp_path: Path, garbage: bytes | None
) -> None:
    keys = stored(valkey, 1)

    async def tell() -> None:
        async with between(tmp_path, socket_of(valkey)) as (url, middle), reading(url) as read:
            await read(keys)
            middle.alter = lambda number, piece: garbage
            if garbage == TWICE:
                assert await read(keys) == [b"a"]
            else:
                with pytest.raises(ConnectionError, match="the server"):
                    await read(keys)
            middle.alter = lambda number, piece: piece
            assert await read(keys) == [keys[0].encode()]

    asyncio.run(tell())


def test_what_the_server_says_is_an_error_is_raised_and_the_connection_stays(valkey: str, tmp_path: Path) -> None:
    keys = stored(valkey, 1)

    async def tell() -> None:
        async with between(tmp_path, socket_of(valkey)) as (url, middle), reading(url) as read:
            await read(keys)
            middle.alter = lambda number, piece: b"-LOADING the data\r\n>1\r\n$1\r\na\r\n"
            with pytest.raises(hiredis.ReplyError, match="LOADING"):
                await read(keys)
            pieces, middle.alter = middle.pieces, lambda number, piece: piece
            assert await read(keys) == [keys[0].encode()]
            assert middle.pieces == pieces + 1  # no greeting: the push of the server was passed over

    asyncio.run(tell())
