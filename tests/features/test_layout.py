"""Tests the files of the offline store: where they are, that they appear whole, and that those of before are read."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serving.features.offline import layout
from serving.features.offline.files import Store
from serving.features.views import Feature, FeatureView
from tests.features.faults import Killed, failing_at
from tests.features.offline_store import DAY, KINDS, NOON, Row, stored

VIEW = FeatureView(name="clicks", entity="user", key="user_id", features=(Feature(name="count", datatype="INT64"),))
ROWS = [Row(f"u{index}", NOON + index % 3 * DAY, NOON + 3 * DAY, {"count": index}) for index in range(10)]


def counts(root: Store) -> list[int]:
    """Returns the values of all rows that a reader finds."""
    return [
        count for path in layout.files(root, "acme", "clicks") for count in pq.read_table(path)["count"].to_pylist()
    ]


def calls_of_an_append(root: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        made = failing_at(patch, 1 << 30, Killed())
        stored(root, VIEW, ROWS, name="batch")
        return made()


def test_rows_are_in_a_folder_for_each_day_of_their_events_in_utc(tmp_path: Path) -> None:
    last_of_day = -1  # a microsecond before 1970
    stored(tmp_path, VIEW, [Row("a", 0, 0, {}), Row("b", last_of_day, 0, {}), Row("c", DAY - 1, 0, {})], name="n")
    folder = tmp_path / "tenant=acme" / "view=clicks"
    assert layout.files(tmp_path, "acme", "clicks") == [
        folder / "date=1969-12-31" / "n.parquet",
        folder / "date=1970-01-01" / "n.parquet",
    ]
    assert pq.ParquetFile(folder / "date=1970-01-01" / "n.parquet").read()["entity_id"].to_pylist() == ["a", "c"]


def test_only_files_of_the_days_that_are_asked_for_are_named(tmp_path: Path) -> None:
    stored(tmp_path, VIEW, [Row("a", day * DAY, 0, {}) for day in range(5)])
    found = layout.files(tmp_path, "acme", "clicks", date(1970, 1, 2), date(1970, 1, 3))
    assert [path.parent.name for path in found] == ["date=1970-01-02", "date=1970-01-03"]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/../../b", "a%2F..", "/etc", "*", "view=x", "a\nb", "ü"])
def test_no_name_leaves_its_folder_or_shares_one(tmp_path: Path, name: str) -> None:
    others = {"a", "a/..", "a%2F..", "tenant=", "%", "%25"} - {name}
    folders = {layout.view_folder(tmp_path, other, other) for other in others}
    folder = layout.view_folder(tmp_path, name, name)
    assert folder not in folders
    assert folder.resolve().parent.parent == tmp_path.resolve()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_a_name_is_added_once(tmp_path: Path, kind: str) -> None:
    store = KINDS[kind](tmp_path)
    assert stored(store, VIEW, ROWS, name="batch") == len(ROWS)
    assert stored(store, VIEW, ROWS, name="batch") == 0
    assert stored(store, VIEW, ROWS) == len(ROWS)
    assert len(counts(store)) == 2 * len(ROWS)


def test_a_writer_killed_at_any_call_leaves_whole_files_and_a_second_run_adds_the_others(tmp_path: Path) -> None:
    for number in range(calls_of_an_append(tmp_path / "whole")):
        root = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patch:
            failing_at(patch, number, Killed())
            with pytest.raises(Killed):
                stored(root, VIEW, ROWS, name="batch")
        seen = counts(root)
        assert all(set(range(count % 3, 10, 3)) <= set(seen) for count in seen)  # a day is there whole or not at all
        stored(root, VIEW, ROWS, name="batch")
        assert sorted(counts(root)) == list(range(10))


def test_a_file_says_its_schema_and_the_version_of_its_view(tmp_path: Path) -> None:
    stored(tmp_path, VIEW, ROWS)
    schema = pq.read_schema(layout.files(tmp_path, "acme", "clicks")[0])
    assert schema.metadata[b"headway.features.schema"] == b"1"
    assert schema.metadata[b"headway.features.view_version"] == b"1"
    assert schema == pa.schema(
        [
            ("entity_id", pa.string()),
            ("count", pa.int64()),
            ("cleared", pa.list_(pa.string())),
            ("event_ts", pa.timestamp("us", "UTC")),
            ("created_ts", pa.timestamp("us", "UTC")),
            ("view_version", pa.string()),
        ]
    )


@pytest.mark.parametrize("name", layout.COLUMNS)
def test_a_feature_cannot_be_called_as_a_column_of_every_file(name: str) -> None:
    view = FeatureView(name="clicks", entity="user", key="id", features=(Feature(name=name, datatype="INT64"),))
    with pytest.raises(ValueError, match=f"clicks: '{name}' is a column of every file"):
        layout.schema_of(view)
