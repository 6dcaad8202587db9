"""Tests training sets: labels keep their columns and places, whatever the time's type, and mistakes are named."""

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.features.offline.history import Found
from serving.features.offline.layout import view_folder
from serving.features.offline.training import BATCH_ROWS, BadLabels, Limits, Made, make_training_set
from serving.features.views import Feature, FeatureView, Missing
from tests.features.offline_store import DAY, NOON, SECOND, Row, stored, tried

VIEW = FeatureView(
    name="clicks",
    entity="user",
    key="user_id",
    features=(
        Feature(name="count", datatype="INT64", ttl_s=3600),
        Feature(name="share", datatype="FP32", ttl_s=3600, missing=Missing.DEFAULT, default=0.5),
    ),
)
BERLIN = ZoneInfo("Europe/Berlin")


def made(folder: Path, labels: pa.Table, **options: Any) -> tuple[Made, pa.Table]:
    """Returns the report and the training set."""
    view_folder(folder / "store", "acme", "clicks").mkdir(parents=True, exist_ok=True)
    pq.write_table(labels, folder / "labels.parquet", row_group_size=1000)
    given: dict[str, Any] = {
        "store": folder / "store",
        "tenant": "acme",
        "limits": Limits("500MB", 1, folder),
        "time_column": "at",
    }
    report = make_training_set(folder / "labels.parquet", [VIEW], folder / "out.parquet", **given | options)
    return report, pq.read_table(folder / "out.parquet")


def times(*micros: int, unit: str = "us", zone: str | None = "UTC") -> pa.Array:
    return pa.array(micros, pa.int64()).cast(pa.timestamp("us")).cast(pa.timestamp(unit)).cast(pa.timestamp(unit, zone))


def test_labels_keep_their_columns_types_metadata_and_order(tmp_path: Path) -> None:
    stored(tmp_path / "store", VIEW, [Row("u1", NOON, NOON, {"count": 3, "share": 0.25})])
    labels = pa.table(
        {
            "user_id": pa.array(["u2", "u1", "u1", None]).dictionary_encode(),
            "at": times(NOON, NOON, NOON - 1, NOON, unit="ns", zone="Europe/Berlin"),
            "nested": pa.array([{"a": [1]}, None, {"a": []}, {"a": None}]),
            "weight": pa.array([1, 2, 3, 4], pa.uint16()),
        }
    ).replace_schema_metadata({"owner": "them"})
    report, table = made(tmp_path, labels)
    assert table.select(labels.column_names).equals(labels)
    assert table.schema.metadata[b"owner"] == b"them"
    assert table.schema.field("clicks__count").type == pa.int64()
    assert table.schema.field("clicks__share").type == pa.float32()
    assert table["clicks__count"].to_pylist() == [None, 3, None, None]
    assert table["clicks__share"].to_pylist() == [0.5, 0.25, 0.5, 0.5]
    assert report == Made(4, {"clicks": dict.fromkeys(("count", "share"), Found(valid=1, expired=0, missing=3))})


def test_labels_of_several_batches_stay_beside_their_features(tmp_path: Path) -> None:
    stored(tmp_path / "store", VIEW, [Row(str(index), NOON, NOON, {"count": index}) for index in range(1000)])
    ids = [index * 7919 % 1000 for index in range(BATCH_ROWS * 2 + 1)]
    report, table = made(tmp_path, pa.table({"user_id": ids, "at": times(*[NOON] * len(ids))}))
    assert table["clicks__count"].to_pylist() == ids == table["user_id"].to_pylist()
    assert report.labels == len(ids)


def test_no_labels_make_an_empty_training_set(tmp_path: Path) -> None:
    report, table = made(tmp_path, pa.table({"user_id": pa.array([], pa.string()), "at": times()}))
    assert table.column_names == ["user_id", "at", "clicks__count", "clicks__share"]
    assert report.labels == table.num_rows == 0


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin", "+05:30"])
def test_a_time_is_an_instant_whatever_its_unit_and_zone_and_utc_without_one(
    tmp_path: Path, unit: str, zone: str | None
) -> None:
    event = NOON - SECOND
    stored(tmp_path / "store", VIEW, [Row("u1", event, event, {"count": 3}), Row("u1", NOON, NOON, {"count": 4})])
    at = times(event - SECOND, event, NOON, unit=unit, zone=zone)
    _, table = made(tmp_path, pa.table({"user_id": ["u1"] * 3, "at": at}))
    assert table["clicks__count"].to_pylist() == [None, 3, 4]


def test_the_hour_that_a_clock_shows_twice_is_two_hours(tmp_path: Path) -> None:
    first, second = (datetime(2024, 10, 27, 2, 30, fold=fold, tzinfo=BERLIN) for fold in (0, 1))
    micros = int(second.timestamp()) * SECOND
    stored(tmp_path / "store", VIEW, [Row("u1", micros, micros, {"count": 3})])
    at = pa.array([first.astimezone(UTC), second.astimezone(UTC)], pa.timestamp("us", "Europe/Berlin"))
    _, table = made(tmp_path, pa.table({"user_id": ["u1", "u1"], "at": at}))
    assert table["clicks__count"].to_pylist() == [None, 3]


def test_a_value_is_valid_for_its_seconds_on_the_day_that_has_23_hours(tmp_path: Path) -> None:
    event = datetime(2024, 3, 31, 1, 59, 59, tzinfo=BERLIN)  # an hour of the clock later it is 3:59:59, two later
    micros = int(event.timestamp()) * SECOND
    stored(tmp_path / "store", VIEW, [Row("u1", micros, micros, {"count": 3})])
    at = [event.astimezone(UTC) + timedelta(seconds=seconds) for seconds in (3599, 3600)]
    _, table = made(
        tmp_path, pa.table({"user_id": ["u1"] * 2, "at": pa.array(at, pa.timestamp("us", "Europe/Berlin"))})
    )
    assert table["clicks__count"].to_pylist() == [3, None]


