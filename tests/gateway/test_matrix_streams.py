"""Tests that a key is asked for with every request of a connection and of a stream, and two tenants on one of them."""

import json
import queue
from collections.abc import Iterator

import grpc
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from serving.protocol.pb import SERVICE, decode
from tests.gateway.grpc_calls import Caller, calling, infer
from tests.gateway.stories import bearer, creation, fixed
from tests.gateway.tenancy import CREDENTIALS, HERS, OURS, TALE, Tenancy, tenancy

INFER = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 16], "data": [0.5] * 16}]}


@pytest.fixture(scope="module", params=["fast", "plain"])
def served(request: pytest.FixtureRequest) -> Iterator[Tenancy]:
    with tenancy(request.param) as running:
        yield running


@pytest.fixture
def caller(served: Tenancy) -> Iterator[Caller]:
    with calling(served.served.grpc) as client:
        yield client


def new_key(served: Tenancy, seed: int) -> tuple[str, dict[str, str]]:
    """Returns the id of a key of acme that was just made, and its header."""
    made = fixed(seed)
    if made.id not in served.callers._known:
        served.write(creation(made, "acme"))
    served.revoke(fixed(8).id)  # lets the server look
    return made.id, {"authorization": bearer(made)}


@pytest.mark.parametrize("accepted", ["identity", "gzip"])
def test_a_key_that_is_revoked_ends_a_connection_that_is_kept_alive(served: Tenancy, accepted: str) -> None:
    id, headers = new_key(served, {"identity": 11, "gzip": 12}[accepted])
    with httpx.Client(base_url=f"http://{served.served.http}", headers={"accept-encoding": accepted}) as client:
        for _ in range(3):
            assert client.post(f"/v2/models/{OURS}/infer", json=INFER, headers=headers).status_code == 200
        served.revoke(id)
        for path in (f"/v2/models/{OURS}/infer", f"/v2/models/{TALE}/generate_stream"):
            assert client.post(path, json=INFER, headers=headers).status_code == 401
        assert client.post(f"/v2/models/{OURS}/infer", json=INFER, headers=CREDENTIALS["own tenant"]).status_code == 200


def test_a_key_that_is_revoked_in_the_middle_of_a_stream_opens_nothing_more(served: Tenancy, caller: Caller) -> None:
    id, headers = new_key(served, 13)
    sending: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    answers = caller.stream(iter(sending.get, None), list(headers.items()))
    for _ in range(2):
        sending.put(infer(OURS))
        assert not decode("ModelStreamInferResponse", next(answers)).error_message
    served.revoke(id)
    for name in (OURS, "none"):
        sending.put(infer(name, id="7"))
        refused = decode("ModelStreamInferResponse", next(answers))
        assert refused.error_message.startswith("no valid credential")
        assert refused.infer_response.id == "7"
    sending.put(None)
    assert list(answers) == []


def test_a_generation_that_has_begun_ends_and_the_next_one_is_refused(served: Tenancy) -> None:
    id, headers = new_key(served, 14)
    with httpx.Client(base_url=f"http://{served.served.http}") as client:
        path = f"/v2/models/{TALE}/generate_stream"
        with client.stream("POST", path, json={"text": "one two three"}, headers=headers) as answer:
            words = answer.iter_lines()
            assert "one" in next(words)
            served.revoke(id)
            assert [json.loads(word[6:])["word"] for word in words if word] == ["two", "three"]
        assert client.post(path, json={"text": "one"}, headers=headers).status_code == 401


def test_a_stream_without_a_credential_is_refused_when_it_opens(caller: Caller) -> None:
    for who in ("no key", "a revoked key", "an expired key", "garbage", "an expired token"):
        with pytest.raises(grpc.RpcError) as refused:
            list(caller.stream([], list(CREDENTIALS[who].items())))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


ASKING = some.lists(
    some.tuples(some.sampled_from(["own tenant", "other tenant", "no key"]), some.sampled_from([OURS, HERS, "none"])),
    min_size=1,
    max_size=12,
)
EXPECTED = {("own tenant", OURS): 200, ("other tenant", HERS): 200}
QUIET = settings(max_examples=25, derandomize=True, database=None, deadline=None)


def expected(who: str, name: str) -> int:
    return 401 if who == "no key" else EXPECTED.get((who, name), 404)


@QUIET
@given(asked=ASKING)
def test_two_tenants_on_one_connection_are_never_taken_for_each_other(served: Tenancy, asked: list) -> None:
    limits = httpx.Limits(max_connections=1)
    with httpx.Client(
        base_url=f"http://{served.served.http}", limits=limits, headers={"accept-encoding": "identity"}
    ) as client:
        for who, name in asked:
            answer = client.post(f"/v2/models/{name}/infer", json=INFER, headers=CREDENTIALS[who])
            assert answer.status_code == expected(who, name)


@QUIET
@given(asked=ASKING)
def test_two_tenants_on_one_connection_of_grpc_are_never_taken_for_each_other(served: Tenancy, asked: list) -> None:
    codes = {200: "OK", 401: "UNAUTHENTICATED", 404: "NOT_FOUND"}
    with calling(served.served.grpc) as client:
        for who, name in asked:
            answer = client.call(f"/{SERVICE}/ModelInfer", infer(name), list(CREDENTIALS[who].items()))
            assert answer.code == codes[expected(who, name)]
