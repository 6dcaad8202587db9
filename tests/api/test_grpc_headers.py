"""Tests headers of gRPC calls that are no valid text: they must not end a connection that HAProxy shares between
clients."""

import asyncio

from hpack import Encoder

from serving.protocol import http2
from serving.testing.backend import EchoBackend
from tests.api.test_grpc_connection import HEADERS, Peer, data, infer


def test_a_header_that_is_no_text_fails_nobody_and_comes_back_as_it_was() -> None:
    async def run() -> None:
        peer = Peer(EchoBackend())
        peer.send(http2.PREFACE, http2.settings([]))
        encoder = Encoder()
        for id, name in ((1, b"\xff\xfe"), (3, "模".encode())):
            block = encoder.encode([*HEADERS, (b"x-request-id", name)])
            peer.send(http2.frame(http2.HEADERS, http2.END_HEADERS, id, block), data(id, infer()))
        written = b"".join(payload for kind, _, _, payload in await peer.frames() if kind == http2.HEADERS)
        assert written.count(b"grpc-status\x010") == 2
        assert b"\xff\xfe" in written
        assert "模".encode() in written
        assert not peer.transport.closed

    asyncio.run(run())
