"""Tests over HTTP that a model which a tenant may not see is answered as one that is not there, byte for byte, whatever
is wrong with the request: on the fast path, on the general one, and in a replica that serves the model alone."""

import asyncio
import gzip
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving.api.faults import unknown_model
from serving.api.http.app import ModelApp
from serving.testing.backend import EchoBackend
from tests.api.conftest import model
from tests.gateway.tenancy import ABSENT, CREDENTIALS, OURS, TALE, Tenancy, tenancy
from tests.house import MAX_BODY_BYTES

INFER = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16], "data": [0.5] * 16}]}
GOOD = json.dumps(INFER).encode()
BINARY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16],
                                 "parameters": {"binary_data_size": 64}}]}).encode()  # fmt: skip
LENGTH = {"inference-header-content-length": str(len(BINARY))}
# The bodies of infer requests, with their headers.
BODIES: dict[str, tuple[bytes, dict[str, str]]] = {
    "good": (GOOD, {}),
    "good and binary": (BINARY + bytes(64), LENGTH),
    "too few bytes": (BINARY + bytes(60), LENGTH),
    "a wrong length of the head": (BINARY + bytes(64), {"inference-header-content-length": "7"}),
    "a length that is none": (BINARY + bytes(64), {"inference-header-content-length": "x"}),
    "raw": (bytes(64), {"inference-header-content-length": "0"}),
    "raw and too short": (bytes(60), {"inference-header-content-length": "0"}),
    "no JSON": (b"{", {}),
    "no object": (b"[]", {}),
    "an unknown input": (GOOD.replace(b'"x"', b'"z"'), {}),
    "another shape": (GOOD.replace(b"16]", b"17]"), {}),
    "nothing": (b"", {}),
    "compressed": (gzip.compress(GOOD, mtime=0), {"content-encoding": "gzip"}),
    "not compressed as it says": (GOOD, {"content-encoding": "gzip"}),
    "an unknown coding": (GOOD, {"content-encoding": "br"}),
    "too large": (bytes(MAX_BODY_BYTES + 1), {}),
    "of a page": (GOOD, {"origin": "https://elsewhere.example"}),
    "with an id": (GOOD, {"x-request-id": "one"}),
    "with a trace": (GOOD, {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}),
}
VERBS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
TAILS = ("", "/", "/infer", "/ready", "/config", "/stats", "/generate", "/generate_stream", "/trace/setting",
         "/versions/1", "/versions/1/infer", "/versions/7/infer", "/versions/7/ready", "/versions/1/trace/setting",
         "/versions", "/nothing", "/infer/", "/infer/more", "/%69nfer", "//infer")  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Iterator[Tenancy]:
    with tenancy() as running:
        yield running


@pytest.fixture(params=["the fast path", "the general path"])
def client(served: Tenancy, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    accepted = {"the fast path": "identity", "the general path": "gzip"}[request.param]
    with httpx.Client(base_url=f"http://{served.served.http}", headers={"accept-encoding": accepted}) as made:
        yield made


def facts(answer: httpx.Response, replaced: str = "", by: str = "") -> tuple[int, list[Any], str]:
    """Returns all that an answer says but the date, with one name replaced by another."""
    headers = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() != b"date"]
    return answer.status_code, headers, answer.text.replace(replaced, by) if replaced else answer.text


@pytest.mark.parametrize("what", BODIES)
def test_whatever_is_wrong_with_it_a_request_to_a_foreign_model_is_one_to_none(client: httpx.Client, what: str) -> None:
    content, headers = BODIES[what]
    for name in (OURS, TALE):
        for tail in ("infer", "versions/1/infer", "versions/7/infer", "generate", "generate_stream"):
            paths = [f"/v2/models/{one}/{tail}" for one in (name, ABSENT[name])]
            client.post(paths[0], content=content, headers=headers | CREDENTIALS["own tenant"])  # now plans are known
            asking = headers | CREDENTIALS["other tenant"]
            foreign, absent = (client.post(path, content=content, headers=asking) for path in paths)
            assert facts(foreign, name, ABSENT[name]) == facts(absent), tail
            assert foreign.status_code == 404, tail


