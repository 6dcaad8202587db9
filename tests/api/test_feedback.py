"""Tests the route by which clients send values for answers."""

from collections.abc import Callable

import httpx
import pytest

from serving.api.faults import CallFailed
from serving.api.feedback import MOST_AT_ONCE, MOST_KEPT, FeedbackBox
from serving.protocol.errors import BadMessage
from serving.testing.backend import EchoBackend
from tests.api.conftest import Server, model

Serve = Callable[..., Server]
X = ("x", "FP32", (-1, 2))


def open_box() -> FeedbackBox:
    box = FeedbackBox()
    box.is_open = True
    return box


@pytest.fixture
def box() -> FeedbackBox:
    return open_box()


@pytest.fixture(params=["feedback", "versions/1/feedback"])
def url(request: pytest.FixtureRequest, serve: Serve, box: FeedbackBox) -> str:
    served = serve([model("net", X, backend=EchoBackend(), feedback=box)])
    return f"http://{served.address}/v2/models/net/{request.param}"


def test_one_value_or_a_list_is_taken(url: str, box: FeedbackBox) -> None:
    one = httpx.post(url, json={"id": "a", "value": 1})
    assert (one.status_code, one.json()) == (200, {"received": 1})
    assert httpx.post(url, json=[{"id": "b", "value": 0.25}, {"id": "c", "value": 0}]).json() == {"received": 2}
    assert box.take() == [("", "a", 1.0), ("", "b", 0.25), ("", "c", 0.0)]
    assert box.take() == []


def test_another_verb_is_refused(url: str) -> None:
    answer = httpx.get(url)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


BAD = {
    "{": "not valid JSON",
    "1": "must be an object",
    "[]": "1 to 1000 entries, not 0",
    '{"value": 1}': "id: must be",
    '{"id": 7, "value": 1}': "id: must be",
    '{"id": "", "value": 1}': "id: must be",
    '{"id": "a"}': "value: must be a number from 0 to 1",
    '{"id": "a", "value": 1.5}': "value: must be",
    '{"id": "a", "value": -0.1}': "value: must be",
    '{"id": "a", "value": true}': "value: must be",
    '{"id": "a", "value": "1"}': "value: must be",
    '{"id": "a", "value": NaN}': "not valid JSON",
    '{"id": "a", "value": 1, "color": 2}': "color: is unknown",
    '[{"id": "a", "value": 1}, {"id": "b", "value": 2}]': "[1].value: must be",
    '[{"id": "a", "value": 1}, 5]': "[1]: must be an object",
    '{"id": "' + "a" * 257 + '", "value": 1}': "id: must be",
}


@pytest.mark.parametrize("body", BAD)
def test_a_faulty_message_is_refused_with_its_field_and_none_of_it_is_taken(body: str) -> None:
    box = open_box()
    with pytest.raises(BadMessage) as refused:
        box.put("", body.encode())
    assert BAD[body] in str(refused.value)
    assert box.take() == []


def test_over_http_a_faulty_message_is_400_and_a_huge_one_413(url: str) -> None:
    faulty = httpx.post(url, json={"id": "a", "value": 2})
    assert (faulty.status_code, faulty.json()["error"]) == (400, "value: must be a number from 0 to 1")
    assert httpx.post(url, content=b" " * (1 << 20) + b"{}").status_code == 413


def test_values_that_nobody_collects_are_not_kept() -> None:
    box = FeedbackBox()
    assert box.put("", b'{"id": "a", "value": 1}') == 1
    box.is_open = True
    assert box.take() == []


def test_a_flood_is_refused_for_now() -> None:
    box = open_box()
    many = b"[" + b",".join([b'{"id": "a", "value": 1}'] * MOST_AT_ONCE) + b"]"
    for _ in range(MOST_KEPT // MOST_AT_ONCE):
        box.put("", many)
    with pytest.raises(CallFailed) as refused:
        box.put("", b'{"id": "a", "value": 1}')
    assert refused.value.fault.status == 503
    assert len(box.take()) == MOST_KEPT
