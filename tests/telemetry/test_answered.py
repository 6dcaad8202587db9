"""Tests the memory of answered requests."""

from serving.core.outcome import Cancelled, Completed, Outcome, Timings
from serving.core.witness import Exchange
from serving.telemetry.answered import AnsweredIds

DONE = Completed({}, 0, Timings(0, 0, 0, 1))


def exchange(id: str, tenant: str = "", status: int = 200, outcome: Outcome | None = DONE) -> Exchange:
    return Exchange("http", id, tenant, status, outcome, "", 0, 0, 0)


def test_each_answer_is_told_of_once_and_only_to_its_tenant() -> None:
    ids = AnsweredIds()
    ids.answered(exchange("a", "acme"))
    ids.answered(exchange("b", "acme"))
    assert ids.take([("globex", "a"), ("acme", "x"), ("acme", "b")]) == (2,)
    assert ids.take([("acme", "a"), ("acme", "b")]) == (0,)


def test_only_computed_answers_are_remembered() -> None:
    ids = AnsweredIds()
    ids.answered(exchange("hit", outcome=Completed({}, 0, Timings(0, 0, 0, 0), cached=True)))
    ids.answered(exchange("miss", outcome=Completed({}, 0, Timings(0, 0, 0, 1), cached=False)))
    ids.answered(exchange("gone", status=499, outcome=Cancelled()))
    ids.answered(exchange("garbage", status=400, outcome=None))
    ids.answered(exchange("unwritten", status=500))
    assert ids.take([("", id) for id in ("hit", "miss", "gone", "garbage", "unwritten")]) == (1,)


def test_the_latest_are_kept_and_the_memory_is_bounded() -> None:
    ids = AnsweredIds(generation=10)
    for number in range(100):
        ids.answered(exchange(str(number)))
    known = ids.take([("", str(number)) for number in range(100)])
    assert 10 <= len(known) <= 20
    assert known == tuple(range(100 - len(known), 100))
