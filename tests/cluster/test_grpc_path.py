"""Tests the path of a call through the real HAProxy into both doors, without Ray: its routing and its stamps."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import grpc
import hpack
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from serving.api.admission.age import HEADER, machine
from serving.api.entry import ModelEntry
from serving.api.grpc.aio import grpc_server
from serving.api.grpc.connection import GrpcConnection, GrpcListener, Head
from serving.api.grpc.message import CUT_OFF
from serving.api.grpc.pending import Call
from serving.api.grpc.service import INFER, STREAM, GrpcService
from serving.api.operations import Operations
from serving.cluster.front.grpc_relay import GrpcRelay, Relayed
from serving.cluster.haproxy.command import keys
from serving.cluster.haproxy.editing import edited
from serving.core.clock import Calendar
from serving.port_ranges import FAST_GRPC_DISTANCE
from serving.protocol import http2
from serving.protocol.pb import SERVICE, decode, encode
from serving.testing.backend import EchoBackend
from tests.api.conftest import model
from tests.api.grpc_serving import service_of
from tests.api.test_grpc_connection import MAX_MESSAGE_BYTES, infer
from tests.api.test_witness import Notes
from tests.cluster.conftest import haproxy_binary

CONFIG = """\
defaults
    mode http
    timeout client 10s
    timeout connect 1s
    timeout server 10s
frontend http_frontend
    bind fd@{http}
frontend grpc_frontend
    bind fd@{grpc} proto h2
    mode http
    acl is_grpc-m req.hdr(application) -m str m
    use_backend grpc-m if is_grpc-m
    default_backend default_grpc_backend
backend grpc-front
    mode http
    server f1 127.0.0.1:{front} proto h2
backend grpc-m
    mode http
    server m1 127.0.0.1:{plain} proto h2
"""
MESSAGE = infer(2)[5:]
LARGER = infer(2_000)[5:]  # compressible: gRPC sends messages uncompressed that would not shrink
AN_HOUR_AGO = f"{machine().decode()}-{Calendar.now_ns() // 1000 - 3_600_000_000}"


class Relay(GrpcRelay):
    """Counts the calls that it relays."""

    count = 0

    def __call__(self, method: str, message: bytes, model: str, call: Call) -> Relayed:
        self.count += 1
        return super().__call__(method, message, model, call)


async def front(relay: Relay) -> tuple[grpc.aio.Server, GrpcListener, int]:
    """Starts a front, which relays calls whose model HAProxy cannot read through HAProxy again. Returns its two doors
    and the port of the plain one."""

    async def status() -> list[ModelEntry]:
        return [ModelEntry(name="m", version="1", state="READY")]

    service = GrpcService([], Operations(status), relay=relay)
    while True:
        server = grpc_server(service, max_message_bytes=MAX_MESSAGE_BYTES)
        port = server.add_insecure_port("127.0.0.1:0")
        fast = GrpcListener(service, max_message_bytes=MAX_MESSAGE_BYTES)
        try:
            await fast.open("127.0.0.1", port + FAST_GRPC_DISTANCE)
        except (OSError, OverflowError):  # the port is taken, or beyond the last port
            await server.stop(None)
        else:
            await server.start()
            return server, fast, port


def path(story: Callable[[SimpleNamespace], Coroutine[object, object, None]]) -> Callable[[Path], None]:
    """Makes a test of a story that gets a client of HAProxy, with a model's fast door and the front behind it."""

    async def run(folder: Path) -> None:
        at = SimpleNamespace(backend=EchoBackend(), notes=Notes(), heads={})
        served = model("m", ("x", "FP32", (-1, -1)), backend=at.backend, witnesses=(at.notes,))
        heads: dict[bytes, Head] = at.heads
        connection = partial(
            GrpcConnection, service_of([served]), max_message_bytes=MAX_MESSAGE_BYTES, others={}, heads=heads
        )
        connections: set[GrpcConnection] = set()
        fast = await asyncio.get_running_loop().create_server(
            partial(connection, connections=connections), "127.0.0.1", 0
        )
        fast_port = fast.sockets[0].getsockname()[1]
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        http, over_grpc = (one.fileno() for one in sockets)
        address = "{}:{}".format(*sockets[1].getsockname())
        at.relay = Relay(f"127.0.0.1:{sockets[1].getsockname()[1]}", "")
        front_server, front_fast, front_port = await front(at.relay)
        config = folder / "haproxy.cfg"
        plain = fast_port - FAST_GRPC_DISTANCE
        config.write_text(edited(CONFIG.format(http=http, grpc=over_grpc, front=front_port, plain=plain)))
        started = asyncio.create_subprocess_exec(
            haproxy_binary(), "-db", "-f", str(config), pass_fds=(http, over_grpc), env=os.environ | keys()
        )
        haproxy = await started
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                at.channel = channel
                at.infer = partial(channel.unary_unary(INFER), timeout=10)
                at.stream = partial(channel.stream_stream(STREAM), timeout=10)
                at.address = sockets[1].getsockname()
                at.began_ns = Calendar.now_ns()
                await story(at)
        finally:
            haproxy.terminate()
            await haproxy.wait()
            await front_fast.close()
            await front_server.stop(None)
            fast.close()
            for one in sockets:
                one.close()

    def test(tmp_path: Path) -> None:
        asyncio.run(run(tmp_path))

    test.__name__, test.__doc__ = story.__name__, story.__doc__
    return test


def ages(at: SimpleNamespace) -> list[int]:
    return [submission.age_ns for submission in at.backend.submissions]


