"""Tests `headway features materialize` and `history` as a user runs them, with a real Valkey, and their mistakes."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from serving.cli import app
from serving.features.offline.spool import Spool
from serving.features.reading import Found, Stored
from serving.features.rows import Row as PushedRow
from serving.features.views import Feature, FeatureView
from serving.store.connecting import Address, connect
from serving.store.embedded import embedded
from serving.store.features import RedisFeatureStore, Wanted
from serving.store.keys import Keys
from tests.store.conftest import PATIENT_S

Headway = Callable[..., Result]
HOUR_MS = 3_600_000
SETTINGS = """\
server: {{state: "{state}"}}
models:
  - name: doubler
    factory: shop.models:Doubler
    inputs: [{{name: x, datatype: FP32, shape: [-1, 4]}}]
    outputs: [{{name: y, datatype: FP32, shape: [-1, 4]}}]
"""
FEATURES = """\
features:
  entities: {user: {key: user_id}}
  views:
    stats:
      entity: user
      transform: made_of_raw:stats
      ttl_s: 315360000
      features:
        age: {type: INT64}
        country: {type: BYTES, missing: default, default: "??"}
"""
TRANSFORM = """\
import pyarrow as pa, pyarrow.compute as pc

def stats(raw):
    return pa.table({"age": pc.subtract(2026, raw["born"]), "country": pc.utf8_upper(raw["country"])})
