"""Tests that a malformed call ends alone: other calls on its connection, which may be of other clients behind HAProxy,
are answered."""

import gzip
import socket

import pytest
from hpack import Decoder, Encoder

from serving.api.grpc.service import STREAM
from serving.protocol import http2
from serving.testing.backend import EchoBackend
from tests.api.conftest import model
from tests.api.grpc_serving import grpc_serving
from tests.api.test_grpc_connection import HEADERS, MAX_MESSAGE_BYTES, Peer, data, infer, with_peer

TOO_LARGE = b"\0" + (MAX_MESSAGE_BYTES + 1).to_bytes(4, "big")
ACK = http2.frame(http2.SETTINGS, http2.ACK, 0)


def framed(message: bytes, flag: int = 1) -> bytes:
    return bytes((flag,)) + len(message).to_bytes(4, "big") + message


def codes(answers: dict[int, tuple[dict[str, str], bytes]]) -> dict[int, int]:
    return {id: int(headers["grpc-status"]) for id, (headers, _) in answers.items()}


async def check_neighbours(
    peer: Peer, backend, bad: list[bytes], expected: dict[int, int]
) -> dict[int, dict[str, str]]:
    """Sends malformed frames and then 16 good calls on the same connection. Checks that each call has the expected
    status and all good ones are answered. Returns the headers by stream."""
    backend.hold()
    good = range(1001, 1033, 2)
    peer.send(*bad)
    found = await peer.answers()
    peer.send(*(part for id in good for part in (peer.headers(id), data(id, infer()))))
    backend.release()
    found |= await peer.answers()
    assert not peer.transport.closed
    assert codes(found) == expected | dict.fromkeys(good, 0)
    return {id: headers for id, (headers, _) in found.items()}


@pytest.mark.parametrize(
    "second",
    [infer(), TOO_LARGE, b"x", framed(b"no gzip"), framed(b"\xff", 0), b"\0\0\0\0\0"],
    ids=["as good as the first", "too large", "one byte", "compressed", "unreadable", "empty"],
)
@pytest.mark.parametrize("apart", [True, False])
def test_a_second_message_fails_the_call_that_takes_one(second: bytes, apart: bool) -> None:
    @with_peer
    async def check(peer: Peer, backend) -> None:
        first = [data(1, infer(), flags=0), data(1, second)] if apart else [data(1, infer() + second)]
        headers = await check_neighbours(peer, backend, [peer.headers(1), *first], {1: 12})
        assert headers[1]["grpc-message"] == "this call takes one message, and more bytes follow it"
        assert backend.waiting == 0

    check()


@with_peer
async def test_a_request_that_waits_is_withdrawn_when_more_follows_it(peer, backend) -> None:
    backend.hold()
    peer.send(peer.headers(1), data(1, infer(), flags=0))
    await peer.frames()
    peer.send(data(1, b"x"))
    await peer.frames()
    assert (backend.waiting, backend.cancelled) == (0, 1)


@with_peer
async def test_a_call_that_asks_about_the_server_takes_one_message_too(peer, backend) -> None:
    live = peer.headers(1, path="/inference.GRPCInferenceService/ServerLive")
    frames = [live, data(1, framed(b"", 0), flags=0), data(1, b"x" * 9)]
    await check_neighbours(peer, backend, frames, {1: 12})


@with_peer
async def test_messages_of_a_stream_that_are_too_large_or_cut_off_end_the_stream(peer, backend) -> None:
    heads = [peer.headers(id, path=STREAM) for id in (1, 3, 5)]
    frames = [data(1, TOO_LARGE), data(3, infer()[:-1]), data(5, framed(b"no gzip"))]
    await check_neighbours(peer, backend, heads + frames, {1: 8, 3: 3, 5: 13})


