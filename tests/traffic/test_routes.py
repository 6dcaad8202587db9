"""The routing table: names of applications, what is in force, and the sticky choice between two versions."""

from collections import Counter
from math import sqrt

import pytest

from serving.registry.log import Record, Split, last_split
from serving.traffic.routes import (
    SHARES,
    BadRoute,
    Route,
    applications,
    backend_of,
    draw,
    in_force,
    lines,
    model_of,
    share_of,
    xxh32,
)

SERVED = {"1": "ranker", "2": "ranker@2", "3": "ranker@3"}
FIRST = Route("ranker", SERVED, "1")


def record(kind: str, split: Split | None = None) -> Record:
    return Record(kind, "2026-11-29T12:00:00Z", "user:ann", "", {}, split)


def test_the_first_version_has_the_application_of_the_models_name_and_the_others_have_their_own() -> None:
    listed = [("ranker", "2"), ("other", "1"), ("ranker", "1"), ("ranker", "10")]
    found = applications(listed)
    assert list(found.items()) == [
        ("ranker", ("ranker", "2")),
        ("other", ("other", "1")),
        ("ranker@1", ("ranker", "1")),
        ("ranker@10", ("ranker", "10")),
    ]
    assert [model_of(name) for name in found] == ["ranker", "other", "ranker", "ranker"]
    assert [backend_of(name) for name in found] == ["ranker", "other", "ranker_1", "ranker_10"]


def test_without_a_record_the_version_listed_first_answers_everything() -> None:
    assert last_split((record("registered"), record("approved"))) is None
    assert in_force("ranker", SERVED, None) == FIRST
    assert {FIRST.chosen(str(key)) for key in range(100)} == {"1"}


def test_the_last_record_with_a_route_counts() -> None:
    told = last_split((record("routed", Split("1", "2", 500)), record("promoted", Split("2")), record("evidence")))
    assert told is not None
    assert in_force("ranker", SERVED, told.as_mapping()) == Route("ranker", SERVED, "2")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"stable": "7", "candidate": "2", "share": 500}, ("1", None, 0)),
        ({"stable": "2", "candidate": "7", "share": 500}, ("2", None, 0)),
        ({"stable": "2", "candidate": "1", "share": 500}, ("2", "1", 500)),
        ({"stable": "2", "candidate": "1", "share": "half"}, ("2", None, 0)),
        ({}, ("1", None, 0)),
    ],
)
def test_a_version_that_is_not_served_gets_no_traffic(told: dict[str, object], expected: tuple[object, ...]) -> None:
    route = in_force("ranker", SERVED, told)
    assert (route.stable, route.candidate, route.share) == expected


@pytest.mark.parametrize(
    ("stable", "candidate", "share", "why"),
    [
        ("9", None, 0, "ranker has no version '9' that is served; there are: 1, 2, 3"),
        ("1", "9", 1, "no version '9'"),
        ("1", "2", SHARES + 1, "a share is from 0 to 10000"),
        ("1", "2", -1, "a share is from 0"),
        ("1", None, 1, "a share is that of a candidate"),
        ("2", "2", 1, "version 2 is stable already"),
    ],
)
def test_a_route_that_cannot_be_is_refused_with_a_sentence(
    stable: str, candidate: str | None, share: int, why: str
) -> None:
    with pytest.raises(BadRoute, match=why):
        FIRST.changed(stable, candidate, share)


def test_what_a_route_tells_makes_the_same_route_again() -> None:
    route = FIRST.changed("2", "3", 2500)
    assert in_force("ranker", SERVED, route.told()) == route


@pytest.mark.parametrize(
    ("text", "share"), [("5%", 500), ("0%", 0), ("100 %", 10_000), ("0.25%", 25), (" 33.33%", 3333)]
)
def test_a_share_is_written_in_percent(text: str, share: int) -> None:
    assert share_of(text) == share


@pytest.mark.parametrize("text", ["5", "", "%", "a%", "101%", "-1%", "5%%", "0.001%", "nan%"])
def test_another_text_is_no_share(text: str) -> None:
    with pytest.raises(BadRoute):
        share_of(text)


def test_the_hash_is_xxh32() -> None:
    """The values are those of the reference implementation."""
    known = {
        b"": 0x02CC5D05,
        b"a": 0x550D7456,
        b"abc": 0x32D153FF,
        b"Nobody inspects the spammish repetition": 0xE2293B2F,
    }
    assert {data: xxh32(data) for data in known} == known


def test_a_share_of_the_keys_goes_to_the_candidate_and_each_key_always_to_the_same_version() -> None:
    route, keys = FIRST.changed("1", "2", 500), [f"user-{number}" for number in range(20_000)]
    counts = Counter(map(route.chosen, keys))
    assert abs(counts["2"] - 1000) < 4 * sqrt(20_000 * 0.05 * 0.95)
    assert [route.chosen(key) for key in keys[:500]] == [route.chosen(key) for key in keys[:500]]


def test_who_has_the_candidate_keeps_it_while_its_share_grows() -> None:
    keys = [f"user-{number}" for number in range(2_000)]
    before: set[str] = set()
    for share in (500, 2500, 5000, 10_000):
        route = FIRST.changed("1", "2", share)
        now = {key for key in keys if route.chosen(key) == "2"}
        assert before <= now
        before = now
    assert before == set(keys)


def test_the_draws_of_two_models_are_independent() -> None:
    keys = [f"user-{number}" for number in range(20_000)]
    both = sum(draw("ranker", key) < 1000 and draw("other", key) < 1000 for key in keys)
    assert abs(both - 200) < 4 * sqrt(200)


def test_only_models_with_several_versions_are_told_to_haproxy() -> None:
    alone = Route("alone", {"1": "alone"}, "1")
    assert lines([alone, FIRST, FIRST.changed("2", "3", 500)]) == [
        "ranker ranker|ranker|0",
        "ranker ranker@2|ranker@3|500",
    ]
