"""Every outcome of a request as the client sees it, and clients that disconnect."""

import http.client
import json
import math
import socket
import threading

import numpy as np
import pytest

from serving.api.faults import fault_of_error
from serving.core.errors import BatchTimeout, InvalidInput, LaneLost, ModelError, OutOfMemory
from serving.core.outcome import Cancelled, Completed, Expired, Failed, Reason, Rejected
from serving.protocol.binary_codec import decode_response, encode_request
from serving.protocol.messages import InferInput, InferRequest
from serving.testing.backend import QUEUE_NS, TIMINGS, EchoBackend
from tests.api.conftest import model

BINARY = {"binary_data_output": True}
BODY, LENGTH = encode_request(InferRequest((InferInput("x", "FP32", np.ones((1, 2), np.float32)),), parameters=BINARY))
HEADERS = {"Inference-Header-Content-Length": str(LENGTH)}


def post(port: int, **more: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/v2/models/m/infer", BODY, {**HEADERS, **more})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


@pytest.mark.parametrize(
    ("outcome", "status", "text", "retry_after"),
    [
        (Rejected(Reason.QUEUE_FULL, 1), 503, "request refused: the queue is full", "1"),
        (Rejected(Reason.DEADLINE_HOPELESS, 1_000_000_001), 503, "request refused: the deadline cannot be met", "2"),
        (Rejected(Reason.DRAINING, 0), 503, "request refused: the server is shutting down", "1"),
        (
            Rejected(Reason.TOO_LARGE, 0, 8),
            400,
            "request refused: the request has more rows than the largest batch, 8",
            None,
        ),
        (Expired(waited_ns=12_300_000), 504, "the deadline passed after 12.3 ms in the queue", None),
        (Cancelled(), 499, "request cancelled", None),
        (Failed(InvalidInput("no JPEG")), 400, "no JPEG", None),
        (Failed(ModelError("division by zero")), 500, "division by zero", None),
        (Failed(LaneLost("lane 0 is gone")), 503, "lane 0 is gone", None),
        (Failed(BatchTimeout("60 s passed")), 503, "60 s passed", None),
        (Failed(OutOfMemory("no room")), 507, "no room", None),
        (Failed(ModelError("")), 500, "ModelError", None),
        (
            Completed({"y": np.ones((1, 2), np.float32)}, QUEUE_NS, TIMINGS),
            500,
            "the model returned no output 'x'",
            None,
        ),
        (
            Completed({"x": np.ones((1, 2), np.int8)}, QUEUE_NS, TIMINGS),
            500,
            "the model returned int8 for output 'x'",
            None,
        ),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("implementation", ["short", "httptools", "h11"])
def test_each_outcome_has_its_status(serve, implementation, outcome, status, text, retry_after) -> None:
    backend = EchoBackend(script=[outcome])
    server = serve([model("m", ("x", "FP32", (-1, -1)), backend=backend)], http=implementation)
    response, content = post(server.port)
    assert response.status == status
    assert json.loads(content)["error"].startswith(text)
    assert response.headers["retry-after"] == retry_after
    assert post(server.port)[0].status == 200


def test_a_bug_of_ours_is_an_internal_error_without_details(serve, caplog) -> None:
    assert fault_of_error(ZeroDivisionError("secret")).text == "internal error"
    backend = EchoBackend(answer=lambda inputs: None)
    server = serve([model("m", ("x", "FP32", (-1, -1)), backend=backend)])
    response, content = post(server.port)
    assert (response.status, json.loads(content)) == (500, {"error": "internal error"})
    assert "TypeError" in caplog.text


def test_a_completed_answer_says_where_the_time_went(serve) -> None:
    server = serve([model("m", ("x", "FP32", (-1, -1)), backend=EchoBackend())])
    response, content = post(server.port)
    assert response.headers["server-timing"] == "queue;dur=1.000, compute;dur=2.000"
    length = int(response.headers["inference-header-content-length"])
    assert decode_response(content, length).outputs[0].data.tolist() == [[1.0, 1.0]]
    # What HTTP libraries say unasked is no wish for compression.
    response, _ = post(server.port, **{"Accept-Encoding": "gzip, deflate, br"})
    assert response.headers["content-encoding"] is None


def test_nan_leaves_as_json_that_python_reads(serve) -> None:
    backend = EchoBackend(answer=lambda inputs: {"x": np.array([[np.nan, np.inf]], np.float32)})
    server = serve([model("m", ("x", "FP32", (-1, -1)), backend=backend)])
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}]}
    connection.request("POST", "/v2/models/m/infer", json.dumps(body))
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    assert response.headers["content-type"] == "application/json"
    assert response.headers["inference-header-content-length"] is None
    assert [math.isnan(answer["outputs"][0]["data"][0]), answer["outputs"][0]["data"][1]] == [True, math.inf]


class HoldingBackend(EchoBackend):
    """A backend that signals, across threads, when a request waits and when one is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = threading.Event()
        self.withdrawn = threading.Event()
        self.hold()

    async def _outcome(self, payload, rows):
        self.arrived.set()
        try:
            return await super()._outcome(payload, rows)
        finally:
            if self.cancelled:
                self.withdrawn.set()


@pytest.mark.parametrize("implementation", ["short", "httptools", "h11"])
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("padding", [0, 300_000])
def test_a_client_that_hangs_up_withdraws_its_request(serve, caplog, implementation, loop, padding: int) -> None:
    backend = HoldingBackend()
    server = serve([model("m", ("x", "FP32", (-1, -1)), backend=backend)], http=implementation, loop=loop)
    body, length = encode_request(InferRequest((InferInput("x", "FP32", np.ones((1, 2 + padding), np.float32)),)))
    head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(f"{head}Inference-Header-Content-Length: {length}\r\n\r\n".encode() + body)
        assert backend.arrived.wait(10)
    assert backend.withdrawn.wait(10)
    backend.stop_holding()
    assert post(server.port)[0].status == 200
    assert (backend.cancelled, backend.waiting) == (1, 0)
    assert "Exception" not in caplog.text
