"""Tests the fast door frame by frame: frames that no client library sends, and flow control of answers."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial

import numpy as np
import pytest
from hpack import Decoder, Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.api.admission.age import HEADER, machine
from serving.api.admission.room import MOST_ARRIVING, Room
from serving.api.grpc.connection import GrpcConnection, Head
from serving.core.clock import Calendar
from serving.core.outcome import Reason, Rejected
from serving.protocol import http2
from serving.protocol.errors import BadMessage
from serving.protocol.pb import SERVICE, message
from serving.testing.backend import EchoBackend
from tests.api.conftest import model
from tests.api.grpc_serving import service_of

MAX_MESSAGE_BYTES = 100_000
HEADERS = [
    (":method", "POST"), (":scheme", "http"), (":path", f"/{SERVICE}/ModelInfer"), (":authority", "x"),
    ("content-type", "application/grpc"), ("te", "trailers"),
]  # fmt: skip
END = http2.END_STREAM | http2.END_HEADERS
NO_TIMEOUT = "is not a timeout: send 1 to 8 digits and one of the units H, M, S, m, u, n"


class Transport:
    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        """Does nothing: the connection keeps what arrives while it is paused."""

    def resume_reading(self) -> None:
        """Does nothing, see `pause_reading`."""


class Peer:
    """A client that writes frames by hand to one connection of the server, without a socket."""

    def __init__(self, backend: EchoBackend) -> None:
        self.room = Room()
        served = model("m", ("x", "FP32", (-1, -1)), backend=backend, room=self.room)
        service = service_of([served], tenant_header="x-tenant")
        self.transport = Transport()
        self.heads: dict[bytes, Head] = {}
        self.connection = GrpcConnection(
            service, max_message_bytes=MAX_MESSAGE_BYTES, others={}, connections=set(), heads=self.heads
        )
        self.connection.connection_made(self.transport)
        self._encoder, self._decoder = Encoder(), Decoder()
        self._read = 0

    def send(self, *frames: bytes) -> None:
        self.connection.data_received(b"".join(frames))

    def headers(self, id: int, flags: int = http2.END_HEADERS, **changes: str) -> bytes:
        changed = {name.replace("_", "-"): value for name, value in changes.items()}
        named = [(name, changed.pop(name.strip(":"), value)) for name, value in HEADERS]
        block = self._encoder.encode([*named, *changed.items()])
        return http2.frame(http2.HEADERS, flags, id, block)

    async def frames(self) -> list[tuple[int, int, int, bytes]]:
        """Runs the event loop until the server has sent everything. Returns (kind, flags, stream, payload) of the
        frames since the last call."""
        turns = 20
        while turns:
            await asyncio.sleep(0)
            turns = 20 if self.connection._is_resting else turns - 1
        frames = []
        while self._read < len(self.transport.written):
            size, kind, flags, id = http2.read_frame_head(self.transport.written, self._read)
            start = self._read + http2.FRAME_BYTES
            frames.append((kind, flags, id, self.transport.written[start : start + size]))
            self._read = start + size
        return frames

    async def answers(self) -> dict[int, tuple[dict[str, str], bytes]]:
        """Returns headers and trailers in one dict, and the data, by stream, of the frames since the last call."""
        by_stream: dict[int, tuple[dict[str, str], bytes]] = {}
        for kind, _, id, payload in await self.frames():
            headers, data = by_stream.get(id, ({}, b""))
            if kind == http2.HEADERS:
                headers = headers | dict(self._decoder.decode(payload))
            elif kind == http2.DATA:
                data += payload
            else:
                continue
            by_stream[id] = headers, data
        return by_stream


def infer(columns: int = 2) -> bytes:
    request = message("ModelInferRequest")(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[1, columns])
    request.raw_input_contents.append(np.ones((1, columns), np.float32).tobytes())
    content = request.SerializeToString()
    return b"\0" + len(content).to_bytes(4, "big") + content


def data(id: int, payload: bytes, flags: int = http2.END_STREAM) -> bytes:
    return http2.frame(http2.DATA, flags, id, payload)


def with_peer(check: Callable[..., Coroutine[object, object, None]]) -> Callable[[], None]:
    """Turns a coroutine function into a test. It runs on an event loop and gets a new peer, which has sent the preface
    and its settings, and the server's backend."""

    def test() -> None:
        async def run() -> None:
            backend = EchoBackend()
            peer = Peer(backend)
            peer.send(http2.PREFACE, http2.settings([]))
            await check(peer, backend)

        asyncio.run(run())

    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return test


