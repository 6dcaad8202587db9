"""Tests `headway features` against a running server: files are pushed with their lines, and values are read."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from serving.api.admission.local_gate import LocalGate
from serving.api.entry import ModelEntry
from serving.api.http.front import FrontApp
from serving.api.operations import Operations
from serving.cli import app
from serving.features.rows import MOST_ENTITIES
from serving.features.views import Feature, FeatureView, FeatureViews, Missing
from serving.operate.feature_files import LARGEST_BATCH, BadLine, Line, batches, lines_of
from serving.testing.clock import ManualClock
from serving.testing.features import MemoryFeatureStore
from tests.api.conftest import Server
from tests.gateway.feature_stores import online_features

NOW_NS = 1_795_953_600 * 10**9  # 2026-11-29T12:00:00Z
FEATURES = (
    Feature(name="age", datatype="INT64"),
    Feature(name="country", datatype="BYTES", missing=Missing.DEFAULT, default="??"),
    Feature(name="spend", datatype="FP32", missing=Missing.DEFAULT, default=0.0),
    Feature(name="vip", datatype="BOOL", missing=Missing.DEFAULT, default=False),
)
VIEW = FeatureView(name="stats", entity="user", key="user_id", features=FEATURES)
DATATYPES = {feature.name: feature.datatype for feature in FEATURES}
Headway = Callable[..., Result]


async def models() -> list[ModelEntry]:
    return []


@pytest.fixture
def headway() -> Iterator[Headway]:
    """The command, for a server with an empty feature store."""
    clock = ManualClock(NOW_NS)
    features = online_features(FeatureViews.of([VIEW]), MemoryFeatureStore(clock), calendar=clock)
    server = Server(FrontApp(Operations(models, features=features, gate=LocalGate())), http="httptools", loop="asyncio")
    server.open()
    url = f"http://{server.address}"
    yield lambda *words: CliRunner().invoke(app, ["features", *words, "--url", url])
    server.close()


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def values(headway: Headway, *ids: str) -> dict[str, list[object]]:
    result = headway("get", "stats", *ids, "--json")
    assert result.exit_code == 0, result.output
    told: dict[str, list[object]] = json.loads(result.stdout)["features"]
    return told


def test_rows_of_json_lines_are_pushed_and_read(headway: Headway, tmp_path: Path) -> None:
    file = written(tmp_path, "a.jsonl", '{"user_id": "u7", "event_ts": 0, "age": 41, "country": "Perú"}\n\n'
                   '{"user_id": 8, "event_ts": "2026-11-29T12:00:00Z", "age": 33, "spend": 2.5}\n')  # fmt: skip
    result = headway("push", file, "--view", "stats")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "pushed 2 rows: 4 values written, 0 superseded by later ones\n"
    result = headway("get", "stats", "8")
    assert "age      33     present  0.0 s" in result.stdout
    assert 'country  "??"   missing' in result.stdout


def test_cells_of_a_csv_are_values_of_their_types_and_empty_ones_are_left_out(headway: Headway, tmp_path: Path) -> None:
    text = (
        'user_id,event_ts,age,country,spend,vip\r\n007,1795953600,41,"a,\nb",2,true\r\n8,2026-11-29T12:00:00Z,33,,,\r\n'
    )
    assert headway("push", written(tmp_path, "a.csv", f"\ufeff{text}"), "--view", "stats").exit_code == 0
    assert values(headway, "007", "8") == {
        "age": [41, 33],
        "country": ["a,\nb", "??"],
        "spend": [2.0, 0.0],
        "vip": [True, False],
    }


def test_rows_beyond_a_batch_are_pushed_too_and_again_without_harm(headway: Headway, tmp_path: Path) -> None:
    count = 2 * MOST_ENTITIES + 3
    rows = "".join(f'{{"user_id": {number}, "event_ts": 5, "vip": true}}\n' for number in range(count))
    file = written(tmp_path, "a.ndjson", rows)
    for _ in range(2):
        assert f"pushed {count:,} rows: {count:,} values" in headway("push", file, "--view", "stats").stderr
    assert headway("get", "stats", str(count - 1), "--feature", "vip", "--json").exit_code == 0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"user_id": "u7", "event_ts": 0, "age": 1}\n{"user_id": "u7", "event_ts": 0, "age": "x"}\n',
         "a.jsonl:2: age: expected a whole number (INT64), got 'x'"),
        ("a.jsonl", '\n{"user_id": "u7", "event_ts": 0, "size": 1}\n', "a.jsonl:2: size: stats has no such feature"),
        ("a.jsonl", '{"user_id": "u7", "event_ts": 0, "age": 1}\n{"user_id"\n', "a.jsonl:2: is not JSON"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: is no JSON object"),
        ("a.csv", "user_id,event_ts,age\nu7,0,1\nu8,0,x\n", "a.csv:3: age: expected a value of INT64, got 'x'"),
        ("a.csv", "user_id,event_ts,vip\nu7,0,maybe\n", "a.csv:2: vip: expected a value of BOOL, got 'maybe'"),
        ("a.csv", "user_id,event_ts,age\nu7,0\n", "a.csv:2: has 2 cells; the first line has 3"),
        ("a.csv", "user_id,age\nu7,1\n", "a.csv:2: event_ts: is missing"),
        ("a.txt", "", "a.txt: expected a name that ends in .jsonl, .ndjson or .csv"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_by_file_and_line(
    headway: Headway, tmp_path: Path, name: str, text: str, message: str
) -> None:
    result = headway("push", written(tmp_path, name, text), "--view", "stats")
    assert result.exit_code == 1
    assert message in result.stderr
    assert "0 rows were pushed before that" in result.stderr


def test_what_cannot_be_reached_or_found_is_named(headway: Headway, tmp_path: Path) -> None:
    assert "there is no feature view 'nope'" in headway("get", "nope", "u7").stderr
    assert "the value of user 'u7' is not known" in headway("get", "stats", "u7").stderr
    file = written(tmp_path, "a.jsonl", "")
    assert "no feature view 'nope'; known: stats" in headway("push", file, "--view", "nope").stderr
    assert "none.jsonl: No such file" in headway("push", str(tmp_path / "none.jsonl"), "--view", "stats").stderr
    nobody = CliRunner().invoke(app, ["features", "get", "stats", "u7", "--url", "http://127.0.0.1:1"])
    assert (nobody.exit_code, "http://127.0.0.1:1: " in nobody.stderr) == (1, True)


def test_batches_hold_no_more_than_a_server_takes() -> None:
    large = [Line(number, b"x" * (LARGEST_BATCH // 2)) for number in range(1, 6)]
    assert [len(batch) for batch in batches(large)] == [2, 2, 1]
    small = [Line(number, b"{}") for number in range(1, 2 * MOST_ENTITIES + 2)]
    assert [len(batch) for batch in batches(small)] == [MOST_ENTITIES, MOST_ENTITIES, 1]
    assert list(batches([])) == []


def test_lines_of_a_csv_with_line_ends_in_cells_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w+", newline="") as file:
        file.write('user_id,country,age\nu7,"a\nb",1\nu8,c,x\n')
        file.seek(0)
        with pytest.raises(BadLine, match=r"^4: age: expected a value of INT64"):
            list(lines_of(file, is_csv=True, datatypes=DATATYPES))
