"""Tests compressed messages on the fast door: a decompression bomb must neither exhaust memory nor block the event
loop."""

import asyncio
import gzip
import threading
from collections.abc import AsyncIterator

import numpy as np
import pytest

from serving.api.beside import beside
from serving.api.grpc.call import Head
from serving.api.grpc.stream import STREAM_BYTES, Conversation
from serving.protocol import http2
from serving.protocol.pb import message
from serving.testing.backend import EchoBackend
from tests.api.test_grpc_connection import MAX_MESSAGE_BYTES, Peer, data, infer, with_peer


def compressed(content: bytes) -> bytes:
    small = gzip.compress(content)
    return b"\1" + len(small).to_bytes(4, "big") + small


def of(x: np.ndarray) -> bytes:
    request = message("ModelInferRequest")(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=x.shape)
    request.raw_input_contents.append(x.tobytes())
    encoded: bytes = request.SerializeToString()
    return encoded


@pytest.mark.parametrize("path", ["ModelInfer", "ModelStreamInfer"])
def test_a_message_may_not_be_larger_inflated_than_it_may_be_at_all(path: str) -> None:
    @with_peer
    async def check(peer: Peer, backend: EchoBackend) -> None:
        bomb = compressed(bytes(MAX_MESSAGE_BYTES + 1))
        changes = {"path": f"/inference.GRPCInferenceService/{path}", "grpc_encoding": "gzip"}
        peer.send(peer.headers(1, **changes), data(1, bomb), peer.headers(3), data(3, infer()))
        statuses = {id: headers["grpc-status"] for id, (headers, _) in (await peer.answers()).items()}
        assert statuses == {1: "8", 3: "0"}

    check()


@with_peer
async def test_inflated_messages_count_until_they_are_answered(peer: Peer, backend: EchoBackend) -> None:
    peer.send(http2.settings([(http2.INITIAL_WINDOW_SIZE, 10**6)]), http2.window_update(0, 10**6))
    backend.hold()
    peer.connection._max_held = 3 * 80_000
    small = compressed(infer(20_000)[5:])  # 80 KB
    assert len(small) < 1000
    for id in (1, 3, 5):
        peer.send(peer.headers(id, grpc_encoding="gzip"), data(id, small))
    await peer.frames()
    assert (backend.waiting, peer.connection._held // 80_000) == (2, 2)
    backend.release()
    answers = await peer.answers()
    assert sorted(headers["grpc-status"] for headers, _ in answers.values()) == ["0", "0"]
    assert peer.connection._held == 0


class Held:
    """A request that is answered when an event is set."""

    def __init__(self, answered: asyncio.Event) -> None:
        self._answered = answered

    async def result(self) -> bytes:
        await self._answered.wait()
        return b""

    def cancel(self) -> None:
        """Does nothing: the request was not submitted to a backend."""


class Counting:
    """Counts the requests that a stream submits, and answers them when `answered` is set."""

    def __init__(self) -> None:
        self.taken = 0
        self.answered = asyncio.Event()

    async def begin_in_stream(self, message: bytes, call: object) -> Held:
        self.taken += 1
        return Held(self.answered)


def test_a_stream_takes_no_more_than_may_wait() -> None:
    async def run() -> None:
        requests, sent = Counting(), []

        async def messages() -> AsyncIterator[bytes]:
            for _ in range(5):
                yield bytes(STREAM_BYTES // 2)

        async def send(answer: bytes) -> None:
            sent.append(answer)

        conversation = asyncio.create_task(Conversation(requests, send, Head(())).run(messages()))
        for _ in range(20):
            await asyncio.sleep(0)
        assert requests.taken == 3  # the third exceeds STREAM_BYTES
        requests.answered.set()
        await conversation
        assert (requests.taken, len(sent)) == (5, 5)

    asyncio.run(run())


@with_peer
async def test_a_message_that_is_large_is_inflated_beside_the_event_loop(peer: Peer, backend: EchoBackend) -> None:
    noise = np.random.default_rng(0).standard_normal((1, 4000)).astype(np.float32)
    one, other = threading.Event(), threading.Event()
    busy = [beside(one.wait), beside(other.wait)]  # both worker threads are busy: no inflation begins
    try:
        peer.send(peer.headers(1, grpc_encoding="gzip"), data(1, compressed(of(noise))))
        peer.send(peer.headers(3), data(3, infer()))
        assert list(await peer.answers()) == [3]
        one.set()  # one thread runs the queued work in order
        await beside(int)
        assert (await peer.answers())[1][0]["grpc-status"] == "0"
    finally:
        one.set()
        other.set()
        await asyncio.gather(*busy)
