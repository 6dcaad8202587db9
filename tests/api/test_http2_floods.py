"""Tests HTTP/2 clients that flood the server or do not read: what is allowed, and that memory and time stay bounded."""

import asyncio
from collections.abc import Callable
from itertools import count

import pytest
from hpack import Encoder

from serving.api.grpc.service import STREAM, STREAM_WINDOW
from serving.api.http2 import receiving
from serving.api.http2.allowance import IDLE_FRAMES
from serving.api.http2.connection import DROPPED_AT_ONCE, MAX_STREAMS, MIN_HELD_BYTES
from serving.api.http2.receiving import TURN_NS
from serving.api.http2.sending import MAX_TURN, MAX_UNREAD
from serving.core.errors import ModelError
from serving.core.outcome import Failed
from serving.protocol import http2
from serving.testing.backend import EchoBackend
from tests.api.test_grpc_connection import HEADERS, Peer, Transport, data, infer, with_peer

MANY = 3 * IDLE_FRAMES  # far above the limit, so that a machine which pauses for seconds does not change the result
CALM = http2.ENHANCE_YOUR_CALM


BLOCK = Encoder().encode(HEADERS)
NAMED = Encoder().encode([*HEADERS, ("x-request-id", "1" * 4000)])  # the answer repeats it


def begin(id: int, flags: int = http2.END_HEADERS, block: bytes = BLOCK) -> bytes:
    return http2.frame(http2.HEADERS, flags, id, block)


def reset_calls(count: int) -> list[bytes]:
    return [begin(id) + http2.reset(id, http2.CANCEL) for id in range(101, 101 + 2 * count, 2)]


