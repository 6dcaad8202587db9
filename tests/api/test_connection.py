"""The fast path of a connection: however a client splits its requests, the answers equal those of uvicorn."""

import asyncio
import re
import socket
import threading
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from serving.api.beside import beside
from serving.api.http.app import ModelApp
from serving.api.http.connection import JOIN_BELOW_BYTES, MAX_HEAD_BYTES, InferConnection, Reader, fast_path
from serving.protocol.binary_codec import encode_request
from serving.protocol.messages import InferInput, InferRequest
from serving.testing.backend import EchoBackend
from tests.api.conftest import model

LIMIT = 100_000
ONES = (InferInput("x", "FP32", np.ones((1, 2), np.float32)),)
BODY, JSON_BYTES = encode_request(InferRequest(ONES))
BODY_WITH_ID, JSON_BYTES_WITH_ID = encode_request(InferRequest(ONES, id="7"))


def infer(body: bytes = BODY, *more: str, length: int | None = JSON_BYTES, path: str = "/v2/models/m/infer") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *more]
    if length is not None:
        lines.append(f"Inference-Header-Content-Length: {length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def chunked() -> bytes:
    head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nInference-Header-Content-Length: {JSON_BYTES}\r\n"
    middle = len(BODY) // 2
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:middle], BODY[middle:], b""))
    return head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + pieces


class Wire(asyncio.Transport):
    """A transport that stores what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.readable = asyncio.Event()
        self.readable.set()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def writelines(self, parts) -> None:
        self.written += b"".join(parts)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.readable.clear()

    def resume_reading(self) -> None:
        self.readable.set()


class Talk:
    """A connection to an application, with a transport that the test controls."""

    def __init__(self, backend: EchoBackend, *, http: str = "short") -> None:
        app = ModelApp(model("m", ("x", "FP32", (-1, 2)), backend=backend, max_body_bytes=LIMIT))
        config = uvicorn.Config(app, http=fast_path(app) if http == "short" else http, ws="none", log_config=None)  # type: ignore[arg-type]
        config.load()
        self.wire = Wire()
        self.state = ServerState()
        self.connection: HttpToolsProtocol = config.http_protocol_class(
            config=config, server_state=self.state, app_state={}, _loop=asyncio.get_running_loop()
        )
        self.connection.connection_made(self.wire)

    async def send(self, data: bytes) -> None:
        """Sends data as the event loop would: not while reading is paused, and not after the connection is closed."""
        await self.wire.readable.wait()
        if not self.wire.closed:
            self.connection.data_received(data)
        await asyncio.sleep(0)

    async def answers(self, count: int) -> list[tuple[int, bytes]]:
        """Returns status and body of `count` answers; fewer if the connection is closed before."""
        found: list[tuple[int, bytes]] = []
        for turn in range(2000):
            found = answers_in(self.wire.written)
            if len(found) >= count or self.wire.closed:
                break
            await (asyncio.sleep(0) if turn % 500 else worker_threads_are_idle())
        return found

    def hang_up(self) -> None:
        self.wire.closed = True
        self.connection.connection_lost(None)


async def worker_threads_are_idle() -> None:
    """Waits until both threads that read and write large messages have finished what they were given before."""
    both = threading.Barrier(2)
    await asyncio.gather(beside(both.wait), beside(both.wait))


def answers_in(written: bytes) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    while b"\r\n\r\n" in written:
        head, _, rest = written.partition(b"\r\n\r\n")
        if head == b"HTTP/1.1 100 Continue":
            written = rest
            continue
        length = re.search(rb"content-length: (\d+)", head)
        assert length, head
        if len(rest) < int(length[1]):
            break
        found.append((int(head[9:12]), rest[: int(length[1])]))
        written = rest[int(length[1]) :]
    return found


def talk(story: Callable[[Talk, EchoBackend], object], *, http: str = "short") -> object:
    async def play() -> object:
        backend = EchoBackend()
        one = Talk(backend, http=http)
        try:
            return await story(one, backend)  # type: ignore[misc]
        finally:
            one.hang_up()
            await asyncio.sleep(0)

    return asyncio.run(play())


REQUESTS = {
    "plain": infer(),
    "plain, id": infer(BODY_WITH_ID, length=JSON_BYTES_WITH_ID),
    "json": infer(b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}', length=None),
    "bad json": infer(b"{", length=None),
    "bad length": infer(BODY, length=100_000),
    "wants gzip": infer(BODY, "Accept-Encoding: gzip"),
    "allows gzip": infer(BODY, "Accept-Encoding: gzip, deflate"),
    "no body": infer(b"", length=None),
    "too large": infer(b"x" * (LIMIT + 1)),
    "other path": infer(path="/v2/models/m/versions/9/infer"),
    "ready": get("/v2/models/m/ready"),
    "metadata": get("/v2/models/m"),
    "chunked": chunked(),
}  # fmt: skip


@settings(max_examples=150)
@given(
    names=st.lists(st.sampled_from(sorted(REQUESTS)), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 4000), max_size=12),
    at_once=st.booleans(),
)
def test_however_requests_are_mixed_and_cut_the_answers_are_those_of_uvicorn_alone(
    names: list[str], cuts: list[int], at_once: bool
) -> None:
    """at_once: whether to pipeline, that is, to send each request without waiting for the previous answer."""

    async def story(one: Talk, backend: EchoBackend) -> list[tuple[int, bytes]]:
        if at_once:
            data = b"".join(REQUESTS[name] for name in names)
            edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
            for start, end in pairwise(edges):
                await one.send(data[start:end])
            return await one.answers(len(names))
        for number, name in enumerate(names, 1):
            data = REQUESTS[name]
            edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
            for start, end in pairwise(edges):
                await one.send(data[start:end])
            await one.answers(number)
        return answers_in(one.wire.written)

    assert talk(story) == talk(story, http="httptools")


def test_a_plain_request_takes_the_fast_path_also_after_requests_that_do_not() -> None:
    async def story(one: Talk, backend: EchoBackend) -> None:
        assert isinstance(one.connection, InferConnection)
        for count, (name, is_short) in enumerate(
            [("plain", 1), ("ready", 0), ("json", 1), ("no body", 0), ("plain", 1)]
        ):
            before = one.connection.cycle
            await one.send(REQUESTS[name])
            assert len(await one.answers(count + 1)) == count + 1
            assert (one.connection.cycle is before) == bool(is_short), name  # uvicorn makes a cycle for each of its own
        assert one.state.total_requests == 5

    talk(story)


def test_after_a_request_whose_end_only_a_parser_finds_the_connection_stays_with_uvicorn() -> None:
    async def story(one: Talk, backend: EchoBackend) -> None:
        assert isinstance(one.connection, InferConnection)
        await one.send(chunked())
        assert [status for status, _ in await one.answers(1)] == [200]
        await one.send(infer())
        assert [status for status, _ in await one.answers(2)] == [200, 200]
        assert one.connection._reader is Reader.UVICORN_FOR_GOOD

    talk(story)


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "x", "TLS/1.0, IRC/6.9"])
@pytest.mark.parametrize("body", [BODY, infer()], ids=["a body", "a request for a body"])
@pytest.mark.parametrize("is_cut", [True, False])
def test_a_request_that_asks_for_another_protocol_is_answered_as_it_is_and_its_body_is_no_request(
    protocol: str, body: bytes, is_cut: bool
) -> None:
    """Java's client asks for h2c in every request. Behind a proxy, a second answer would go to another client."""

    async def story(one: Talk, backend: EchoBackend) -> None:
        length = JSON_BYTES if body is BODY else None
        asked = infer(body, "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", length=length)
        for part in (asked[: -len(body)], asked[-len(body) :]) if is_cut else (asked,):
            await one.send(part)
        assert [status for status, _ in await one.answers(2)] == [200 if body is BODY else 400]
        assert one.wire.closed
        assert len(backend.submissions) == (body is BODY)

    talk(story)


