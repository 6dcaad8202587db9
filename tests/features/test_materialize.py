"""Tests materializing: what is stored and online afterwards, that a second run changes nothing, and mistakes."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.breaker import Breaker
from serving.core.clock import SystemClock
from serving.features.offline import layout, materialize
from serving.features.offline.materialize import BadSource, Done, Raw, files_of, stored_batches
from serving.features.offline.transform import transformation_of
from serving.features.reading import Reason, Stored
from serving.features.rows import Row
from serving.features.views import Feature, FeatureView, Missing
from serving.operate.online_values import OnlineValues
from serving.store.features import Wanted
from serving.store.guard import Guard
from serving.testing.clock import ManualClock
from serving.testing.features import MemoryFeatureStore
from tests.features.offline_store import DAY, NOON, SECOND

NOW = NOON + DAY
VIEW = FeatureView(
    name="clicks",
    entity="user",
    key="user_id",
    features=(
        Feature(name="count", datatype="INT64", ttl_s=2 * 86400),
        Feature(name="share", datatype="FP32", ttl_s=3600),
        Feature(name="last", datatype="FP32", ttl_s=3600, missing=Missing.LAST_KNOWN, default=0.0),
    ),
)


def times(*micros: int | None) -> pa.Array:
    return pa.array(micros, pa.timestamp("us"))


def guard() -> Guard:
    return Guard(Breaker(Random(1).random), SystemClock(), limit_s=10.0)


class Place:
    """An offline and an online store, and a clock that both follow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock(NOW * 1000)
        self.online = MemoryFeatureStore(self.clock)

    def source(self, name: str = "raw.parquet", **changed: Any) -> Path:
        """Writes a raw file. changed: columns by name; None leaves one out."""
        columns: dict[str, Any] = {
            "user_id": ["u1", "u2", "u1"],
            "event_ts": times(*[NOON, NOON + SECOND, NOON + 2 * SECOND]),
            "count": [1, 2, 3],
            "share": pa.array([0.5, None, None], pa.float32()),
            "last": pa.array([0.25, None, None], pa.float32()),
        }
        columns = {column: values for column, values in (columns | changed).items() if values is not None}
        pq.write_table(pa.table(columns), self.folder / name)
        return self.folder / name

    def run(self, *files: Path, view: FeatureView = VIEW, created: str = "", **options: Any) -> Done:
        batches = stored_batches(
            files,
            view,
            "acme",
            store=self.folder / "store",
            transformation=transformation_of(view, str(self.folder)),
            raw=Raw(created=created),
            calendar=self.clock,
        )
        given: dict[str, Any] = {
            "online": OnlineValues(self.online, guard()),
            "calendar": self.clock,
            "progress": lambda path, done: None,
        }
        return asyncio.run(materialize.materialize(batches, view, "acme", **given | options))

    def stored(self) -> list[dict[str, Any]]:
        """Returns the rows in the offline store."""
        paths = layout.files(self.folder / "store", "acme", "clicks")
        return [row for path in paths for row in pq.ParquetFile(path).read().to_pylist()]

    def value(self, id: str, feature: str) -> Any:
        """Returns what is online."""
        ((found,),) = asyncio.run(self.online.read([Wanted("acme", "user", id, (feature,))]))
        return found.value if isinstance(found, Stored) else found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_rows_are_stored_with_the_time_of_the_run_and_the_latest_values_are_online(place: Place) -> None:
    assert place.run(place.source()) == Done(rows=3, added=3, online=3)
    rows = place.stored()
    assert [(row["entity_id"], row["count"], row["share"]) for row in rows] == [
        ("u1", 1, 0.5),
        ("u2", 2, None),
        ("u1", 3, None),
    ]
    assert {int(row["created_ts"].timestamp()) for row in rows} == {NOW // SECOND}
    assert (place.value("u1", "count"), place.value("u2", "count")) == (3, 2)


def test_a_value_that_has_expired_is_not_put_online_unless_it_is_still_answered(place: Place) -> None:
    place.run(place.source())
    assert place.value("u1", "share") is Reason.MISSING
    assert place.value("u1", "last") == 0.25


def test_a_second_run_stores_nothing_and_keeps_the_time_of_the_first(place: Place) -> None:
    place.run(place.source())
    before = place.stored()
    place.clock.advance(10**12)
    assert place.run(place.source()) == Done(rows=3, added=0, online=3)
    assert place.stored() == before


def test_equal_rows_in_another_file_with_other_types_of_text_are_stored_once(place: Place) -> None:
    place.run(place.source())
    users = pa.array(["u1", "u2", "u1"], pa.large_string())
    other = place.source("other.parquet", user_id=users, unused=[1, 2, 3])
    assert place.run(other).added == 0


def test_rows_that_differ_in_one_value_or_null_are_stored(place: Place) -> None:
    place.run(place.source())
    shares = pa.array([None, 0.5, None], pa.float32())  # the same values in other rows
    assert place.run(place.source(share=shares)).added == 3
    assert place.run(place.source(count=[1, 2, 4])).added == 3


def test_a_run_that_was_ended_is_completed_by_the_next(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BATCH_ROWS", "PORTION_ROWS"):
        monkeypatch.setattr(materialize, name, 1)
    source = place.source()

    class Ended(Exception):
        """Raised in place of a write online."""

    class Ending(OnlineValues):
        """Writes the values of two batches."""

        writes = 0

        async def write(self, tenant: str, view: FeatureView, rows: Sequence[Row]) -> int:
            self.writes += 1
            if self.writes == 3:
                raise Ended
            return await super().write(tenant, view, rows)

    with pytest.raises(Ended):
        place.run(source, online=Ending(place.online, guard()))
    assert place.value("u1", "count") == 1
    assert place.run(source).added == 0  # the third batch had been stored, and was not yet online
    assert place.value("u1", "count") == 3
    assert len(place.stored()) == 3


def test_a_newer_value_online_stays(place: Place) -> None:
    place.run(place.source())
    older = place.source("older.parquet", event_ts=times(*[NOON - SECOND] * 3))
    assert place.run(older).online == 0
    assert place.value("u1", "count") == 3


def test_of_equal_event_times_the_later_row_is_online(place: Place) -> None:
    place.run(place.source(event_ts=times(*[NOON] * 3)))
    assert place.value("u1", "count") == 3


def test_times_are_kept_in_whole_milliseconds_and_never_earlier_than_they_were(place: Place) -> None:
    events = pa.array([NOON * 1000 + nanos for nanos in (0, 1_000, 1_000_000)], pa.timestamp("ns", "Asia/Tokyo"))
    place.run(place.source(event_ts=events))
    times = [row["event_ts"].timestamp() * 1000 - NOON / 1000 for row in place.stored()]
    assert times == [0, 1, 1]


def test_a_column_may_say_since_when_rows_were_known(place: Place) -> None:
    place.run(place.source(known=times(*[NOON + 7 * SECOND] * 3)), created="known")
    assert {int(row["created_ts"].timestamp()) for row in place.stored()} == {NOON // SECOND + 7}
    assert place.run(place.source(known=times(*[NOON + 8 * SECOND] * 3)), created="known").added == 3


def test_a_transformation_makes_the_features(place: Place) -> None:
    (place.folder / "made_of_raw.py").write_text(
        "import pyarrow as pa, pyarrow.compute as pc\n"
        "def made(raw):\n"
        "    part = raw['share']\n"
        "    return pa.table({'count': pc.add(raw['amount'], 1), 'share': part, 'last': part})\n"
    )
    view = FeatureView(
        name="clicks", entity="user", key="user_id", features=VIEW.features, transform="made_of_raw:made"
    )
    place.run(place.source(count=None, last=None, amount=[10, 20, 30]), view=view)
    assert [row["count"] for row in place.stored()] == [11, 21, 31]


def test_without_an_online_store_only_files_are_written(place: Place) -> None:
    assert place.run(place.source(), online=None) == Done(rows=3, added=3, online=0)


def test_rows_are_read_in_batches_and_progress_is_told_after_some(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialize, "BATCH_ROWS", 1)
    monkeypatch.setattr(materialize, "PORTION_ROWS", 2)
    told: list[int] = []
    place.run(place.source(), progress=lambda path, done: told.append(done.rows))
    assert told == [2, 3]
    assert (place.value("u1", "count"), place.value("u2", "count")) == (3, 2)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"user_id": ["u1", "u2", None]}, "user_id: is null; a row needs the id of an entity (row 2)"),
        ({"user_id": ["u1", "", "u2"]}, "user_id: is empty; a row needs the id of an entity (row 1)"),
        ({"user_id": ["u1", "u2", "ü" * 257]}, "user_id: is an id of more than 512 bytes (row 2)"),
        ({"user_id": [1.0, 2.0, 3.0]}, "user_id: is of type double; an id is a text or a whole number"),
        ({"user_id": None}, "the column 'user_id' is missing; columns: event_ts, count, share, last"),
        ({"event_ts": None}, "the column 'event_ts' is missing"),
        ({"event_ts": ["x"] * 3}, "event_ts: is of type string; expected a timestamp"),
        (
            {"event_ts": times(*[NOON, None, NOON])},
            "event_ts: is null; a row needs a time (row 1)",
        ),
        ({"event_ts": times(*[NOON, NOON, -1])}, "event_ts: is before 1970 (row 2)"),
        (
            {"event_ts": times(*[NOON, NOON, NOW + 61 * SECOND])},
            "event_ts: is more than 60 seconds in the future (row 2)",
        ),
        ({"count": [1.0, 2.0, 3.0]}, "count: is of type double; INT64 is int64"),
        ({"count": None}, "count: is missing"),
        (
            {"share": pa.array([1, float("nan"), 1], pa.float32())},
            "share: is NaN or infinite; `allow_nan: true` allows it (row 1)",
        ),
    ],
)
@pytest.mark.parametrize("batch_rows", [1, 1000])
def test_a_mistake_is_named_by_file_column_and_row_of_the_file(
    place: Place, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], expected: str, batch_rows: int
) -> None:
    monkeypatch.setattr(materialize, "BATCH_ROWS", batch_rows)
    source = place.source(**changed)
    with pytest.raises(BadSource) as caught:
        place.run(source)
    assert str(caught.value).startswith(f"{source}: {expected}")