@path
async def test_a_calls_age_counts_from_haproxy_and_its_headers_are_recognised(at: SimpleNamespace) -> None:
    for _ in range(4):
        await at.infer(MESSAGE)
    assert all(0 < age <= Calendar.now_ns() - at.began_ns for age in ages(at))
    assert at.heads
    assert not any(HEADER in block for block in at.heads)


@path
async def test_a_client_cannot_forge_the_age_of_its_call(at: SimpleNamespace) -> None:
    for _ in range(3):
        await at.infer(MESSAGE, metadata=[(HEADER.decode(), AN_HOUR_AGO), ("more", "1"), (HEADER.decode(), "0")])
    assert all(0 < age <= Calendar.now_ns() - at.began_ns for age in ages(at))


async def answered(address: tuple[str, int], path: str, body: bytes) -> dict[str, str]:
    """Returns the headers of the answer to a call that ends with this body, whatever the status is."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "m"}
    block = hpack.Encoder().encode((fields | {"content-type": "application/grpc", "te": "trailers"}).items())
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0, b""))
        writer.write(http2.frame(http2.HEADERS, http2.END_HEADERS, 1, block))
        writer.write(http2.frame(http2.DATA, http2.END_STREAM, 1, body))
        async with asyncio.timeout(10):
            while True:
                size, kind, _, _ = http2.read_frame_head(await reader.readexactly(http2.FRAME_BYTES), 0)
                payload = await reader.readexactly(size)
                if kind == http2.HEADERS:
                    return dict(hpack.Decoder().decode(payload))
    finally:
        writer.close()
        await writer.wait_closed()


@path
async def test_a_call_that_ends_before_its_message_does_is_refused_at_once(at: SimpleNamespace) -> None:
    whole = infer(2)
    for path_ in (INFER, INFER.replace("ModelInfer", "ModelReady")):
        for size in (0, 3, 5, 6, 9, 12, 13, len(whole) // 2, len(whole) - 1):
            found = await answered(at.address, path_, whole[:size])
            told = CUT_OFF.text if size else "the call has no message"
            assert (found["grpc-status"], found["grpc-message"]) == ("3", told), size
    assert (await at.infer(MESSAGE)) is not None


@path
async def test_only_calls_whose_model_cannot_be_read_take_the_detour_through_the_front(at: SimpleNamespace) -> None:
    for numbers in (2, 2_000, 10_000, MAX_MESSAGE_BYTES // 8):
        assert len(await at.infer(infer(numbers)[5:])) > 4 * numbers
    assert at.relay.count == 0
    await at.infer(LARGER, compression=grpc.Compression.Gzip)
    assert at.relay.count == 1


@path
async def test_the_front_inflates_no_more_than_a_message_may_have(at: SimpleNamespace) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await at.infer(bytes(16 * MAX_MESSAGE_BYTES), compression=grpc.Compression.Gzip)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert at.relay.count == 0


@path
async def test_reflection_is_answered_by_the_fronts_plain_door(at: SimpleNamespace) -> None:
    ask = reflection_pb2_grpc.ServerReflectionStub(at.channel).ServerReflectionInfo
    (told,) = [answer async for answer in ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))]
    assert SERVICE in [service.name for service in told.list_services_response.service]


@path
async def test_a_short_message_that_is_whole_and_a_stream_without_any_are_no_mistake(at: SimpleNamespace) -> None:
    found = await answered(at.address, INFER.replace("ModelInfer", "ModelStatistics"), bytes(5))
    assert found.get("grpc-status", "0") == "0"
    assert [answer async for answer in at.stream(iter([]))] == []


@path
async def test_requests_of_a_stream_have_no_age(at: SimpleNamespace) -> None:
    call = at.stream(iter([MESSAGE, MESSAGE]))
    assert len([answer async for answer in call]) == 2
    assert ages(at) == [0, 0]


@path
async def test_a_compressed_call_is_stamped_and_has_one_name_on_all_of_its_way(at: SimpleNamespace) -> None:
    call = at.infer(LARGER, compression=grpc.Compression.Gzip)
    await call
    assert at.relay.count == 1
    (age,) = ages(at)
    assert 0 < age <= Calendar.now_ns() - at.began_ns
    named = dict(await call.trailing_metadata())["x-request-id"]
    assert [exchange.id for exchange in at.notes.until(1)] == [named]


@pytest.mark.parametrize(
    "stamp", [AN_HOUR_AGO, 16 * "0" + AN_HOUR_AGO[16:], ""], ids=["of an hour ago", "with another key", "none"]
)
def test_the_plain_door_reads_the_stamp_among_the_metadata(stamp: str) -> None:
    async def run() -> None:
        backend = EchoBackend()
        service = service_of([model("m", ("x", "FP32", (-1, -1)), backend=backend)])
        server = grpc_server(service, max_message_bytes=MAX_MESSAGE_BYTES)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await channel.unary_unary(INFER)(MESSAGE, metadata=[(HEADER.decode(), stamp)] if stamp else [])
            assert len([answer async for answer in channel.stream_stream(STREAM)(iter([MESSAGE]))]) == 1
        await server.stop(None)
        assert [submission.age_ns > 3_000_000_000_000 for submission in backend.submissions] == [
            stamp == AN_HOUR_AGO,
            False,
        ]

    asyncio.run(run())


@path
async def test_a_call_that_is_no_inference_reaches_the_model_with_its_callers_address(at: SimpleNamespace) -> None:
    asked = at.channel.unary_unary(f"/{SERVICE}/ModelReady")
    answer = await asked(encode("ModelReadyRequest", {"name": "m"}), timeout=10)
    assert decode("ModelReadyResponse", answer).ready