@pytest.mark.parametrize("acknowledged", [True, False], ids=["no table", "a table in use"])
@pytest.mark.parametrize(
    "more",
    [
        [("x", "1" * 70_000)],
        [(f"x-{number}", "1" * 10) for number in range(2000)],
        [("x", "1" * 30_000)] * 3,
    ],
    ids=["one long value", "many", "some"],
)
def test_headers_beyond_the_limit_fail_their_call_alone(acknowledged: bool, more: list[tuple[str, str]]) -> None:
    @with_peer
    async def check(peer: Peer, backend) -> None:
        encoder = Encoder()
        if acknowledged:
            encoder.header_table_size = 0
            peer.send(ACK)
        block = encoder.encode([*HEADERS, *more], huffman=False)
        parts = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
        kinds = [http2.HEADERS] + [http2.CONTINUATION] * (len(parts) - 1)
        ends = [0] * (len(parts) - 1) + [http2.END_HEADERS]
        frames = [http2.frame(kind, end, 1, part) for kind, end, part in zip(kinds, ends, parts, strict=True)]
        after = http2.frame(http2.HEADERS, http2.END_HEADERS, 3, encoder.encode([*HEADERS, ("x", "1")]))
        sent = [*frames, data(1, infer()), after, data(3, infer())]
        backend.hold()
        peer.send(*sent)
        backend.release()
        headers = {id: headers for id, (headers, _) in (await peer.answers()).items()}
        assert {id: one["grpc-status"] for id, one in headers.items()} == {1: "8", 3: "0"}
        assert headers[1]["grpc-message"] == "the headers are larger than 65536 bytes, the limit of this server"
        assert not peer.transport.closed

    check()


@pytest.mark.parametrize(
    ("coding", "body", "code", "text"),
    [
        ("", framed(gzip.compress(infer()[5:], mtime=0)), 13, "marked as compressed"),
        ("identity", framed(gzip.compress(infer()[5:], mtime=0)), 13, "marked as compressed"),
        ("gzip", framed(gzip.compress(infer()[5:], mtime=0), flag=2), 13, "marked as compressed (2)"),
        ("br", framed(b"x"), 12, "grpc-encoding 'br' is not supported: use gzip or deflate"),
        ("gzip", framed(infer()[5:], flag=0), 0, ""),
        ("gzip", framed(gzip.compress(infer()[5:], mtime=0)), 0, ""),
    ],
)
@pytest.mark.parametrize("path", ["ModelInfer", "ModelStreamInfer"])
def test_what_is_marked_as_compressed_says_how_or_fails_as_grpc_has_it(
    path, coding, body, code: int, text: str
) -> None:
    @with_peer
    async def check(peer: Peer, backend) -> None:
        changes = {"grpc_encoding": coding} if coding else {}
        peer.send(peer.headers(1, path=f"/inference.GRPCInferenceService/{path}", **changes), data(1, body))
        headers = (await peer.answers())[1][0]
        assert (int(headers["grpc-status"]), text in headers.get("grpc-message", "")) == (code, True)
        assert headers.get("grpc-accept-encoding") == ("identity,deflate,gzip" if code == 12 else None)

    check()


def answer_of(port: int, coding: str, body: bytes) -> dict[str, str]:
    """Sends a call over a socket of its own and returns the headers and trailers of the answer."""
    headers: dict[str, str] = {}
    block = Encoder().encode([*HEADERS, *([("grpc-encoding", coding)] if coding else [])])
    call = http2.frame(http2.HEADERS, http2.END_HEADERS, 1, block) + data(1, body)
    decoder, received = Decoder(), b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(http2.PREFACE + http2.settings([]) + call)
        while "grpc-status" not in headers:
            received += connection.recv(65_536)
            while len(received) >= http2.FRAME_BYTES:
                size, kind, _, _ = http2.read_frame_head(received, 0)
                end = http2.FRAME_BYTES + size
                if len(received) < end:
                    break
                payload, received = received[http2.FRAME_BYTES : end], received[end:]
                if kind == http2.HEADERS:
                    headers |= dict(decoder.decode(payload))
    return headers


@pytest.mark.parametrize("door", ["plain", "fast"])
def test_both_doors_call_a_compressed_message_without_its_coding_internal(door: str) -> None:
    served = model("m", ("x", "FP32", (-1, -1)), backend=EchoBackend())
    small = framed(gzip.compress(infer()[5:]))
    with grpc_serving([served], door=door) as server:
        codes = [answer_of(server.port, coding, small)["grpc-status"] for coding in ("", "identity", "gzip")]
        damaged = answer_of(server.port, "gzip", framed(b"no gzip"))["grpc-status"]
    assert (codes, damaged) == (["13", "13", "0"], "13")
