"""Tests that raw rows which are pushed become the features that files of the same rows become, and their mistakes."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from serving.features.offline.pushing import rows_of_raw
from serving.features.rows import BadField, Row
from serving.features.views import Feature, FeatureView

NOW_MS = 1_795_953_600_000
AT = "2026-11-29T12:00:00Z"
FEATURES = (Feature(name="age", datatype="INT64"), Feature(name="country", datatype="BYTES"))
VIEW = FeatureView(name="stats", entity="user", key="user_id", features=FEATURES, transform="shop:stats")


def stats(raw: pa.Table) -> pa.Table:
    assert (raw.schema.field("user_id").type, raw.schema.field("event_ts").type) == (
        pa.string(),
        pa.timestamp("us", "UTC"),
    )
    return pa.table({"age": pc.subtract(2026, raw["born"]), "country": pc.utf8_upper(raw["country"])})


def made(*rows: object) -> list[Row]:
    return rows_of_raw(VIEW, stats, rows, now_ms=NOW_MS)


def row(**columns: object) -> dict[str, object]:
    return {"user_id": 7, "event_ts": AT, "born": 1985, "country": "de"} | columns


def test_features_are_made_of_raw_columns_and_what_is_null_is_left_out() -> None:
    assert made(row(), row(user_id="u8", country=None), row(user_id="u9", born=None)) == [
        Row("7", NOW_MS, {"age": 41, "country": "DE"}),
        Row("u8", NOW_MS, {"age": 41}),
        Row("u9", NOW_MS, {"country": "DE"}),
    ]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (3, "raw[1]: expected an object"),
        ({"user_id": 7}, "raw[1].event_ts: is missing"),
        (row(user_id=""), "raw[1].user_id: the id of an entity is empty"),
        (row(event_ts="soon"), "raw[1].event_ts: expected a time"),
        (row(born="1985"), "raw: the values of born have no common type"),
        (row(born=1 << 70), "raw: the values of born have no common type"),
        (row(country="x" * 10_001), "raw[1]: country: has more than 10,000 bytes"),
    ],
)
def test_a_mistake_names_the_row_and_the_field(wrong: object, text: str) -> None:
    with pytest.raises(BadField) as failed:
        made(row(), wrong)
    assert str(failed.value).startswith(text)


def test_a_function_that_fails_is_named() -> None:
    with pytest.raises(BadField, match=r"^raw: shop:stats failed: KeyError: .*born"):
        rows_of_raw(VIEW, stats, [{"user_id": 7, "event_ts": AT, "country": "de"}], now_ms=NOW_MS)
