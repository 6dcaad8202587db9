"""Tests the place of a request in its tenant's quota from the head on: a refused request costs no body, and whichever
step between head and engine fails, the place comes back exactly once."""

import gzip
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import serving.api.grpc.service
import serving.api.http.app
import serving.api.http.connection
from serving.api.admission.room import Held
from serving.api.beside import LONG_BYTES
from serving.api.dispatch import Dispatch
from serving.api.grpc.pending import GrpcDispatch
from serving.gateway.quotas import Quotas
from serving.gateway.tenant_quota import TenantQuota
from serving.protocol.grpc_codec import GrpcLayout
from serving.protocol.layout import RequestLayout
from serving.runtime.engine import Engine
from serving.runtime.generation import GeneratingEngine
from serving.testing.clock import ManualClock
from serving.traffic.tenants import Tenant
from tests.gateway import gated
from tests.gateway.gated import GATE
from tests.gateway.grpc_calls import Caller, calling
from tests.gateway.stories import NOW_S, S
from tests.gateway.tenancy import CREDENTIALS, Tenancy, tenancy
from tests.gateway.test_quota_wires import GATED, INFER, OWN, STREAM, TOLD, body, message

LARGE = 30_000  # values, so that a thread reads the body
HERE = (serving.api.http.app, serving.api.http.connection, serving.api.grpc.service)
# What is called between the head of a request and its answer, in this process.
STEPS: tuple[tuple[Any, str], ...] = (
    *((place, "beside") for place in HERE),
    (serving.api.http.app, "inflate"),
    (serving.api.http.app, "read_request"),
    (serving.api.http.app, "begin"),
    (serving.api.http.app, "read_body"),
    (TenantQuota, "take"),
    (Held, "arrive"),
    (Held, "take"),
    *((Dispatch, name) for name in ("_found", "_plan", "placed", "submit", "submit_read", "hand_over", "generate")),
    (Dispatch, "reply"),
    (GrpcDispatch, "message"),
    (RequestLayout, "read"),
    (GrpcLayout, "read"),
    (Engine, "_ticket"),
    (GeneratingEngine, "generate"),
)