@with_peer
async def test_a_call_that_comes_byte_by_byte_is_a_call(peer: Peer, backend: EchoBackend) -> None:
    for byte in peer.headers(1) + data(1, infer()):
        peer.send(bytes((byte,)))
    ((headers, body),) = (await peer.answers()).values()
    assert headers.pop("x-request-id")
    assert headers == {":status": "200", "content-type": "application/grpc", "grpc-status": "0"}
    answer = message("ModelInferResponse").FromString(body[5:])
    assert answer.raw_output_contents == [np.ones(2, np.float32).tobytes()]


@with_peer
async def test_calls_of_one_read_are_answered_in_one_write_each_on_its_stream(peer, backend) -> None:
    await peer.frames()
    peer.send(*(part for id in (1, 3, 5) for part in (peer.headers(id), data(id, infer(id)))))
    assert {id: len(body) > 0 for id, (_, body) in (await peer.answers()).items()} == {1: True, 3: True, 5: True}
    assert len(backend.submissions) == 3


@with_peer
async def test_padding_priority_and_continuation_are_understood(peer, backend) -> None:
    block = peer.headers(1)[http2.FRAME_BYTES :]
    padded = b"\x03" + b"\0\0\0\0\x10" + block[:10] + b"\0\0\0"
    peer.send(
        http2.frame(http2.HEADERS, http2.PADDED | http2.WITH_PRIORITY, 1, padded),
        http2.frame(http2.CONTINUATION, http2.END_HEADERS, 1, block[10:]),
        http2.frame(http2.DATA, http2.PADDED | http2.END_STREAM, 1, b"\x02" + infer() + b"\0\0"),
        http2.frame(99, 0, 0, b"unknown"),
    )
    assert (await peer.answers())[1][0]["grpc-status"] == "0"


@with_peer
async def test_an_answer_larger_than_the_clients_window_waits_for_room(peer, backend) -> None:
    peer.send(http2.settings([(http2.INITIAL_WINDOW_SIZE, 1000)]), peer.headers(1), data(1, infer(20_000)))
    sent = [payload for kind, _, _, payload in await peer.frames() if kind == http2.DATA]
    assert sum(map(len, sent)) == 1000
    peer.send(http2.window_update(1, 50_000))
    sent += [payload for kind, _, _, payload in await peer.frames() if kind == http2.DATA]
    assert sum(map(len, sent)) == 51_000
    assert max(map(len, sent)) <= http2.SMALLEST_MAX_FRAME
    peer.send(http2.window_update(1, 50_000), http2.window_update(0, 50_000))
    rest = await peer.frames()
    sent += [payload for kind, _, _, payload in rest if kind == http2.DATA]
    assert len(b"".join(sent)) == int.from_bytes(b"".join(sent)[1:5], "big") + 5
    assert rest[-1][:3] == (http2.HEADERS, END, 1)


@with_peer
async def test_a_stream_that_is_reset_withdraws_its_request(peer, backend) -> None:
    backend.hold()
    peer.send(peer.headers(1), data(1, infer()))
    await peer.frames()
    peer.send(http2.reset(1, http2.CANCEL))
    assert await peer.answers() == {}
    assert (backend.cancelled, backend.waiting) == (1, 0)


@with_peer
async def test_a_call_of_a_tenant_with_too_many_that_arrive_is_refused_before_its_message_came(peer, backend) -> None:
    arriving = peer.room.arriving
    arriving["flood"] = MOST_ARRIVING - 1
    for id, tenant in ((1, "flood"), (3, "flood"), (5, "calm"), (7, "")):
        peer.send(peer.headers(id, x_tenant=tenant), data(id, infer()[:7], 0))
    ((id, (headers, _)),) = (await peer.answers()).items()
    assert (id, headers["grpc-status"]) == (3, "14")
    assert "requests of this tenant are arriving already" in headers["grpc-message"]
    assert arriving == {"flood": MOST_ARRIVING, "calm": 1}
    peer.send(data(1, infer()[7:]), http2.reset(5, http2.CANCEL), data(7, infer()[7:]))
    assert {id: headers["grpc-status"] for id, (headers, _) in (await peer.answers()).items()} == {1: "0", 7: "0"}
    assert arriving == {"flood": MOST_ARRIVING - 1}
    stream = f"/{SERVICE}/ModelStreamInfer"
    for id in (9, 11):
        peer.send(peer.headers(id, path=stream, x_tenant="flood"))
    ((id, (headers, _)),) = (await peer.answers()).items()
    assert (id, headers["grpc-status"]) == (11, "14")
    peer.send(data(9, infer()[:7], 0))
    await peer.frames()
    peer.connection.connection_lost(None)
    await peer.frames()
    assert arriving == {"flood": MOST_ARRIVING - 1}


