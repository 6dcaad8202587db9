"""Fuzzes HTTP/2 with almost valid frames in any order: no exception, no leftover state, other calls are answered."""

import asyncio
import logging

import pytest
from hpack import Encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.api.grpc.service import STREAM
from serving.protocol import http2
from serving.testing.backend import EchoBackend
from tests.api.test_grpc_connection import HEADERS, Peer, data, infer

IDS = st.sampled_from([0, 1, 1, 1, 2, 3, 3, 5, 7])
FLAGS = st.sampled_from([0, http2.END_STREAM, http2.END_HEADERS, 5, http2.PADDED, 0x2D])
SIZES = st.sampled_from([0, 1, 5, 100, 65_535, 2**31 - 1, 2**31])


def headers(*more: tuple[str, str], path: str | None = None) -> bytes:
    named = [(name, path if path and name == ":path" else value) for name, value in HEADERS]
    return Encoder().encode([*named, *more])


BLOCKS = st.sampled_from(
    [headers(), headers(path=STREAM), headers(("grpc-timeout", "1n")), headers(("content-length", "3")),
     headers(("grpc-encoding", "gzip")), headers(path="/none"), headers()[:5], b"\x82" * 9, b"\x3f\xe1\x1f", b""]
)  # fmt: skip
BODIES = st.sampled_from(
    [infer(), infer()[:20], infer() * 2, b"\1" + infer()[1:], b"\0\x7f\xff\xff\xff", b"", b"\3abc\0\0\0"]
)
FRAMES = st.one_of(
    st.builds(lambda id, flags, block: http2.frame(http2.HEADERS, flags, id, block), IDS, FLAGS, BLOCKS),
    st.builds(lambda id, flags, block: http2.frame(http2.CONTINUATION, flags, id, block), IDS, FLAGS, BLOCKS),
    st.builds(lambda id, flags, body: http2.frame(http2.DATA, flags, id, body), IDS, FLAGS, BODIES),
    st.builds(lambda id, size: http2.window_update(id, size), IDS, SIZES),
    st.builds(http2.reset, IDS, st.integers(0, 20)),
    st.builds(lambda key, size: http2.settings([(key, size)]), st.integers(0, 7), SIZES),
    st.just(http2.frame(http2.SETTINGS, http2.ACK, 0)),
    st.builds(lambda id: http2.frame(http2.PRIORITY, 0, id, bytes(5)), IDS),
)


@pytest.mark.parametrize("in_pieces", [False, True])
def test_no_frames_harm_other_calls_except_as_the_protocol_demands(in_pieces: bool, caplog) -> None:
    @settings(max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(FRAMES, max_size=15), st.booleans())
    def send(frames: list[bytes], held: bool) -> None:
        async def run() -> None:
            backend = EchoBackend()
            if held:
                backend.hold()
            peer = Peer(backend)
            peer.send(http2.PREFACE, http2.settings([]))
            sent = b"".join(frames)
            for at in range(0, len(sent), 13) if in_pieces else ():
                peer.send(sent[at : at + 13])
            if not in_pieces:
                peer.send(sent)
            await peer.frames()
            if not peer.transport.closed and peer.connection._block is None:
                backend.release()
                peer.send(http2.settings([(http2.INITIAL_WINDOW_SIZE, 65_535)]))
                peer.send(http2.frame(http2.HEADERS, http2.END_HEADERS, 101, headers()), data(101, infer()))
                assert b"grpc-status\x010" in b"".join(
                    payload for kind, _, id, payload in await peer.frames() if (kind, id) == (http2.HEADERS, 101)
                )
            peer.connection.connection_lost(None)
            await peer.frames()
            assert (peer.connection._streams, peer.connection._held, backend.waiting) == ({}, 0, 0)

        asyncio.run(run())

    with caplog.at_level(logging.ERROR):
        send()
    assert not caplog.records
