"""Tests which rows a feature view takes, and that a mistake is named by its row and field."""

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.features.rows import LONGEST_ID, BadField, Row, rows_of
from serving.features.views import Feature, FeatureView, Missing

VIEW = FeatureView(
    name="user_stats",
    entity="user",
    key="user_id",
    features=(
        Feature(name="age", datatype="INT32"),
        Feature(name="country", datatype="BYTES", missing=Missing.DEFAULT, default="??"),
        Feature(name="spend", datatype="FP32"),
    ),
)
NOW_MS = 1_795_953_600_000  # 2026-11-29T12:00:00Z
GOOD = {"user_id": "u7", "event_ts": "2026-11-29T12:00:00Z", "age": 41}


def row(**changes: object) -> Row:
    (one,) = rows_of(VIEW, [GOOD | changes], now_ms=NOW_MS)
    return one


def test_a_row_is_taken_with_its_time_and_typed_values() -> None:
    assert row(spend=3, country="DE") == Row("u7", NOW_MS, {"age": 41, "spend": 3.0, "country": "DE"})


def test_a_feature_left_out_is_not_in_the_row_and_null_is_known_to_be_missing() -> None:
    assert row(age=None).values == {"age": None}


@pytest.mark.parametrize(
    ("given", "milliseconds"),
    [
        ("2026-11-29T13:00:00+01:00", NOW_MS),
        ("2026-11-29 12:00:00.1239Z", NOW_MS + 123),
        (NOW_MS // 1000, NOW_MS),
        (NOW_MS / 1000 + 0.25, NOW_MS + 250),
        ("2026-11-29T12:01:00Z", NOW_MS + 60_000),
        ("1970-01-01T00:00:00Z", 0),
        (1.001, 1001),  # 1000.9999 if multiplied by a thousand
        ("1970-01-01T00:00:01.0019Z", 1001),
        (1.0019, 1001),
    ],
)
def test_times_are_texts_with_an_offset_or_seconds(given: object, milliseconds: int) -> None:
    assert row(event_ts=given).event_ms == milliseconds


def test_an_id_may_be_a_whole_number() -> None:
    assert row(user_id=17).id == "17"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user_id": None}, r"rows\[0\]\.user_id: is missing"),
        ({"event_ts": None}, r"rows\[0\]\.event_ts: is missing"),
        ({"user_id": ""}, r"rows\[0\]\.user_id: the id of an entity is empty"),
        ({"user_id": 1.5}, r"rows\[0\]\.user_id: expected the id of an entity, a text or a whole number, got 1.5"),
        ({"user_id": True}, r"rows\[0\]\.user_id: expected the id"),
        ({"user_id": "x" * (LONGEST_ID + 1)}, r"rows\[0\]\.user_id: is an id of 513 bytes; at most 512"),
        ({"user_id": "\ud800"}, r"rows\[0\]\.user_id: is no text that UTF-8 can hold"),
        ({"height": 3}, r"rows\[0\]\.height: user_stats has no such feature"),
        ({"age": "41"}, r"rows\[0\]\.age: expected a whole number \(INT32\), got '41'"),
        ({"age": 2**31}, r"rows\[0\]\.age: 2147483648 does not fit into INT32"),
        ({"spend": nan}, r"rows\[0\]\.spend: nan is not allowed"),
        ({"event_ts": "2026-11-29T12:01:00.001Z"}, r"event_ts: .* is more than 60 seconds in the future$"),
        ({"event_ts": NOW_MS}, r"event_ts: .* in the future; numbers are seconds, not milliseconds"),
        ({"event_ts": "2026-11-29T12:00:00"}, "has no offset from UTC; write Z"),
        ({"event_ts": "yesterday"}, "expected a time such as 2026-11-29T12:00:00Z, got 'yesterday'"),
        ({"event_ts": nan}, "nan is no time"),
        ({"event_ts": inf}, "inf is no time"),
        ({"event_ts": 1e308}, r"rows\[0\]\.event_ts: 1e\+308 is no time"),
        ({"event_ts": 10**400}, r"event_ts: 10000.* in the future; numbers are seconds, not milliseconds"),
        ({"event_ts": "9999-12-31T23:59:59Z"}, r"event_ts: .* is more than 60 seconds in the future$"),
        ({"event_ts": -0.0005}, "is before 1970"),
        ({"event_ts": True}, "expected a time"),
        ({"event_ts": "1969-12-31T23:59:59Z"}, "is before 1970"),
    ],
)
def test_a_mistake_names_the_row_and_the_field(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadField, match=message):
        row(**changes)


def test_the_row_is_named_by_its_place_in_the_whole_list() -> None:
    with pytest.raises(BadField, match=r"^lines\[42\]\.age: expected a whole number"):
        rows_of(VIEW, [GOOD, GOOD, GOOD | {"age": 1.5}], now_ms=NOW_MS, path="lines", first=40)


@pytest.mark.parametrize("bad", [None, [], "x", {"user_id": "u7", "event_ts": 0}])
def test_what_is_no_row_or_holds_no_feature_is_refused(bad: object) -> None:
    with pytest.raises(BadField, match=r"rows\[0\]: (expected an object|holds no feature of user_stats)"):
        rows_of(VIEW, [bad], now_ms=NOW_MS)


@given(
    st.dictionaries(
        st.sampled_from(["user_id", "event_ts", "age", "country", "spend"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    )
)
def test_whatever_a_row_holds_it_is_taken_or_refused_by_name(given: dict[str, object]) -> None:
    refused = ""
    try:
        rows_of(VIEW, [given], now_ms=NOW_MS)
    except BadField as error:
        refused = str(error)
    assert not refused or refused.startswith("rows[0]")
