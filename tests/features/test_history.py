"""Tests the point-in-time join against trying every row, on generated rows and in cases that are easily got wrong."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.features.offline.answering import key_column
from serving.features.offline.files import Store
from serving.features.offline.history import History, StoreUnreadable, open_database
from serving.features.views import Feature, FeatureView, Missing
from tests.features.offline_store import DAY, NOON, SECOND, Row, stored, tried

VIEW = FeatureView(
    name="clicks",
    entity="user",
    key="asked_at",  # also a name of a column within the join
    features=(
        Feature(name="event", datatype="INT64", ttl_s=10),  # and these too
        Feature(name="label", datatype="BYTES", ttl_s=5, missing=Missing.DEFAULT, default="it's"),
        Feature(name="id", datatype="FP64", ttl_s=3, missing=Missing.LAST_KNOWN, default=-1.5),
        Feature(name="on", datatype="BOOL", ttl_s=10**15, missing=Missing.DEFAULT, default=False),
    ),
)
IDS = st.sampled_from(["u1", "u2", "ü"])
TIMES = st.integers(0, 14).map(lambda second: NOON + second * SECOND) | st.sampled_from([NOON - DAY, NOON + 8 * DAY])
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "event": st.none() | st.integers(-(2**63), 2**63 - 1),
        "label": st.none() | st.text(st.characters(codec="utf-8"), max_size=3),
        "id": st.none() | st.sampled_from([0.1, -0.0, float("inf"), 1e-300]),
        "on": st.none() | st.booleans(),
    },
)
ROWS = st.lists(st.builds(Row, IDS, TIMES, TIMES, VALUES), max_size=8)
LABELS = st.lists(st.tuples(st.none() | IDS, TIMES), max_size=6)


def asked(
    root: Store,
    views: Sequence[FeatureView],
    labels: Sequence[tuple[str | None, int]],
    *,
    by_event_time: bool = False,
    tenant: str = "acme",
) -> list[dict[str, Any]]:
    """Returns the answers for each label, with reasons."""
    with TemporaryDirectory() as spill, open_database("500MB", 1, Path(spill)) as database:
        database.execute("CREATE TABLE labels (label BIGINT, asked_at BIGINT)")
        for key in {key_column(view) for view in views}:
            database.execute(f"ALTER TABLE labels ADD COLUMN {key} VARCHAR")
        for number, (id, at) in enumerate(labels):
            ids = [id] * len({view.key for view in views})
            database.execute(f"INSERT INTO labels VALUES (?, ?{', ?' * len(ids)})", [number, at, *ids])
        history = History(database, by_event_time=by_event_time)
        for view in views:
            history.join(view, root, tenant)
        return history.answers(reasons=True).read_all().to_pylist()


def answered(answer: dict[str, Any], view: FeatureView) -> dict[str, tuple[Any, str | None]]:
    return {
        feature.name: (answer[f"{view.name}__{feature.name}"], answer[f"{view.name}__{feature.name}__reason"])
        for feature in view.features
    }


@settings(max_examples=60, deadline=None)
@given(batches=st.lists(ROWS, max_size=3), labels=LABELS, by_event_time=st.booleans())
def test_history_equals_trying_every_row(batches, labels, by_event_time) -> None:
    with TemporaryDirectory() as folder:
        for number, batch in enumerate(batches):
            stored(Path(folder), VIEW, batch, name=f"{number}")
        answers = asked(Path(folder), [VIEW], labels, by_event_time=by_event_time)
    rows = [row for batch in batches for row in batch]
    expected = [tried(VIEW, rows, id, at, by_event_time=by_event_time) for id, at in labels]
    assert repr([answered(answer, VIEW) for answer in answers]) == repr(expected)


PLAIN = FeatureView(
    name="clicks",
    entity="user",
    key="user_id",
    features=(Feature(name="count", datatype="INT64", ttl_s=100), Feature(name="size", datatype="FP32", ttl_s=100)),
)


def value_at(
    root: Path, second: int, feature: str = "count", *, view: FeatureView = PLAIN, by_event_time: bool = False
) -> Any:
    """Returns the feature of u1 so many seconds after noon, and the reason if there is no valid value."""
    (answer,) = asked(root, [view], [("u1", NOON + second * SECOND)], by_event_time=by_event_time)
    return answered(answer, view)[feature]


def row(event_s: int, created_s: int, **values: Any) -> Row:
    return Row("u1", NOON + event_s * SECOND, NOON + created_s * SECOND, values)


def test_a_value_written_later_is_not_known_before(tmp_path: Path) -> None:
    stored(tmp_path, PLAIN, [row(0, 0, count=1), row(10, 50, count=2)])
    assert value_at(tmp_path, 49) == (1, None)
    assert value_at(tmp_path, 50) == (2, None)
    assert value_at(tmp_path, 49, by_event_time=True) == (2, None)


def test_a_late_value_never_replaces_a_newer_one(tmp_path: Path) -> None:
    stored(tmp_path, PLAIN, [row(0, 30, count=1), row(10, 10, count=2)])
    assert value_at(tmp_path, 40) == (2, None)


def test_of_two_values_of_one_event_time_the_one_written_later_is_the_answer(tmp_path: Path) -> None:
    stored(tmp_path, PLAIN, [row(0, 9, count=2), row(0, 5, count=1)])
    assert value_at(tmp_path, 8) == (1, None)
    assert value_at(tmp_path, 9) == (2, None)


def test_of_two_rows_of_one_batch_and_event_time_the_second_is_the_answer(tmp_path: Path) -> None:
    stored(tmp_path, PLAIN, [row(0, 0, count=1), row(0, 0, count=2)])
    assert value_at(tmp_path, 0) == (2, None)


def test_a_row_without_a_feature_leaves_its_value_as_it_was(tmp_path: Path) -> None:
    stored(tmp_path, PLAIN, [row(0, 0, count=1, size=0.5), row(10, 10, count=2)])
    assert value_at(tmp_path, 20, "size") == (0.5, None)
    assert value_at(tmp_path, 20, "count") == (2, None)
    assert value_at(tmp_path, 100, "size") == (None, "expired")  # its own age decides
    assert value_at(tmp_path, 100, "count") == (2, None)


def test_a_feature_that_is_known_to_be_missing_hides_its_older_value(tmp_path: Path) -> None:
    stored(tmp_path, PLAIN, [row(0, 0, count=1, size=0.5), row(10, 10, count=None)])
    assert value_at(tmp_path, 9) == (1, None)
    assert value_at(tmp_path, 10) == (None, "missing")
    assert value_at(tmp_path, 10, "size") == (0.5, None)


def test_a_value_expires_when_it_is_as_old_as_its_time_to_live(tmp_path: Path) -> None:
    stored(tmp_path, PLAIN, [row(0, 0, count=1)])
    assert value_at(tmp_path, 99) == (1, None)
    assert value_at(tmp_path, 100) == (None, "expired")


def test_values_of_another_version_of_the_view_are_missing_whatever_their_type(tmp_path: Path) -> None:
    before = FeatureView(
        name="clicks", entity="user", key="user_id", version="0", features=(Feature(name="count", datatype="BYTES"),)
    )
    stored(tmp_path, before, [Row("u1", NOON, NOON, {"count": "many"})])
    assert value_at(tmp_path, 1) == (None, "missing")
    stored(tmp_path, PLAIN, [row(0, 0, count=1)])
    assert value_at(tmp_path, 1) == (1, None)
    assert value_at(tmp_path, 1, view=before) == ("many", None)


def test_a_feature_that_older_files_lack_is_missing_in_their_rows(tmp_path: Path) -> None:
    older = FeatureView(name="clicks", entity="user", key="user_id", features=PLAIN.features[:1])
    stored(tmp_path, older, [row(0, 0, count=1)])
    assert value_at(tmp_path, 5, "size") == (None, "missing")
    stored(tmp_path, PLAIN, [row(3, 3, size=0.5)])
    assert value_at(tmp_path, 5, "size") == (0.5, None)
    assert value_at(tmp_path, 5, "count") == (1, None)


def test_the_values_of_another_tenant_are_never_seen(tmp_path: Path) -> None:
    stored(tmp_path, PLAIN, [row(0, 0, count=1)], tenant="globex")
    assert value_at(tmp_path, 5) == (None, "missing")


def test_views_of_several_entities_are_joined_to_the_same_labels(tmp_path: Path) -> None:
    shop = FeatureView(
        name="shop", entity="shop", key="shop_id", features=(Feature(name="count", datatype="INT64", ttl_s=100),)
    )
    stored(tmp_path, PLAIN, [row(0, 0, count=1)])
    stored(tmp_path, shop, [row(0, 0, count=7)])
    answers = asked(tmp_path, [PLAIN, shop], [("u1", NOON), ("u1", NOON), ("u2", NOON)])
    assert [(answer["clicks__count"], answer["shop__count"]) for answer in answers] == [(1, 7), (1, 7), (None, None)]


def test_a_file_of_the_first_schema_is_read(tmp_path: Path) -> None:
    write_by_hand(tmp_path, b"1")
    assert value_at(tmp_path, 5) == (3, None)


@pytest.mark.parametrize("schema", [b"2", b"", b"x"])
def test_a_file_of_a_schema_that_is_not_known_is_refused_by_name(tmp_path: Path, schema: bytes) -> None:
    path = write_by_hand(tmp_path, schema)
    with pytest.raises(StoreUnreadable, match=f"{path}: has the schema version"):
        value_at(tmp_path, 5)


def test_a_file_that_is_cut_short_is_refused_by_name(tmp_path: Path) -> None:
    path = write_by_hand(tmp_path, b"1")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreUnreadable, match=str(path)):
        value_at(tmp_path, 5)


def write_by_hand(root: Path, schema: bytes) -> Path:
    """Writes a file as docs/features-offline.md describes those of the first schema. Returns its path."""
    time = pa.array([NOON], pa.timestamp("us", "UTC"))
    columns = {"entity_id": ["u1"], "count": [3], "event_ts": time, "created_ts": time, "view_version": ["1"]}
    folder = root / "tenant=acme" / "view=clicks" / "date=2023-11-14"
    folder.mkdir(parents=True)
    metadata = {"headway.features.schema": schema, "headway.features.view_version": b"1"}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), folder / "anything.parquet")
    return folder / "anything.parquet"