def test_chunks_of_a_request_that_asks_for_another_protocol_are_its_body() -> None:
    async def story(one: Talk, backend: EchoBackend) -> None:
        head, _, chunks = chunked().partition(b"\r\n\r\n")
        await one.send(head + b"\r\nConnection: Upgrade\r\nUPGRADE: h2c\r\n\r\n")
        await one.send(chunks)
        assert [status for status, _ in await one.answers(2)] == [200]
        assert one.wire.closed

    talk(story)


def test_a_wish_for_another_protocol_that_only_a_parser_finds_ends_the_connection() -> None:
    async def story(one: Talk, backend: EchoBackend) -> None:
        await one.send(chunked())
        assert [status for status, _ in await one.answers(1)] == [200]
        asked = infer(infer(), "Connection: Upgrade", "Upgrade: x", length=None)
        await one.send(asked[: -len(infer())])
        await one.send(asked[-len(infer()) :])
        assert [status for status, _ in await one.answers(3)] == [200, 400]
        assert one.wire.closed
        assert len(backend.submissions) == 1

    talk(story)


ENDLESS = {
    "a head": (b"POST /v2/models/m/infer HTTP/1.1\r\n", b"x: y\r\n"),
    "a header": (b"POST /v2/models/m/infer HTTP/1.1\r\nx: ", b"y"),
    "a path": (b"POST /", b"p"),
    "a chunk's extension": (chunked()[: -len(b"0\r\n\r\n")] + b"1;", b"e"),
    "trailers": (chunked()[: -len(b"\r\n")], b"t: v\r\n"),
}


