"""Tests the files of the offline store in a folder and in a bucket: whole, of the same paths, and copied once."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from serving.features.offline import layout
from serving.features.offline.compact import compact
from serving.features.offline.drain import drain
from serving.features.offline.files import Bucket, Files, files_in, open_store
from serving.features.views import Feature, FeatureView
from serving.store.objects import BadPath
from tests.features.offline_store import DAY, KINDS, NOON, Row, in_memory, stored

VIEW = FeatureView(name="clicks", entity="user", key="user_id", features=(Feature(name="count", datatype="INT64"),))
ROWS = [Row(f"u{index}", NOON + index % 3 * DAY, NOON + 3 * DAY, {"count": index}) for index in range(10)]
LINE = (
    '{"tenant":"acme","view":"clicks","version":"1","types":{"count":"INT64"},"created_us":%d,'
    '"rows":[["u1",1700000000000,{"count":%d}]]}\n'
)


@pytest.fixture(params=KINDS)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return files_in(KINDS[request.param](tmp_path / "store"))


def put(files: Files, folder: Path, names: Sequence[str]) -> None:
    for name in names:
        with files.created(folder / name) as file:
            file.write(name.encode())


def counts(store: Bucket) -> list[int]:
    return sorted(
        count for path in layout.files(store, "acme", "clicks") for count in pq.read_table(path)["count"].to_pylist()
    )


def pushed(folder: Path, counts: Sequence[int]) -> Path:
    """Writes a spool file as a server that has ended leaves it."""
    spool = folder / "spool"
    spool.mkdir(parents=True)
    (spool / "left.jsonl").write_text("".join(LINE % (1_700_000_000_000_000 + count, count) for count in counts))
    return spool / "left.jsonl"


def test_files_are_listed_by_the_folders_asked_for_and_read_as_they_were_written(files: Files) -> None:
    folder = files.root / "tenant=a%2Fb~" / "view=v"
    names = ["date=1/x.parquet", "date=2/a.parquet", "date=2/b.parquet", "date=3/x.parquet"]
    put(files, folder, [*names, "date=2/notes.txt", "date=2/.hidden.parquet"])
    put(files, files.root / "tenant=a%2Fb~" / "view=v2", ["date=2/other.parquet"])
    assert files.listed(folder, "date=1", "date=3") == [folder / name for name in names]
    assert files.listed(folder, "date=2", "date=2") == [folder / name for name in names[1:3]]
    assert files.listed(folder, "date=4", "date=9") == []
    files.fetch([folder / name for name in names])
    assert [(folder / name).read_bytes().decode() for name in names] == names
    assert files.has(folder)
    assert not files.has(folder.parent / "view=none")


def test_a_name_that_is_taken_stays_as_it_is(files: Files) -> None:
    path = files.root / "view=v" / "date=1" / "x.parquet"
    with files.created(path) as file:
        file.write(b"first")
    with pytest.raises(FileExistsError), files.created(path) as file:
        file.write(b"second")
    files.fetch([path])
    assert path.read_bytes() == b"first"


def test_a_file_whose_writer_fails_is_not_there_and_leaves_nothing(files: Files) -> None:
    folder = files.root / "view=v"
    with pytest.raises(TypeError), files.created(folder / "date=1" / "x.parquet") as file:
        file.writelines([b"half", None])  # type: ignore[list-item]
    assert files.listed(folder, "date=1", "date=1") == []
    assert [path for path in files.root.rglob("*") if path.is_file()] == []


def test_what_is_removed_is_gone(files: Files) -> None:
    folder = files.root / "view=v"
    put(files, folder, ["date=1/x.parquet"])
    (path,) = files.listed(folder, "date=1", "date=1")
    files.fetch([path])
    files.remove(path)
    assert files.listed(folder, "date=1", "date=1") == []
    assert not path.exists()


def test_a_bucket_has_the_paths_and_the_rows_of_a_folder(tmp_path: Path) -> None:
    store, objects = in_memory(tmp_path / "bucket")
    for tenant in ("acme", "a/b ü", ""):
        assert stored(store, VIEW, ROWS, tenant=tenant, name="n") == len(ROWS)
        stored(tmp_path / "folder", VIEW, ROWS, tenant=tenant, name="n")
    paths = sorted((tmp_path / "folder").rglob("*.parquet"))
    assert {path.relative_to(tmp_path / "folder").as_posix(): path.read_bytes() for path in paths} == objects.objects


def test_a_file_is_copied_once_and_only_if_its_day_is_asked_for(tmp_path: Path) -> None:
    store, objects = in_memory(tmp_path)
    stored(store, VIEW, [Row("a", day * DAY, 0, {"count": day}) for day in range(3)], name="n")
    day = date(1970, 1, 2)
    for _ in range(2):
        (path,) = layout.files(store, "acme", "clicks", day, day)
        assert pq.ParquetFile(path).read()["count"].to_pylist() == [1]
    copied = [path for verb, path in objects.asked if verb == "download"]
    assert copied == ["tenant=acme/view=clicks/date=1970-01-02/n.parquet"]


def test_copies_of_files_that_were_merged_elsewhere_go(tmp_path: Path) -> None:
    store, objects = in_memory(tmp_path / "here")
    elsewhere = Bucket(objects, tmp_path / "elsewhere", "s3://bucket/features")
    for number in range(3):
        stored(store, VIEW, [Row("a", NOON, NOON, {"count": number})], name=f"{number}")
    before = layout.files(store, "acme", "clicks")
    assert compact(elsewhere, "acme", "clicks")[:2] == (3, 1)
    assert counts(store) == [0, 1, 2]
    assert not any(path.exists() for path in before)
    assert stored(store, VIEW, [Row("a", NOON, NOON, {"count": 1})], name="1") == 0  # it is in the merged file
    with pytest.raises(FileNotFoundError, match="is gone, it may have been merged"):
        store.fetch(before)


def test_merging_copies_no_day_that_has_one_file(tmp_path: Path) -> None:
    store, objects = in_memory(tmp_path)
    stored(store, VIEW, ROWS, name="n")
    assert compact(store, "acme", "clicks") == (3, 3, 0)
    assert "download" not in {verb for verb, _ in objects.asked}


def test_a_bucket_that_fails_at_any_call_of_a_drain_keeps_the_spool_and_a_second_one_adds_each_row_once(
    tmp_path: Path,
) -> None:
    whole, objects = in_memory(tmp_path / "whole")
    pushed(tmp_path / "whole", range(5))
    assert drain(tmp_path / "whole", whole) == []
    assert objects.calls == 2  # a listing and an object
    for number in range(objects.calls):
        for writes_then_fails in (False, True):
            folder = tmp_path / f"{number}{writes_then_fails}"
            left = pushed(folder, range(5))
            store, _ = in_memory(folder, fails_at=frozenset([number]), writes_then_fails=writes_then_fails)
            (trouble,) = drain(folder, store)
            assert trouble == f"{left}: stays for now: s3://bucket/features: the test says so"
            assert left.exists()
            assert drain(folder, store) == []
            assert not left.exists()
            assert counts(store) == list(range(5))


def test_a_read_that_fails_at_any_call_leaves_no_part_of_a_copy(tmp_path: Path) -> None:
    for number in range(4):  # a listing and three files
        store, objects = in_memory(tmp_path / str(number))
        stored(store, VIEW, ROWS, name="n")
        objects.fails_at = frozenset([objects.calls + number])
        with pytest.raises(OSError, match="s3://bucket/features: the test says so"):
            counts(store)
        assert [path.name for path in store.root.rglob("*") if path.is_file() and path.name != "n.parquet"] == []
        assert counts(store) == list(range(10))


def test_copies_of_two_places_are_apart(tmp_path: Path) -> None:
    one, same, other = (open_store(f"s3://bucket/{name}", tmp_path) for name in ("a", "a/", "b"))
    assert isinstance(one, Bucket)
    assert isinstance(same, Bucket)
    assert isinstance(other, Bucket)
    assert one.root == same.root != other.root
    assert one.root.parent == tmp_path / "copies"
    assert open_store(f"file://{tmp_path}/x", tmp_path) == open_store(f"{tmp_path}/x", tmp_path) == tmp_path / "x"
    with pytest.raises(BadPath):
        open_store("gs://bucket", tmp_path)
