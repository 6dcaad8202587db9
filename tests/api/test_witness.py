"""Whoever wants to know of requests is told of each once, by whichever way it came, and its answer carries its name."""

import http.client
import json
import time
from collections.abc import Callable

import numpy as np
import pytest
import tritonclient.grpc

from serving.core.outcome import Completed, Reason, Rejected
from serving.core.witness import Exchange
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
        """An answer may be read a moment before it is noted."""
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


@pytest.mark.parametrize("way", ["short", "httptools"])
def test_an_http_request_is_told_once_with_what_its_client_called_it(serve: Callable[..., Server], way: str) -> None:
    notes, served = watched()
    server = serve([served], http=way, tenant_header="x-tenant")
    answer = post(server, [1, 2], x_request_id="mine", traceparent=TRACE, x_tenant="acme")
    assert answer.getheader("x-request-id") == "mine"
    (told,) = notes.until(1)
    assert (told.wire, told.id, told.tenant, told.status, told.traceparent) == ("http", "mine", "acme", 200, TRACE)
    assert isinstance(told.outcome, Completed)
    assert told.began_ns <= told.settled_ns <= told.ended_ns


@pytest.mark.parametrize("way", ["short", "httptools"])
def test_a_name_is_made_up_for_who_has_none(serve: Callable[..., Server], way: str) -> None:
    notes, served = watched()
    server = serve([served], http=way)
    names = [post(server, [1, 2]).getheader("x-request-id") for _ in range(2)]
    assert len(set(names)) == 2
    post(server, [1, 2], id="in the message")
    assert [told.id for told in notes.until(3)] == [*names, "in the message"]


@pytest.mark.parametrize("way", ["short", "httptools"])
def test_what_went_wrong_is_told_too_and_named(serve: Callable[..., Server], way: str) -> None:
    refusal = Rejected(Reason.QUEUE_FULL, 1)
    notes, served = watched(script=[refusal])
    server = serve([served], http=way)
    assert post(server, [1, 2], x_request_id="refused").getheader("x-request-id") == "refused"
    assert post(server, [1, 2, 3], x_request_id="too long").getheader("x-request-id") == "too long"
    told = notes.until(2)
    assert [(one.id, one.status, one.outcome) for one in told] == [("refused", 503, refusal), ("too long", 400, None)]


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
    told = notes.until(2)
    assert [(one.wire, one.id, one.status, one.traceparent) for one in told] == [
        ("grpc", "first", 503, ""),
        ("grpc", "second", 200, TRACE),
    ]
