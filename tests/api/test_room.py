"""The bound on the bytes of request bodies: beyond it, requests are refused with a time to retry."""

import gzip
import http.client
import socket
import threading
import zlib

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from serving.api.admission.room import COUNTED_BYTES, MOST_ARRIVING, Held, Room
from serving.api.faults import CallFailed
from serving.testing.backend import EchoBackend
from tests.api.conftest import model
from tests.api.grpc_serving import grpc_serving
from tests.patience import eventually

SIZE = 1 << 18
HEAD = b'{"inputs":[{"name":"x","datatype":"UINT8","shape":[1,%d],"parameters":{"binary_data_size":%d}}]}' % (
    SIZE,
    SIZE,
)
BODY = HEAD + bytes(SIZE)
PROTOCOLS = ["short", "httptools"]


def echo(backend: EchoBackend | None = None):
    return model("m", ("x", "UINT8", (-1, -1)), backend=backend or EchoBackend())


def fill(room: Room, left: int) -> int:
    """Takes all but `left` bytes of the room, as if other requests held them, and returns their number."""
    room.held = room.limit - left
    return room.held


def test_one_tenant_holds_at_most_half_of_the_room() -> None:
    room = Room()
    flood = [Held(room, "flood") for _ in range(3)]
    flood[0].take(room.share - 1)
    flood[1].take(1)
    with pytest.raises(CallFailed, match="this tenant's requests"):
        flood[2].take(1)
    calm = Held(room, "calm")
    calm.take(room.share)
    with pytest.raises(CallFailed, match="the bodies of requests in flight"):
        flood[2].take(1)
    for held in (*flood, calm):
        held.give_back()
        held.give_back()
    assert (room.held, room.held_by) == (0, {})


