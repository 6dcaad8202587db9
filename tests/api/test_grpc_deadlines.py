"""Tests deadlines of long calls: they count from when the client sent the call, and end it in any state."""

import asyncio

import grpc
from hpack import Encoder

from serving.api.admission.age import HEADER, machine
from serving.api.grpc.service import STREAM
from serving.core.clock import Calendar
from serving.protocol import http2
from serving.testing.backend import EchoBackend
from tests.api.conftest import model
from tests.api.grpc_serving import grpc_serving
from tests.api.test_grpc_connection import HEADERS, Peer, data, infer, with_peer

HEALTH_WATCH = "/grpc.health.v1.Health/Watch"


def begin(id: int, path: str, timeout: str, age_s: float = 0.0) -> bytes:
    named = [(name, path if name == ":path" else value) for name, value in HEADERS]
    block = Encoder().encode([*named, ("grpc-timeout", timeout)])
    if age_s:
        value = f"{machine().decode()}-{Calendar.now_ns() // 1000 - int(age_s * 1e6)}"
        block += http2.header_block([(HEADER, value.encode())])
    return http2.frame(http2.HEADERS, http2.END_HEADERS, id, block)


async def codes(peer: Peer, *ids: int) -> list[str]:
    """Waits until these calls have ended and returns their gRPC statuses."""
    statuses: dict[int, str] = {}
    async with asyncio.timeout(10):
        while not statuses.keys() >= set(ids):
            answers = await peer.answers()
            statuses |= {id: headers["grpc-status"] for id, (headers, _) in answers.items() if "grpc-status" in headers}
            await asyncio.sleep(0.001)
    return [statuses[id] for id in ids]


@with_peer
async def test_a_stream_ends_when_its_deadline_passes_and_its_requests_are_withdrawn(peer, backend) -> None:
    backend.hold()
    peer.send(begin(1, STREAM, "50m"), data(1, infer(), flags=0))
    assert await codes(peer, 1) == ["4"]
    await peer.frames()
    assert backend.waiting == 0
    peer.send(data(1, infer()))
    assert not peer.transport.closed


@with_peer
async def test_a_stream_that_never_sends_and_a_health_watch_end_at_their_deadlines(
    peer: Peer, backend: EchoBackend
) -> None:
    peer.send(begin(1, STREAM, "20m"), begin(3, HEALTH_WATCH, "30m"), data(3, b"\0\0\0\0\0"))
    assert await codes(peer, 1, 3) == ["4", "4"]


@with_peer
async def test_the_age_of_a_call_is_subtracted_from_its_time_left(peer: Peer, backend: EchoBackend) -> None:
    peer.send(begin(1, STREAM, "10S", age_s=4.0), data(1, infer()))
    peer.send(begin(3, STREAM, "10S", age_s=11.0), data(3, infer()))
    assert await codes(peer, 1, 3) == ["0", "4"]
    (submission,) = backend.submissions
    assert submission.timeout_ns <= 6_000_000_000


@with_peer
async def test_later_requests_of_a_stream_have_less_time_left(peer: Peer, backend: EchoBackend) -> None:
    peer.send(begin(1, STREAM, "10S"))
    for _ in range(3):
        peer.send(data(1, infer(), flags=0))
        await peer.frames()
    peer.send(data(1, b""))
    assert await codes(peer, 1) == ["0"]
    limits = [submission.timeout_ns for submission in backend.submissions]
    assert len(set(limits)) == 3
    assert sorted(limits, reverse=True) == limits


@with_peer
async def test_a_call_that_is_over_leaves_no_timer_behind(peer: Peer, backend: EchoBackend) -> None:
    peer.send(begin(1, STREAM, "1H"), data(1, infer()))
    call = peer.connection._streams[1]
    await codes(peer, 1)
    assert call.timer.cancelled()


def test_the_plain_door_subtracts_the_age_of_a_stream_too() -> None:
    stamp = f"{machine().decode()}-{Calendar.now_ns() // 1000 - 4_000_000}"
    backend = EchoBackend()
    served = model("m", ("x", "FP32", (-1, -1)), backend=backend)
    with grpc_serving([served], door="plain") as server, grpc.insecure_channel(server.address) as channel:
        call = channel.stream_stream(STREAM)
        answers = list(call(iter([infer()[5:]]), timeout=10, metadata=[(HEADER.decode(), stamp)]))
    assert len(answers) == 1
    (submission,) = backend.submissions
    assert submission.timeout_ns is not None
    assert submission.timeout_ns < 6_500_000_000  # gRPC rounds the timeout of 10 s up