@with_peer
async def test_a_connection_that_breaks_withdraws_all_that_waits(peer, backend) -> None:
    backend.hold()
    peer.send(peer.headers(1), data(1, infer()), peer.headers(3), data(3, infer()))
    await peer.frames()
    peer.connection.connection_lost(None)
    await peer.frames()
    assert (backend.cancelled, backend.waiting) == (2, 0)


@with_peer
async def test_draining_answers_open_calls_and_refuses_new_ones(peer, backend) -> None:
    backend.hold()
    peer.send(peer.headers(1), data(1, infer()))
    await peer.frames()
    peer.connection.leave()
    peer.send(peer.headers(3), data(3, infer()))
    kinds = [(kind, id) for kind, _, id, _ in await peer.frames()]
    assert kinds == [(http2.GOAWAY, 0), (http2.RST_STREAM, 3)]
    assert not peer.transport.closed
    backend.release()
    assert (await peer.answers())[1][0]["grpc-status"] == "0"
    assert peer.transport.closed


@with_peer
async def test_what_is_wrong_with_one_call_is_told_on_its_stream_and_others_go_on(peer, backend) -> None:
    backend.script = [Rejected(Reason.QUEUE_FULL, 2_000_000)]
    peer.send(
        *(peer.headers(1), data(1, infer())),
        *(peer.headers(3, path="/none"), data(3, infer())),
        *(peer.headers(5, content_type="text/html"), data(5, infer())),
        *(peer.headers(7, grpc_timeout="soon"), data(7, infer())),
        *(peer.headers(9), data(9, b"\0\x7f\xff\xff\xff")),
        *(peer.headers(11), data(11, b"\0\0\0")),
        peer.headers(13, END),
        *(peer.headers(15, grpc_encoding="br"), data(15, b"\1\0\0\0\1x")),
        *(peer.headers(17), data(17, b"\0\0\0\0\1\xff")),
        *(peer.headers(19), data(19, infer())),
    )
    answers = {id: headers for id, (headers, _) in (await peer.answers()).items()}
    codes = {id: int(headers["grpc-status"]) for id, headers in answers.items()}
    assert codes == {1: 14, 3: 12, 5: 12, 7: 3, 9: 8, 11: 3, 13: 3, 15: 12, 17: 3, 19: 0}
    assert answers[1]["grpc-retry-pushback-ms"] == "2"
    assert answers[7]["grpc-message"] == f"grpc-timeout: 'soon' {NO_TIMEOUT}"


@with_peer
async def test_a_ping_is_answered(peer, backend) -> None:
    await peer.frames()
    peer.send(http2.frame(http2.PING, 0, 0, b"12345678"))
    assert await peer.frames() == [(http2.PING, http2.ACK, 0, b"12345678")]


@pytest.mark.parametrize(
    "frames",
    [
        [http2.frame(http2.HEADERS, END, 2, b"")],
        [http2.frame(http2.HEADERS, 0, 1, b"\x82"), http2.frame(http2.PING, 0, 0, b"12345678")],
        [http2.frame(http2.CONTINUATION, END, 1, b"")],
        [http2.frame(http2.HEADERS, END, 1, b"\xff\xff\xff\xff\xff")],
        [http2.frame(http2.HEADERS, END | http2.PADDED, 1, b"\xff")],
        [http2.frame(http2.PUSH_PROMISE, 0, 1, b"")],
        [http2.frame(http2.WINDOW_UPDATE, 0, 0, b"1")],
        [http2.frame(http2.SETTINGS, 0, 0, b"1")],
        [http2.frame_head(http2.DATA, 0, 1, 2**24 - 1)],
    ],
)
def test_what_breaks_the_protocol_ends_the_connection_and_nothing_else(frames: list[bytes]) -> None:
    @with_peer
    async def check(peer: Peer, backend: EchoBackend) -> None:
        peer.send(*frames)
        assert (await peer.frames())[-1][0] == http2.GOAWAY
        assert peer.transport.closed

    check()


def test_something_else_than_http2_is_not_answered() -> None:
    async def run() -> None:
        peer = Peer(EchoBackend())
        peer.send(b"GET / HTTP/1.1\r\n\r\n")
        assert peer.transport.closed

    asyncio.run(run())


