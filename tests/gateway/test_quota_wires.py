"""Tests quotas through both wires: what a refusal tells, and that every request gives its place back at its end."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from serving.gateway.quotas import Quotas
from serving.gateway.tenant_quota import TenantQuota
from serving.protocol.pb import SERVICE, decode
from serving.testing.clock import ManualClock
from serving.traffic.tenants import Tenant
from tests.gateway import gated
from tests.gateway.gated import ENTERED, FAILS, GATE, WAITS
from tests.gateway.grpc_calls import Caller, calling, infer
from tests.gateway.stories import NOW_S, S
from tests.gateway.tenancy import CREDENTIALS, Tenancy, tenancy

OWN = CREDENTIALS["own tenant"]
GATED, SUMS, TOLD = "gated", "sums", "told"
BURST, CONCURRENT = 500, 3
INFER, STREAM = f"/{SERVICE}/ModelInfer", f"/{SERVICE}/ModelStreamInfer"


class Bounded:
    """A tenancy whose tenant `acme` may have `CONCURRENT` requests in flight, and `BURST` at once."""

    def __init__(self, running: Tenancy, quotas: Quotas, clock: ManualClock) -> None:
        self.served, self.quotas, self.clock = running.served, quotas, clock
        self.connections: list[http.client.HTTPConnection] = []

    def in_flight(self) -> int:
        (acme,) = [counts for counts in self.quotas.snapshot(self.clock.now_ns()) if counts.tenant == "acme"]
        return acme.in_flight

    def held(
        self, model: str = GATED, tail: str = "infer", value: float = WAITS, **more: Any
    ) -> http.client.HTTPConnection:
        """Sends a request that waits in its model until the gate opens. Closing the connection leaves it."""
        connection = http.client.HTTPConnection(self.served.http, timeout=20)
        self.connections.append(connection)
        given = body(value, **more) if tail == "infer" else {"x": value} | more
        connection.request("POST", f"/v2/models/{model}/{tail}", json.dumps(given), OWN)
        return connection

    def until_all_ended(self) -> None:
        self.served.until(lambda: self.in_flight() == 0)


@pytest.fixture(scope="module", params=["fast", "plain"])
def bounded(request: pytest.FixtureRequest) -> Iterator[Bounded]:
    clock = ManualClock(NOW_S * S)
    tenants = {"acme": Tenant(name="acme", requests_per_minute=60, burst=BURST, concurrent=CONCURRENT)}
    quotas = Quotas(tenants, clock=clock, calendar=clock)
    specs = (gated.spec(GATED), gated.state_spec(SUMS), gated.words_spec(TOLD))
    offers = {"specs": specs, "seen": {"acme": {GATED, SUMS, TOLD}}, "quota": TenantQuota(quotas, now_ns=clock.now_ns)}
    with tenancy(request.param, **offers) as running:
        yield Bounded(running, quotas, clock)


@pytest.fixture(autouse=True)
def nothing_is_left(bounded: Bounded) -> Iterator[None]:
    """Every test begins and ends with no request in flight, and with a full burst."""
    bounded.clock.advance(600 * S)
    GATE.clear()
    yield
    GATE.set()
    bounded.until_all_ended()
    while bounded.connections:
        bounded.connections.pop().close()
    while ENTERED.acquire(blocking=False):
        pass


@pytest.fixture
def caller(bounded: Bounded) -> Iterator[Caller]:
    with calling(bounded.served.grpc) as client:
        yield client


@pytest.fixture(params=["identity", "gzip"])
def client(bounded: Bounded, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    headers = OWN | {"accept-encoding": request.param}
    with httpx.Client(base_url=f"http://{bounded.served.http}", headers=headers) as made:
        yield made


def body(value: float, rows: int = 1, **parameters: Any) -> dict[str, Any]:
    one = {"name": "x", "datatype": "FP32", "shape": [rows, 1], "data": [value] * rows}
    return {"inputs": [one]} | ({"parameters": parameters} if parameters else {})


def message(model: str, value: float, **parameters: Any) -> bytes:
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param"}
    given = {name: {kinds[type(one)]: one} for name, one in parameters.items()}
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 1]}]
    return infer(model, np.array([[value]], np.float32).tobytes(), inputs=inputs, parameters=given)


def test_beyond_its_requests_in_flight_a_tenant_is_refused_until_one_ends(
    bounded: Bounded, client: httpx.Client, caller: Caller
) -> None:
    waiting = [bounded.held() for _ in range(CONCURRENT)]
    bounded.served.until(lambda: bounded.in_flight() == CONCURRENT)
    refused = client.post(f"/v2/models/{GATED}/infer", json=body(1))
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert "in flight" in refused.json()["error"]
    for tail in ("generate", "generate_stream"):
        assert client.post(f"/v2/models/{TOLD}/{tail}", json={"x": 1}).status_code == 429
    for path in (INFER, STREAM):
        answer = caller.call(path, message(GATED, 1), list(OWN.items()))
        assert (answer.code, dict(answer.trailers)["grpc-retry-pushback-ms"]) == ("RESOURCE_EXHAUSTED", "1000")
    GATE.set()
    for connection in waiting:
        with connection.getresponse() as answer:
            assert (answer.status, bool(answer.read())) == (200, True)
    bounded.until_all_ended()
    assert client.post(f"/v2/models/{GATED}/infer", json=body(1)).status_code == 200


def test_beyond_its_rate_a_tenant_is_told_when_to_come_again(
    bounded: Bounded, client: httpx.Client, caller: Caller
) -> None:
    for _ in range(BURST):
        bounded.quotas.admit("acme", bounded.clock.now_ns())
        bounded.quotas.release("acme")
    refused = client.post(f"/v2/models/{GATED}/infer", json=body(1))
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.headers["ratelimit-policy"] == '"minute";q=60;w=60'
    assert refused.headers["ratelimit"] == '"minute";r=0;t=1'
    answer = caller.call(INFER, message(GATED, 1), list(OWN.items()))
    assert (answer.code, dict(answer.trailers)["grpc-retry-pushback-ms"]) == ("RESOURCE_EXHAUSTED", "1000")
    (told,) = caller.stream([message(GATED, 1)], list(OWN.items()))
    assert "60 requests a minute" in decode("ModelStreamInferResponse", told).error_message
    bounded.clock.advance(S)
    assert client.post(f"/v2/models/{GATED}/infer", json=body(1)).status_code == 200


ENDINGS = {
    "completed": (GATED, body(1), 200),
    "failed": (GATED, body(FAILS), 500),
    "too many rows": (GATED, body(1, rows=2), 400),
    "another shape": (GATED, {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}, 400),
    "asked of a model that generates": (TOLD, body(1), 501),
    "of no sequence": (SUMS, body(1), 400),
    "of a sequence that is not open": (SUMS, body(1, sequence_id=77), 400),
    "of a sequence, started": (SUMS, body(1, sequence_id=5, sequence_start=True), 200),
    "of a sequence, failed": (SUMS, body(FAILS, sequence_id=5), 500),
    "of a sequence, other rows": (SUMS, body(1, rows=2, sequence_id=5), 400),
    "of a sequence, ended": (SUMS, body(1, sequence_id=5, sequence_end=True), 200),
}


def test_a_request_gives_its_place_back_however_it_ends(bounded: Bounded, client: httpx.Client) -> None:
    for what, (model, given, status) in ENDINGS.items():
        assert client.post(f"/v2/models/{model}/infer", json=given).status_code == status, what
        bounded.until_all_ended()
    for given, status in (({"x": 3}, 200), ({"x": 0}, 200), ({"x": FAILS}, 500), ({}, 400), ({"x": "a"}, 400)):
        assert client.post(f"/v2/models/{TOLD}/generate_stream", json=given).status_code == status, given
        bounded.until_all_ended()
    assert client.post(f"/v2/models/{TOLD}/generate", json={"x": 3}).status_code == 400  # more than one answer
    bounded.until_all_ended()


@pytest.mark.parametrize("path", [INFER, STREAM])
def test_a_call_gives_its_place_back_however_it_ends(bounded: Bounded, caller: Caller, path: str) -> None:
    sequence = {"sequence_id": 6}
    calls = [
        (message(GATED, 1), "OK"),
        (message(GATED, FAILS), "INTERNAL"),
        (message(GATED, 1)[:-2], "INVALID_ARGUMENT"),
        (message(SUMS, 1), "INVALID_ARGUMENT"),
        (message(SUMS, 1, **sequence), "INVALID_ARGUMENT"),
        (message(SUMS, 1, sequence_start=True, **sequence), "OK"),
        (message(SUMS, FAILS, **sequence), "INTERNAL"),
        (message(SUMS, 1, sequence_end=True, **sequence), "OK"),
        (message(TOLD, 3), "OK" if path == STREAM else "UNIMPLEMENTED"),
        (message(TOLD, FAILS), "INTERNAL" if path == STREAM else "UNIMPLEMENTED"),
    ]
    for number, (given, code) in enumerate(calls):
        assert caller.call(path, given, list(OWN.items())).code == code, number
        bounded.until_all_ended()


@pytest.mark.parametrize("fails_at", range(4))
def test_whichever_call_of_the_model_fails_all_places_come_back(
    bounded: Bounded, client: httpx.Client, caller: Caller, fails_at: int
) -> None:
    for number in range(4):
        value = FAILS if number == fails_at else 1
        assert client.post(f"/v2/models/{GATED}/infer", json=body(value)).status_code == (
            500 if value == FAILS else 200
        )
    stream = [message(GATED, FAILS if number == fails_at else 1) for number in range(3)]  # as many as may be in flight
    answers = [decode("ModelStreamInferResponse", one) for one in caller.stream(stream, list(OWN.items()))]
    assert [bool(one.error_message) for one in answers] == [number == fails_at for number in range(3)]
    bounded.until_all_ended()


@pytest.mark.parametrize(("model", "tail"), [(GATED, "infer"), (TOLD, "generate"), (TOLD, "generate_stream")])
def test_a_client_that_leaves_gives_its_places_back(bounded: Bounded, model: str, tail: str) -> None:
    waiting = [bounded.held(model, tail) for _ in range(CONCURRENT)]  # one in the model, the others queued
    bounded.served.until(lambda: bounded.in_flight() == CONCURRENT)
    assert ENTERED.acquire(timeout=10)
    for connection in waiting:
        connection.close()
    bounded.until_all_ended()


@pytest.mark.parametrize("model", [GATED, TOLD, SUMS])
def test_a_stream_that_is_cancelled_gives_its_places_back(bounded: Bounded, model: str) -> None:
    given = {"sequence_id": 8, "sequence_start": True} if model == SUMS else {}
    messages = [message(model, WAITS, **given), *[message(model, 1, **given) for _ in range(CONCURRENT - 1)]]
    with grpc.insecure_channel(bounded.served.grpc) as channel:
        running = channel.stream_stream(STREAM)(iter(messages), metadata=list(OWN.items()))
        bounded.served.until(lambda: bounded.in_flight() == CONCURRENT)
        assert ENTERED.acquire(timeout=10)
        running.cancel()
        bounded.until_all_ended()


@pytest.mark.parametrize(("model", "tail"), [(GATED, "infer"), (TOLD, "generate_stream")])
def test_a_request_that_expires_in_the_queue_gives_its_place_back(bounded: Bounded, model: str, tail: str) -> None:
    """Another request holds the model meanwhile; the time limit is a microsecond."""
    bounded.held(model, tail)
    assert ENTERED.acquire(timeout=10)
    given = {"x": 1, "timeout": 1} if model == TOLD else body(1, timeout=1)
    late = httpx.post(f"http://{bounded.served.http}/v2/models/{model}/{tail}", json=given, headers=OWN)
    assert late.status_code in (503, 504)
    bounded.served.until(lambda: bounded.in_flight() == 1)


def test_a_request_that_expires_before_its_turn_in_a_sequence_gives_its_place_back(bounded: Bounded) -> None:
    first = bounded.held(SUMS, sequence_id=9, sequence_start=True)
    assert ENTERED.acquire(timeout=10)
    late = bounded.held(SUMS, value=1, sequence_id=9, timeout=1)
    bounded.served.until(lambda: bounded.in_flight() == 2)
    GATE.set()
    for connection, status in ((first, 200), (late, 504)):
        with connection.getresponse() as answer:
            assert (answer.status, bool(answer.read())) == (status, True)
    bounded.until_all_ended()
