"""Tests the routes of the feature store where callers need no credential."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from serving.api.admission.local_gate import LocalGate
from serving.api.admission.quota import Quota
from serving.api.entry import ModelEntry
from serving.api.faults import CallFailed, Fault
from serving.api.features import FEATURES_ARE_OFF
from serving.api.http.features import MAX_BODY_BYTES
from serving.api.http.front import FrontApp
from serving.api.operations import Operations


class Told:
    """A feature store that returns what it was asked."""

    tenant_header = "x-team"

    def __init__(self, quota: Quota | None = None) -> None:
        self.quota = quota

    def described(self) -> list[dict[str, Any]]:
        return [{"name": "stats"}]

    async def push(self, tenant: str, view: str, body: Mapping[str, object]) -> dict[str, Any]:
        return {"push": [tenant, view, body]}

    async def get(self, tenant: str, view: str, body: Mapping[str, object]) -> dict[str, Any]:
        return {"get": [tenant, view, body]}


async def models() -> list[ModelEntry]:
    return []


def asked(
    verb: str,
    path: str,
    body: bytes = b"{}",
    *,
    address: str = "127.0.0.1",
    off: bool = False,
    quota: Quota | None = None,
    **headers: str,
) -> tuple[int, Any]:
    sent: list[Any] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body}

    async def send(event: Any) -> None:
        sent.append(event)

    front = FrontApp(Operations(models, features=None if off else Told(quota), gate=LocalGate()))
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": verb, "path": path, "headers": named, "client": (address, 1)}
    asyncio.run(front(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


def test_the_routes_reach_the_store_with_the_tenant_that_the_header_names() -> None:
    assert asked("GET", "/v2/features") == (200, {"views": [{"name": "stats"}]})
    assert asked("POST", "/v2/features/stats", b'{"a": 1}', x_team="acme") == (
        200,
        {"push": ["acme", "stats", {"a": 1}]},
    )
    assert asked("POST", "/v2/features/stats/get", b'{"a": 1}') == (200, {"get": ["", "stats", {"a": 1}]})


@pytest.mark.parametrize(
    ("verb", "path", "allowed"),
    [
        ("POST", "/v2/features", "GET"),
        ("GET", "/v2/features/stats", "POST"),
        ("DELETE", "/v2/features/stats", "POST"),
        ("GET", "/v2/features/stats/get", "POST"),
    ],
)
def test_other_verbs_are_refused(verb: str, path: str, allowed: str) -> None:
    status, told = asked(verb, path)
    assert (status, told["error"]) == (405, f"{verb} is not allowed here, use {allowed}")


@pytest.mark.parametrize(
    "path", ["/v2/features/stats/put", "/v2/features/a/b", "/v2/features/a/b/get", "/v2/featuresx"]
)
def test_other_paths_are_not_there(path: str) -> None:
    assert asked("POST", path)[0] == 404


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"a": \xff}'])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    assert asked("POST", "/v2/features/stats", body)[0] == 400


def test_a_large_body_is_refused_before_it_is_read() -> None:
    status, told = asked("POST", "/v2/features/stats", content_length=str(MAX_BODY_BYTES + 1))
    assert (status, str(MAX_BODY_BYTES) in told["error"]) == (413, True)


def test_without_views_the_setting_is_named() -> None:
    assert asked("POST", "/v2/features/stats/get", off=True) == (501, {"error": FEATURES_ARE_OFF})


def test_from_elsewhere_features_are_read_but_not_written() -> None:
    assert asked("POST", "/v2/features/stats/get", address="192.0.2.7")[0] == 200
    assert asked("POST", "/v2/features/stats", address="192.0.2.7")[0] == 403


def test_a_web_page_of_another_site_writes_no_features() -> None:
    assert asked("POST", "/v2/features/stats", origin="https://evil.example", host="localhost")[0] == 403


class One:
    """A quota of one request of a tenant at a time. held: of each."""

    def __init__(self, **held: int) -> None:
        self.held = held

    def take(self, tenant: str) -> None:
        if self.held.get(tenant):
            raise CallFailed(Fault(429, "too many"))
        self.held[tenant] = 1

    def give_back(self, tenant: str) -> None:
        self.held[tenant] -= 1


def test_requests_count_in_the_quota_of_their_tenant_and_give_their_place_back_however_they_end() -> None:
    quota = One(busy=1)
    for path, body in (("stats", b"{}"), ("stats/get", b"{}"), ("stats", b"no json")):
        for _ in range(2):
            assert asked("POST", f"/v2/features/{path}", body, quota=quota, x_team="acme")[0] in (200, 400)
        assert asked("POST", f"/v2/features/{path}", body, quota=quota, x_team="busy") == (429, {"error": "too many"})
    assert asked("GET", "/v2/features", quota=quota, x_team="busy")[0] == 200
    assert quota.held == {"busy": 1, "acme": 0}
