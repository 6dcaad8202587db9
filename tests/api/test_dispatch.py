"""The caches of `Dispatch`: their contents never change an answer."""

import json

import numpy as np
import pytest

from serving.api.classification import best_classes
from serving.api.dispatch import Dispatch
from serving.api.recall import GENERATION
from serving.protocol.errors import BadMessage
from serving.testing.backend import EchoBackend
from tests.api.conftest import model

TAIL = bytes(8)


def dispatch() -> Dispatch:
    return Dispatch(model("m", ("x", "FP32", (-1, -1)), backend=EchoBackend()))


def request(prefix: str = "", suffix: str = "", columns: int = 2) -> tuple[bytes, int]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, columns], "parameters": {"binary_data_size": 8}}
    head = ("{" + prefix + '"inputs":[' + json.dumps(tensor) + "]" + suffix + "}").encode()
    return head + TAIL, len(head)


def test_equal_heads_share_a_plan_whatever_their_leading_id() -> None:
    one = dispatch()
    plan, id, head_bytes = one.plan(*request())
    assert one.plan(*request()) == (plan, "", head_bytes)
    for name in ("1", "req-77 µ".replace("µ", "u"), "x" * 200):
        again, id, head_bytes = one.plan(*request(f'"id": "{name}", '))
        assert (id, head_bytes) == (name, request(f'"id": "{name}", ')[1])
        assert again is one.plan(*request('"id":"other",'))[0] or again is plan


@pytest.mark.parametrize("name", ['a\\"b', "é", "\\u00e9", "y" * 500, ""])
def test_ids_of_every_kind_are_understood(name: str) -> None:
    one = dispatch()
    for prefix, suffix in ((f'"id":"{name}",', ""), ("", f',"id":"{name}"')):
        assert one.plan(*request(prefix, suffix))[1] == json.loads(f'"{name}"')


def test_of_two_ids_the_later_counts() -> None:
    assert dispatch().plan(*request('"id":"a",', ',"id":"b"'))[1] == "b"


def test_requests_with_other_ids_do_not_fill_the_cache() -> None:
    one = dispatch()
    for number in range(50):
        one.plan(*request(f'"id":"{number}",'))
        one.plan(*request("", f',"id":"{number}"'))
    assert len(one._plans) == 1


def test_the_number_of_kept_plans_is_bounded_and_the_used_ones_stay() -> None:
    one = dispatch()
    used = one.plan(*request())[0]
    for number in range(5 * GENERATION):
        one.plan(*request("", f',"parameters":{{"n":{number}}}'))
        assert one.plan(*request())[0] is used
    assert len(one._plans) <= 2 * GENERATION


def test_large_heads_are_not_kept() -> None:
    one = dispatch()
    one.plan(*request("", f',"parameters":{{"n":"{"x" * 5000}"}}'))
    assert len(one._plans) == 0


def test_a_kept_plan_still_checks_the_length_of_each_body() -> None:
    one = dispatch()
    body, length = request()
    plan, _, head_bytes = one.plan(body, length)
    with pytest.raises(BadMessage, match="add up to"):
        one.submit(plan, body[:-1], head_bytes)


def test_raw_bodies_of_one_length_share_a_plan() -> None:
    one = dispatch()
    for columns in (1, 2, 3, 2, 1):
        values = np.arange(columns, dtype=np.float32)
        plan, id, head_bytes = one.plan(values.tobytes(), 0)
        assert (id, head_bytes, plan.rows) == ("", 0, 1)
        assert plan is one.plan(bytes(4 * columns), 0)[0]
        assert plan.layout.read(values.tobytes(), 0)["x"].tolist() == [values.tolist()]


def test_raw_texts_of_one_length_stay_apart() -> None:
    one = Dispatch(model("m", ("x", "BYTES", (-1, 1)), backend=EchoBackend()))
    read = [one.plan(text, 0)[0].layout.read(text, 0)["x"].tolist() for text in (b"one", b"two")]
    assert read == [[[b"one"]], [[b"two"]]]


def test_a_head_that_equals_the_length_of_a_kept_raw_body_is_still_malformed() -> None:
    one = dispatch()
    one.plan(bytes(8), 0)
    with pytest.raises(BadMessage):
        one.plan(b"8" + bytes(8), 1)


def test_a_malformed_head_does_not_become_valid_by_losing_its_id() -> None:
    for head in (b'{"id":"a",}', b'{"id":"a", "', b'{"id":"a","inputs"', b'{"id":"a"}'):
        with pytest.raises(BadMessage):
            dispatch().plan(head, len(head))


def test_classes_are_ranked_stably_with_nan_last_and_unsigned_numbers_right() -> None:
    scores = np.array([[1.0, np.nan, 3.0, 3.0]], np.float32)
    assert best_classes(scores, 9).tolist() == [[b"3.000000:2", b"3.000000:3", b"1.000000:0", b"nan:1"]]
    assert best_classes(np.array([[0, 255, 7]], np.uint8), 2, ("a", "b")).tolist() == [[b"255:1:b", b"7:2"]]
    assert best_classes(np.zeros((2, 0), np.float32), 3).shape == (2, 0)
    assert best_classes(np.array([[[1], [2]]], np.int64), 1).tolist() == [[b"2:1"]]