"""
BEGIN_MS = 1_700_000_000_000


def at(*hours: float) -> pa.Array:
    return pa.array([BEGIN_MS + int(hour * HOUR_MS) for hour in hours], pa.timestamp("ms", "UTC"))


@pytest.fixture
def headway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Headway:
    (tmp_path / "my.yaml").write_text(SETTINGS.format(state=tmp_path / "state") + FEATURES)
    (tmp_path / "made_of_raw.py").write_text(TRANSFORM)
    raw = {"user_id": [7, 8, 7], "event_ts": at(0, 1, 2), "born": [1985, 1990, 1986], "country": ["de", "fr", None]}
    pq.write_table(pa.table(raw | {"known": at(0, 1, 5)}), tmp_path / "raw.parquet")
    pq.write_table(pa.table({"user_id": [7, 7, 8, 9], "event_ts": at(1, 3, 3, 3)}), tmp_path / "labels.parquet")
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, ["features", *words, "--config", "my.yaml"])


def materialize(headway: Headway, *words: str) -> Result:
    return headway("materialize", "raw.parquet", "--view", "stats", *words)


def history(headway: Headway, *words: str) -> Result:
    return headway("history", "labels.parquet", "--views", "stats", "--out", "training.parquet", *words)


def online(folder: Path, *ids: str) -> list[list[Found]]:
    """Returns what is stored of each in the Valkey of the state."""

    async def read(url: str) -> list[list[Found]]:
        store = RedisFeatureStore(connect(Address(url=url), PATIENT_S), Keys())
        try:
            return await store.read([Wanted("", "user", id, ("age", "country")) for id in ids])
        finally:
            await store.close()

    with embedded(folder / "state" / "valkey") as url:
        return asyncio.run(read(url))


def test_rows_that_are_materialized_are_online_and_in_training_sets(headway: Headway, tmp_path: Path) -> None:
    result = materialize(headway, "--created", "known")
    assert result.exit_code == 0, result.output
    assert "3 rows, 3 of them new; 4 values put online" in result.stderr
    last = Stored(BEGIN_MS + 2 * HOUR_MS, "1", 40)
    assert online(tmp_path, "7", "8") == [
        [last, Stored(BEGIN_MS, "1", "DE")],
        [Stored(BEGIN_MS + HOUR_MS, "1", 36), Stored(BEGIN_MS + HOUR_MS, "1", "FR")],
    ]
    result = history(headway)
    assert result.exit_code == 0, result.output
    assert "training.parquet: 4 labels" in result.stderr
    table = pq.read_table("training.parquet")
    assert table["stats__age"].to_pylist() == [41, 41, 36, None]  # the row of the third hour was known in the fifth
    assert table["stats__country"].to_pylist() == ["DE", "DE", "FR", "??"]


def test_small_files_are_merged_and_training_sets_stay_as_they_are(headway: Headway) -> None:
    assert materialize(headway, "--created", "known", "--offline-only").exit_code == 0
    raw = pq.read_table("raw.parquet")
    pq.write_table(raw.set_column(0, "user_id", pa.array(["x"] * raw.num_rows)), "raw.parquet")
    assert materialize(headway, "--created", "known", "--offline-only").exit_code == 0
    assert history(headway).exit_code == 0
    before = pq.read_table("training.parquet")
    told = json.loads(headway("compact", "--json").stdout)["stats"]
    assert (told["before"], told["after"]) == (4, 2)  # of two days
    assert "view" in headway("compact", "--views", "stats").stdout
    assert headway("compact", "--views", "none").exit_code == 2
    assert history(headway).exit_code == 0
    assert pq.read_table("training.parquet").equals(before)


def test_results_are_json_for_programs(headway: Headway) -> None:
    told = json.loads(materialize(headway, "--created", "known", "--offline-only", "--json").stdout)
    assert told == {"rows": 3, "added": 3, "online": 0}
    told = json.loads(history(headway, "--json", "--reasons").stdout)
    counts = {"valid": 3, "expired": 0, "missing": 1}
    assert told == {"out": "training.parquet", "labels": 4, "found": {"stats": {"age": counts, "country": counts}}}
    assert pq.read_table("training.parquet")["stats__age__reason"].to_pylist() == [None, None, None, "missing"]


def test_event_time_alone_decides_if_asked_to(headway: Headway) -> None:
    assert materialize(headway, "--offline-only").exit_code == 0
    assert history(headway).exit_code == 0
    assert pq.read_table("training.parquet")["stats__age"].to_pylist() == [None] * 4  # the rows are known from now on
    assert history(headway, "--as-of-event-time").exit_code == 0
    assert pq.read_table("training.parquet")["stats__age"].to_pylist() == [41, 40, 36, None]


def test_training_sets_contain_what_was_pushed_to_a_server_that_has_ended(headway: Headway, tmp_path: Path) -> None:
    stats = FeatureView(name="stats", entity="user", key="user_id", features=(Feature(name="age", datatype="INT64"),))

    class Then:
        now_ns = staticmethod(lambda: (BEGIN_MS + 2 * HOUR_MS) * 1_000_000)

    spool = Spool(tmp_path / "state" / "features", Then())
    asyncio.run(spool.append("", stats, [PushedRow("7", BEGIN_MS, {"age": 41})]))
    spool.end_file()
    result = history(headway)
    assert result.exit_code == 0, result.output
    assert pq.read_table("training.parquet")["stats__age"].to_pylist() == [None, 41, None, None]
    assert list(spool.folder.iterdir()) == []


def test_tenants_have_rows_of_their_own(headway: Headway) -> None:
    assert materialize(headway, "--offline-only", "--tenant", "acme").exit_code == 0
    result = history(headway, "--tenant", "globex")
    assert result.exit_code == 1
    assert "no rows of stats are stored for the tenant 'globex'" in result.stderr
    assert not Path("training.parquet").exists()


def test_the_folder_of_the_files_can_be_named(headway: Headway, tmp_path: Path) -> None:
    assert materialize(headway, "--offline-only", "--store", "elsewhere").exit_code == 0
    assert not (tmp_path / "state").exists()
    assert history(headway, "--store", "elsewhere", "--as-of-event-time").exit_code == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("history", "labels.parquet", "--views", "stats,none", "--out", "t"), "no feature view 'none'; known: stats"),
        (("history", "labels.parquet", "--views", "stats", "--out", "t", "--memory", "4"), "--memory: write a number"),
        (("history", "labels.parquet", "--views", "stats", "--out", "no/t"), "--out: there is no folder no"),
        (("materialize", "raw.parquet", "--view", "none"), "there is no feature view 'none'; known: stats"),
    ],
)
def test_a_mistake_in_the_command_line_is_code_2(headway: Headway, words: tuple[str, ...], expected: str) -> None:
    result = headway(*words)
    assert result.exit_code == 2
    assert expected in result.stderr


def test_mistakes_in_the_settings_are_code_2(headway: Headway, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(SETTINGS.format(state="s3://bucket/state") + FEATURES)
    advice = "set features.folder to a folder that outlives the server; or name a folder with --store"
    assert advice in history(headway).stderr
    (tmp_path / "my.yaml").write_text(SETTINGS.format(state=tmp_path))
    assert "my.yaml: declares no features" in history(headway).stderr
    (tmp_path / "my.yaml").write_text("models: 3\n" + FEATURES)
    result = history(headway)
    assert result.exit_code == 2
    assert "my.yaml:1" in result.stderr


def fails(result: Result) -> str:
    assert result.exit_code == 1, result.output
    return " ".join(result.stderr.split())


def test_a_failure_is_code_1_and_says_what_is_wrong(headway: Headway, tmp_path: Path) -> None:
    assert "none.parquet: there is no Parquet file" in fails(headway("materialize", "none.parquet", "--view", "stats"))
    (tmp_path / "made_of_raw.py").write_text("def stats(raw):\n    return raw\n")
    pq.write_table(pa.table({"user_id": ["a"], "event_ts": at(0), "age": ["b"]}), "raw.parquet")
    assert "raw.parquet: user_id: is no feature of stats" in fails(materialize(headway, "--offline-only"))


@pytest.mark.parametrize("package", ["pyarrow", "duckdb"])
def test_without_a_package_the_error_says_what_to_install(
    headway: Headway, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for name in [name for name in sys.modules if name.startswith("serving.features.offline.")]:
        if not name.endswith("errors"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert "pip install 'headway[features]'" in fails(history(headway))