@settings(max_examples=200)
@given(st.data())
def test_no_sequence_of_frames_raises_or_hangs(given_data) -> None:
    kinds = st.one_of(st.integers(0, 9), st.integers(0, 255))
    payloads = st.one_of(st.binary(max_size=30), st.just(infer()), st.just(Encoder().encode(HEADERS)))
    frames = st.builds(http2.frame, kinds, st.integers(0, 255), st.integers(0, 7), payloads)
    sent = given_data.draw(st.lists(frames, max_size=12))

    @with_peer
    async def check(peer: Peer, backend: EchoBackend) -> None:
        for frame in sent:
            if not peer.transport.closed:
                peer.send(frame)
        await peer.frames()
        peer.connection.connection_lost(None)
        await peer.frames()
        assert backend.waiting == 0

    check()


def test_equal_blocks_are_read_once_but_never_while_a_table_is_in_use() -> None:
    made: list[http2.Headers] = []
    known: dict[bytes, object] = {}
    plain = http2.header_block([(b"a", b"1" * 200)])
    reader = partial(http2.HeaderReader, made.append, known, 10_000)
    with_table = Encoder().encode([("b", "2")])
    first, second = reader(), reader()
    first.read(with_table), first.read(plain), first.read(plain)
    assert known == {}
    assert first.read(b"\xbe") is None
    assert made[-1] == (("b", "2"),)  # the newest entry of its table
    for block in (with_table, plain):  # HAProxy too adds entries although the table's size is 0
        second.end_table()
        second.read(block)
        known[block] = "kept"
        assert second.read(block) == "kept"
        first.read(block)  # it uses a table, so it has to decode each block
    assert len(made) == 8
    with pytest.raises(BadMessage):
        second.read(b"\xbe")


@with_peer
async def test_heads_are_recognised_once_our_settings_are_acknowledged_whatever_their_stamps(peer, backend) -> None:
    block = peer.headers(1)[http2.FRAME_BYTES :]
    here, now_us = machine().decode(), Calendar.now_ns() // 1000
    values = [f"{here}-{now_us - 300_000}", f"{here}-{now_us - 200_000}"]
    values += [f"{16 * '0'}-{now_us - 300_000}", f"{here}-123456789012345x"]
    peer.send(http2.frame(http2.SETTINGS, http2.ACK, 0))
    for id, value in zip((1, 3, 5, 7), values, strict=True):
        stamp = http2.header_block([(HEADER, value.encode())])
        peer.send(http2.frame(http2.HEADERS, http2.END_HEADERS, id, block + stamp), data(id, infer()))
    assert {headers["grpc-status"] for headers, _ in (await peer.answers()).values()} == {"0"}
    assert list(peer.heads) == [block]
    ages = [submission.age_ns for submission in backend.submissions]
    assert ages[0] >= 300_000_000
    assert ages[1] >= 200_000_000
    assert ages[2:] == [0, 0]


@with_peer
async def test_a_stamp_in_another_place_or_shape_is_a_header_like_any_other(peer, backend) -> None:
    stamp = f"{machine().decode()}-{Calendar.now_ns() // 1000 - 300_000}"
    for id, headers in enumerate(
        [{HEADER.decode(): stamp, "more": "1"}, {HEADER.decode(): stamp[:-1]}, {HEADER.decode() + "s": stamp}]
    ):
        peer.send(peer.headers(2 * id + 1, **headers), data(2 * id + 1, infer()))
    assert {headers["grpc-status"] for headers, _ in (await peer.answers()).values()} == {"0"}
    assert [submission.age_ns for submission in backend.submissions] == [0, 0, 0]


def test_a_timeout_is_read_in_each_of_its_units() -> None:
    read = {value: Head((("grpc-timeout", value),)).timeout_ns for value in ("5n", "5u", "5m", "5S", "2M", "1H", "0m")}
    assert list(read.values()) == [5, 5000, 5_000_000, 5_000_000_000, 120 * 10**9, 3600 * 10**9, 1]


@pytest.mark.parametrize("value", ["S", "5", "-5S", "5x", "123456789S", "²S"])
def test_a_malformed_timeout_is_the_calls_problem(value: str) -> None:
    problem = Head((("grpc-timeout", value),)).problem
    assert problem is not None
    assert problem.text == f"grpc-timeout: {value!r} {NO_TIMEOUT}"
