"""Requests that arrive too slowly are refused and their connections closed; complete requests need no timer."""

import asyncio

import pytest

from serving.api.admission.pace import GRACE_S, SLOWEST_BYTES_PER_S, TOO_SLOW_AND_LAST, patience_s
from serving.api.faults import CallFailed
from serving.api.http.asgi import read_body
from serving.api.http.connection import InferConnection, Reader
from serving.testing.backend import EchoBackend
from tests.api.test_connection import BODY, Talk, get, infer, talk


def test_what_has_come_buys_time() -> None:
    assert patience_s(0) == GRACE_S
    assert patience_s(10 * SLOWEST_BYTES_PER_S) == GRACE_S + 10
    assert patience_s(1) - patience_s(0) < 0.001  # a byte every ten seconds buys nothing


def late(connection: InferConnection) -> None:
    """Runs the callback of the connection's timer as if the time for the incomplete request were over."""
    assert connection._slow_timer is not None
    connection._slow_timer.cancel()
    connection._since_s -= patience_s(connection._come_bytes)
    connection._refuse_if_slow()


@pytest.mark.parametrize("cut", ["in the head", "before the body", "in the body"])
def test_a_request_that_drips_gets_408_and_its_connection_is_closed(cut: str) -> None:
    async def story(one: Talk, backend: EchoBackend) -> None:
        connection = one.connection
        assert isinstance(connection, InferConnection)
        request = infer()
        at = {"in the head": 20, "before the body": len(request) - len(BODY), "in the body": len(request) - 3}[cut]
        await one.send(infer())  # a whole one before it
        await one.answers(1)
        await one.send(request[:at])
        await one.send(request[at : at + 1])
        late(connection)
        (_, status), body = zip(*await one.answers(2), strict=True)
        assert (status, b"too slowly" in body[1]) == (408, True)
        assert one.wire.closed
        assert one.wire.written.count(b"connection: close") == 1
        one.hang_up()
        assert connection._model.model.room.held == 0

    talk(story)


def test_a_request_that_comes_in_time_is_served_however_it_is_cut() -> None:
    async def story(one: Talk, backend: EchoBackend) -> None:
        connection = one.connection
        assert isinstance(connection, InferConnection)
        for byte in infer():
            await one.send(bytes([byte]))
            if connection._slow_timer is not None:  # rings too early, looks, and goes on
                connection._slow_timer.cancel()
                connection._refuse_if_slow()
        assert [status for status, _ in await one.answers(1)] == [200]
        connection._refuse_if_slow()
        assert (connection._slow_timer, connection._reader, one.wire.closed) == (None, Reader.CLIENT, False)

    talk(story)


def test_a_request_that_comes_whole_starts_no_clock() -> None:
    async def story(one: Talk, backend: EchoBackend) -> None:
        connection = one.connection
        assert isinstance(connection, InferConnection)
        await one.send(infer())
        await one.send(infer() + get("/v2/models/m"))
        await one.answers(3)
        assert connection._slow_timer is None

    talk(story)


def test_a_head_that_begins_behind_another_request_has_a_clock_too() -> None:
    async def story(one: Talk, backend: EchoBackend) -> None:
        connection = one.connection
        assert isinstance(connection, InferConnection)
        await one.send(infer() + infer()[:10])
        assert [status for status, _ in await one.answers(1)] == [200]
        await asyncio.sleep(0)
        late(connection)
        assert [status for status, _ in await one.answers(2)] == [200, 408]
        assert one.wire.closed

    talk(story)


@pytest.mark.parametrize("cut", [0, 3])
def test_a_body_that_drips_to_uvicorn_loses_its_connection(cut: int) -> None:
    async def story(one: Talk, backend: EchoBackend) -> None:
        connection = one.connection
        assert isinstance(connection, InferConnection)
        request = infer(BODY, "Accept-Encoding: gzip")
        await one.send(request[: len(request) - len(BODY) + cut])
        assert connection._reader is Reader.UVICORN
        late(connection)
        assert [status for status, _ in await one.answers(1)] == [408]
        assert one.wire.closed
        one.hang_up()

    talk(story)


class Skipping(asyncio.SelectorEventLoop):
    """An event loop whose clock the test advances."""

    ahead_s = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_s


@pytest.mark.parametrize("parts", [0, 1, 3])
def test_a_body_that_drips_the_general_way_is_given_up(parts: int) -> None:
    loop = Skipping()
    left = [b"x"] * parts

    async def receive() -> dict[str, object]:
        loop.ahead_s += GRACE_S / (parts + 1) * 1.01
        if not left:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": left.pop(), "more_body": True}

    with asyncio.Runner(loop_factory=lambda: loop) as runner, pytest.raises(CallFailed) as failed:
        runner.run(read_body(receive, {}, 1000))
    assert failed.value.fault is TOO_SLOW_AND_LAST


def test_a_large_body_may_take_longer_than_a_small_one() -> None:
    loop = Skipping()
    left = [bytes(SLOWEST_BYTES_PER_S)] * 100

    async def receive() -> dict[str, object]:
        loop.ahead_s += 0.9
        return {"type": "http.request", "body": left.pop(), "more_body": bool(left)}

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        body = runner.run(read_body(receive, {}, 1 << 30))
    assert len(body or b"") == 100 * SLOWEST_BYTES_PER_S
    assert loop.ahead_s > 4 * GRACE_S