@pytest.mark.parametrize("verb", VERBS)
def test_every_path_of_a_foreign_model_is_answered_as_of_none(client: httpx.Client, verb: str) -> None:
    for name in (OURS, TALE):
        for tail in TAILS:
            for before in ("/v2/models/", "/v2/repository/models/"):
                paths = [f"{before}{one}{tail}" for one in (name, ABSENT[name])]
                foreign, absent = (client.request(verb, path, headers=CREDENTIALS["other tenant"]) for path in paths)
                assert facts(foreign, name, ABSENT[name]) == facts(absent), tail


@pytest.mark.parametrize("change", ["load", "unload"])
@pytest.mark.parametrize("content", [b"", b"{}", b"{", b'{"parameters": {"config": "{}"}}', b'{"parameters": 1}'])
def test_changes_of_a_foreign_model_are_refused_as_of_none(client: httpx.Client, change: str, content: bytes) -> None:
    paths = [f"/v2/repository/models/{one}/{change}" for one in (OURS, ABSENT[OURS])]
    foreign, absent = (client.post(path, content=content, headers=CREDENTIALS["other tenant"]) for path in paths)
    assert facts(foreign, OURS, ABSENT[OURS]) == facts(absent)
    assert foreign.status_code in (400, 404)


def test_a_percent_escape_in_a_foreign_name_changes_nothing(client: httpx.Client) -> None:
    escaped = {one: f"/v2/models/%{ord(one[0]):x}{one[1:]}/ready" for one in (OURS, ABSENT[OURS])}
    asking = CREDENTIALS["other tenant"]
    foreign, absent = (client.get(path, headers=asking) for path in escaped.values())
    assert facts(foreign, OURS, ABSENT[OURS]) == facts(absent)


def test_without_a_valid_credential_nothing_tells_a_model_from_none(client: httpx.Client) -> None:
    for who in ("no key", "a revoked key", "garbage", "an expired token", "the tenant of another"):
        for content, headers in BODIES.values():
            paths = [f"/v2/models/{one}/infer" for one in (OURS, ABSENT[OURS])]
            known, absent = (client.post(path, content=content, headers=headers | CREDENTIALS[who]) for path in paths)
            assert facts(known) == facts(absent), who
            assert known.status_code in (401, 403), who


def test_no_readiness_names_a_model_where_callers_need_a_key(served: Tenancy) -> None:
    engine = served.served.engines[OURS]
    served.served.loop.call_soon_threadsafe(setattr, engine, "_accepting", False)
    url = f"http://{served.served.http}/v2/health/ready"
    try:
        served.served.until(lambda: httpx.get(url).status_code == 503)
        assert httpx.get(url).json() == {"error": "not ready: some models"}
    finally:
        served.served.loop.call_soon_threadsafe(setattr, engine, "_accepting", True)
        served.served.until(lambda: httpx.get(url).status_code == 200)


@pytest.mark.parametrize("path", ["/v2/models/none/x", "/v2/models/ourselves", "/v2/models/none", "/v2/nothing"])
def test_a_replica_that_a_wrong_path_reaches_names_no_model_of_its_own(served: Tenancy, path: str) -> None:
    """A path goes astray when a load balancer takes the beginning of one for another."""
    alone = ModelApp(model(OURS, ("x", "FP32", (-1, 16)), backend=EchoBackend()), gate=served.gate)
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = [(b"authorization", CREDENTIALS["other tenant"]["authorization"].encode())]
    asyncio.run(alone({"type": "http", "method": "GET", "path": path, "headers": headers}, receive, send))
    named = path.split("/")[3] if path.startswith("/v2/models/") else ""
    assert sent[0]["status"] == 404
    assert OURS not in json.loads(sent[1]["body"])["error"].split("'")
    if named:
        assert sent[1]["body"] == unknown_model(named).body
