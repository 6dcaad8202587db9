"""Tests the answer for a feature: value, default, last known value or refusal, each with its reason and age."""

from typing import NamedTuple

import pytest

from serving.features.reading import Found, Reason, Selection, Stored, keep_ms
from serving.features.views import Feature, FeatureView, Missing

NOW_MS = 1_000_000_000
DAY_MS = 86_400_000


class Answer(NamedTuple):
    value: object
    reason: Reason
    age_ms: int | None


def feature(missing: Missing = Missing.REJECT, datatype: str = "INT64") -> Feature:
    default = None if missing is Missing.REJECT else -1
    return Feature(name="age", datatype=datatype, ttl_s=60, missing=missing, default=default)


def answered(found: Found, missing: Missing = Missing.REJECT, datatype: str = "INT64") -> Answer:
    made = feature(missing, datatype)
    view = FeatureView(name="v", entity="user", key="id", version="2", features=(made,))
    told = Selection(view, [made]).answers([found], NOW_MS)
    return Answer(told.values[0], told.reasons[0], told.ages_ms()[0])


def stored(value: object = 41, age_ms: int = 0, version: str = "2") -> Stored:
    return Stored(NOW_MS - age_ms, version, value)


@pytest.mark.parametrize("missing", list(Missing))
def test_a_valid_value_is_answered_whatever_the_policy(missing: Missing) -> None:
    assert answered(stored(age_ms=59_999), missing) == Answer(41, Reason.PRESENT, 59_999)


@pytest.mark.parametrize(
    ("found", "reason", "age_ms"),
    [
        (Reason.MISSING, Reason.MISSING, None),
        (Reason.UNAVAILABLE, Reason.UNAVAILABLE, None),
        (Reason.UNREADABLE, Reason.UNREADABLE, None),
        (stored(None, 5), Reason.MISSING, 5),
        (stored(version="1"), Reason.OTHER_VERSION, 0),
        (stored("41"), Reason.UNREADABLE, 0),
        (stored(True), Reason.UNREADABLE, 0),
        (stored(age_ms=60_000), Reason.EXPIRED, 60_000),
    ],
)
def test_without_a_valid_value_the_policy_answers(found: Found, reason: Reason, age_ms: int | None) -> None:
    assert answered(found, Missing.REJECT) == Answer(None, reason, age_ms)
    assert answered(found, Missing.DEFAULT) == Answer(-1, reason, age_ms)
    last = 41 if reason is Reason.EXPIRED else -1
    assert answered(found, Missing.LAST_KNOWN) == Answer(last, reason, age_ms)


def test_an_event_of_a_clock_that_is_ahead_is_not_older_than_now() -> None:
    assert answered(stored(age_ms=-500)) == Answer(41, Reason.PRESENT, 0)


def test_values_that_may_be_answered_late_are_kept_a_week_longer() -> None:
    assert [keep_ms(feature(missing)) for missing in Missing] == [60_000, 60_000, 60_000 + 7 * DAY_MS]


def test_features_have_their_answers_in_their_order_whether_all_are_valid_or_not() -> None:
    made = [feature(), Feature(name="plan", datatype="BYTES", ttl_s=5, missing=Missing.DEFAULT, default="?")]
    asked = Selection(FeatureView(name="v", entity="user", key="id", version="2", features=tuple(made)), made)
    known, text, old = stored(1, 3), stored("free", 4_999), stored("free", 5_000)
    assert asked.names == ("age", "plan")
    assert asked.answers([known, text], NOW_MS)[:2] == ([1, "free"], (Reason.PRESENT, Reason.PRESENT))
    told = asked.answers([known, old], NOW_MS)
    assert (told.values, told.reasons, told.ages_ms()) == ([1, "?"], [Reason.PRESENT, Reason.EXPIRED], [3, 5_000])