FLOODS: dict[str, Callable[[int], list[bytes]]] = {
    "pings": lambda count: [http2.frame(http2.PING, 0, 0, bytes(8))] * count,
    "pings acknowledged": lambda count: [http2.frame(http2.PING, http2.ACK, 0, bytes(8))] * count,
    "settings": lambda count: [http2.settings([])] * count,
    "settings acknowledged": lambda count: [http2.frame(http2.SETTINGS, http2.ACK, 0)] * count,
    "priorities": lambda count: [http2.frame(http2.PRIORITY, 0, 1, bytes(5))] * count,
    "unknown frames": lambda count: [http2.frame(99, 0, 1)] * count,
    "data without data": lambda count: [begin(1), *[http2.frame(http2.DATA, 0, 1)] * count],
    "data of padding": lambda count: [begin(1), *[http2.frame(http2.DATA, http2.PADDED, 1, b"\1\0")] * count],
    "empty continuations": lambda count: [begin(1, 0), *[http2.frame(http2.CONTINUATION, 0, 1)] * count],
    "calls reset": reset_calls,
    "resets of a call that is over": lambda count: [begin(1), *[http2.reset(1, http2.CANCEL)] * count],
    "goaways": lambda count: [http2.goaway(0, 0)] * count,
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_frames_that_advance_no_call_ends_the_connection(flood: str) -> None:
    @with_peer
    async def check(peer: Peer, backend: EchoBackend) -> None:
        peer.send(*FLOODS[flood](MANY))
        frames = await peer.frames()
        kind, _, _, payload = frames[-1]
        assert (kind, payload[4:8]) == (http2.GOAWAY, CALM.to_bytes(4, "big"))
        assert peer.transport.closed

    check()


@pytest.mark.parametrize("flood", FLOODS)
def test_as_many_such_frames_as_an_honest_client_sends_are_accepted(flood: str) -> None:
    @with_peer
    async def check(peer: Peer, backend: EchoBackend) -> None:
        peer.send(*FLOODS[flood](1000))
        await peer.frames()
        assert not peer.transport.closed

    check()


@with_peer
async def test_calls_that_are_answered_allow_as_many_resets(peer: Peer, backend: EchoBackend) -> None:
    peer.connection._loop = Frozen(peer.connection._loop)  # passing time would refill the allowance
    open_wide(peer)
    peer.connection._allowance._left = 100
    for first in range(1, 4001, 400):
        frames = [begin(id) + data(id, infer()) for id in range(first, first + 200, 2)]
        frames += [begin(id) + http2.reset(id, http2.CANCEL) for id in range(first + 200, first + 400, 2)]
        peer.send(*frames)
        await peer.frames()
    assert not peer.transport.closed


class Frozen:
    """An event loop whose clock is stopped."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._now_s = loop, loop.time()

    def time(self) -> float:
        return self._now_s

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)


@with_peer
async def test_calls_beyond_those_that_may_be_open_are_refused(peer: Peer, backend: EchoBackend) -> None:
    backend.hold()
    peer.send(*(begin(id) for id in range(1, 2 * MAX_STREAMS + 2, 2)))
    resets = [(id, payload) for kind, _, id, payload in await peer.frames() if kind == http2.RST_STREAM]
    assert resets == [(2 * MAX_STREAMS + 1, http2.REFUSED_STREAM.to_bytes(4, "big"))]


@with_peer
async def test_headers_that_grow_in_their_table_end_the_connection_before_they_fill_the_memory(peer, backend) -> None:
    entry = Encoder().encode([("x", "1" * 4000)], huffman=False)
    peer.send(http2.frame(http2.HEADERS, http2.END_HEADERS, 1, entry + b"\xbe" * 16_000))  # 64 MB of headers
    kind, _, _, payload = (await peer.frames())[-1]
    assert (kind, payload[4:8]) == (http2.GOAWAY, CALM.to_bytes(4, "big"))


def in_two(id: int, block: bytes) -> bytes:
    """Returns HEADERS with the block's first byte and CONTINUATION with the rest."""
    return begin(id, 0, block[:1]) + http2.frame(http2.CONTINUATION, http2.END_HEADERS, id, block[1:])


# Frames that cost the server more than the client; a function of the stream's id each.
EXPENSIVE: dict[str, Callable[[int], bytes]] = {
    "many fields": lambda id: begin(id, block=b"\x82" * 1500),
    "many fields in two frames": lambda id: in_two(id, b"\x82" * 1500),
    "calls made and reset": lambda id: begin(id) + data(id, infer()) + http2.reset(id, http2.CANCEL),
    "settings": lambda id: http2.settings([(http2.INITIAL_WINDOW_SIZE, id)] * 100),
    "a message a byte a frame": lambda id: begin(id) + b"".join(http2.frame(http2.DATA, 0, id, b"\0") for _ in infer()),
}
MOST_FRAMES = 10  # in a turn, if the clock shows TURN_NS / MOST_FRAMES more each time


@pytest.mark.parametrize("expensive", EXPENSIVE)
def test_the_time_for_one_connection_per_iteration_of_the_loop_is_bounded(
    expensive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = count(0, TURN_NS // MOST_FRAMES)
    monkeypatch.setattr(receiving, "now_ns", lambda: next(ticks))

    @with_peer
    async def bounded(peer: Peer, backend: EchoBackend) -> None:
        peer.send(http2.frame(http2.SETTINGS, http2.ACK, 0))
        taken: list[int] = []
        take = peer.connection._take
        monkeypatch.setattr(peer.connection, "_take", lambda kind, *frame: (taken.append(kind), take(kind, *frame)))
        ids = range(1, 101, 2)
        peer.send(*(EXPENSIVE[expensive](id) for id in ids), begin(201) + data(201, infer()))
        while peer.connection._is_resting:
            before = len(taken)
            peer.send(b"")  # bytes that arrive meanwhile are not read yet
            assert len(taken) == before
            await asyncio.sleep(0)
            assert len(taken) - before <= MOST_FRAMES
        assert len(taken) >= len(ids)
        assert peer.connection._last_stream == 201
        assert not peer.transport.closed

    bounded()


@with_peer
async def test_the_calls_of_a_lost_connection_end_some_per_iteration_of_the_loop(
    peer: Peer, backend: EchoBackend
) -> None:
    stream = Encoder().encode([(name, STREAM if name == ":path" else value) for name, value in HEADERS])
    peer.send(*(begin(id, block=stream) for id in range(1, 2 * MAX_STREAMS, 2)))
    await peer.frames()
    ended = [call.answering for call in peer.connection._streams.values()]
    peer.connection.connection_lost(None)
    before = 0
    while peer.connection._streams:
        await asyncio.sleep(0)
        cancelled = sum(task.cancelling() or task.done() for task in ended)
        assert cancelled - before <= 2 * DROPPED_AT_ONCE
        before = cancelled
    await asyncio.wait(ended)
    assert len(ended) == MAX_STREAMS


@with_peer
async def test_of_each_setting_the_last_value_of_a_frame_counts_whatever_waits(
    peer: Peer, backend: EchoBackend
) -> None:
    peer.send(http2.settings([(http2.INITIAL_WINDOW_SIZE, 0)]))
    peer.send(*(begin(id) + data(id, infer()) for id in range(1, 2000, 2)))
    await peer.frames()
    changes = [(http2.INITIAL_WINDOW_SIZE, number % 2) for number in range(20_001)]
    peer.send(http2.settings(changes))
    assert [frame[:2] for frame in await peer.frames()] == [(http2.SETTINGS, http2.ACK)]
    peer.send(http2.settings([(http2.INITIAL_WINDOW_SIZE, 100_000)]))
    assert len(await peer.answers()) == 1000


@with_peer
async def test_a_connections_window_is_shared_by_turns(peer: Peer, backend: EchoBackend) -> None:
    peer.send(http2.settings([(http2.INITIAL_WINDOW_SIZE, 10**6)]))
    peer.send(*(begin(id) + data(id, infer(20_000)) for id in (1, 3, 5)))
    await peer.frames()  # the connection's window lets 65,535 bytes of the first pass
    for _ in range(30):
        peer.send(http2.window_update(0, 16_384))
    sent: dict[int, int] = {}
    for kind, _, id, payload in await peer.frames():
        if kind == http2.DATA:
            sent[id] = sent.get(id, 0) + len(payload)
    assert set(sent) == {1, 3, 5}


class Deaf(Transport):
    """The transport of a client that does not read. Pauses writing at 64 KiB of buffered bytes, as asyncio's
    transports do."""

    def __init__(self) -> None:
        super().__init__()
        self.connection: object = None
        self.aborted = False

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.get_write_buffer_size() > 64 * 1024:
            self.connection.pause_writing()  # type: ignore[attr-defined]

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def abort(self) -> None:
        self.aborted = self.closed = True


def deaf(peer: Peer) -> Deaf:
    transport = Deaf()
    transport.connection, transport.written = peer.connection, b""
    peer.connection._transport = peer.transport = transport
    peer._read = 0
    return transport


def open_wide(peer: Peer) -> None:
    peer.send(http2.settings([(http2.INITIAL_WINDOW_SIZE, http2.LARGEST_WINDOW)]))
    peer.send(http2.window_update(0, http2.LARGEST_WINDOW - http2.DEFAULT_WINDOW))


@with_peer
async def test_a_client_that_does_not_read_gets_no_more_than_its_socket_takes(peer: Peer, backend: EchoBackend) -> None:
    transport = deaf(peer)
    open_wide(peer)
    for id in range(1, 2 * 800, 2):  # 80 KB each, 64 MB in all
        peer.send(begin(id), data(id, infer(20_000)))
        if id % 100 == 1:
            await peer.frames()
    await peer.frames()
    assert len(transport.written) < 2 * MAX_TURN
    assert 0 < peer.connection._held < MIN_HELD_BYTES
    peer.transport.written, peer._read = b"", 0
    peer.connection.resume_writing()
    await peer.frames()
    assert 0 < len(transport.written) < 2 * MAX_TURN


@with_peer
async def test_what_waits_on_a_connection_is_bounded_and_the_call_that_holds_the_most_fails(peer, backend) -> None:
    peer.send(http2.settings([(http2.INITIAL_WINDOW_SIZE, 0)]))
    peer.connection._max_held = 1_000_000
    peer.send(begin(1), data(1, infer(24_000)), begin(3), data(3, infer(10)))
    await peer.frames()
    peer.send(*(begin(id) + data(id, infer(16_000)) for id in range(5, 35, 2)))  # 64 KB each
    failed = {id: headers for id, (headers, _) in (await peer.answers()).items() if "grpc-status" in headers}
    assert set(failed) == {1}
    assert failed[1]["grpc-status"] == "14"
    assert "too many bytes wait on this connection" in failed[1]["grpc-message"]
    assert peer.connection._held <= 1_000_000
    assert not peer.transport.closed


@with_peer
async def test_pieces_of_messages_count_too_until_their_call_is_over(peer: Peer, backend: EchoBackend) -> None:
    peer.connection._max_held = 100_000
    peer.send(begin(1), data(1, infer(20_000)[:60_000], flags=0), begin(3), data(3, infer(20_000)[:39_000], flags=0))
    assert await peer.answers() == {}
    peer.send(begin(5), data(5, infer(20_000)[:2000], flags=0))
    assert {id: headers["grpc-status"] for id, (headers, _) in (await peer.answers()).items()} == {1: "14"}
    peer.send(http2.reset(3, http2.CANCEL), http2.reset(5, http2.CANCEL))
    assert peer.connection._held == 0


@with_peer
async def test_an_answer_alone_may_be_as_long_as_it_is(peer: Peer, backend: EchoBackend) -> None:
    peer.send(http2.settings([(http2.INITIAL_WINDOW_SIZE, 0)]))
    peer.connection._max_held = 50_000
    peer.send(begin(1), data(1, infer(20_000)))
    await peer.frames()
    peer.send(http2.window_update(1, 100_000), http2.window_update(0, 100_000))
    assert (await peer.answers())[1][0]["grpc-status"] == "0"


@with_peer
async def test_a_client_that_sends_and_never_reads_is_disconnected(peer: Peer, backend: EchoBackend) -> None:
    transport = deaf(peer)
    backend.script = [Failed(ModelError("no"))] * 10_000  # trailers alone, which no window holds back
    id = 1
    while not transport.aborted:
        peer.send(*(begin(id + at, block=NAMED) + data(id + at, infer()) for at in range(0, 200, 2)))
        await peer.frames()
        id += 200
        assert len(transport.written) < MAX_UNREAD + MAX_TURN


@with_peer
async def test_messages_of_a_stream_beyond_its_window_wait_in_the_connections_buffer(
    peer: Peer, backend: EchoBackend
) -> None:
    backend.hold()
    head = Encoder().encode([(name, STREAM if name == ":path" else value) for name, value in HEADERS])
    peer.send(http2.frame(http2.HEADERS, http2.END_HEADERS, 1, head))
    for _ in range(40):
        peer.send(data(1, infer() * 100, flags=0))
        await peer.frames()
    assert len(backend.submissions) <= STREAM_WINDOW + 2
    assert len(peer.connection._streams[1].received) > 3000 * len(infer())
    peer.send(http2.reset(1, http2.CANCEL))
    await peer.frames()
    assert (backend.waiting, peer.connection._held) == (0, 0)