def test_nothing_of_a_batch_with_a_mistake_is_written(place: Place) -> None:
    with pytest.raises(BadSource):
        place.run(place.source(user_id=["u1", "u2", None]))
    assert not place.stored()
    assert place.value("u1", "count") is Reason.MISSING


def test_the_batches_before_a_mistake_are_stored_and_online(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materialize, "BATCH_ROWS", 1)
    with pytest.raises(BadSource, match=r"user_id: is null; .* \(row 2\)"):
        place.run(place.source(user_id=["u1", "u2", None]))
    assert [row["entity_id"] for row in place.stored()] == ["u1", "u2"]
    assert (place.value("u1", "count"), place.value("u2", "count")) == (1, 2)


def test_a_file_that_is_no_parquet_is_named(place: Place) -> None:
    (place.folder / "raw.parquet").write_text("user_id\n")
    with pytest.raises(BadSource, match=r"raw.parquet: is no Parquet file"):
        place.run(place.folder / "raw.parquet")


def test_a_file_that_is_damaged_inside_is_named(place: Place) -> None:
    source = place.source()
    whole = source.read_bytes()
    source.write_bytes(whole[:4] + b"\xff" * 200 + whole[204:])
    with pytest.raises(BadSource, match=r"raw.parquet: "):
        place.run(source)


def test_a_source_is_a_file_a_folder_or_a_pattern(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", "deep/c.parquet", "deep/_temporary/d.parquet", ".e.parquet", "f.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    named = {
        source: [os.path.relpath(path, tmp_path) for path in files_of(str(tmp_path / source))]
        for source in ("", "b.parquet", "*.parquet", "**/c.parquet")
    }
    assert named == {
        "": ["a.parquet", "b.parquet", "deep/c.parquet"],
        "b.parquet": ["b.parquet"],
        "*.parquet": ["a.parquet", "b.parquet"],
        "**/c.parquet": ["deep/c.parquet"],
    }
    with pytest.raises(BadSource, match="there is no Parquet file"):
        files_of(str(tmp_path / "none*"))
