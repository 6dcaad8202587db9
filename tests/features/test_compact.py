"""Tests that merging the files of the offline store changes no answer, also if it is ended at any call."""

import random
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from serving.features.offline import compact as compacting
from serving.features.offline import layout
from serving.features.offline.compact import Compacted, compact
from serving.features.offline.files import Store
from serving.features.views import Feature, FeatureView
from tests.features.faults import Killed, failing_at
from tests.features.offline_store import DAY, KINDS, NOON, SECOND, Row, in_memory, stored, tried
from tests.features.test_history import answered, asked

FEATURES = (Feature(name="count", datatype="INT64"), Feature(name="plan", datatype="BYTES"))
VIEW = FeatureView(name="clicks", entity="user", key="user_id", features=FEATURES)
LATER = FeatureView(name="clicks", entity="user", key="user_id", features=FEATURES[:1], version="1")
IDS = ("a", "b", "c")


def drawn(seed: int, files: int = 12) -> list[list[Row]]:
    """Returns the rows of files: few entities and few times, so that many are equal in both."""
    dice = random.Random(seed)

    def row() -> Row:
        event = NOON + dice.randrange(3) * SECOND + dice.randrange(2) * DAY
        values = {"count": dice.choice([None, dice.randrange(9)])} | ({"plan": "x"} if dice.random() < 0.5 else {})
        return Row(dice.choice(IDS), event, NOON + 2 * DAY + dice.randrange(2), values)

    return [[row() for _ in range(dice.randrange(1, 9))] for _ in range(files)]


def written(root: Store, batches: list[list[Row]]) -> list[Row]:
    for number, rows in enumerate(batches):
        stored(root, VIEW, rows, name=f"{number:02}")
    return [row for rows in batches for row in rows]


def answers(root: Store) -> list[object]:
    at = [(id, NOON + 2 * DAY + later) for id in IDS for later in (-1, 0, 1, SECOND)]
    return [answered(answer, VIEW) for answer in asked(root, [VIEW], at)]


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return KINDS[request.param](tmp_path)


@pytest.mark.parametrize(("kind", "seed"), [*(("folder", seed) for seed in range(4)), ("bucket", 0)])
def test_no_answer_changes_whatever_times_are_equal(tmp_path: Path, kind: str, seed: int) -> None:
    store = KINDS[kind](tmp_path)
    rows = written(store, drawn(seed))
    before = answers(store)
    at = [(id, NOON + 2 * DAY + later) for id in IDS for later in (-1, 0, 1, SECOND)]
    assert repr(before) == repr([tried(VIEW, rows, id, when) for id, when in at])
    files = len(layout.files(store, "acme", "clicks"))
    done = compact(store, "acme", "clicks")
    assert (done.before, done.after) == (files, 2)
    assert answers(store) == before
    assert compact(store, "acme", "clicks") == Compacted(2, 2, 0)


def test_what_is_merged_is_not_stored_again(store: Store) -> None:
    batches = drawn(7, 3)
    written(store, batches)
    compact(store, "acme", "clicks")
    stored(store, VIEW, [Row("z", NOON, NOON, {"count": 1})], name="new")
    compact(store, "acme", "clicks")
    assert [stored(store, VIEW, rows, name=f"{number:02}") for number, rows in enumerate(batches)] == [0, 0, 0]


def test_files_with_other_columns_and_large_ones_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, view in (("1", VIEW), ("2", VIEW), ("3", LATER), ("4", VIEW), ("6", VIEW)):
        stored(tmp_path, view, [Row("a", NOON, NOON, {"count": int(name)})], name=name)
    stored(tmp_path, VIEW, [Row(f"u{number}", NOON, NOON, {"count": number}) for number in range(5000)], name="5")
    (large,) = [path for path in layout.files(tmp_path, "acme", "clicks") if path.stem == "5"]
    monkeypatch.setattr(compacting, "SMALL_BYTES", large.stat().st_size - 1)
    assert compact(tmp_path, "acme", "clicks")[:2] == (6, 5)
    left = layout.files(tmp_path, "acme", "clicks")
    assert [path.stem.partition("-")[0] for path in left] == ["1", "3", "4", "5", "6"]
    assert pq.read_table(left[0])["count"].to_pylist() == [1, 2]


def test_merged_files_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, [[Row("a", NOON, NOON, {"count": number})] for number in range(6)])
    size = layout.files(tmp_path, "acme", "clicks")[0].stat().st_size
    monkeypatch.setattr(compacting, "MOST_BYTES", 2 * size)
    assert compact(tmp_path, "acme", "clicks")[:2] == (6, 3)


def test_one_that_is_ended_at_any_call_loses_nothing_and_is_done_again(tmp_path: Path) -> None:
    batches = drawn(3, 3)

    def calls(root: Path, number: int) -> int:
        written(root, batches)
        with pytest.MonkeyPatch.context() as patch:
            made = failing_at(patch, number, Killed())
            with suppress(Killed):
                compact(root, "acme", "clicks")
            return made()

    def rows(root: Path) -> set[str]:
        files = layout.files(root, "acme", "clicks")
        return {str(row) for path in files for row in pq.read_table(path).to_pylist()}

    count = calls(tmp_path / "whole", 1 << 30)
    for number in range(count):
        root = tmp_path / str(number)
        calls(root, number)
        assert rows(root) == rows(tmp_path / "whole")
        compact(root, "acme", "clicks")
        assert rows(root) == rows(tmp_path / "whole")
        assert len(layout.files(root, "acme", "clicks")) == 2


def test_one_of_a_bucket_that_fails_at_any_call_loses_nothing_and_is_done_again(tmp_path: Path) -> None:
    batches = [[Row("a", NOON, NOON, {"count": number})] for number in range(2)]

    def rows(store: Store) -> set[str]:
        files = layout.files(store, "acme", "clicks")
        return {str(row) for path in files for row in pq.read_table(path).to_pylist()}

    whole, objects = in_memory(tmp_path / "whole")
    written(whole, batches)
    before, first = dict(objects.objects), objects.calls
    compact(whole, "acme", "clicks")
    calls = objects.calls - first
    assert calls == 6  # lists, copies two files, creates one, removes two
    for number in range(calls):
        for writes_then_fails in (False, True):
            folder = tmp_path / f"{number}{writes_then_fails}"
            store, objects = in_memory(folder, fails_at=frozenset([number]), writes_then_fails=writes_then_fails)
            objects.objects = dict(before)
            with pytest.raises(OSError, match="s3://bucket/features: "):
                compact(store, "acme", "clicks")
            assert rows(store) == rows(whole)
            compact(store, "acme", "clicks")
            assert rows(store) == rows(whole)
            assert len(layout.listed(store, "acme", "clicks")) == 1
