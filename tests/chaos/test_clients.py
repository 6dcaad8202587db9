"""Tests clients that behave badly, by accident or on purpose: other clients are not affected, and no resources leak."""

import asyncio
import socket

import pytest

from tests.chaos.conftest import LATEST_S, Headway, are_you_well, usual
from tests.chaos.crowd import HOST, OK, PORT, Crowd, ask, body, message
from tests.chaos.troubled import EXHAUST, RAISE

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]

INFER = "/v2/models/steady/infer"


async def opened(first: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which these bytes were sent."""
    reader, writer = await asyncio.open_connection(HOST, PORT)
    writer.write(first)
    return reader, writer


def test_a_flood_of_bad_input_is_answered_item_by_item_and_affects_no_other_client(chaos: Headway) -> None:
    bad = {
        b"": "400",
        b"not json": "400",
        b"\x00" * 5000: "400",
        b'{"inputs": 3}': "400",
        b'{"inputs": []}': "400",
        body(1.0).replace(b"[1, 4]", b"[1, 5]"): "400",
        body(1.0).replace(b"[1, 4]", b"[-1, 4]"): "400",
        body(1.0).replace(b"FP32", b"FP99"): "400",
        body(1.0).replace(b'"x"', b'"nobody"'): "400",
        b"[" * 100_000: "400",
    }

    async def story() -> None:
        before, p95_s = await usual(chaos)
        async with Crowd("steady") as others:
            for _ in range(20):
                replies = await asyncio.gather(*(ask("steady", content=content) for content in bad))
                for (content, status), reply in zip(bad.items(), replies, strict=True):
                    assert reply.what.startswith(status), (content[:50], reply)
        assert set(others.counts()) == {OK}, others.counts()
        await are_you_well(chaos, before, p95_s)

    asyncio.run(story())


def test_a_request_that_makes_the_model_fail_fails_alone(chaos: Headway) -> None:
    async def story() -> None:
        before, p95_s = await usual(chaos)
        async with Crowd("steady", clients=16, pause_s=0.0) as others:
            for poison in (RAISE, EXHAUST):
                replies = await asyncio.gather(*(ask("steady", poison) for _ in range(20)))
                assert OK not in {reply.what for reply in replies}
                assert all(reply.is_clear and reply.seconds < LATEST_S for reply in replies), replies
            await others.until_well()
        assert set(others.counts()) == {OK}, others.counts()
        await are_you_well(chaos, before, p95_s)

    asyncio.run(story())


def test_clients_that_vanish_leave_nothing_behind(chaos: Headway) -> None:
    whole = message(INFER, body(1.0))

    async def story() -> None:
        before, p95_s = await usual(chaos)
        async with Crowd("steady") as others:
            for cut in (1, len(whole) // 2, len(whole) - 1, len(whole)):
                for _ in range(40):
                    _, writer = await opened(whole[:cut])
                    await writer.drain()
                    # A reset instead of an orderly close, as if the client's machine crashed.
                    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    writer.transport.abort()
        assert set(others.counts()) == {OK}, others.counts()
        await are_you_well(chaos, before, p95_s)

    asyncio.run(story())


def test_slow_and_silent_clients_delay_no_other_and_are_disconnected(chaos: Headway) -> None:
    whole = message(INFER, body(1.0))

    async def story() -> None:
        before, p95_s = await usual(chaos)
        silent = [await opened(b"") for _ in range(50)]
        dripping = [await opened(whole[:10]) for _ in range(200)]
        unread = [await opened(whole) for _ in range(50)]  # they never read their answer

        async def until_given_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
            try:
                while not reader.at_eof():
                    writer.write(b"x")
                    try:
                        async with asyncio.timeout(1.0):
                            return await reader.read()
                    except TimeoutError:
                        continue
            except ConnectionError:
                return b""
            return b""

        async with Crowd("steady") as others, asyncio.timeout(30):
            answers = await asyncio.gather(*(until_given_up(*one) for one in dripping))
        assert {answer[:12] for answer in answers} <= {b"HTTP/1.1 408", b"HTTP/1.1 400", b""}
        assert set(others.counts()) == {OK}, others.counts()
        for _, writer in silent + unread:
            writer.close()
        await are_you_well(chaos, before, p95_s)

    asyncio.run(story())