@pytest.mark.parametrize("after", [b"", chunked()], ids=["at first", "after chunks"])
@pytest.mark.parametrize("what", ENDLESS)
def test_what_never_ends_and_is_no_body_is_refused(what: str, after: bytes) -> None:
    begin, more = ENDLESS[what]

    async def story(one: Talk, backend: EchoBackend) -> None:
        await one.send(after)
        before = await one.answers(1 if after else 0)
        await one.send(begin)
        sent, piece = 0, more * (8192 // len(more))
        while not one.wire.closed:
            await one.send(piece)
            sent += len(piece)
            assert sent <= MAX_HEAD_BYTES + 2 * len(piece)
        assert sent >= MAX_HEAD_BYTES - len(begin) - len(piece)
        assert [status for status, _ in await one.answers(len(before) + 1)] == [200] * len(before) + [431]

    talk(story)


def test_a_head_that_is_too_long_is_refused_also_when_it_comes_whole() -> None:
    async def story(one: Talk, backend: EchoBackend) -> None:
        await one.send(infer(BODY, f"X-Long: {'x' * MAX_HEAD_BYTES}"))
        assert [status for status, _ in await one.answers(1)] == [431]
        assert one.wire.closed
        assert not backend.submissions

    talk(story)


def test_a_client_that_hangs_up_while_its_request_waits_withdraws_it() -> None:
    async def story(one: Talk, backend: EchoBackend) -> None:
        backend.hold()
        await one.send(infer())
        one.hang_up()
        for _ in range(5):
            await asyncio.sleep(0)
        assert (backend.cancelled, backend.waiting, one.wire.written) == (1, 0, b"")

    talk(story)


def test_a_client_that_sends_ahead_is_not_read_further_and_gets_its_answers_in_order() -> None:
    async def story(one: Talk, backend: EchoBackend) -> None:
        backend.hold()
        one.connection.data_received(infer())
        one.connection.data_received(infer() + get("/v2/models/m/ready"))
        await asyncio.sleep(0)
        assert not one.wire.readable.is_set()
        assert len(backend.submissions) == 1
        backend.release()
        answers = await one.answers(3)
        assert [b"ready" in body for _, body in answers] == [False, False, True]
        assert one.wire.readable.is_set()

    talk(story)


def test_a_client_that_does_not_take_its_answer_is_not_served_another() -> None:
    async def story(one: Talk, backend: EchoBackend) -> None:
        one.connection.pause_writing()
        one.connection.data_received(infer() + infer())
        assert len(await one.answers(1)) == 1
        assert len(backend.submissions) == 1
        one.connection.resume_writing()
        assert len(await one.answers(2)) == 2

    talk(story)


def test_a_server_that_stops_answers_waiting_requests_and_then_closes() -> None:
    async def story(one: Talk, backend: EchoBackend) -> None:
        backend.hold()
        await one.send(infer())
        one.connection.shutdown()
        assert not one.wire.closed
        backend.release()
        assert [status for status, _ in await one.answers(1)] == [200]
        assert b"connection: close" in one.wire.written
        assert one.wire.closed

    talk(story)


def test_an_idle_connection_is_closed_by_a_server_that_stops() -> None:
    async def story(one: Talk, backend: EchoBackend) -> None:
        await one.send(infer())
        await one.answers(1)
        one.connection.shutdown()
        assert one.wire.closed

    talk(story)


@pytest.mark.parametrize("turn_again", [False, True])
def test_a_connection_is_closed_once_it_was_idle_for_the_keep_alive_time(turn_again: bool) -> None:
    async def story(one: Talk, backend: EchoBackend) -> None:
        connection = one.connection
        assert isinstance(connection, InferConnection)
        await one.send(infer())
        await one.answers(1)
        assert connection._idle_timer is not None
        if not turn_again:
            connection._used_s -= connection.timeout_keep_alive
        connection._idle_timer.cancel()
        connection._close_if_idle()
        assert one.wire.closed is not turn_again

    talk(story)


def test_large_answers_are_written_without_being_joined() -> None:
    async def story(one: Talk, backend: EchoBackend) -> None:
        rows = JOIN_BELOW_BYTES // 8 + 1
        body, length = encode_request(InferRequest((InferInput("x", "FP32", np.ones((rows, 2), np.float32)),)))
        await one.send(infer(body, length=length))
        ((status, answer),) = await one.answers(1)
        assert status == 200
        assert len(answer) > 8 * rows

    talk(story)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_what_is_written_in_two_pieces_does_not_wait_for_the_first_to_be_acknowledged(serve, loop: str) -> None:
    server = serve([model("m", ("x", "FP32", (-1, -1)), backend=EchoBackend())], loop=loop)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(get("/v2/models/m"))
        assert client.recv(12) == b"HTTP/1.1 200"
        (connection,) = server.server_state.connections
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
