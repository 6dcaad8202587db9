"""Tests the tests of a candidate before its first request: what is sent, and when two answers agree."""

import asyncio
import json
import random

import pytest

from serving.release.shadow import Ask, body_of, difference, shadow, smoke, values_of

EXAMPLE = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[1.5, 2.5]]}]})


def answer(*values: object, name: str = "y") -> bytes:
    return json.dumps(
        {"outputs": [{"name": name, "datatype": "FP32", "shape": [len(values)], "data": values}]}
    ).encode()


def asking(stable: list[tuple[int, bytes]], candidate: list[tuple[int, bytes]]) -> Ask:
    """Returns a server that gives these answers in turn, version 1 the first ones, version 2 the others."""
    answers = {"1": iter(stable), "2": iter(candidate)}

    async def ask(version: str, body: bytes) -> tuple[int, bytes]:
        return next(answers[version])

    return ask


def test_the_example_is_sent_to_the_candidate() -> None:
    outcome, why = asyncio.run(smoke(asking([], [(200, answer(1.0))]), "2", EXAMPLE))
    assert outcome["passed"]
    assert "answered the model's example" in why


@pytest.mark.parametrize(
    ("status", "text", "why"),
    [
        (500, b'{"error": "the model raised ZeroDivisionError"}', "ZeroDivisionError"),
        (200, b"{}", "no outputs"),
        (200, answer(float("nan")), "no number"),
    ],
)
def test_a_candidate_that_does_not_answer_the_example_fails_with_the_reason(status: int, text: bytes, why: str) -> None:
    outcome, told = asyncio.run(smoke(asking([], [(status, text)]), "2", EXAMPLE))
    assert not outcome["passed"]
    assert why in outcome["why"] == told


def test_a_model_that_sends_several_answers_passes_untested_and_says_so() -> None:
    outcome, why = asyncio.run(smoke(asking([], [(501, b'{"error": "it keeps a state"}')]), "2", EXAMPLE))
    assert outcome["passed"]
    assert why == "the model was not tested: it keeps a state"


def test_a_model_without_an_example_passes_and_says_so() -> None:
    outcome, why = asyncio.run(smoke(asking([], []), "2", None))
    assert outcome["passed"]
    assert "has no example" in why


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        (answer(1.0, 2.0), answer(1.0, 2.0001), ""),
        (answer(1.0, 2.0), answer(1.0, 2.1), "y[1] is 2.1 instead of 2"),
        (answer(1.0), answer(1.0, name="z"), "outputs z instead of y"),
        (answer(1.0), answer(1.0, 1.0), "y has shape [2] instead of [1]"),
        (answer("cat"), answer("dog"), "y[0] is dog instead of cat"),
    ],
)
def test_answers_agree_within_a_tolerance(one: bytes, other: bytes, why: str) -> None:
    assert difference(one, other) == why


def replay(stable: list[tuple[int, bytes]], candidate: list[tuple[int, bytes]], agreement: float | None = None):
    bodies = [b"{}"] * len(stable)
    return asyncio.run(shadow(asking(stable, candidate), "1", "2", bodies, agreement=agreement))


def test_other_answers_are_told_and_fail_only_if_agreement_is_asked_for() -> None:
    stable, candidate = [(200, answer(1.0))] * 10, [(200, answer(1.0))] * 8 + [(200, answer(3.0))] * 2
    outcome, why = replay(stable, candidate)
    assert outcome["passed"]
    assert why == "8 of 10 answers agree with those of version 1"
    outcome, why = replay(stable, candidate, agreement=0.9)
    assert not outcome["passed"]
    assert why == "80.0% of the answers agree, fewer than 90.0%; y[0] is 3 instead of 1"


def test_failures_of_the_candidate_fail_the_test_and_those_of_both_say_nothing() -> None:
    failure = (500, b'{"error": "boom"}')
    stable = [(200, answer(1.0))] * 10
    outcome, why = replay(stable, [failure] * 5 + [(200, answer(1.0))] * 5)
    assert not outcome["passed"]
    assert "5 of 10 replayed requests failed" in why
    assert "boom" in why
    outcome, why = replay([failure] * 10, [failure] * 10)
    assert outcome["passed"]
    assert outcome["skipped"] == 10
    assert "no recorded request could be replayed" in why


def test_recorded_shapes_are_filled_with_the_values_of_the_example() -> None:
    recorded = {"x": {"datatype": "FP32", "shape": [3, 2]}, "t": {"datatype": "BYTES", "shape": [2], "bytes": 10}}
    body = json.loads(body_of(recorded, values_of(EXAMPLE), random.Random(7)) or b"")
    x, t = body["inputs"]
    assert x["data"] == [1.5, 2.5, 1.5, 2.5, 1.5, 2.5]
    assert [len(text) for text in t["data"]] == [5, 5]


@pytest.mark.parametrize("datatype", ["BOOL", "INT8", "UINT8", "INT64", "FP16", "FP64"])
def test_values_without_an_example_are_drawn_within_their_type(datatype: str) -> None:
    body = json.loads(body_of({"x": {"datatype": datatype, "shape": [50]}}, {}, random.Random(7)) or b"")
    assert all(0 <= value <= 127 for value in body["inputs"][0]["data"])


@pytest.mark.parametrize("told", [{"datatype": "FP32", "shape": [10**9]}, {"shape": [1]}, {"datatype": "FP32"}])
def test_what_is_too_large_or_not_understood_is_not_replayed(told: dict[str, object]) -> None:
    assert body_of({"x": told}, {}, random.Random(7)) is None