SPRING, AUTUMN = (int(datetime(2024, *day, 1, tzinfo=UTC).timestamp()) * SECOND for day in ((3, 31), (10, 27)))
AROUND = st.tuples(st.sampled_from([SPRING, AUTUMN]), st.integers(-8, 8)).map(lambda at: at[0] + at[1] * 900 * SECOND)
ROWS = st.lists(
    st.builds(
        Row,
        st.sampled_from(["u1", "u2"]),
        AROUND,
        AROUND,
        st.fixed_dictionaries({}, optional={"count": st.integers(0, 9), "share": st.sampled_from([0.25, 0.75])}),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(
    rows=ROWS,
    labels=st.lists(st.tuples(st.sampled_from(["u1", "u2", "u3"]), AROUND), max_size=8),
    unit=st.sampled_from(["s", "ms", "us", "ns"]),
    zone=st.sampled_from([None, "UTC", "Europe/Berlin", "America/New_York", "+05:30"]),
    by_event_time=st.booleans(),
)
def test_labels_around_the_change_of_clocks_equal_trying_every_row(rows, labels, unit, zone, by_event_time) -> None:
    with TemporaryDirectory() as folder:
        stored(Path(folder) / "store", VIEW, rows)
        at = times(*(at for _, at in labels), unit=unit, zone=zone)
        table = pa.table({"user_id": pa.array([id for id, _ in labels], pa.string()), "at": at})
        _, table = made(Path(folder), table, by_event_time=by_event_time, reasons=True)
    expected = [tried(VIEW, rows, id, at, by_event_time=by_event_time) for id, at in labels]
    for feature in ("count", "share"):
        columns = (table[f"clicks__{feature}"].to_pylist(), table[f"clicks__{feature}__reason"].to_pylist())
        assert list(zip(*columns, strict=True)) == [answer[feature] for answer in expected]


def test_a_date_is_its_midnight_in_utc(tmp_path: Path) -> None:
    midnight = NOON // DAY * DAY
    stored(tmp_path / "store", VIEW, [Row("u1", midnight, midnight, {"count": 3})])
    _, table = made(tmp_path, pa.table({"user_id": ["u1"], "at": [date(2023, 11, 14)]}))
    assert table["clicks__count"].to_pylist() == [3]


def test_an_event_a_nanosecond_after_the_label_is_not_known(tmp_path: Path) -> None:
    stored(tmp_path / "store", VIEW, [Row("u1", NOON, NOON, {"count": 3})])
    at = pa.array([NOON * 1000 - 1, NOON * 1000], pa.timestamp("ns"))
    _, table = made(tmp_path, pa.table({"user_id": ["u1"] * 2, "at": at}))
    assert table["clicks__count"].to_pylist() == [None, 3]


def test_reasons_stand_beside_their_features_if_asked_for(tmp_path: Path) -> None:
    stored(tmp_path / "store", VIEW, [Row("u1", NOON, NOON, {"count": 3})])
    labels = pa.table({"user_id": ["u1"] * 3, "at": times(NOON - 1, NOON, NOON + DAY)})
    _, table = made(tmp_path, labels, reasons=True)
    assert table.column_names[2:4] == ["clicks__count", "clicks__count__reason"]
    assert table["clicks__count__reason"].to_pylist() == ["missing", None, "expired"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.table({"at": times(1)}), "the column 'user_id' is missing; columns: at"),
        (pa.table({"user_id": ["a"]}), "the column 'at' is missing; columns: user_id"),
        (pa.table([["a"], ["b"], times(1)], ["user_id", "user_id", "at"]), "the column 'user_id' is there twice"),
        (pa.table({"user_id": ["a"], "at": ["2024"]}), "at: is of type string; expected a timestamp"),
        (pa.table({"user_id": ["a", "a"], "at": pa.array([1, None], pa.timestamp("s"))}), "at: is null in row 1"),
        (pa.table({"user_id": [1.5], "at": times(1)}), "user_id: is of type double; an id is a text or a whole number"),
        (pa.table({"user_id": ["a"], "at": pa.array([10**15], pa.timestamp("s"))}), "beyond the years 1 to 9999"),
        (pa.table({"user_id": ["a"], "at": pa.array([10**12], pa.timestamp("s"))}), "beyond the years 1 to 9999"),
        (pa.table({"user_id": ["a"], "at": times(1), "clicks__count": [1]}), "two columns would have the name"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_by_file_and_column(
    tmp_path: Path, labels: pa.Table, expected: str
) -> None:
    with pytest.raises(BadLabels) as caught:
        made(tmp_path, labels)
    assert str(tmp_path / "labels.parquet") in str(caught.value)
    assert expected in str(caught.value)
    assert not (tmp_path / "out.parquet").exists()


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    view_folder(tmp_path, "acme", "clicks").mkdir(parents=True)
    (tmp_path / "labels.csv").write_text("user_id,at\n")
    with pytest.raises(BadLabels, match=r"labels.csv: is no Parquet file"):
        make_training_set(
            tmp_path / "labels.csv",
            [VIEW],
            tmp_path / "out.parquet",
            store=tmp_path,
            tenant="acme",
            limits=Limits("500MB", 1, tmp_path),
            time_column="at",
        )


def test_nothing_is_left_of_a_training_set_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    labels = pa.table({"user_id": ["u1"], "at": times(NOON)})
    made(tmp_path, labels)
    (tmp_path / "out.parquet").unlink()
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        made(tmp_path, labels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.parquet", "store"]