def test_one_tenant_has_a_bounded_number_of_requests_that_arrive() -> None:
    room = Room()
    flood = [Held(room, "flood") for _ in range(MOST_ARRIVING + 1)]
    for held in flood[:-1]:
        held.arrive()
        held.arrive()
    with pytest.raises(CallFailed, match="1024 requests of this tenant are arriving"):
        flood[-1].arrive()
    Held(room, "calm").arrive()
    flood[0].arrived()
    flood[0].arrived()
    flood[-1].arrive()
    for held in flood:
        held.give_back()
    assert room.arriving == {}
    for _ in range(2 * MOST_ARRIVING):  # without tenants, nothing is counted
        Held(room).arrive()
    assert room.arriving == {}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_of_a_tenant_with_too_many_that_arrive_is_refused_before_its_body_came(serve, protocol: str) -> None:
    served = echo()
    server = serve([served], http=protocol, tenant_header="x-tenant")
    beginning = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\nx-tenant: %s\r\ncontent-length: 4096\r\n\r\n{"
    served.room.arriving["flood"] = MOST_ARRIVING - 1
    with socket.create_connection(("127.0.0.1", server.port)) as last:
        last.sendall(beginning % b"flood")
        eventually(lambda: served.room.arriving["flood"], lambda count: count == MOST_ARRIVING, every_s=0.01)
        with socket.create_connection(("127.0.0.1", server.port)) as refused:
            refused.sendall(beginning % b"flood")
            said = b"".join(iter(lambda: refused.recv(4096), b""))  # up to the end of the connection
            assert said.startswith(b"HTTP/1.1 503 ")
            assert b"requests of this tenant are arriving already" in said
        with socket.create_connection(("127.0.0.1", server.port)) as calm:
            calm.sendall(beginning % b"calm")
            eventually(lambda: served.room.arriving.get("calm"), every_s=0.01)
        eventually(lambda: "calm" not in served.room.arriving, every_s=0.01)
    eventually(lambda: served.room.arriving["flood"], lambda count: count == MOST_ARRIVING - 1, every_s=0.01)
    client = Client(server)
    for sent in (BODY, b"{", gzip.compress(BODY)):
        client.infer(sent, **({"Content-Encoding": "gzip"} if sent[:2] == b"\x1f\x8b" else {}), **{"x-tenant": "flood"})
        assert served.room.arriving == {"flood": MOST_ARRIVING - 1}
    client.connection.close()


class Client:
    def __init__(self, server) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

    def infer(self, body: bytes = BODY, **headers: str) -> http.client.HTTPResponse:
        named = {"Inference-Header-Content-Length": str(len(HEAD))} if not headers.get("json") else {}
        self.connection.request("POST", "/v2/models/m/infer", body, named | headers)
        answer = self.connection.getresponse()
        answer.text = answer.read()
        return answer


def test_what_is_held_is_given_back_once() -> None:
    room = Room(max_body_bytes=1 << 30)
    assert room.limit == 8 << 30
    held = Held(room)
    held.take(room.limit)
    with pytest.raises(CallFailed, match="memory reserved"):
        Held(room).take(1)
    held.give_back()
    held.give_back()
    assert room.held == 0
    forgotten = Held(room)
    forgotten.take(7)
    del forgotten
    assert room.held == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_body_without_room_is_refused_and_its_connection_goes_on(serve, protocol: str) -> None:
    served = echo()
    client = Client(serve([served], http=protocol))
    taken = fill(served.room, left=SIZE // 2)
    refused = client.infer()
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert b"request refused: the bodies of requests in flight" in refused.text
    assert served.room.held == taken
    small = b'{"inputs":[{"name":"x","datatype":"UINT8","shape":[1,1],"data":[1]}]}'
    assert len(small) < COUNTED_BYTES
    assert client.infer(small, json="yes").status == 200
    taken = fill(served.room, left=2 * SIZE)
    assert client.infer().status == 200
    assert served.room.held == taken
    client.connection.close()


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_inflated_bytes_count(serve, protocol: str, coding: str) -> None:
    served = echo()
    client = Client(serve([served], http=protocol))
    packed = gzip.compress(BODY) if coding == "gzip" else zlib.compress(BODY)
    assert len(packed) < 4096
    taken = fill(served.room, left=SIZE // 2)
    assert client.infer(packed, **{"Content-Encoding": coding}).status == 503
    assert served.room.held == taken
    taken = fill(served.room, left=2 * SIZE)
    assert client.infer(packed, **{"Content-Encoding": coding}).status == 200
    assert served.room.held == taken
    client.connection.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_bytes_that_arrive_count_until_their_client_leaves(serve, protocol: str) -> None:
    served = echo()
    server = serve([served], http=protocol)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        head = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(BODY)
        client.sendall(head + BODY[: SIZE // 2])
        eventually(lambda: served.room.held, lambda held: held == SIZE // 2, every_s=0.01)
    eventually(lambda: served.room.held, lambda held: held == 0, every_s=0.01)


def test_a_request_holds_its_room_until_it_is_over(serve) -> None:
    backend = EchoBackend()
    served = echo(backend)
    server = serve([served])
    backend.hold()
    client = Client(server)
    thread = threading.Thread(target=client.infer)
    thread.start()
    eventually(lambda: backend.waiting, every_s=0.01)
    assert served.room.held == len(BODY)
    server._loop.call_soon_threadsafe(backend.release)
    thread.join()
    assert served.room.held == 0
    backend.hold()
    client.connection.request("POST", "/v2/models/m/infer", BODY, {"Inference-Header-Content-Length": str(len(HEAD))})
    eventually(lambda: backend.waiting, every_s=0.01)
    client.connection.close()
    eventually(lambda: served.room.held, lambda held: held == 0, every_s=0.01)


@pytest.mark.parametrize("door", ["plain", "fast"])
def test_over_grpc(door: str) -> None:
    backend = EchoBackend()
    served = echo(backend)
    x = triton_grpc.InferInput("x", [1, SIZE], "UINT8").set_data_from_numpy(np.zeros((1, SIZE), np.uint8))
    with grpc_serving([served], door=door) as running, triton_grpc.InferenceServerClient(running.address) as client:
        for coding in (None, "gzip"):
            taken = fill(served.room, left=SIZE // 2)
            with pytest.raises(InferenceServerException, match="the bodies of requests in flight") as refused:
                client.infer("m", [x], compression_algorithm=coding)
            assert refused.value.status() == "StatusCode.UNAVAILABLE"
            assert served.room.held == taken
            taken = fill(served.room, left=2 * SIZE)
            assert client.infer("m", [x], compression_algorithm=coding).as_numpy("x").size == SIZE
            assert served.room.held == taken
        served.room.held = 0
        backend.hold()
        call = client.async_infer("m", [x], callback=lambda result, error: None)
        eventually(lambda: backend.waiting, every_s=0.01)
        assert served.room.held > SIZE
        call.cancel()
        eventually(lambda: served.room.held, lambda held: held == 0, every_s=0.01)
        backend.stop_holding()
        answers: list[object] = []
        client.start_stream(lambda result, error: answers.append(error or result))
        taken = fill(served.room, left=SIZE // 2)
        client.async_stream_infer("m", [x])
        eventually(lambda: len(answers), every_s=0.01)
        assert isinstance(answers[0], InferenceServerException)
        served.room.held = 0
        client.async_stream_infer("m", [x])
        eventually(lambda: len(answers), lambda count: count == 2, every_s=0.01)
        assert answers[1].as_numpy("x").size == SIZE
        eventually(lambda: served.room.held, lambda held: held == 0, every_s=0.01)
        client.stop_stream()