class Trouble:
    """Makes the n-th call of any step fail, once. seen: the calls since it was armed."""

    def __init__(self) -> None:
        self.armed, self.seen = 0, 0
        self._lock = threading.Lock()

    def arm(self, nth: int) -> None:
        self.armed, self.seen = nth, 0

    def wrapped(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            with self._lock:
                self.seen += 1
                fails = self.seen == self.armed
            if fails:
                raise RuntimeError("injected")
            return step(*arguments, **named)

        return call


class Bounded:
    def __init__(self, running: Tenancy, quotas: Quotas, clock: ManualClock) -> None:
        self.served, self.quotas, self.clock = running.served, quotas, clock
        self.host, _, port = running.served.http.partition(":")
        self.port = int(port)

    def in_flight(self) -> int:
        (acme,) = [counts for counts in self.quotas.snapshot(self.clock.now_ns()) if counts.tenant == "acme"]
        return acme.in_flight

    def post(self, model: str, tail: str, content: bytes, *, parts: bool = False, **headers: str) -> int:
        """Returns the status of a request; 0 if the connection was closed. parts: sends head and body on their own."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        try:
            path, sent = f"/v2/models/{model}/{tail}", OWN | headers
            if parts:
                connection.request(
                    "POST", path, iter([content[:9], content[9:]]), sent | {"content-length": str(len(content))}
                )
            else:
                connection.request("POST", path, content, sent)
            with connection.getresponse() as answer:
                answer.read()
                return answer.status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()


@pytest.fixture(scope="module", params=["fast", "plain"])
def bounded(request: pytest.FixtureRequest) -> Iterator[Bounded]:
    GATE.set()
    clock = ManualClock(NOW_S * S)
    tenants = {"acme": Tenant(name="acme", requests_per_minute=60, burst=100_000, concurrent=3)}
    quotas = Quotas(tenants, clock=clock, calendar=clock)
    specs = (gated.spec(GATED), gated.words_spec(TOLD))
    offers = {"specs": specs, "seen": {"acme": {GATED, TOLD}}, "quota": TenantQuota(quotas, now_ns=clock.now_ns)}
    with tenancy(request.param, **offers) as running:
        yield Bounded(running, quotas, clock)


@pytest.fixture
def caller(bounded: Bounded) -> Iterator[Caller]:
    with calling(bounded.served.grpc) as client:
        yield client


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> Trouble:
    made = Trouble()
    for place, name in STEPS:
        monkeypatch.setattr(place, name, made.wrapped(getattr(place, name)))
    return made


def requests(bounded: Bounded, caller: Caller) -> dict[str, Callable[[], object]]:
    """Returns one request of each kind that the doors treat in its own way."""
    small, large = json.dumps(body(1)).encode(), json.dumps(body(1, rows=LARGE)).encode()
    assert len(large) > LONG_BYTES, "a thread reads it"
    words = json.dumps({"x": 2}).encode()
    own = list(OWN.items())
    return {
        "small": lambda: bounded.post(GATED, "infer", small),
        "in parts": lambda: bounded.post(GATED, "infer", small, parts=True),
        "large": lambda: bounded.post(GATED, "infer", large, parts=True),
        "malformed": lambda: bounded.post(GATED, "infer", b"{]"),
        "compressed": lambda: bounded.post(GATED, "infer", gzip.compress(large), **{"content-encoding": "gzip"}),
        "generate": lambda: bounded.post(GATED, "generate", words),
        "answers as they come": lambda: bounded.post(TOLD, "generate_stream", words),
        "a call": lambda: caller.call(INFER, message(GATED, 1), own),
        "a stream": lambda: caller.call(STREAM, message(GATED, 1), own),
        "a stream of answers": lambda: caller.call(STREAM, message(TOLD, 2), own),
    }


def test_whichever_step_fails_the_place_comes_back_exactly_once(
    bounded: Bounded, caller: Caller, trouble: Trouble
) -> None:
    bounded.quotas.admit("acme", bounded.clock.now_ns())  # a second return of a place would take this one
    for kind, send in requests(bounded, caller).items():
        for nth in range(1, 50):
            trouble.arm(nth)
            send()
            bounded.served.until(lambda: bounded.in_flight() == 1)
            if trouble.seen < nth:
                break
        assert 1 < nth < 50, f"{kind}: the trouble reaches steps, and ends"
    assert bounded.in_flight() == 1
    bounded.quotas.release("acme")


def test_a_client_that_leaves_while_its_body_arrives_gives_its_place_back(bounded: Bounded) -> None:
    for coding in ("identity", "gzip"):  # the fast path, and the general one
        head = (
            f"POST /v2/models/{GATED}/infer HTTP/1.1\r\nhost: x\r\naccept-encoding: {coding}\r\ncontent-length: 99\r\n"
        )
        head += f"authorization: {OWN['authorization']}\r\n\r\n{{"
        with socket.create_connection((bounded.host, bounded.port)) as leaving:
            leaving.sendall(head.encode())
            bounded.served.until(lambda: bounded.in_flight() == 1)
        bounded.served.until(lambda: bounded.in_flight() == 0)


def test_a_request_beyond_the_quota_is_refused_before_its_body_is_read(
    bounded: Bounded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that waits for leave to send the body is not given it, and nothing of a body is held."""
    taken: list[int] = []
    monkeypatch.setattr(Held, "take", lambda held, size: taken.append(size))
    monkeypatch.setattr(Dispatch, "_found", lambda *arguments: taken.append(1))
    for _ in range(3):
        bounded.quotas.admit("acme", bounded.clock.now_ns())
    try:
        large = json.dumps(body(1, rows=LARGE)).encode()
        assert bounded.post(GATED, "infer", large, parts=True) == 429
        assert bounded.post(GATED, "infer", b"not even JSON") == 429
        with socket.create_connection((bounded.host, bounded.port), timeout=20) as waiting:
            head = (
                f"POST /v2/models/{GATED}/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\nexpect: 100-continue\r\n"
            )
            waiting.sendall(f"{head}authorization: {OWN['authorization']}\r\n\r\n".encode())
            assert waiting.recv(4096).startswith(b"HTTP/1.1 429 ")
    finally:
        for _ in range(3):
            bounded.quotas.release("acme")
    assert not taken


def test_a_connection_goes_on_after_a_request_beyond_the_quota(bounded: Bounded) -> None:
    connection = http.client.HTTPConnection(bounded.host, bounded.port, timeout=20)
    statuses = []
    for is_full in (True, False, True, False):
        for _ in range(3 * is_full):
            bounded.quotas.admit("acme", bounded.clock.now_ns())
        connection.request("POST", f"/v2/models/{GATED}/infer", json.dumps(body(1)).encode(), CREDENTIALS["own tenant"])
        with connection.getresponse() as answer:
            statuses.append((answer.status, bool(answer.read())))
        for _ in range(3 * is_full):
            bounded.quotas.release("acme")
    connection.close()
    assert statuses == [(429, True), (200, True)] * 2
    bounded.served.until(lambda: bounded.in_flight() == 0)
