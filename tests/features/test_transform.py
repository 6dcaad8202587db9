"""Tests that a transformation gives exactly the declared features, and that errors name what is wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from serving.features.offline.transform import BadColumn, BadTransformation, features_of, transformation_of
from serving.features.views import Feature, FeatureView

FEATURES = (
    Feature(name="count", datatype="INT64"),
    Feature(name="share", datatype="FP32"),
    Feature(name="odds", datatype="FP64", allow_nan=True),
    Feature(name="country", datatype="BYTES"),
)
GOOD: dict[str, Any] = {
    "count": pa.array([1, None], pa.int64()),
    "share": pa.array([0.5, None], pa.float32()),
    "odds": pa.array([float("nan"), float("inf")]),
    "country": pa.array(["de", None]).dictionary_encode(),
}
RAW = pa.table({"raw": [1, 2]})


def view(transform: str = "") -> FeatureView:
    return FeatureView(name="clicks", entity="user", key="user_id", features=FEATURES, transform=transform)


def made(columns: dict[str, Any]) -> pa.Table:
    return features_of(view(), lambda raw: pa.table(columns), RAW)


def test_features_come_in_the_order_and_with_the_types_of_the_declaration() -> None:
    table = made(dict(reversed(GOOD.items())))
    assert table.schema == pa.schema(
        [("count", pa.int64()), ("share", pa.float32()), ("odds", pa.float64()), ("country", pa.string())]
    )
    assert table["country"].to_pylist() == ["de", None]


def test_a_column_of_nothing_but_nulls_has_any_type() -> None:
    assert made(GOOD | {"count": pa.nulls(2)})["count"].to_pylist() == [None, None]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"count": pa.array([1, 2], pa.int32())}, "count: is of type int32; INT64 is int64"),
        ({"count": pa.array([1.0, 2.0])}, "count: is of type double; INT64 is int64"),
        ({"count": pa.array([True, False])}, "count: is of type bool; INT64 is int64"),
        ({"share": pa.array([0.5, float("nan")], pa.float32())}, "share: is NaN or infinite; .* \\(row 1\\)"),
        ({"share": pa.array([float("-inf"), 1], pa.float32())}, "share: is NaN or infinite; .* \\(row 0\\)"),
        ({"country": pa.array([b"de", None])}, "country: is of type binary; BYTES is string"),
        ({"country": pa.array([None, "ü" * 5001])}, "country: has more than 10,000 bytes \\(row 1\\)"),
        ({"other": pa.array([1, 2])}, "other: is no feature of clicks; its features: count, share, odds, country"),
    ],
)
def test_a_column_that_is_not_as_declared_is_named(changed: dict[str, Any], expected: str) -> None:
    with pytest.raises(BadColumn, match=expected):
        made(GOOD | changed)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(BadColumn, match="odds: is missing"):
        made({name: column for name, column in GOOD.items() if name != "odds"})


def test_a_column_that_is_there_twice_is_named() -> None:
    columns = [*GOOD.values(), GOOD["count"]]
    with pytest.raises(BadColumn, match="count: is there twice"):
        features_of(view(), lambda raw: pa.table(columns, [*GOOD, "count"]), RAW)


def broken(raw: pa.Table) -> pa.Table:
    raise KeyError("amount")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (broken, "failed: KeyError: 'amount'"),
        (lambda raw: raw.to_pylist(), "returned a list; expected a pyarrow.Table"),
        (lambda raw: raw.slice(1), "made 1 rows of 2; expected a row for each"),
    ],
)
def test_a_function_that_makes_no_table_of_the_rows_is_refused(
    function: Callable[[pa.Table], Any], expected: str
) -> None:
    with pytest.raises(BadTransformation, match=expected):
        features_of(view(), function, RAW)


def test_without_a_function_the_raw_columns_are_the_features() -> None:
    raw = pa.table(GOOD | {"user_id": ["a", "b"]})
    assert features_of(view(), transformation_of(view(), None), raw).column_names == list(GOOD)


def test_the_function_is_found_beside_the_settings(tmp_path: Path) -> None:
    (tmp_path / "shop_features.py").write_text("def doubled(raw):\n    return raw\n\nnumber = 3\n")
    found = transformation_of(view("shop_features:doubled"), str(tmp_path))
    assert found(RAW) is RAW


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("no_such_module_of_ours:f", "no_such_module_of_ours:f cannot be imported: ModuleNotFoundError"),
        ("json:no_such", "json:no_such: json has no function 'no_such'"),
        ("math:pi", "math:pi: math has no function 'pi'"),
        ("broken_features:f", "broken_features:f cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_function_that_cannot_be_found_is_named(tmp_path: Path, named: str, expected: str) -> None:
    (tmp_path / "broken_features.py").write_text("1 / 0\n")
    with pytest.raises(BadTransformation, match=expected):
        transformation_of(view(named), str(tmp_path))
