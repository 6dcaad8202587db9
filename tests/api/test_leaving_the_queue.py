"""Clients that disconnect while their requests are queued: these count as cancelled and are never computed.

Uses a real engine behind both wires. Its model waits for an event, so that further requests have to queue.
"""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http

from models.reference import NumpyModel, echo_spec
from models.spec import Limits, ModelSpec
from serving.protocol.binary_codec import encode_request
from serving.protocol.messages import InferInput, InferRequest
from serving.telemetry.recorder import Counts
from tests.house import House, house

BEFORE = (1.0, 2.0, 3.0)  # one is computed, one is cut ahead, one waits at the head of the queue
LEAVES = 666.0
AFTER = 4.0
CANCELLED = ("cancelled", "")


class Gate:
    """The event for which the model below waits. computed: the values that the model has computed since the reset."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.computed: list[float] = []

    def pass_through(self, x: np.ndarray) -> tuple[np.ndarray]:
        self.open.wait()
        self.computed.extend(x[:, 0].tolist())
        return (x,)


GATE = Gate()


def gated(spec: ModelSpec) -> NumpyModel:
    return NumpyModel(spec, GATE.pass_through)


@pytest.fixture(params=["fast", "plain"])
def served(request: pytest.FixtureRequest) -> Iterator[House]:
    spec = echo_spec(name="gated", factory=f"{__name__}:gated", limits=Limits(max_batch_rows=1))
    with house(spec, grpc_door=request.param) as running:
        GATE.computed.clear()
        GATE.open.clear()
        try:
            yield running
        finally:
            GATE.open.set()


def tensor(wire, value: float):
    return wire.InferInput("x", [1, 4], "FP32").set_data_from_numpy(np.full((1, 4), value, np.float32))


def ask(served: House, value: float) -> float:
    with over_grpc.InferenceServerClient(served.grpc) as client:
        return float(client.infer("gated", [tensor(over_grpc, value)]).as_numpy("y")[0, 0])


class Held:
    """A server whose lane is blocked, with so many requests that any further request waits in the queue."""

    def __init__(self, served: House, pool: ThreadPoolExecutor) -> None:
        self.served = served
        self.ledger = served.engines["gated"].ledger
        self.before: list[Future[float]] = []
        for value in BEFORE:
            self.before.append(pool.submit(ask, served, value))
            self.until_received(len(self.before))

    def counts(self) -> Counts:
        return self.served.recorders["gated"].counts()

    def until_received(self, requests: int) -> None:
        self.served.until(lambda: self.ledger.received == requests)

    def until_queued(self) -> None:
        """Waits until one more request is queued than before."""
        self.until_received(len(BEFORE) + 1)
        assert self.ledger.queued >= 2  # one of before, and the one that will leave

    def until_cancelled(self) -> None:
        self.served.until(lambda: self.ledger.ended["Cancelled"] == 1)
        assert (GATE.computed, self.ledger.queued + self.ledger.in_flight) == ([], len(BEFORE))  # nothing else moved

    def check(self) -> None:
        """Checks that all other requests are answered and that all counters agree."""
        GATE.open.set()
        assert [future.result() for future in self.before] == list(BEFORE)
        assert ask(self.served, AFTER) == AFTER
        assert GATE.computed == [*BEFORE, AFTER]
        self.ledger.check()
        assert self.ledger.ended == {"Completed": len(BEFORE) + 1, "Cancelled": 1}
        assert self.counts().ended == {CANCELLED: 1}
        with over_http.InferenceServerClient(self.served.http) as client:
            (statistics,) = client.get_inference_statistics("gated")["model_stats"]
        completed = len(BEFORE) + 1
        assert (statistics["inference_count"], statistics["execution_count"]) == (completed, completed)
        durations = statistics["inference_stats"]
        assert (durations["success"]["count"], durations["fail"]["count"]) == (completed, 1)


@pytest.fixture
def held(served: House) -> Iterator[Held]:
    with ThreadPoolExecutor() as pool:
        try:
            yield Held(served, pool)
        finally:
            GATE.open.set()  # or the pool would wait for ever after a failure


def test_a_client_that_hangs_up_over_http(held: Held) -> None:
    body, length = encode_request(InferRequest((InferInput("x", "FP32", np.full((1, 4), LEAVES, np.float32)),)))
    head = f"POST /v2/models/gated/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    host, port = held.served.http.split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(f"{head}Inference-Header-Content-Length: {length}\r\n\r\n".encode() + body)
        held.until_queued()
    held.until_cancelled()
    held.check()


def test_a_call_that_is_cancelled_over_grpc(held: Held) -> None:
    error_of_call: Future[object] = Future()
    with over_grpc.InferenceServerClient(held.served.grpc) as client:
        call = client.async_infer(
            "gated", [tensor(over_grpc, LEAVES)], callback=lambda result, error: error_of_call.set_result(error)
        )
        held.until_queued()
        call.cancel()
        held.until_cancelled()
        assert error_of_call.result().status() == "StatusCode.CANCELLED"
    held.check()


def test_a_connection_that_is_closed_over_grpc(held: Held) -> None:
    with over_grpc.InferenceServerClient(held.served.grpc) as client:
        client.async_infer("gated", [tensor(over_grpc, LEAVES)], callback=lambda result, error: None)
        held.until_queued()
    held.until_cancelled()
    held.check()


def test_a_stream_that_is_cancelled_over_grpc(held: Held) -> None:
    with over_grpc.InferenceServerClient(held.served.grpc) as client:
        client.start_stream(callback=lambda result, error: None)
        client.async_stream_infer("gated", [tensor(over_grpc, LEAVES)])
        held.until_queued()
        client.stop_stream(cancel_requests=True)
    held.until_cancelled()
    held.check()
