"""Witnesses are notified of each request once, whichever path it takes, and its answer carries its id."""

import http.client
import json
import queue
import time
from collections.abc import Callable

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc

from serving.core.errors import ModelError
from serving.core.outcome import Cancelled, Completed, Failed, Outcome, Reason, Rejected, Timings
from serving.core.witness import Exchange
from serving.protocol.pb import SERVICE, encode
from serving.testing.backend import EchoBackend
from tests.api.conftest import Server, model
from tests.api.grpc_serving import grpc_serving

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Notes:
    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def answered(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def until(self, number: int) -> list[Exchange]:
        """Waits for `number` exchanges: a client may read an answer shortly before the witnesses are notified."""
        give_up_s = time.monotonic() + 10
        while len(self.exchanges) < number:
            assert time.monotonic() < give_up_s
            time.sleep(0.001)
        return self.exchanges


def watched(**backend: object) -> tuple[Notes, object]:
    notes = Notes()
    return notes, model("m", ("x", "FP32", (-1, 2)), backend=EchoBackend(**backend), witnesses=(notes,))


def post(server: Server, values: list[float], id: str = "", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(server.address, timeout=10)
    request: dict[str, object] = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": values}]}
    if id:
        request["id"] = id
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", "/v2/models/m/infer", json.dumps(request), named)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


@pytest.mark.parametrize("protocol", ["short", "httptools"])
def test_witnesses_are_notified_of_an_http_request_once_with_the_id_of_its_client(
    serve: Callable[..., Server], protocol: str
) -> None:
    notes, served = watched()
    server = serve([served], http=protocol, tenant_header="x-tenant")
    answer = post(server, [1, 2], x_request_id="mine", traceparent=TRACE, x_tenant="acme")
    assert answer.getheader("x-request-id") == "mine"
    (exchange,) = notes.until(1)
    assert (exchange.wire, exchange.id, exchange.tenant, exchange.status, exchange.traceparent) == (
        "http",
        "mine",
        "acme",
        200,
        TRACE,
    )
    assert isinstance(exchange.outcome, Completed)
    assert exchange.began_ns <= exchange.settled_ns <= exchange.ended_ns


@pytest.mark.parametrize("protocol", ["short", "httptools"])
def test_a_request_without_an_id_gets_one(serve: Callable[..., Server], protocol: str) -> None:
    notes, served = watched()
    server = serve([served], http=protocol)
    names = [post(server, [1, 2]).getheader("x-request-id") for _ in range(2)]
    assert len(set(names)) == 2
    post(server, [1, 2], id="in the message")
    assert [exchange.id for exchange in notes.until(3)] == [*names, "in the message"]


@pytest.mark.parametrize("protocol", ["short", "httptools"])
def test_witnesses_are_notified_of_failed_requests_too(serve: Callable[..., Server], protocol: str) -> None:
    refusal = Rejected(Reason.QUEUE_FULL, 1)
    notes, served = watched(script=[refusal])
    server = serve([served], http=protocol)
    assert post(server, [1, 2], x_request_id="refused").getheader("x-request-id") == "refused"
    assert post(server, [1, 2, 3], x_request_id="too long").getheader("x-request-id") == "too long"
    exchanges = notes.until(2)
    assert [(one.id, one.status, one.outcome) for one in exchanges] == [
        ("refused", 503, refusal),
        ("too long", 400, None),
    ]


class Twice:
    """Generates two answers that equal the input. If the input is negative, it fails after the first."""

    outcome: Outcome | None = None

    def __init__(self, payload: dict[str, np.ndarray]) -> None:
        self._x = payload["x"]
        self._left = 2

    def __aiter__(self) -> "Twice":
        return self

    async def __anext__(self) -> object:
        self._left -= 1
        if self._left == 0 and self._x.min() < 0:
            self.outcome = Failed(ModelError("negative"))
        elif self._left < 0:
            self.outcome = Completed(None, 0, Timings(0, 1, 0, 1))
        if self.outcome:
            raise StopAsyncIteration
        return {"x": self._x}

    def cancel(self) -> None:
        self.outcome = self.outcome or Cancelled()


class Generator(EchoBackend):
    def generate(self, payload: dict[str, np.ndarray], **_: object) -> Twice:
        return Twice(payload)


def generating(**more: object) -> tuple[Notes, object]:
    notes = Notes()
    backend = Generator()
    return notes, model("m", ("x", "FP32", (-1, 2)), backend=backend, generator=backend, witnesses=(notes,), **more)


def test_witnesses_are_notified_of_a_generation_over_http_once_and_its_answer_has_the_id(
    serve: Callable[..., Server],
) -> None:
    notes, served = generating()
    url = f"http://{serve([served], tenant_header='x-tenant').address}/v2/models/m/generate"
    mine = {"x-request-id": "mine", "x-tenant": "acme", "traceparent": TRACE}
    answers = [
        httpx.post(f"{url}_stream", json={"x": [1, 2]}, headers=mine),
        httpx.post(f"{url}_stream", json={"x": [-1, 2], "id": "in the message"}),
        httpx.post(url, json={"x": [1, 2]}, headers={"x-request-id": "one"}),
        httpx.post(url, json={"x": "no"}, headers={"x-request-id": "unread"}),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 400, 400]
    assert [answer.headers["x-request-id"] for answer in answers][::2] == ["mine", "one"]
    exchanges = notes.until(4)
    assert [(one.id, one.status, type(one.outcome)) for one in exchanges] == [
        ("mine", 200, Completed),
        ("in the message", 500, Failed),
        ("one", 400, Cancelled),
        ("unread", 400, type(None)),
    ]
    assert (exchanges[0].tenant, exchanges[0].traceparent) == ("acme", TRACE)


@pytest.mark.parametrize("door", ["plain", "fast"])
def test_a_generation_over_grpc_is_told_once(door: str) -> None:
    notes, served = generating()
    came: queue.Queue = queue.Queue()
    with (
        grpc_serving([served], door=door) as server,
        tritonclient.grpc.InferenceServerClient(server.address) as client,
    ):
        client.start_stream(lambda result, error: came.put(error or result), headers={"x-request-id": "stream"})
        for value, id in ((1, ""), (-1, "fails")):
            x = tritonclient.grpc.InferInput("x", [1, 2], "FP32")
            client.async_stream_infer("m", [x.set_data_from_numpy(np.full((1, 2), value, np.float32))], request_id=id)
        for _ in range(4):
            came.get(timeout=10)
        client.stop_stream()
    exchanges = sorted((one.wire, one.id, one.status, type(one.outcome).__name__) for one in notes.until(2))
    assert exchanges == [("grpc", "fails", 500, "Failed"), ("grpc", "stream", 200, "Completed")]


@pytest.mark.parametrize("door", ["plain", "fast"])
def test_a_grpc_request_is_told_once(door: str) -> None:
    notes, served = watched(script=[Rejected(Reason.QUEUE_FULL, 1)])
    with (
        grpc_serving([served], door=door) as server,
        tritonclient.grpc.InferenceServerClient(server.address) as client,
    ):
        x = tritonclient.grpc.InferInput("x", [1, 2], "FP32")
        x.set_data_from_numpy(np.zeros((1, 2), np.float32))
        with pytest.raises(tritonclient.grpc.InferenceServerException):
            client.infer("m", [x], headers={"x-request-id": "first"})
        client.infer("m", [x], request_id="second", headers={"traceparent": TRACE})
    exchanges = notes.until(2)
    assert [(one.wire, one.id, one.status, one.traceparent) for one in exchanges] == [
        ("grpc", "first", 503, ""),
        ("grpc", "second", 200, TRACE),
    ]


@pytest.mark.parametrize("door", ["plain", "fast"])
def test_an_answer_over_grpc_carries_its_requests_name_whatever_became_of_it(door: str) -> None:
    notes, served = watched(script=[Rejected(Reason.QUEUE_FULL, 1)])
    x = {"name": "x", "datatype": "FP32", "shape": [1, 2], "contents": {"fp32_contents": [1, 2]}}
    message = encode("ModelInferRequest", {"model_name": "m", "inputs": [x]})
    names = []
    with grpc_serving([served], door=door) as server, grpc.insecure_channel(server.address) as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        for metadata in ([("x-request-id", "refused")], [("x-request-id", "mine")], [], []):
            call = infer.future(message, metadata=metadata, timeout=10)
            call.exception()
            names.append(dict(call.trailing_metadata())["x-request-id"])
    assert names[:2] == ["refused", "mine"]
    assert len(set(names)) == 4
    assert [exchange.id for exchange in notes.until(4)] == names


def negative() -> Failed:
    return Failed(ModelError("negative"))


@pytest.mark.parametrize("protocol", ["short", "httptools"])
def test_over_http_a_witness_of_failures_is_notified_of_failures_only(
    serve: Callable[..., Server], protocol: str
) -> None:
    notes, backend = Notes(), EchoBackend(script=[negative(), Rejected(Reason.TOO_LARGE, 1)])
    server = serve([model("m", ("x", "FP32", (-1, 2)), backend=backend, of_failures=notes)], http=protocol)
    for name in ("fails", "too large", "well"):
        post(server, [1, 2], x_request_id=name)
    post(server, [1, 2, 3], x_request_id="not understood")
    backend.script.append(negative())
    post(server, [1, 2], id="again")
    assert [(one.id, one.status) for one in notes.until(2)] == [("fails", 500), ("again", 500)]


def test_a_witness_of_failures_is_notified_of_a_generation_that_fails(serve: Callable[..., Server]) -> None:
    notes, backend = Notes(), Generator()
    served = model("m", ("x", "FP32", (-1, 2)), backend=backend, generator=backend, of_failures=notes)
    url = f"http://{serve([served]).address}/v2/models/m/generate_stream"
    for value, name in ((1, "well"), (-1, "fails")):
        httpx.post(url, json={"x": [value, 2], "id": name})
    assert [(one.id, one.status) for one in notes.until(1)] == [("fails", 500)]


@pytest.mark.parametrize("door", ["plain", "fast"])
def test_over_grpc_failures_only_are_told_where_nothing_else_is_wanted(door: str) -> None:
    notes, backend = Notes(), EchoBackend(script=[negative()])
    served = model("m", ("x", "FP32", (-1, 2)), backend=backend, of_failures=notes)
    with (
        grpc_serving([served], door=door) as server,
        tritonclient.grpc.InferenceServerClient(server.address) as client,
    ):
        x = tritonclient.grpc.InferInput("x", [1, 2], "FP32")
        x.set_data_from_numpy(np.zeros((1, 2), np.float32))
        with pytest.raises(tritonclient.grpc.InferenceServerException):
            client.infer("m", [x], request_id="fails")
        client.infer("m", [x], request_id="well")
    assert [(one.wire, one.id, one.status) for one in notes.until(1)] == [("grpc", "fails", 500)]
