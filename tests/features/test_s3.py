"""Tests the history of features on S3: pushes, raw files, joins and merging, and a bucket that is away. Needs moto."""

import asyncio
import json
from pathlib import Path

import pyarrow.parquet as pq

from serving.features.offline.compact import compact
from serving.features.offline.drain import drain
from serving.features.offline.files import Bucket, open_store
from serving.store.objects import open_store as open_objects
from tests.features.offline_store import DAY, NOON, stored
from tests.features.test_files import ROWS, VIEW, counts, pushed
from tests.features.test_history import answered, asked
from tests.features.test_offline_commands import Headway, headway, history, materialize  # noqa: F401

TENANTS = ("acme", "a/b %2F..", "", "ü" * 40)


def opened(place: str, folder: Path) -> Bucket:
    store = open_store(place, folder)
    assert isinstance(store, Bucket)
    return store


def test_the_bucket_has_the_paths_and_rows_of_a_folder_and_gives_its_answers(bucket: str, tmp_path: Path) -> None:
    folder, store = tmp_path / "folder", opened(bucket, tmp_path)
    for tenant in TENANTS:
        for name in ("n", "n", "m"):
            assert stored(store, VIEW, ROWS, tenant=tenant, name=name) == stored(
                folder, VIEW, ROWS, tenant=tenant, name=name
            )
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet"))
    assert asyncio.run(open_objects(bucket).paths(paths[0].partition("/")[0])) == [
        path for path in paths if path.startswith(paths[0].partition("/")[0] + "/")
    ]
    at = [(f"u{index}", NOON + later * DAY) for index in range(11) for later in range(5)]
    for tenant in TENANTS:
        for merged in (False, True):
            if merged:
                assert compact(store, tenant, "clicks")[:2] == (6, 3)
            found, expected = (
                [answered(answer, VIEW) for answer in asked(root, [VIEW], at, tenant=tenant)]
                for root in (store, folder)
            )
            assert found == expected
        assert stored(store, VIEW, ROWS, tenant=tenant, name="m") == 0  # it is in the merged files


def test_pushes_go_there_and_stay_in_the_spool_while_it_is_away(bucket: str, tmp_path: Path) -> None:
    left = pushed(tmp_path, range(5))
    (trouble,) = drain(tmp_path, open_store("s3://no-such-bucket/x", tmp_path))
    assert trouble.startswith(f"{left}: stays for now: s3://no-such-bucket/x: ")
    assert "NoSuchBucket" in trouble or "not found" in trouble.lower()
    store = opened(bucket, tmp_path)
    assert drain(tmp_path, store) == []
    assert not left.exists()
    assert counts(store) == list(range(5))


def test_the_commands_work_on_a_bucket_as_on_a_folder(headway: Headway, bucket: str) -> None:  # noqa: F811
    for added in (3, 0):
        result = materialize(headway, "--offline-only", "--store", bucket, "--json")
        assert json.loads(result.stdout)["added"] == added, result.output
    assert history(headway, "--store", bucket, "--as-of-event-time").exit_code == 0
    there = pq.read_table("training.parquet")
    assert materialize(headway, "--offline-only", "--store", "folder").exit_code == 0
    assert history(headway, "--store", "folder", "--as-of-event-time").exit_code == 0
    assert there.equals(pq.read_table("training.parquet"))
    assert any(there["stats__age"].to_pylist())
    assert headway("compact", "--store", bucket).exit_code == 0
    result = history(headway, "--store", "s3://no-such-bucket/x")
    assert result.exit_code == 1
    assert "s3://no-such-bucket/x: " in result.stderr
