"""Tests the error code and the effect of every frame that RFC 9113 forbids, after the cases of h2spec."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hpack import Encoder

from serving.api.grpc.service import STREAM
from serving.protocol import http2
from serving.testing.backend import EchoBackend
from tests.api.test_grpc_connection import HEADERS, Peer, data, infer

END_STREAM, END_HEADERS = http2.END_STREAM, http2.END_HEADERS
BOTH = END_STREAM | END_HEADERS
LARGEST = http2.LARGEST_WINDOW


def block(*changes: tuple[str, str | None], more: tuple[tuple[str, str], ...] = ()) -> bytes:
    """Encodes the headers of a call. changes: new values by name, None to leave one out. more: further headers."""
    changed = dict(changes)
    named = [(name, changed.get(name, value)) for name, value in HEADERS]
    return Encoder().encode([*[(name, value) for name, value in named if value is not None], *more])


def begin(id: int = 1, flags: int = END_HEADERS, headers: bytes | None = None) -> bytes:
    return http2.frame(http2.HEADERS, flags, id, block() if headers is None else headers)


def frame(kind: int, id: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return http2.frame(kind, flags, id, payload)


def go_on(id: int, headers: bytes = b"", flags: int = END_HEADERS) -> bytes:
    return frame(http2.CONTINUATION, id, headers, flags)


def setting(key: int, value: int) -> bytes:
    return http2.settings([(key, value)])


@dataclass(frozen=True)
class Case:
    """Frames of a client and the error they must cause.

    sent: the client's frames; each is handled before the next is sent.
    connection: error code of the expected GOAWAY. stream: error code of the expected RST_STREAM on stream 1. If both
        are None, the connection and the stream must go on.
    """

    name: str
    sent: list[bytes] = field(default_factory=list)
    connection: int | None = None
    stream: int | None = None


P, F, S = http2.PROTOCOL_ERROR, http2.FLOW_CONTROL_ERROR, http2.FRAME_SIZE_ERROR
CLOSED, COMPRESSION = http2.STREAM_CLOSED, http2.COMPRESSION_ERROR
CANCEL = http2.reset(1, http2.CANCEL)
ANSWERED = [begin(), data(1, infer())]
HELD = [begin(), data(1, infer(), flags=0)]  # the client has not ended its side

CASES = [
    # 4.1 and 4.2: frames
    Case("4.1 a frame of an unknown type", [frame(0x16, 0, b"12345678")]),
    Case("4.1 flags that mean nothing", [frame(http2.PING, 0, b"12345678", flags=0x16)]),
    Case("4.1 the reserved bit", [http2.frame(http2.PING, 0, 1 << 31, b"12345678")]),
    Case("4.2 DATA of the largest frame", [begin(), data(1, infer(4000))]),
    Case("4.2 DATA beyond it", [begin(), http2.frame_head(http2.DATA, 0, 1, (1 << 20) + 1)], connection=S),
    Case("4.2 HEADERS beyond it", [http2.frame_head(http2.HEADERS, END_HEADERS, 1, 2**24 - 1)], connection=S),
    # 4.3: header blocks
    Case("4.3 a block that cannot be read", [begin(headers=b"\xff\xff\xff\xff\xff")], connection=COMPRESSION),
    Case("4.3 an index of no entry", [begin(headers=b"\xc6")], connection=COMPRESSION),
    Case("4.3 Huffman's code cut off", [begin(headers=b"\x00\x85\xf2")], connection=COMPRESSION),
    Case("4.3 PRIORITY in a block", [begin(flags=0), frame(http2.PRIORITY, 1, bytes(5))], connection=P),
    Case("4.3 HEADERS of another stream in a block", [begin(flags=0), begin(3)], connection=P),
    # 5.1: states
    Case("5.1 idle: DATA", [data(1, infer())], connection=P),
    Case("5.1 idle: RST_STREAM", [CANCEL], connection=P),
    Case("5.1 idle: WINDOW_UPDATE", [http2.window_update(1, 100)], connection=P),
    Case("5.1 idle: CONTINUATION", [go_on(1, block())], connection=P),
    Case("5.1 half closed: DATA", [*HELD, data(1, b""), data(1, b"x")], stream=CLOSED),
    Case("5.1 half closed: HEADERS", [*HELD, data(1, b""), begin(flags=BOTH, headers=b"")], stream=CLOSED),
    Case("5.1 half closed: CONTINUATION", [*HELD, data(1, b""), go_on(1)], connection=P),
    Case("5.1 closed by RST_STREAM: DATA", [begin(), CANCEL, data(1, b"x")], stream=CLOSED),
    Case("5.1 closed by RST_STREAM: HEADERS", [begin(), CANCEL, begin(flags=BOTH)], stream=CLOSED),
    Case("5.1 closed by RST_STREAM: CONTINUATION", [begin(), CANCEL, go_on(1)], connection=P),
    Case("5.1 closed: DATA", [*ANSWERED, data(1, b"x")], connection=CLOSED),
    Case("5.1 closed: HEADERS", [*ANSWERED, begin(flags=BOTH)], connection=CLOSED),
    Case("5.1 closed: CONTINUATION", [*ANSWERED, go_on(1)], connection=P),
    Case("5.1 closed: WINDOW_UPDATE, RST_STREAM, PRIORITY",
         [*ANSWERED, http2.window_update(1, 1), CANCEL, frame(http2.PRIORITY, 1, bytes(5))]),
    Case("5.1 closed by the server: the client's END_STREAM crosses it",
         [begin(headers=block((":path", "/none"))), data(1, b"x" * 100, flags=0), data(1, b"x")]),
    Case("5.1.1 an even number", [begin(2)], connection=P),
    Case("5.1.1 stream 0", [begin(0)], connection=P),
    Case("5.1.1 a number lower than one before", [begin(5), begin(3)], connection=P),
    # 5.5: extensions
    Case("5.5 an unknown frame in a block", [begin(flags=0), frame(0x16, 0, b"1234")], connection=P),
    # 6.1: DATA
    Case("6.1 DATA on stream 0", [data(0, b"x")], connection=P),
    Case("6.1 DATA on an even stream", [begin(), data(2, b"x")], connection=P),
    Case("6.1 more padding than frame", [begin(), frame(http2.DATA, 1, b"\x06Test", http2.PADDED)], connection=P),
    Case("6.1 padded without a byte", [begin(), frame(http2.DATA, 1, b"", http2.PADDED)], connection=P),
    # 6.2: HEADERS
    Case("6.2 more padding than frame", [begin(flags=BOTH | http2.PADDED, headers=b"\xff" + block())], connection=P),
    Case("6.2 too short for its priority", [begin(flags=BOTH | http2.WITH_PRIORITY, headers=b"123")], connection=S),
    # 6.3: PRIORITY
    Case("6.3 PRIORITY of stream 0", [frame(http2.PRIORITY, 0, bytes(5))], connection=P),
    Case("6.3 PRIORITY of 4 bytes", [begin(), frame(http2.PRIORITY, 1, bytes(4))], stream=S),
    Case("6.3 PRIORITY of an idle stream", [frame(http2.PRIORITY, 9, bytes(5))]),
    # 6.4: RST_STREAM
    Case("6.4 RST_STREAM of stream 0", [http2.reset(0, 8)], connection=P),
    Case("6.4 RST_STREAM of 3 bytes", [begin(), frame(http2.RST_STREAM, 1, bytes(3))], connection=S),
    Case("6.4 an unknown code", [begin(), http2.reset(1, 0xFF)]),
    # 6.5: SETTINGS
    Case("6.5 an acknowledgement with content", [frame(http2.SETTINGS, 0, bytes(6), http2.ACK)], connection=S),
    Case("6.5 SETTINGS of a stream", [frame(http2.SETTINGS, 1, bytes(6))], connection=P),
    Case("6.5 SETTINGS of 3 bytes", [frame(http2.SETTINGS, 0, bytes(3))], connection=S),
    Case("6.5.2 ENABLE_PUSH of 2", [setting(http2.ENABLE_PUSH, 2)], connection=P),
    Case("6.5.2 a window of 2^31", [setting(http2.INITIAL_WINDOW_SIZE, 2**31)], connection=F),
    Case("6.5.2 frames below the least", [setting(http2.MAX_FRAME_SIZE, 16383)], connection=P),
    Case("6.5.2 frames above the most", [setting(http2.MAX_FRAME_SIZE, 2**24)], connection=P),
    Case("6.5.2 an unknown setting", [setting(0xFF, 1)]),
    Case("6.5.2 a wrong value that another follows",
         [http2.settings([(http2.INITIAL_WINDOW_SIZE, 2**31), (http2.INITIAL_WINDOW_SIZE, 1)])], connection=F),
    Case("6.8 GOAWAY of a stream", [frame(http2.GOAWAY, 1, bytes(8))], connection=P),
    Case("6.8 GOAWAY of 3 bytes", [frame(http2.GOAWAY, 0, bytes(3))], connection=http2.FRAME_SIZE_ERROR),
    Case("6.8 GOAWAY with an unknown code", [frame(http2.GOAWAY, 0, b"\0\0\0\0\0\0\0\xff")]),
    # 6.7: PING
    Case("6.7 PING of a stream", [frame(http2.PING, 1, bytes(8))], connection=P),
    Case("6.7 PING of 6 bytes", [frame(http2.PING, 0, bytes(6))], connection=S),
    # 6.9: windows
    Case("6.9 nothing for the connection", [http2.window_update(0, 0)], connection=P),
    Case("6.9 nothing for a stream", [begin(), http2.window_update(1, 0)], stream=P),
    Case("6.9 WINDOW_UPDATE of 3 bytes", [frame(http2.WINDOW_UPDATE, 0, bytes(3))], connection=S),
    Case("6.9.1 the connection's window beyond 2^31-1",
         [http2.window_update(0, LARGEST), http2.window_update(0, LARGEST)], connection=F),
    Case("6.9.1 a stream's window beyond it",
         [begin(), http2.window_update(1, LARGEST), http2.window_update(1, LARGEST)], stream=F),
    Case("6.9.2 a stream's window beyond it by the settings",
         [begin(), http2.window_update(1, LARGEST - http2.DEFAULT_WINDOW), setting(http2.INITIAL_WINDOW_SIZE, 65536)],
         connection=F),
    Case(
        "6.9 more data than the stream's window",
        [begin(headers=block((":path", STREAM))) + data(1, bytes(2**20), flags=0) * 2],
        stream=F,
    ),
    # 6.10: CONTINUATION
    Case(
        "6.10 a block in three",
        [begin(flags=0, headers=block()[:9]), go_on(1, block()[9:12], 0), go_on(1, block()[12:]), data(1, infer())],
    ),
    Case("6.10 another frame in between", [begin(flags=0), data(1, b"x")], connection=P),
    Case("6.10 CONTINUATION of stream 0", [begin(flags=0), go_on(0)], connection=P),
    Case("6.10 of another stream", [begin(flags=0), go_on(3)], connection=P),
    Case("6.10 after a complete block", [begin(), go_on(1)], connection=P),
    Case("6.10 after a block that was continued", [begin(flags=0), go_on(1), go_on(1)], connection=P),
    Case("6.10 after DATA", [begin(), data(1, b"x", flags=0), go_on(1)], connection=P),
    # 6.6 and 8.4: push
    Case("6.6 PUSH_PROMISE of a client", [begin(), frame(http2.PUSH_PROMISE, 1, bytes(4), 4)], connection=P),
    # 8.1: messages
    Case("8.1 trailers that do not end the stream", [begin(), begin(headers=Encoder().encode([("x", "1")]))], stream=P),
    Case("8.1 trailers with a pseudo-header", [begin(), begin(flags=BOTH)], stream=P),
    Case("8.1 trailers that end the stream",
         [begin(), data(1, infer(), flags=0), begin(flags=BOTH, headers=Encoder().encode([("x", "1")]))]),
    Case("8.2.1 a name in capitals", [begin(headers=block(more=(("X-Test", "1"),)))], stream=P),
    Case("8.2.1 a name with a space", [begin(headers=block(more=(("x test", "1"),)))], stream=P),
    Case("8.2.1 a value of two lines", [begin(headers=block(more=(("x", "1\r\ny: 2"),)))], stream=P),
    Case("8.2.2 a header of the connection", [begin(headers=block(more=(("connection", "keep-alive"),)))], stream=P),
    Case("8.2.2 TE with another value", [begin(headers=block(("te", "trailers, deflate")))], stream=P),
    Case("8.3 an unknown pseudo-header", [begin(headers=block((":path", None), more=((":test", "1"),)))], stream=P),
    Case("8.3 one of an answer", [begin(headers=Encoder().encode([(":status", "200"), *HEADERS]))], stream=P),
    Case("8.3 one after the others", [begin(headers=Encoder().encode([*HEADERS[1:], HEADERS[0]]))], stream=P),
    Case("8.3.1 no :method", [begin(headers=block((":method", None)))], stream=P),
    Case("8.3.1 no :scheme", [begin(headers=block((":scheme", None)))], stream=P),
    Case("8.3.1 no :path", [begin(headers=block((":path", None)))], stream=P),
    Case("8.3.1 an empty :path", [begin(headers=block((":path", "")))], stream=P),
    Case("8.3.1 :path twice", [begin(headers=Encoder().encode([(":path", "/"), *HEADERS]))], stream=P),
    Case("8.1.1 content-length of another length",
         [begin(headers=block(more=(("content-length", "1"),))), data(1, infer())], stream=P),
    Case("8.1.1 content-length of several frames",
         [begin(headers=block(more=(("content-length", "1"),))), data(1, infer()[:9], flags=0), data(1, infer()[9:])],
         stream=P),
    Case("8.1.1 content-length that is no number", [begin(headers=block(more=(("content-length", "-1"),)))], stream=P),
    Case("8.1.1 the right content-length",
         [begin(headers=block(more=(("content-length", str(len(infer()))),))), data(1, infer())]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_fault_ends_what_it_must_with_its_code_and_nothing_else(case: Case) -> None:
    async def run() -> None:
        backend = EchoBackend()
        if "half closed" in case.name:
            backend.hold()
        peer = Peer(backend)
        peer.send(http2.PREFACE, http2.settings([]))
        frames: list[tuple[int, int, int, bytes]] = []
        for sent in case.sent:
            peer.send(sent)
            frames += await peer.frames()
        closings = [int.from_bytes(payload[4:8], "big") for kind, _, _, payload in frames if kind == http2.GOAWAY]
        assert closings == ([] if case.connection is None else [case.connection])
        assert peer.transport.closed == (case.connection is not None)
        resets = [
            int.from_bytes(payload, "big") for kind, _, id, payload in frames if kind == http2.RST_STREAM and id == 1
        ]
        assert [code for code in resets if code] == ([] if case.stream is None else [case.stream])
        if case.connection is None:
            backend.release()
            peer.send(begin(101), data(101, infer()))
            assert (await peer.answers())[101][0]["grpc-status"] == "0"

    asyncio.run(run())


@pytest.mark.parametrize("first", [http2.frame(http2.PING, 0, 0, bytes(8)), frame(http2.SETTINGS, 0, flags=http2.ACK)])
def test_the_first_frame_of_a_client_must_be_settings(first: bytes) -> None:
    async def run() -> None:
        peer = Peer(EchoBackend())
        peer.send(http2.PREFACE, first)
        assert (await peer.frames())[-1][0] == http2.GOAWAY
        assert peer.transport.closed

    asyncio.run(run())
